//! Limits on memory, processes and processor time.

use std::time::Duration;

use lacewing_sandbox::CpuQuota;

use crate::support::{
    MIB, eventually, experiment, finish, groups, launcher, launcher_with, options, probe, ready,
    run, shell, start,
};

#[test]
fn a_cgroup_limit_on_memory_kills_the_program_and_is_counted() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &probe(&["eat-memory", "200"]));
    assert_eq!(ran.signal(), Some(9), "{ran:?}");
    let memory = ran.memory.unwrap();
    assert_eq!(memory.oom_kills, 1);
    assert!((60 * MIB..=64 * MIB).contains(&memory.peak), "{memory:?}");
}

#[test]
fn a_cgroup_gauge_tells_what_was_used() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &probe(&["eat-memory", "20"]));
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    let memory = ran.memory.unwrap();
    assert_eq!(memory.oom_kills, 0);
    assert!((20 * MIB..30 * MIB).contains(&memory.peak), "{memory:?}");
}

#[test]
fn temporary_files_count_as_memory_of_the_cgroup() {
    let Some(launcher) = launcher() else { return };
    let mut wanted = probe(&["fill", "/tmp/big"]);
    wanted.tmp.bytes = 16 * MIB;
    let ran = run(&launcher, &wanted);
    assert!(ran.memory.unwrap().peak > 16 * MIB, "{ran:?}");
}

#[test]
fn a_cgroup_limit_on_processes_stops_a_fork_bomb() {
    let Some(launcher) = launcher() else { return };
    let output = experiment(&launcher, &["fork-bomb"]);
    let (children, errno) = output.split_once(" children, errno ").unwrap();
    let children: u32 = children.parse().unwrap();
    assert!((20..=31).contains(&children) && errno == "11", "{output}");
}

#[test]
fn a_hard_cgroup_quota_can_be_set_and_lifted_while_it_runs() {
    let Some(launcher) = launcher() else { return };
    let (sandbox, _output) = start(&launcher, &probe(&["spin"]));
    ready(&sandbox);
    sandbox.limit_cpu(Some(CpuQuota { quota_us: 5_000, period_us: 100_000 })).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let before = sandbox.cpu_time().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let limited = sandbox.cpu_time().unwrap() - before;
    assert!(limited < Duration::from_millis(150), "{limited:?} of a second");
    sandbox.limit_cpu(None).unwrap();
    let before = sandbox.cpu_time().unwrap();
    eventually("more than the quota is used", || {
        sandbox.cpu_time().unwrap() - before > Duration::from_millis(300)
    });
    sandbox.kill();
    finish(&sandbox);
}

#[test]
fn the_cgroup_view_inside_begins_at_its_own_leaf() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &shell("cat /proc/self/cgroup"));
    for line in ran.output.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next().unwrap(), fields.next().unwrap());
        if ["memory", "pids", "cpu", "cpuacct"].contains(&names) {
            assert_eq!(path, "/", "{line}");
        }
    }
}

#[test]
fn no_cgroup_stays_of_a_sandbox_that_ended() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let (sandbox, _output) = start(&launcher, &shell("sleep 60"));
    ready(&sandbox);
    let leaf = |path: &std::path::PathBuf| path.ends_with(sandbox.name());
    assert!(groups(&options.owner).iter().any(leaf));
    sandbox.kill();
    finish(&sandbox);
    eventually("no leaf is left", || !groups(&options.owner).iter().any(leaf));
    launcher.stop();
    assert!(groups(&options.owner).is_empty());
}
