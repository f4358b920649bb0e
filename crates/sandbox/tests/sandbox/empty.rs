//! Sandboxes that were made ahead, empty: they end up as those that were made for somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};

use lacewing_sandbox::{
    CpuQuota, Event, Furnishing, Launcher, LauncherOptions, Limits, Part, Role, Sandbox, Spec,
    TmpFs,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    MIB, UID_BASE, eventually, finish, groups, launcher_with, next, options, ready, root, run,
    shell, start,
};

/// All that a program can see of its place, without what differs from one to the next.
const INVENTORY: &str = "
    exec 2>&1
    cut -d' ' -f4- /proc/self/mountinfo | sed -e 's/loop[0-9]*/loop/' | sort
    for process in 1 self; do
        grep -E '^(Umask|Uid|Gid|Groups|Threads|Sig|Shd|Cap|NoNewPrivs|Seccomp:|Speculation)' /proc/$process/status |
            grep -v SigQ
    done
    cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/uid_map /proc/self/gid_map
    ls /proc/self/fd | wc -l; ls -ln --time-style=+ / /dev /var | tr -s ' ' | grep -v ' proc$'
    hostname; pwd; env | sort; umask; id; ulimit -a; stat -f -c '%b %s %c %d' /tmp /dev/shm; cat /proc/net/dev";

fn with(empty: usize) -> LauncherOptions {
    LauncherOptions { empty, ..options() }
}

fn was_ahead(sandbox: &Sandbox) -> bool {
    sandbox.build_times().iter().any(|(part, _)| *part == Part::Order)
}

/// Starts it until it gets a sandbox that waited; its kind has to be known first.
fn ahead(launcher: &Launcher, spec: impl Fn() -> Spec) -> (Sandbox, fs::File) {
    for _ in 0..1000 {
        let (sandbox, output) = start(launcher, &spec());
        ready(&sandbox);
        if was_ahead(&sandbox) {
            return (sandbox, output);
        }
        sandbox.kill();
        finish(&sandbox);
    }
    panic!("none was made ahead");
}

fn text(output: fs::File) -> String {
    std::io::read_to_string(output).unwrap()
}

/// The names of the cgroups that wait with their sandboxes.
fn waiting(options: &LauncherOptions) -> BTreeSet<String> {
    let names = groups(&options.owner).into_iter();
    let names = names.filter_map(|group| Some(group.file_name()?.to_string_lossy().into_owned()));
    names.filter(|name| name.starts_with("empty+")).collect()
}

/// What the files of a sandbox's cgroups say that it may use.
fn limits_of(options: &LauncherOptions, leaf: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for group in groups(&options.owner).iter().filter(|group| group.ends_with(leaf)) {
        for file in fs::read_dir(group).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let ends = ["limit_in_bytes", "max", "shares", "weight", "swappiness", "quota_us"];
            if ends.iter().any(|end| name.ends_with(end))
                && let Ok(value) = fs::read_to_string(file.path())
            {
                found.insert(name, value);
            }
        }
    }
    found
}

#[test]
fn it_looks_like_one_that_was_made_for_its_program() {
    let Some(launcher) = launcher_with(&with(0)) else { return };
    let direct = run(&launcher, &shell(INVENTORY)).output;
    let Some(launcher) = launcher_with(&with(2)) else { return };
    let (sandbox, output) = ahead(&launcher, || shell(INVENTORY));
    // Every one has a user of its own.
    let same = |text: &str| {
        let text = text.trim_end().to_owned();
        (0..100).fold(text, |text, slot| text.replace(&(UID_BASE + slot).to_string(), "host-uid"))
    };
    assert_eq!(same(&text(output)), same(&direct));
    assert!(matches!(finish(&sandbox).0[..], [Event::Exited { code: 0 }]));
}

#[test]
fn a_blank_one_gets_the_limits_of_its_function_also_if_it_was_made_with_them() {
    let waits = with(1);
    let Some(launcher) = launcher_with(&waits) else { return };
    assert_eq!(run(&launcher, &shell("exit 0")).code(), Some(0));
    eventually("one waits", || waiting(&waits).len() == 1);
    let leaf = waiting(&waits).pop_first().unwrap();
    let limits = || {
        let mut found = limits_of(&waits, &leaf);
        found.retain(|name, _| name.starts_with("memory") || name.starts_with("pids"));
        found
    };
    let made_with = limits();
    let mut blank = shell("sleep 600");
    blank.role = Role::Blank;
    (blank.limits.memory_bytes, blank.limits.pids) = (1024 * MIB, 1024);
    let (sandbox, _output) = start(&launcher, &blank);
    ready(&sandbox);
    assert!(was_ahead(&sandbox));
    assert!(made_with.is_empty() || limits() != made_with, "as wide as for any function");
    let furnishing = Furnishing { mounts: Vec::new(), limits: shell("").limits };
    sandbox.furnish(furnishing).unwrap();
    assert!(matches!(next(&sandbox), Event::Furnished));
    assert_eq!(limits(), made_with);
    sandbox.kill();
    finish(&sandbox);
}

#[test]
fn it_has_the_limits_of_its_program_whichever_it_was_made_with() {
    let (plain, waits) = (with(0), with(1));
    let Some(direct) = launcher_with(&plain) else { return };
    let Some(launcher) = launcher_with(&waits) else { return };
    assert_eq!(run(&launcher, &shell("exit 0")).code(), Some(0));
    for (memory, pids, cpu_weight, cpu_quota) in [
        (256, 32, 100, None),
        (32, 64, 10, Some(CpuQuota { quota_us: 50_000, period_us: 100_000 })),
        (64, 32, 100, None),
    ] {
        let mut wanted = shell("stat -f -c '%b %s' /dev/shm; sleep 600");
        let memory_bytes = memory * MIB;
        wanted.limits = Limits { memory_bytes, pids, cpu_weight, cpu_quota, ..wanted.limits };
        let shm = |output| BufReader::new(output).lines().next().unwrap().unwrap();
        // The one that waits was made for those of the one before.
        eventually("one waits", || waiting(&waits).len() == 1);
        let leaf = waiting(&waits).pop_first().unwrap();
        let (made, made_output) = start(&direct, &wanted);
        let (fitted, fitted_output) = start(&launcher, &wanted);
        ready(&made);
        ready(&fitted);
        assert!(was_ahead(&fitted) && !was_ahead(&made));
        let limits = limits_of(&waits, &leaf);
        assert!(limits.len() > 2, "{limits:?}");
        assert_eq!(limits, limits_of(&plain, made.name()));
        assert_eq!(shm(fitted_output), shm(made_output));
    }
}

#[test]
fn one_that_was_killed_while_it_waited_is_given_to_nobody() {
    if !root() {
        println!("skipped: an ordinary user has no other users to give");
        return;
    }
    let options = with(2);
    let Some(launcher) = launcher_with(&options) else { return };
    assert_eq!(run(&launcher, &shell("exit 0")).code(), Some(0));
    eventually("two wait", || waiting(&options).len() == 2);
    let killed = waiting(&options);
    for group in
        groups(&options.owner).iter().filter(|it| killed.iter().any(|name| it.ends_with(name)))
    {
        for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).ok();
            let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            eventually("it is dead", || stat().is_empty() || stat().contains(") Z "));
        }
    }
    assert_eq!(run(&launcher, &shell("exit 5")).code(), Some(5));
    eventually("nothing stays of them", || waiting(&options).is_disjoint(&killed));
    eventually("others wait", || waiting(&options).len() == 2);
}

#[test]
fn those_that_wait_make_room_for_those_that_are_wanted() {
    let options = LauncherOptions { uid_count: 2, ..with(2) };
    let Some(launcher) = launcher_with(&options) else { return };
    assert_eq!(run(&launcher, &shell("exit 0")).code(), Some(0));
    eventually("two wait", || waiting(&options).len() == 2);
    let mut other = shell("sleep 600");
    other.tmp = TmpFs { bytes: 2 * MIB, inodes: 32 };
    let sandboxes: Vec<_> = (0..2)
        .map(|number| {
            other.name = format!("other-{number}");
            start(&launcher, &other).0
        })
        .collect();
    for sandbox in &sandboxes {
        ready(sandbox);
    }
    other.name = "other-2".to_owned();
    let (third, _) = start(&launcher, &other);
    let Event::Failed { message } = next(&third) else { panic!("there is no third uid") };
    assert!(message.contains("all uids"), "{message}");
}

#[test]
fn nothing_stays_of_them_when_the_launcher_stops() {
    let options = with(3);
    let Some(launcher) = launcher_with(&options) else { return };
    assert_eq!(run(&launcher, &shell("exit 0")).code(), Some(0));
    eventually("three wait", || waiting(&options).len() == 3);
    launcher.stop();
    assert!(groups(&options.owner).is_empty());
}
