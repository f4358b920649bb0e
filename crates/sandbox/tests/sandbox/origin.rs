//! Origins: a program in no user namespace of its own is held, and forked into any sandbox.

use lacewing_sandbox::{
    Event, Furnishing, Launcher, LauncherOptions, Mount, OriginProgram, Role, Sandbox, Spec, Stance,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::snapshot::{ATTACKS, CONFINEMENT, PROGRAM, able_with, begin, fork, python, verdict};
use crate::support::{eventually, finish, next, options, ready, run, shell};

/// A launcher that can make an origin which has run this.
fn able(init: &str) -> Option<Launcher> {
    let says = r"os.write(3, b'\1\0\0\0\1')";
    let program = PROGRAM.replace("print('initialised', flush=True)", says).replace("INIT", init);
    let Spec { env, cwd, mounts, limits, .. } = python("");
    let argv = ["/usr/bin/python3", "-I", "-S", "-c", &program, "{}"].map(str::to_owned).to_vec();
    let program = OriginProgram { argv, env, cwd, mounts, limits, silent: vec![1, 2] };
    able_with(&LauncherOptions { origins: vec![program], ..options() })
}

fn origin(launcher: &Launcher) -> Sandbox {
    let origin = launcher.origin(0, 7).unwrap();
    ready(&origin);
    verdict(&origin, Stance::Framed).unwrap();
    origin
}

#[test]
fn a_fork_of_an_origin_is_confined_as_a_program_that_was_started() {
    let Some(launcher) = able("import resource") else { return };
    let mut started = begin(&python(""), |spec, fds| launcher.spawn(spec, fds));
    ready(&started.sandbox);
    assert_eq!(started.line(), "initialised");
    let wanted = started.says(CONFINEMENT);
    let origin = origin(&launcher);
    for _ in 0..3 {
        let mut forked = fork(&launcher, &origin);
        assert_eq!(forked.says(CONFINEMENT), wanted);
        drop(forked.frames);
        let (events, memory) = finish(&forked.sandbox);
        assert!(matches!(events[..], [Event::Exited { code: 7 }]), "{events:?}");
        assert!(memory.unwrap().peak > 0);
    }
}

#[test]
fn a_fork_of_an_origin_can_do_no_more_than_any_program() {
    let Some(launcher) = able("import ctypes; libc = ctypes.CDLL(None, use_errno=True)") else {
        return;
    };
    let origin = origin(&launcher);
    let mut forked = fork(&launcher, &origin);
    for (attempt, wanted) in ATTACKS {
        let heard = forked.says(attempt);
        assert!(heard.contains(wanted), "{attempt}: {heard}");
    }
    let mut brother = fork(&launcher, &origin);
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
    let Some(launcher) = able("import ctypes") else { return };
    let origin = origin(&launcher);
    let (mut one, mut other) = (fork(&launcher, &origin), fork(&launcher, &origin));
    let first = one.says(COUNTED);
    assert!(first.parse::<u32>().unwrap() >= 100, "{first}");
    assert_eq!(other.says(COUNTED), first);
}

#[test]
fn a_fork_outlives_its_origin_and_a_dead_origin_is_told_of() {
    let Some(launcher) = able("") else { return };
    let origin = origin(&launcher);
    let mut forked = fork(&launcher, &origin);
    // Only then it is there.
    assert_eq!(forked.says("os.getppid()"), "1");
    origin.kill();
    assert!(finish(&origin).0.is_empty());
    assert_eq!(forked.says("6 * 7"), "42");
    let late = begin(&python(""), |spec, fds| launcher.restore(&origin, spec, fds));
    let Event::Failed { message } = next(&late.sandbox) else { panic!("it was forked") };
    // As far as the launcher has heard of it.
    let told = ["there is no such snapshot", "ask the keeper: Broken pipe"];
    assert!(told.iter().any(|it| message.contains(it)), "{message}");
    drop(origin);
    assert_eq!(forked.says("os.getppid()"), "1");
}

#[test]
fn a_blank_fork_is_furnished_as_any_blank_one() {
    let Some(launcher) = able("") else { return };
    let origin = origin(&launcher);
    let blank = Spec { role: Role::Blank, ..python("") };
    let mut forked = begin(&blank, |spec, fds| launcher.restore(&origin, spec, fds));
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
fn an_origin_ends_with_its_init_and_nothing_stays() {
    let program = format!("{LOOP}\nme, init = os.getpid(), os.getppid()");
    let Some(launcher) = able(&program) else { return };
    let forked = |origin: &Sandbox| {
        let ids = fork(&launcher, origin).says("me, init");
        let ids = ids.trim_matches(['(', ')']).split(", ").map(|id| id.parse::<i32>().unwrap());
        ids.collect::<Vec<_>>()
    };
    // Asked to, or killed.
    for is_killed in [false, true] {
        let origin = origin(&launcher);
        let ids = forked(&origin);
        match is_killed {
            true => kill_process(Pid::from_raw(ids[1]).unwrap(), Signal::KILL).unwrap(),
            false => origin.kill(),
        }
        finish(&origin);
        let gone = |pid: &i32| !std::fs::exists(format!("/proc/{pid}")).unwrap();
        eventually("it is gone", || {
            ids.iter().all(|pid| gone(pid) || (is_killed && is_zombie(*pid)))
        });
    }
}

#[test]
fn who_does_not_get_ready_is_no_origin() {
    for (init, why) in
        [("sys.exit(1)", "it did not get ready"), ("os.write(3, b'x')", "it did not get ready")]
    {
        let Some(launcher) = able(init) else { return };
        let origin = launcher.origin(0, 7).unwrap();
        ready(&origin);
        // Its end may be heard of first.
        let told = verdict(&origin, Stance::Framed).unwrap_err();
        assert!(told == why || told == "its keeper is gone", "{told}");
    }
}

#[test]
fn a_server_cannot_say_what_an_origin_runs() {
    let Some(launcher) = able("") else { return };
    let unknown = launcher.origin(1, 7).unwrap();
    assert!(
        matches!(next(&unknown), Event::Failed { message } if message.contains("no such program"))
    );
    let own = Spec { role: Role::Origin, ..python("") };
    let own = begin(&own, |spec, fds| launcher.spawn(spec, fds));
    assert!(
        matches!(next(&own.sandbox), Event::Failed { message } if message.contains("at its start"))
    );
    let origin = origin(&launcher);
    let own = Spec { role: Role::Origin, ..python("") };
    let own = begin(&own, |spec, fds| launcher.restore(&origin, spec, fds));
    assert!(
        matches!(next(&own.sandbox), Event::Failed { message } if message.contains("at its start"))
    );
    // But a number.
    assert_eq!(fork(&launcher, &origin).says("sys.argv[1:]"), "['7']");
}

#[test]
fn what_sandboxes_share_is_what_it_was_at_the_start() {
    let (directory, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shared = directory.path().join("shared");
    std::fs::create_dir_all(shared.join("inner")).unwrap();
    std::fs::write(shared.join("inner/file"), "then").unwrap();
    std::os::unix::fs::symlink("file", shared.join("inner/link")).unwrap();
    let mut sources = options().sources;
    sources.extend([shared.clone(), own.path().to_owned()]);
    let options = LauncherOptions { shared: Some(shared.clone()), sources, ..options() };
    let Some(launcher) = able_with(&options) else { return };
    // Who may write around it puts another in its place.
    std::fs::rename(&shared, directory.path().join("former")).unwrap();
    std::fs::create_dir_all(shared.join("inner")).unwrap();
    for (directory, text) in [(&shared.join("inner"), "now"), (&own.path().to_owned(), "now")] {
        std::fs::write(directory.join("file"), text).unwrap();
    }
    for (source, wanted) in [(shared.join("inner"), "then then"), (own.path().to_owned(), "now -")]
    {
        let mut wanted_spec = shell("echo $(cat /var/task/file) $(cat /var/task/link || echo -)");
        let target = "/var/task".into();
        wanted_spec.mounts.push(Mount::Bind { source, target, exec: false });
        let run = run(&launcher, &wanted_spec);
        assert!(run.output.contains(wanted), "{run:?}");
    }
    assert_eq!(std::fs::read(shared.join("inner/file")).unwrap(), b"now", "only there");
}

#[test]
fn a_fork_runs_on_mounts_that_stay() {
    let Some(launcher) = able("") else { return };
    let origin = origin(&launcher);
    let mut forked = fork(&launcher, &origin);
    let program = "os.readlink('/proc/self/exe'), open('/proc/self/exe', 'rb').read(4)";
    let before = forked.says(program);
    assert!(before.contains("/usr/bin/python3"), "{before}");
    origin.kill();
    finish(&origin);
    assert_eq!(forked.says(program), before);
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

/// Becomes root of the host, and tries to reach a process of root's.
const AS_ROOT: &str = "
def attack():
    os.setuid(0)
    try: os.kill(init, 0)
    except PermissionError: os._exit(0)
    os._exit(1)
";

#[test]
fn an_origin_has_little_to_use_its_rights_on() {
    let attempts = WITH_SYS_ADMIN.map(|it| format!("(lambda: ({it}, ctypes.get_errno()))"));
    let others = [
        ("open('/usr/own', 'w')", "Error(30"),
        ("open('/tmp/own', 'w')", "Error(30"),
        ("os.kill(os.getppid(), 0)", "PermissionError"),
        ("(lambda child: os.waitpid(child, 0)[1] if child else attack())(os.fork())", "0"),
        ("open('/proc/self/status')", "FileNotFoundError"),
        ("[p for p in os.listdir('/proc') if p.isdigit()]", "[]"),
        ("[n for n in os.listdir('/') if n in ('home', 'root', 'run', 'sys', 'boot')]", "[]"),
        ("sorted(map(int, os.listdir('/dev/fd')))", "FileNotFoundError"),
        ("libc.socket(17, 3, 0)", "-1"),
    ];
    let lambdas = others.map(|(it, _)| format!("(lambda: {it})"));
    let all: Vec<_> = attempts.into_iter().chain(lambdas).collect();
    // A fork repeats what its origin was told.
    let init = format!(
        "import ctypes\nlibc, init = ctypes.CDLL(None, use_errno=True), os.getppid()\n{AS_ROOT}\ntold = []\nfor attempt in [{}]:\n    try: told.append(repr(attempt()))\n    except OSError as error: told.append(repr(error))",
        all.join(", ")
    );
    let Some(launcher) = able(&init) else { return };
    let origin = origin(&launcher);
    let mut forked = fork(&launcher, &origin);
    for (at, attempt) in WITH_SYS_ADMIN.iter().enumerate() {
        assert_eq!(forked.says(&format!("told[{at}]")), "(-1, 1)", "{attempt}");
    }
    for (at, (attempt, wanted)) in (WITH_SYS_ADMIN.len()..).zip(others) {
        let heard = forked.says(&format!("told[{at}]"));
        assert!(heard.contains(wanted), "{attempt}: {heard}");
    }
}

/// What an event loop has, and a thread that waits.
const LOOP: &str = "
import ctypes, select
r, w = os.pipe()
os.write(w, b'abc')
poll, count = select.epoll(), os.eventfd(5)
poll.register(r, select.EPOLLIN)
poll.register(count, select.EPOLLIN)
null = os.open('/dev/null', os.O_RDONLY)
os.dup2(null, 77)
os.set_inheritable(77, True)
os.set_blocking(r, False)
libc, semaphore, thread = ctypes.CDLL(None), (ctypes.c_long * 4)(), ctypes.c_ulong()
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
libc.pthread_create(ctypes.byref(thread), None, libc.sem_wait, semaphore)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
seen = lambda: (sorted(poll.poll(0)) == sorted([(r, 1), (count, 1)]), os.read(r, 9), os.eventfd_read(count),
    poll.poll(0), os.get_blocking(r), os.get_blocking(w), os.get_inheritable(77), os.get_inheritable(r),
    os.read(77, 1), sorted(map(int, os.listdir('/proc/self/fd'))))
";
const SEEN: &str =
    "(True, b'abc', 5, [], False, True, True, False, b'', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77])";

#[test]
fn each_fork_has_descriptors_of_its_own_for_those_of_the_origin() {
    let Some(launcher) = able(LOOP) else { return };
    let origin = origin(&launcher);
    for _ in 0..2 {
        let mut forked = fork(&launcher, &origin);
        assert_eq!(forked.says("seen()"), SEEN);
        assert_eq!(forked.says("os.write(w, b'more'), poll.poll(1)"), "(4, [(4, 1)])");
    }
}

#[test]
fn threads_of_an_origin_go_on_in_its_forks() {
    let Some(launcher) = able(LOOP) else { return };
    let origin = origin(&launcher);
    let mut forked = fork(&launcher, &origin);
    let others = "[t for t in os.listdir('/proc/self/task') if int(t) != os.getpid()]";
    assert_eq!(forked.says(&format!("len({others})")), "1");
    let status = format!(
        "[[l.strip() for l in open(f'/proc/self/task/{{t}}/status') if l.split(':')[0] in \
        ('Name', 'Uid', 'CapPrm', 'CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters', 'SigBlk', 'TracerPid')] \
        for t in [str(os.getpid()), *{others}]]"
    );
    // It is confined as the first is, and blocks what it did.
    let told = forked.says(&status);
    let (first, other) = told.trim_matches(['[', ']']).split_once("], [").unwrap();
    assert_eq!(
        first.replace("0000000000000000", ""),
        other.replace("0000000000000200", "").replace("0000000000000000", "")
    );
    assert!(other.contains("SigBlk:\\t0000000000000200"), "{other}");
    assert!(
        other.contains("CapEff:\\t0000000000000000") && other.contains("Seccomp:\\t2"),
        "{other}"
    );
    // It waits still, and ends when it need not any more; who waits for that hears of it.
    assert_eq!(forked.says("libc.sem_post(semaphore), libc.pthread_join(thread, None)"), "(0, 0)");
    assert_eq!(forked.says(others), "[]");
    let mut brother = fork(&launcher, &origin);
    assert_eq!(brother.says(&format!("len({others})")), "1");
}

/// A thread starts a process that has its memory, or none of it, and waits.
const PARENT: &str = "
import threading
def parent():
    if os.fork() == 0:
        os.execv('/bin/sleep', ['sleep', '99'])
    threading.Event().wait()
threading.Thread(target=parent, daemon=True).start()
import time; time.sleep(0.3)
";

#[test]
fn no_thread_of_a_snapshot_may_have_started_a_process() {
    let Some(launcher) = able("") else { return };
    let wanted = Spec { role: Role::Snapshot, ..python(PARENT) };
    let mut snapshot = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&snapshot.sandbox);
    assert_eq!(snapshot.line(), "initialised");
    let why = verdict(&snapshot.sandbox, Stance::Framed).unwrap_err();
    assert!(why.contains("other processes"), "{why}");
}

#[test]
fn a_snapshot_with_threads_goes_with_all_that_is_made_of_it() {
    let Some(launcher) = able("") else { return };
    let wanted = Spec { role: Role::Snapshot, ..python(LOOP) };
    let mut snapshot = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&snapshot.sandbox);
    assert_eq!(snapshot.line(), "initialised");
    verdict(&snapshot.sandbox, Stance::Framed).unwrap();
    let mut forked = fork(&launcher, &snapshot.sandbox);
    assert_eq!(forked.says("len(os.listdir('/proc/self/task'))"), "2");
    forked.sandbox.kill();
    finish(&forked.sandbox);
    let pid = launcher.pid();
    snapshot.sandbox.kill();
    finish(&snapshot.sandbox);
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let is_python = |child: &str| {
        std::fs::read_to_string(format!("/proc/{child}/cmdline"))
            .is_ok_and(|it| it.contains("python"))
    };
    eventually("its init and its keeper are gone", || {
        let all = children();
        // What waits empty is the launcher's own.
        all.split_whitespace().all(|child| !is_python(child)) && keepers(pid) == 0
    });
}

/// How many processes trace others among the children of the launcher.
fn keepers(launcher: u32) -> usize {
    let traced = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:\t"))?;
        line.parse::<u32>().ok().filter(|tracer| *tracer != 0)
    });
    let is_child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("PPid:\t{launcher}\n"))
    };
    traced.filter(is_child).count()
}

#[test]
fn what_others_have_too_makes_no_origin() {
    for (init, reason) in [
        (
            "import socket; one, other = socket.socketpair(); one.close()",
            "open files or connections: socket:",
        ),
        (
            "import socket; one, other = socket.socketpair(); one.send(b'x')",
            "open files or connections: socket:",
        ),
        ("r, w = os.pipe(); os.close(w)", "open files or connections: pipe:"),
        ("r, w = os.pipe(); os.write(w, bytes(2000))", "look into a pipe"),
        ("os.dup2(os.open('/dev/null', 0), 200)", "open files or connections: /dev/null"),
        (
            "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()",
            "does not wait",
        ),
    ] {
        let Some(launcher) = able(init) else { return };
        let origin = launcher.origin(0, 7).unwrap();
        ready(&origin);
        let why = verdict(&origin, Stance::Framed).unwrap_err();
        assert!(why.contains(reason), "{init}: {why}");
    }
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
