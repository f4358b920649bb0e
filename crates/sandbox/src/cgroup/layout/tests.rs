//! Tests of `layout`.

use tempfile::TempDir;

use super::*;

/// A host of files: what the two files of `/proc/self` say, and others with their content.
fn host(cgroup: &str, mounts: &[&str], files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/self/cgroup", cgroup);
    put("proc/self/mountinfo", &mounts.join("\n"));
    files.iter().for_each(|(path, text)| put(path, text));
    root
}

fn read(host: &TempDir, parent: Option<&str>) -> (Kind, Vec<(Vec<Controller>, String)>) {
    let layout = Layout::read(host.path(), parent.map(Path::new));
    let places = layout.places.iter().map(|place| {
        let dir = place.dirs[0].strip_prefix(host.path()).unwrap().to_str().unwrap();
        (place.controllers.clone(), dir.to_owned())
    });
    (layout.kind, places.collect())
}

const V1_MOUNTS: [&str; 5] = [
    "22 1 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw",
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct",
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
    "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
];
const FREEZER: &str = "41 31 0:38 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer";
const V1_OWN: &str =
    "9:name=systemd:/init\n8:pids:/srv\n5:freezer:/\n4:memory:/srv/box\n1:cpu,cpuacct:/\n";
const V2_MOUNT: &str = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

#[test]
fn v1_has_a_place_in_each_hierarchy_below_the_own_group() {
    use Controller::{Cpu, CpuAcct, Freezer, Memory, Pids};
    let mut mounts = V1_MOUNTS.to_vec();
    mounts.push(FREEZER);
    let host = host(V1_OWN, &mounts, &[]);
    let expected = [
        (vec![Cpu, CpuAcct], "sys/fs/cgroup/cpu,cpuacct"),
        (vec![Memory], "sys/fs/cgroup/memory/srv/box"),
        (vec![Pids], "sys/fs/cgroup/pids/srv"),
        (vec![Freezer], "sys/fs/cgroup/freezer"),
    ];
    let (kind, places) = read(&host, None);
    assert_eq!(kind, Kind::V1);
    let trimmed = places.into_iter().map(|(c, dir)| (c, dir.trim_end_matches('/').to_owned()));
    assert_eq!(trimmed.collect::<Vec<_>>(), expected.map(|(c, dir)| (c, dir.to_owned())).to_vec());
}

#[test]
fn v2_has_one_place_with_the_controllers_of_the_top() {
    let files = [("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")];
    let host = host("0::/system.slice/lw.service\n", &[V2_MOUNT], &files);
    let controllers = vec![Controller::Memory, Controller::Pids, Controller::Cpu];
    let dir = "sys/fs/cgroup/system.slice/lw.service".to_owned();
    assert_eq!(read(&host, None), (Kind::V2, vec![(controllers, dir)]));
}

#[test]
fn a_server_that_stepped_aside_finds_the_same_place_again() {
    let host = host("0::/lw.service/lacewing-owner001-server\n", &[V2_MOUNT], &[]);
    assert_eq!(read(&host, None).1, [(Vec::new(), "sys/fs/cgroup/lw.service".to_owned())]);
}

#[test]
fn on_v2_every_group_above_the_own_one_may_do() {
    let host = host("0::/user.slice/session-1.scope\n", &[V2_MOUNT], &[]);
    let places = Layout::read(host.path(), None).places;
    let top = host.path().join("sys/fs/cgroup");
    let user = top.join("user.slice");
    assert_eq!(places[0].dirs, [user.join("session-1.scope"), user, top]);
}

#[test]
fn a_group_outside_of_what_the_mount_shows_is_not_looked_for() {
    let host = host("0::/../../elsewhere\n", &[V2_MOUNT], &[]);
    assert_eq!(read(&host, None).1, [(Vec::new(), "sys/fs/cgroup".to_owned())]);
}

#[test]
fn hybrid_has_both_and_leaves_the_v1_freezer_alone() {
    let mut mounts = V1_MOUNTS.to_vec();
    mounts.extend([FREEZER, "42 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"]);
    let own = format!("{V1_OWN}0::/\n");
    let files = [("sys/fs/cgroup/unified/cgroup.controllers", "\n")];
    let (kind, places) = read(&host(&own, &mounts, &files), None);
    assert_eq!(kind, Kind::Hybrid);
    assert!(
        places.contains(&(Vec::new(), "sys/fs/cgroup/unified".to_owned()))
            || places.contains(&(Vec::new(), "sys/fs/cgroup/unified/".to_owned()))
    );
    assert!(places.iter().all(|(controllers, _)| *controllers != [Controller::Freezer]));
    assert_eq!(places.len(), 4);
}

#[test]
fn a_host_without_cgroups_has_none() {
    assert_eq!(read(&host("", &[], &[]), None), (Kind::None, Vec::new()));
    let bare = tempfile::tempdir().unwrap();
    assert_eq!(read(&bare, None), (Kind::None, Vec::new()));
}

#[test]
fn a_container_sees_its_own_group_as_the_mounts_root() {
    let mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
    let host = host("4:memory:/docker/abc/sub\n", &[mount], &[]);
    let dir = "sys/fs/cgroup/memory/sub".to_owned();
    assert_eq!(read(&host, None), (Kind::V1, vec![(vec![Controller::Memory], dir)]));
}

#[test]
fn a_chosen_parent_replaces_the_own_group() {
    let host = host(V1_OWN, &V1_MOUNTS[2..3], &[]);
    let dir = "sys/fs/cgroup/memory/lacewing.slice".to_owned();
    let expected = (Kind::V1, vec![(vec![Controller::Memory], dir)]);
    assert_eq!(read(&host, Some("/lacewing.slice")), expected);
}
