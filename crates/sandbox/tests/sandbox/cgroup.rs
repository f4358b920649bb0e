//! Limits on memory, processes and processor time.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lacewing_sandbox::{CpuQuota, LauncherOptions, Mount};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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
    assert!((20 * MIB..50 * MIB).contains(&memory.peak), "{memory:?}");
}

#[test]
fn temporary_files_in_memory_count_as_memory_of_the_cgroup() {
    let Some(launcher) = launcher_with(&LauncherOptions { scratch: None, ..options() }) else {
        return;
    };
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
fn the_kernel_has_the_limits_of_a_cgroup() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let (sandbox, _output) = start(&launcher, &shell("sleep 60"));
    ready(&sandbox);
    let mut leaves = groups(&options.owner);
    leaves.retain(|group| group.ends_with(sandbox.name()));
    let value = |file: &str| {
        let found = leaves.iter().find_map(|leaf| std::fs::read_to_string(leaf.join(file)).ok());
        found.map(|text| text.trim().to_owned())
    };
    let memory = (64 * MIB).to_string();
    let either = |v2: &str, v1: &str| value(v2).or_else(|| value(v1));
    assert_eq!(either("memory.max", "memory.limit_in_bytes"), Some(memory));
    assert_eq!(value("pids.max").as_deref(), Some("33"));
    assert_eq!(
        either("cpu.weight", "cpu.shares").map(|it| it == "100" || it == "1024"),
        Some(true)
    );
    // Our init must outlive the program to report its end.
    assert!(value("memory.oom.group").is_none_or(|it| it == "0"));
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

#[test]
fn files_that_are_read_do_not_use_up_the_cgroup_memory() {
    let Some(launcher) = launcher() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Holes take as much of the page cache as data does.
    let file = std::fs::File::create(dir.path().join("big")).unwrap();
    file.set_len(300 * MIB).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut wanted = shell("cat /opt/big /opt/big | wc -c");
    let (source, target) = (dir.path().to_owned(), "/opt".into());
    wanted.mounts.push(Mount::Bind { source, target, exec: true });
    let ran = run(&launcher, &wanted);
    assert_eq!(ran.output, (600 * MIB).to_string(), "{ran:?}");
    assert_eq!(ran.memory.unwrap().oom_kills, 0);
}

/// Whether memory and swap are counted together: by every kernel that has swap, unless it was told
/// not to when it was booted.
fn swap_is_counted() -> bool {
    let told = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    std::fs::exists("/proc/swaps").unwrap()
        && !told.split_whitespace().any(|word| word == "swapaccount=0")
}

#[test]
fn no_cgroup_may_swap() {
    let options = options();
    let Some(launcher) = launcher_with(&options) else { return };
    let (sandbox, _output) = start(&launcher, &shell("sleep 60"));
    ready(&sandbox);
    let mut seen = 0;
    for leaf in groups(&options.owner).iter().filter(|path| path.ends_with(sandbox.name())) {
        let read = |file: &str| std::fs::read_to_string(leaf.join(file)).ok();
        let number = |text: String| text.trim().parse::<u64>().unwrap();
        if let Some(limit) = read("memory.limit_in_bytes").map(number) {
            seen += 1;
            assert_eq!(limit, 64 * MIB);
            assert_eq!(read("memory.swappiness").map(number), Some(0));
            // Memory and swap together.
            let both = read("memory.memsw.limit_in_bytes").map(number);
            assert!(both == Some(limit) || both.is_none() && !swap_is_counted(), "{both:?}");
        }
        if let Some(limit) = read("memory.max").map(number) {
            seen += 1;
            assert_eq!(limit, 64 * MIB);
            let swap = read("memory.swap.max").map(number);
            assert!(swap == Some(0) || swap.is_none() && !swap_is_counted(), "{swap:?}");
        }
    }
    assert_eq!(seen, 1, "one memory controller");
    sandbox.kill();
    finish(&sandbox);
}

#[test]
fn cgroup_weights_divide_a_processor_that_two_want() {
    // The launcher and all below it inherit the one processor.
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    let Some(launcher) = launcher() else { return };
    let spin = |weight| {
        let mut wanted = probe(&["spin"]);
        wanted.limits.cpu_weight = weight;
        let (sandbox, output) = start(&launcher, &wanted);
        ready(&sandbox);
        (sandbox, output)
    };
    let (light, heavy) = (spin(100), spin(400));
    let used = || (light.0.cpu_time().unwrap(), heavy.0.cpu_time().unwrap());
    let before = used();
    eventually("both have run for a while", || {
        let now = used();
        (now.0 - before.0) + (now.1 - before.1) > Duration::from_secs(2)
    });
    let now = used();
    let ratio = (now.1 - before.1).as_secs_f64() / (now.0 - before.0).as_secs_f64();
    assert!((2.5..6.0).contains(&ratio), "{ratio} instead of 4");
    for (sandbox, _) in [light, heavy] {
        sandbox.kill();
        finish(&sandbox);
    }
}
