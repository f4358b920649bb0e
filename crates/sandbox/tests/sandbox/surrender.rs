//! What a server can still do once it has given up what only its launcher needs.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use lacewing_sandbox::{Mount, surrenderable};

use crate::support::{PROBE, launcher, run, shell};

/// Runs an experiment in a process of this host that has kept `dir` and a port, and nothing else.
fn surrendered(dir: &Path, port: u16, experiment: &[&str]) -> String {
    let mut command = Command::new(PROBE);
    command.arg("surrender").arg(dir).arg(port.to_string()).args(experiment);
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn in_force(name: &str) -> bool {
    let found = surrenderable().into_iter().find(|feature| feature.name == name);
    let there = found.as_ref().is_some_and(|feature| feature.in_force);
    if !there {
        println!("skipped: {found:?}");
    }
    there
}

/// The kernel's version of Landlock, from the report: 4 is the first that knows TCP.
fn landlock() -> u32 {
    let features = surrenderable().into_iter();
    let text =
        features.map(|it| it.detail).find_map(|it| Some(it.strip_prefix("version ")?.to_owned()));
    text.and_then(|text| text.split(':').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn no_capability_is_left_and_none_can_be_gained() {
    let dir = tempfile::tempdir().unwrap();
    let names = "CapInh,CapPrm,CapEff,CapBnd,CapAmb,NoNewPrivs,Seccomp";
    let lines = surrendered(dir.path(), 1, &["status", names]);
    let none = "0000000000000000";
    // Who had no capability could not empty the bounding set, which `no_new_privs` makes moot.
    let bound = if rustix::process::geteuid().is_root() { none } else { "" };
    let before = format!("CapInh: {none}|CapPrm: {none}|CapEff: {none}|CapBnd: {bound}");
    let after = format!("CapAmb: {none}|NoNewPrivs: 1|Seccomp: 2");
    assert!(lines.starts_with(&before) && lines.ends_with(&after), "{lines}");
}

#[test]
fn a_second_thread_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let got = surrendered(dir.path(), 1, &["with-a-thread"]);
    assert_eq!(got, "cannot give up privileges: the process has 2 threads already");
}

#[test]
fn only_the_own_directory_can_be_written() {
    if !in_force("server-landlock") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let theirs = other.path().join("file");
    fs::write(&theirs, "kept").unwrap();
    fs::create_dir(other.path().join("empty")).unwrap();
    let path = |dir: &Path, name: &str| dir.join(name).to_str().unwrap().to_owned();
    assert_eq!(surrendered(dir.path(), 1, &["write", &path(dir.path(), "x")]), "written");
    assert_eq!(surrendered(dir.path(), 1, &["read", &path(dir.path(), "x")]), "read 1");
    for name in ["file", "new"] {
        let outside = path(other.path(), name);
        assert_eq!(surrendered(dir.path(), 1, &["write", &outside]), "errno 13", "{outside}");
    }
    for outside in [
        "/etc/lacewing-test",
        "/usr/lacewing-test",
        "/dev/null",
        "/proc/self/oom_score_adj",
        "/proc/sys/kernel/core_pattern",
    ] {
        let got = surrendered(dir.path(), 1, &["write", outside]);
        // Where the host's own mount is read-only that is said first.
        assert!(["errno 13", "errno 30"].contains(&got.as_str()), "{outside}: {got}");
    }
    assert_eq!(fs::read(&theirs).unwrap(), b"kept");
    for (experiment, path) in [
        ("read", path(other.path(), "file")),
        ("read", "/etc/passwd".to_owned()),
        ("list", path(other.path(), "")),
        ("list", "/root".to_owned()),
        ("remove", path(other.path(), "file")),
        ("remove", path(other.path(), "empty")),
    ] {
        assert_eq!(surrendered(dir.path(), 1, &[experiment, &path]), "errno 13", "{path}");
    }
    // Neither by another name for the same file.
    let link = path(dir.path(), "link");
    let from = path(other.path(), "file");
    assert_eq!(surrendered(dir.path(), 1, &["link", &from, &link]), "errno 18");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2);
}

#[test]
fn nobody_but_the_own_port_can_be_reached_and_no_program_run() {
    if !in_force("server-landlock") || !in_force("server-seccomp") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (own, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = own.local_addr().unwrap().port();
    let talk = |to: String| surrendered(dir.path(), port, &["talk-shortly", &to]);
    assert_eq!(talk(own.local_addr().unwrap().to_string()), "connected");
    if landlock() >= 4 {
        assert_eq!(talk(other.local_addr().unwrap().to_string()), "errno 13");
    }
    let call = |number: i64, argument: i64| {
        surrendered(dir.path(), port, &["syscall", &format!("{number},{argument},1,0")])
    };
    assert_eq!(call(libc::SYS_socket, 1), "97");
    assert_eq!(call(libc::SYS_socket, 16), "97");
    assert_eq!(call(libc::SYS_unshare, 0x1000_0000), "1");
    assert_eq!(surrendered(dir.path(), port, &["daemon"]), "errno 1");
}

#[test]
fn other_processes_of_the_same_user_cannot_be_signalled() {
    if !in_force("server-landlock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let kill = format!("{},{},0", libc::SYS_kill, child.id());
    let got = surrendered(dir.path(), 1, &["syscall", &kill]);
    child.kill().unwrap();
    child.wait().unwrap();
    // Version 6 of Landlock is the first with scopes.
    let detail = surrenderable().into_iter().map(|feature| feature.detail).collect::<String>();
    let is_old = (2..6).any(|version| detail.contains(&format!("version {version}:")));
    assert_eq!(got, if is_old { "0" } else { "1" });
}

#[test]
fn a_source_that_was_not_announced_is_refused_by_the_launcher() {
    let Some(launcher) = launcher() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    let up = dir.path().join("../../etc");
    let through = dir.path().join("link/ssl");
    for (source, why) in [
        (Path::new("/etc"), "may bind"),
        (Path::new("/root"), "may bind"),
        (Path::new("/"), "may bind"),
        (up.as_path(), "may bind"),
        (dir.path().join("link").as_path(), "os error 40"),
        (through.as_path(), "os error 40"),
    ] {
        let mut wanted = shell("ls /opt");
        let (source, target) = (source.to_owned(), "/opt".into());
        wanted.mounts = vec![Mount::Bind { source: source.clone(), target, exec: false }];
        let ran = run(&launcher, &wanted);
        let failure = ran.failure().unwrap_or_default();
        let named = failure.contains(&source.display().to_string());
        assert!(named && failure.contains(why), "{}: {ran:?}", source.display());
    }
    assert_eq!(run(&launcher, &shell("umask")).output, "0022");
}
