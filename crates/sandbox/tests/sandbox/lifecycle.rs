//! Whatever ends, and however: nothing stays behind.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lacewing_sandbox::{Event, Isolation, Launcher, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    PROBE, eventually, finish, groups, launcher, launcher_with, next, options, probe, ready, run,
    shell, skip, slowness, start,
};

/// Host processes with a command line that holds this word.
fn running(word: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())).count()
}

/// Whether these groups are in a scope of systemd's, which goes with its last process.
fn scoped(groups: &[PathBuf], owner: &str) -> bool {
    let scope = format!("lacewing-{owner}-");
    groups.iter().any(|group| group.to_string_lossy().contains(&scope))
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn sleeper(launcher: &Launcher, word: &str) -> Sandbox {
    let (sandbox, _) = start(launcher, &shell(&format!("sleep {word} & sleep {word}")));
    ready(&sandbox);
    eventually("both sleep", || running(word) == 2);
    sandbox
}

#[test]
fn a_daemon_dies_with_its_sandbox() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &shell("(setsid sleep 424201 </dev/null >/dev/null 2>&1 &); exit 0"));
    assert_eq!(ran.code(), Some(0));
    eventually("the daemon is gone", || running("424201") == 0);
}

#[test]
fn orphans_are_reaped_by_init() {
    let Some(launcher) = launcher() else { return };
    let script = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.05 &' ); done; sleep 0.5; \
                  cat /proc/[0-9]*/stat | grep -c ' Z '";
    assert_eq!(run(&launcher, &shell(script)).output, "0");
}

#[test]
fn a_kill_ends_everything_inside() {
    let Some(launcher) = launcher() else { return };
    let sandbox = sleeper(&launcher, "424202");
    sandbox.kill();
    assert!(matches!(next(&sandbox), Event::Gone));
    eventually("all are gone", || running("424202") == 0);
}

#[test]
fn dropping_the_handle_ends_everything_inside() {
    let Some(launcher) = launcher() else { return };
    drop(sleeper(&launcher, "424203"));
    eventually("all are gone", || running("424203") == 0);
}

#[test]
fn a_frozen_cgroup_is_killed_too() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let sandbox = sleeper(&launcher, "424204");
    let frozen: Vec<_> = groups(&options.owner)
        .into_iter()
        .filter(|group| group.ends_with(sandbox.name()))
        .filter(|group| {
            fs::write(group.join("cgroup.freeze"), "1").is_ok()
                || fs::write(group.join("freezer.state"), "FROZEN").is_ok()
        })
        .collect();
    if frozen.is_empty() {
        skip("no freezer on this host");
    }
    sandbox.kill();
    finish(&sandbox);
    eventually("all are gone", || running("424204") == 0);
}

#[test]
fn stop_leaves_no_process_mount_or_cgroup() {
    let options = options();
    let before = mounts();
    let Some(launcher) = launcher_with(&options) else { return };
    let sandbox = sleeper(&launcher, "424205");
    assert_eq!(mounts(), before);
    launcher.stop();
    assert_eq!(running("424205"), 0);
    assert!(groups(&options.owner).is_empty());
    assert!(!fs::exists(format!("/proc/{}", launcher.pid())).unwrap());
    assert!(matches!(next(&sandbox), Event::Gone));
}

#[test]
fn the_launchers_death_ends_every_sandbox_and_the_next_start_cleans_its_cgroups() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let sandbox = sleeper(&launcher, "424206");
    let had = groups(&options.owner);
    let pid = Pid::from_raw(launcher.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert!(matches!(next(&sandbox), Event::Gone));
    eventually("all are gone", || running("424206") == 0);
    assert!(scoped(&had, &options.owner) || !groups(&options.owner).is_empty());
    // Its descriptors close in no certain order.
    eventually("it takes no request", || launcher.spawn(&shell("true"), Vec::new()).is_err());
    let again = launcher_with(&options).unwrap();
    let left = groups(&options.owner);
    assert!(left.iter().all(|group| !group.ends_with(sandbox.name())), "{left:?}");
    assert_eq!(run(&again, &shell("exit 6")).code(), Some(6));
}

#[test]
fn a_killed_server_leaves_nothing() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    launcher.stop();
    let mut wanted = shell("sleep 424209 & sleep 424209");
    wanted.mounts.clear();
    let mut server = std::process::Command::new(PROBE)
        .arg("__server")
        .arg(serde_json::to_string(&options).unwrap())
        .arg(serde_json::to_string(&wanted).unwrap())
        .spawn()
        .unwrap();
    eventually("both sleep", || running("424209") == 2);
    assert!(!groups(&options.owner).is_empty());
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("all are gone", || running("424209") == 0);
    eventually("no cgroup is left", || groups(&options.owner).is_empty());
}

#[test]
fn leftovers_of_the_owner_are_killed_and_those_of_another_are_not() {
    let (ours, others) = (options(), options());
    let Some(neighbour) = launcher_with(&others) else { return };
    let kept = sleeper(&neighbour, "424207");
    let Some(first) = launcher_with(&ours) else { return };
    let ours_groups = groups(&ours.owner);
    first.stop();
    if scoped(&ours_groups, &ours.owner) {
        println!("skipped: systemd removes what is left in a scope");
        return;
    }
    // What a server killed together with its launcher could leave: a group with a process in it.
    let memory = ours_groups.iter().find(|path| path.starts_with("/sys/fs/cgroup/memory"));
    let group = memory.or_else(|| ours_groups.first()).unwrap();
    fs::create_dir_all(group.join("left")).unwrap();
    let mut left = std::process::Command::new("/bin/sleep").arg("424208").spawn().unwrap();
    fs::write(group.join("left/cgroup.procs"), left.id().to_string()).unwrap();
    // A zombie keeps its group until it is reaped.
    let reaper = std::thread::spawn(move || left.wait().unwrap());
    let again = launcher_with(&ours).unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(!group.join("left").exists());
    assert_eq!(running("424207"), 2);
    again.stop();
    assert_eq!(running("424207"), 2);
    kept.kill();
    finish(&kept);
}

#[test]
fn best_effort_serves_with_what_the_host_gives() {
    let mut options = options();
    options.isolation = Isolation::BestEffort;
    let launcher = Launcher::start(Path::new(PROBE), &options).unwrap();
    let report = launcher.report();
    for feature in &report.features {
        assert_eq!(feature.in_force, feature.remedy.is_none(), "{feature:?}");
        println!("{}: {} ({})", feature.name, feature.in_force, feature.detail);
    }
    if report.features.iter().any(|feature| feature.name == "namespaces" && feature.in_force) {
        let ran = run(&launcher, &shell("id -u; exit 7"));
        assert_eq!((ran.code(), ran.output.as_str()), (Some(7), "993"), "{ran:?}");
    }
}

#[test]
fn many_sandboxes_live_and_die_together() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let all: Vec<Sandbox> = (0..40)
        .map(|number| {
            let mut wanted = probe(&["sleep"]);
            wanted.name = format!("many-{number}");
            launcher.spawn(&wanted, Vec::new()).unwrap()
        })
        .collect();
    for sandbox in &all {
        ready(sandbox);
    }
    drop(all);
    eventually("no leaf is left", || {
        !groups(&options.owner).iter().any(|path| path.to_string_lossy().contains("many-"))
    });
}

#[test]
fn the_launcher_keeps_no_descriptor_of_ended_sandboxes() {
    let Some(launcher) = launcher() else { return };
    let open = || fs::read_dir(format!("/proc/{}/fd", launcher.pid())).unwrap().count();
    // It fills its pool of network namespaces first.
    eventually("it is idle", || {
        let last = open();
        std::thread::sleep(Duration::from_millis(100) * slowness());
        open() == last
    });
    let before = open();
    for _ in 0..20 {
        let (sandbox, mut output) = start(&launcher, &shell("echo x"));
        output.read_to_string(&mut String::new()).unwrap();
        finish(&sandbox);
        drop(sandbox);
        eventually("it is collected", || open() == before);
    }
}

#[test]
fn a_frozen_sandbox_does_nothing_until_it_is_thawed_and_can_be_killed() {
    let Some(launcher) = launcher() else { return };
    let (sandbox, output) = start(&launcher, &shell("while :; do echo tick; sleep 0.01; done"));
    ready(&sandbox);
    let freezer = sandbox.freezer().unwrap();
    let waits = || rustix::io::ioctl_fionread(&output).unwrap();
    eventually("it ticks", || waits() > 0);
    freezer.want(true);
    freezer.apply().unwrap();
    // It may be on its way out of the kernel just now.
    eventually("it stands still", || {
        let before = waits();
        std::thread::sleep(Duration::from_millis(500));
        waits() == before
    });
    let before = waits();
    freezer.want(false);
    freezer.apply().unwrap();
    eventually("it ticks again", || waits() > before);
    freezer.want(true);
    freezer.apply().unwrap();
    sandbox.kill();
    assert!(finish(&sandbox).0.is_empty());
}
