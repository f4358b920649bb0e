//! Origins: a program in no user namespace of its own is held, and forked into any sandbox.

use lacewing_sandbox::{Event, Furnishing, Launcher, Mount, Role, Spec};
use rustix::process::{Pid, Signal, kill_process};

use crate::snapshot::{ATTACKS, CONFINEMENT, Running, able, begin, hold, python, restore};
use crate::support::{eventually, finish, next, ready, shell};

fn origin(launcher: &Launcher, init: &str) -> Running {
    let (running, verdict) = hold(launcher, init, Role::Origin);
    verdict.unwrap();
    running
}

#[test]
fn a_fork_of_an_origin_is_confined_as_a_program_that_was_started() {
    let Some(launcher) = able() else { return };
    let mut started = begin(&python(""), |spec, fds| launcher.spawn(spec, fds));
    ready(&started.sandbox);
    assert_eq!(started.line(), "initialised");
    let wanted = started.says(CONFINEMENT);
    let origin = origin(&launcher, "import resource");
    for _ in 0..3 {
        let mut forked = restore(&launcher, &origin);
        assert_eq!(forked.says(CONFINEMENT), wanted);
        drop(forked.frames);
        let (events, memory) = finish(&forked.sandbox);
        assert!(matches!(events[..], [Event::Exited { code: 7 }]), "{events:?}");
        assert!(memory.unwrap().peak > 0);
    }
}

#[test]
fn a_fork_of_an_origin_can_do_no_more_than_any_program() {
    let Some(launcher) = able() else { return };
    let origin = origin(&launcher, "import ctypes; libc = ctypes.CDLL(None, use_errno=True)");
    let mut forked = restore(&launcher, &origin);
    for (attempt, wanted) in ATTACKS {
        let heard = forked.says(attempt);
        assert!(heard.contains(wanted), "{attempt}: {heard}");
    }
    let mut brother = restore(&launcher, &origin);
    assert_eq!(brother.says("os.listdir('/tmp') + os.listdir('/dev/shm')"), "[]");
    // Nobody owns the namespaces of two, so nothing is counted for both.
    let namespaces =
        "[os.stat('/proc/self/ns/' + kind).st_ino for kind in sorted(os.listdir('/proc/self/ns'))]";
    let (one, other) = (forked.says(namespaces), brother.says(namespaces));
    let shared = one.split(", ").filter(|number| other.contains(number)).count();
    assert_eq!(shared, 2, "the two of time only: {one} {other}");
}

/// What it can use up is counted for its user, and for the owner of its namespace.
const COUNTED: &str =
    "(libc := __import__('ctypes').CDLL(None)) and sum(1 for _ in iter(libc.inotify_init, -1))";

#[test]
fn what_the_kernel_counts_for_a_user_no_two_forks_share() {
    let Some(launcher) = able() else { return };
    let origin = origin(&launcher, "import ctypes");
    let (mut one, mut other) = (restore(&launcher, &origin), restore(&launcher, &origin));
    let first = one.says(COUNTED);
    assert!(first.parse::<u32>().unwrap() >= 100, "{first}");
    assert_eq!(other.says(COUNTED), first);
}

#[test]
fn a_fork_outlives_its_origin_and_a_dead_origin_is_told_of() {
    let Some(launcher) = able() else { return };
    let origin = origin(&launcher, "");
    let mut forked = restore(&launcher, &origin);
    // Only then it is there.
    assert_eq!(forked.says("os.getppid()"), "1");
    origin.sandbox.kill();
    assert!(finish(&origin.sandbox).0.is_empty());
    assert_eq!(forked.says("6 * 7"), "42");
    let late = begin(&python(""), |spec, fds| launcher.restore(&origin.sandbox, spec, fds));
    let Event::Failed { message } = next(&late.sandbox) else { panic!("it was forked") };
    assert!(message.contains("no such snapshot"), "{message}");
    drop(origin);
    assert_eq!(forked.says("os.getppid()"), "1");
}

#[test]
fn a_blank_fork_is_furnished_as_any_blank_one() {
    let Some(launcher) = able() else { return };
    let origin = origin(&launcher, "");
    let blank = Spec { role: Role::Blank, ..python("") };
    let mut forked = begin(&blank, |spec, fds| launcher.restore(&origin.sandbox, spec, fds));
    ready(&forked.sandbox);
    let rights = "[l.split()[1] for p in ('self', '1') for l in open(f'/proc/{p}/status') if l[:6] in ('CapEff', 'Seccom')]";
    let told = forked.says(rights);
    assert!(told.contains("'0000000000200000', '0'"), "its init can mount still: {told}");
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("file"), "the code").unwrap();
    let Spec { limits, .. } = shell("");
    let bind = Mount::Bind { source: code.path().into(), target: "/var/task".into(), exec: true };
    forked.sandbox.furnish(Furnishing { mounts: vec![bind], limits }).unwrap();
    assert!(matches!(next(&forked.sandbox), Event::Furnished));
    assert_eq!(forked.says("open('/var/task/file').read()"), "the code");
    let told = forked.says(rights);
    assert_eq!(told.matches("'0000000000000000'").count(), 2, "{told}");
}

#[test]
fn an_origin_sees_no_process_and_ends_with_its_init() {
    let Some(launcher) = able() else { return };
    let seen = "print(os.getuid() > 0, [p for p in os.listdir('/proc') if p.isdigit()], os.path.exists('/sys'), flush=True)";
    let wanted = Spec { role: Role::Origin, ..python(seen) };
    let mut origin = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&origin.sandbox);
    assert_eq!(origin.line(), "True [] False");
    assert_eq!(origin.line(), "initialised");
    let me: i32 = origin.says("os.getpid()").parse().unwrap();
    let init: i32 = origin.says("os.getppid()").parse().unwrap();
    kill_process(Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
    let gone = || !std::fs::exists(format!("/proc/{me}")).unwrap() || is_zombie(me);
    eventually("the program has ended", gone);
    finish(&origin.sandbox);
}

/// What takes the capability that an origin has for its forks; not one of these may get through.
const WITH_SYS_ADMIN: [&str; 8] = [
    "libc.unshare(0x20000)",
    "libc.unshare(0x40000000)",
    "libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0)",
    "libc.umount2(b'/usr', 2)",
    "libc.setns(3, 0)",
    "libc.syscall(56, 0x20000000 | 17, 0, 0, 0, 0)",
    "libc.sethostname(b'x', 1)",
    "libc.ptrace(16, os.getppid(), 0, 0)",
];

#[test]
fn an_origin_cannot_use_what_its_forks_need() {
    let Some(launcher) = able() else { return };
    let wanted = python("import ctypes; libc = ctypes.CDLL(None, use_errno=True)");
    let wanted = Spec { role: Role::Origin, ..wanted };
    let mut origin = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&origin.sandbox);
    assert_eq!(origin.line(), "initialised");
    for attempt in WITH_SYS_ADMIN {
        assert_eq!(origin.says(&format!("{attempt}, ctypes.get_errno()")), "(-1, 1)", "{attempt}");
    }
    let rights = "[l.split()[1] for l in open('/proc/self/status') if l[:6] == 'CapEff']";
    assert!(origin.says(rights).contains("FileNotFoundError"), "there is no process in its /proc");
    for (attempt, wanted) in [
        ("open('/usr/own', 'w')", "OSError(30"),
        ("open('/tmp/own', 'w')", "OSError(30"),
        ("os.kill(os.getppid(), 9)", "PermissionError"),
        ("[n for n in os.listdir('/') if n in ('home', 'root', 'run', 'sys', 'boot')]", "[]"),
        ("libc.socket(17, 3, 0)", "-1"),
    ] {
        let heard = origin.says(attempt);
        assert!(heard.contains(wanted), "{attempt}: {heard}");
    }
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
