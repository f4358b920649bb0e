//! `/tmp` on disk: exactly as large as asked for, beside the memory limit, and gone afterwards.

use std::io::Read;
use std::path::Path;

use lacewing_sandbox::{Launcher, LauncherOptions, ScratchOptions, TmpFs};
use tempfile::TempDir;

use crate::support::{
    MIB, eventually, experiment, finish, launcher_with, options, probe, ready, root, run, shell,
    slowness, start,
};

/// How many are kept ready of a size.
const READY: usize = 8;

/// A launcher whose file systems are in a directory of their own, if this host can have them.
fn on_disk() -> Option<(Launcher, LauncherOptions, TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.scratch.as_mut().unwrap().dir = dir.path().to_owned();
    let launcher = launcher_with(&options)?;
    let tmp = launcher.report().features.iter().find(|feature| feature.name == "tmp-disk").unwrap();
    if !tmp.in_force {
        println!("skipped: {}", tmp.detail);
        return None;
    }
    Some((launcher, options, dir))
}

/// How many loop devices show a file of this directory.
fn devices_of(dir: &Path) -> usize {
    let blocks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files =
        blocks.filter_map(|it| std::fs::read_to_string(it.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file).starts_with(dir)).count()
}

#[test]
fn a_small_function_fills_exactly_its_large_tmp() {
    let Some((launcher, _, _dir)) = on_disk() else { return };
    // A slow host need not do the smaller, which an end-to-end test does, too.
    let sizes = if slowness() > 1 { &[1025][..] } else { &[512, 1025] };
    for mebibytes in sizes {
        let mut wanted = probe(&["fill-and-read", "/tmp/big"]);
        wanted.limits.memory_bytes = 128 * MIB;
        wanted.tmp = TmpFs { bytes: mebibytes * MIB, inodes: 1000 };
        let ran = run(&launcher, &wanted);
        let (bytes, errno) = ran.output.split_once(" then errno ").expect("all could be read");
        let (bytes, exact): (u64, u64) = (bytes.parse().unwrap(), mebibytes * MIB);
        // What the file's own map does not need is free, too.
        assert!((exact..=exact + exact / 8192).contains(&bytes) && errno == "28", "{ran:?}");
        let memory = ran.memory.unwrap();
        assert_eq!(memory.oom_kills, 0);
        assert!(memory.peak <= 128 * MIB, "{memory:?}");
    }
}

#[test]
fn memory_is_still_bounded_when_tmp_is_full() {
    let Some((launcher, _, _dir)) = on_disk() else { return };
    let mut wanted = shell(
        "head -c 100M /dev/zero >/tmp/big; /var/lang/lacewing-sandbox-probe eat-memory 100; echo $?",
    );
    wanted.tmp = TmpFs { bytes: 100 * MIB, inodes: 64 };
    let ran = run(&launcher, &wanted);
    assert!(ran.output.ends_with("137"), "{ran:?}");
    assert_eq!(ran.memory.unwrap().oom_kills, 1);
}

#[test]
fn the_size_can_be_asked_for_inside() {
    let Some((launcher, _, _dir)) = on_disk() else { return };
    let mut wanted =
        shell("df -B1 --output=avail /tmp | tail -1; df --output=iavail /tmp | tail -1");
    wanted.tmp = TmpFs { bytes: 600 * MIB, inodes: 5000 };
    let ran = run(&launcher, &wanted);
    let numbers: Vec<u64> = ran.output.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!((600 * MIB..=600 * MIB + 75 * 1024).contains(&numbers[0]), "{ran:?}");
    assert!((5000..5200).contains(&numbers[1]), "{ran:?}");
}

#[test]
fn programs_run_from_it_and_devices_and_set_user_id_do_not() {
    let Some((launcher, _, _dir)) = on_disk() else { return };
    let ran = run(&launcher, &shell("cp /bin/echo /tmp/echo && /tmp/echo works"));
    assert_eq!(ran.output, "works", "{ran:?}");
    let ran =
        run(&launcher, &shell("grep ' /tmp ' /proc/self/mounts; mknod /tmp/x b 7 0; echo $?"));
    assert!(ran.output.contains("nosuid") && ran.output.contains("nodev"), "{ran:?}");
    assert!(ran.output.ends_with('1'), "{ran:?}");
}

#[test]
fn nothing_of_one_sandbox_is_seen_by_the_next() {
    let Some((launcher, _, _dir)) = on_disk() else { return };
    for _ in 0..12 {
        let ran =
            run(&launcher, &shell("ls -A /tmp; echo secret >/tmp/file; stat -c %u /tmp/file"));
        assert_eq!(ran.output, "993", "{ran:?}");
    }
}

#[test]
fn its_disk_is_free_when_the_sandbox_has_ended() {
    let Some((launcher, _, dir)) = on_disk() else { return };
    // What is made ahead of the size in use.
    eventually("some are ready", || devices_of(dir.path()) == READY);
    let wanted = shell("head -c 3M /dev/zero >/tmp/big; echo up; sleep 60");
    let (sandbox, _output) = start(&launcher, &wanted);
    ready(&sandbox);
    eventually("another one is ready", || devices_of(dir.path()) == READY + 1);
    eventually("no file has a name", || std::fs::read_dir(dir.path()).unwrap().count() == 0);
    sandbox.kill();
    finish(&sandbox);
    eventually("its device is free", || devices_of(dir.path()) == READY);
    launcher.stop();
    assert_eq!(devices_of(dir.path()), 0);
}

#[test]
fn all_are_full_when_together_they_hold_too_much() {
    let Some((launcher, mut options, dir)) = on_disk() else { return };
    launcher.stop();
    let scratch = options.scratch.as_mut().unwrap();
    scratch.most_bytes = 16 * MIB;
    scratch.expected = TmpFs { bytes: 64 * MIB, inodes: 64 };
    let Some(launcher) = launcher_with(&options) else { return };
    let large = |script: &str| {
        let mut wanted = shell(script);
        wanted.tmp = TmpFs { bytes: 64 * MIB, inodes: 64 };
        wanted
    };
    let (hog, _output) = start(&launcher, &large("head -c 20M /dev/zero >/tmp/big; sleep 60"));
    ready(&hog);
    // It can be full at once, or a moment after it could still write a little.
    let refused =
        || run(&launcher, &large("head -c 8M /dev/zero >/tmp/x || echo no")).output.contains("no");
    eventually("others cannot write", refused);
    hog.kill();
    finish(&hog);
    eventually("they can again", || !refused());
    drop(dir);
}

#[test]
fn nothing_stays_of_a_server_that_was_killed() {
    let Some((launcher, options, dir)) = on_disk() else { return };
    launcher.stop();
    let options = serde_json::to_string(&options).unwrap();
    let spec = serde_json::to_string(&shell("echo >/tmp/x; sleep 60")).unwrap();
    let program = crate::support::PROBE;
    let mut server =
        std::process::Command::new(program).args(["__server", &options, &spec]).spawn().unwrap();
    eventually("the sandbox lives", || devices_of(dir.path()) == READY + 1);
    server.kill().unwrap();
    server.wait().unwrap();
    eventually("no device is left", || devices_of(dir.path()) == 0);
}

#[test]
fn a_killed_maker_is_replaced_and_what_it_made_lives_on() {
    let Some((launcher, _, dir)) = on_disk() else { return };
    let script = "echo up; sleep 1; echo still >/tmp/x && cat /tmp/x";
    let (sandbox, mut output) = start(&launcher, &shell(script));
    ready(&sandbox);
    let pid = launcher.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let maker = children.split_whitespace().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("Uid:\t0\t")
    });
    let killed = std::process::Command::new("/bin/kill").args(["-KILL", maker.unwrap()]).status();
    assert!(killed.unwrap().success());
    let status = format!("/proc/{}/status", maker.unwrap());
    eventually("it is dead", || std::fs::read_to_string(&status).unwrap().contains("State:\tZ"));
    assert_eq!(experiment(&launcher, &["fill", "/tmp/x"]), format!("{} then errno 28", 4 * MIB));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "up\nstill\n");
    finish(&sandbox);
    launcher.stop();
    eventually("no device is left", || devices_of(dir.path()) == 0);
}

#[test]
fn where_it_cannot_be_on_disk_it_is_in_memory_and_that_is_said() {
    let mut options = options();
    let expected = TmpFs { bytes: 4 * MIB, inodes: 64 };
    options.scratch = Some(ScratchOptions { dir: "/proc/self".into(), expected, most_bytes: 1 });
    let Some(launcher) = launcher_with(&options) else { return };
    let report = launcher.report();
    let tmp = report.features.iter().find(|feature| feature.name == "tmp-disk").unwrap();
    assert!(!tmp.in_force && (report.is_full() || !root()), "{tmp:?}");
    assert_eq!(experiment(&launcher, &["write", "/tmp/x"]), "written");
    let ran = run(&launcher, &shell("stat -f -c %T /tmp"));
    assert_eq!(ran.output, "tmpfs", "{ran:?}");
}
