//! Tests of `cgroup`.

use super::layout::Place;
use super::settings::{change, gauges, limits, quota, weight};
use super::*;

const LIMITS: Limits = Limits {
    memory_bytes: 128 << 20,
    pids: 1024,
    cpu_weight: 50,
    cpu_quota: None,
    open_files: 0,
    memlock: 0,
    stack: 0,
    core: 0,
    nproc: None,
};
const ALL: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

fn place(v2: bool, controllers: &[Controller], dir: &Path) -> Place {
    let (own, dirs) = (dir.to_owned(), vec![dir.to_owned()]);
    Place { v2, controllers: controllers.to_vec(), own, dirs }
}

fn lines(settings: Vec<(settings::Setting, String)>) -> Vec<String> {
    settings.into_iter().map(|(file, value)| format!("{}={value}", file.name)).collect()
}

#[test]
fn v1_limits_are_written_to_its_files() {
    let expected = [
        "memory.limit_in_bytes=134217728",
        "memory.memsw.limit_in_bytes=134217728",
        "memory.kmem.tcp.limit_in_bytes=33554432",
        "memory.swappiness=0",
        "pids.max=1025",
    ];
    assert_eq!(lines(limits(false, &ALL, &LIMITS)), expected);
    let hard = Some(CpuQuota { quota_us: 7_000, period_us: 100_000 });
    let expected = ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=7000"];
    assert_eq!(lines(quota(false, &ALL, hard)), expected);
    assert_eq!(lines(quota(false, &ALL, None)), ["cpu.cfs_quota_us=-1"]);
    assert_eq!(lines(weight(false, &ALL, &LIMITS).into_iter().collect()), ["cpu.shares=512"]);
}

#[test]
fn v2_limits_are_written_to_its_files() {
    let expected = ["memory.max=134217728", "memory.swap.max=0", "pids.max=1025"];
    assert_eq!(lines(limits(true, &ALL, &LIMITS)), expected);
    assert_eq!(lines(weight(true, &ALL, &LIMITS).into_iter().collect()), ["cpu.weight=50"]);
    let hard = Some(CpuQuota { quota_us: 7_000, period_us: 100_000 });
    assert_eq!(lines(quota(true, &ALL, hard)), ["cpu.max=7000 100000"]);
    assert_eq!(lines(quota(true, &ALL, None)), ["cpu.max=max 100000"]);
}

#[test]
fn only_what_differs_is_written_and_memory_can_grow() {
    let more = Limits { memory_bytes: 256 << 20, ..LIMITS };
    let grown = [
        "memory.memsw.limit_in_bytes=-1",
        "memory.limit_in_bytes=268435456",
        "memory.memsw.limit_in_bytes=268435456",
        "memory.kmem.tcp.limit_in_bytes=67108864",
    ];
    assert_eq!(lines(change(false, &ALL, &LIMITS, &more)), grown);
    assert_eq!(lines(change(false, &ALL, &more, &LIMITS))[0], "memory.limit_in_bytes=134217728");
    assert_eq!(lines(change(true, &ALL, &LIMITS, &more)), ["memory.max=268435456"]);
    assert!(change(false, &ALL, &LIMITS, &LIMITS).is_empty());
    let fewer = Limits { pids: 7, ..LIMITS };
    assert_eq!(lines(change(true, &ALL, &LIMITS, &fewer)), ["pids.max=8"]);
}

#[test]
fn nothing_is_written_for_an_absent_controller() {
    let hard = Some(CpuQuota { quota_us: 1, period_us: 2 });
    for v2 in [false, true] {
        assert!(limits(v2, &[], &LIMITS).is_empty());
        assert_eq!(weight(v2, &[Controller::Memory], &LIMITS), None);
        assert!(quota(v2, &[Controller::Memory], hard).is_empty());
        // On v2 the freezer is no controller.
        let found: Vec<_> = gauges(v2, &[Controller::Pids]).into_iter().map(|it| it.0).collect();
        assert_eq!(found, if v2 { vec![Gauge::Freeze] } else { Vec::new() });
    }
}

/// Plain files that look like a group of v2 which has these controllers and no process.
fn group_of_files(dir: &Path, controllers: &str) {
    fs::create_dir_all(dir.join("lacewing-owner001")).unwrap();
    fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
    for file in [SUBTREE, PROCS, "lacewing-owner001/cgroup.subtree_control"] {
        fs::write(dir.join(file), "").unwrap();
    }
}

#[test]
fn a_v2_tree_shares_out_its_controllers_to_our_group() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_owned();
    group_of_files(&dir, "cpu memory pids");
    let places = vec![place(true, &ALL, &dir)];
    let (tree, lacks) = Tree::open(&Layout { kind: Kind::V2, places }, "owner001");
    assert!(lacks.is_empty(), "{lacks:?}");
    assert!(ALL.into_iter().all(|controller| tree.has(controller)));
    // In a plain file a later write covers the start of an earlier one; the kernel adds them up.
    let shared_out = fs::read_to_string(dir.join("lacewing-owner001").join(SUBTREE)).unwrap();
    assert!(shared_out.starts_with("+cpu"), "{shared_out}");
}

#[test]
fn on_v2_the_nearest_group_that_gives_most_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let (above, own) = (root.path().join("a"), root.path().join("a/b"));
    for (here, there, chosen) in [
        ("", "cpu memory pids", &above),
        ("memory pids", "cpu memory pids", &above),
        ("memory pids", "memory pids", &own),
        ("cpu memory pids", "cpu memory pids", &own),
    ] {
        group_of_files(&above, there);
        group_of_files(&own, here);
        let mut place = place(true, &ALL, &own);
        place.dirs.push(above.clone());
        let home = home::settle(&place, "lacewing-owner001", true).unwrap();
        assert_eq!(home.group, chosen.join("lacewing-owner001"), "{here} and {there}");
    }
}

#[test]
fn what_an_earlier_launcher_left_elsewhere_is_swept_too() {
    let root = tempfile::tempdir().unwrap();
    let (above, own) = (root.path().to_owned(), root.path().join("b"));
    fs::create_dir_all(own.join("lacewing-owner001")).unwrap();
    fs::create_dir_all(above.join("lacewing-owner001/left")).unwrap();
    let mut place = place(false, &[Controller::Pids], &own);
    place.dirs.push(above.clone());
    let (tree, _) = Tree::open(&Layout { kind: Kind::V2, places: vec![place] }, "owner001");
    assert!(tree.sweep().is_empty());
    assert!(!above.join("lacewing-owner001").exists());
    assert!(own.join("lacewing-owner001").exists());
}

#[test]
fn a_place_that_cannot_be_used_is_told_and_left_out() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("missing");
    let places = vec![place(false, &[Controller::Memory], &dir)];
    let (tree, lacks) = Tree::open(&Layout { kind: Kind::V1, places }, "owner001");
    assert!(!tree.has(Controller::Memory));
    assert!(lacks[0].to_string().contains(dir.to_str().unwrap()));
}

#[test]
fn a_sweep_removes_the_owners_leaves_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let ours = root.path().join("lacewing-owner001");
    fs::create_dir_all(ours.join("left")).unwrap();
    fs::create_dir_all(root.path().join("lacewing-owner002/kept")).unwrap();
    let places = vec![place(false, &[Controller::Pids], root.path())];
    let (tree, _) = Tree::open(&Layout { kind: Kind::V1, places }, "owner001");
    assert!(tree.sweep().is_empty());
    assert!(!ours.join("left").exists());
    tree.dismantle();
    assert!(!ours.exists());
    assert!(root.path().join("lacewing-owner002/kept").exists());
}
