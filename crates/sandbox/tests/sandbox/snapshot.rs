//! Snapshots: a program that waits is held, and forked into other sandboxes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lacewing_sandbox::{Event, Launcher, LauncherOptions, Role, Sandbox, Spec, Stance};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{self, MIB, eventually, finish, launcher_with, next, options, ready, spec};

/// Says that it is initialised, then does what comes as a frame, again and again.
pub(crate) const PROGRAM: &str = "
import os, sys, random
made = random.random()
INIT
print('initialised', flush=True)
while True:
    data = os.read(3, 65536)
    if not data:
        os._exit(7)
    try:
        print(eval(data.decode()), flush=True)
    except BaseException as error:
        print(repr(error), flush=True)
";

/// A program with the other ends of what it was given.
pub(crate) struct Running {
    pub(crate) sandbox: Sandbox,
    pub(crate) frames: UnixStream,
    output: BufReader<std::fs::File>,
}

impl Running {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn says(&mut self, expression: &str) -> String {
        self.frames.write_all(expression.as_bytes()).unwrap();
        self.line()
    }
}

pub(crate) fn begin(
    spec: &Spec,
    start: impl FnOnce(&Spec, support::Passed) -> Result<Sandbox, lacewing_sandbox::Error>,
) -> Running {
    let (output, end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (frames, theirs) = UnixStream::pair().unwrap();
    frames.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let errors = end.try_clone().unwrap();
    let fds: support::Passed = vec![(end, 1), (errors, 2), (OwnedFd::from(theirs), 3)];
    let sandbox = start(spec, fds).unwrap();
    Running { sandbox, frames, output: BufReader::new(output.into()) }
}

pub(crate) fn python(init: &str) -> Spec {
    let program = PROGRAM.replace("INIT", init);
    let mut wanted = spec(&["/usr/bin/python3", "-I", "-S", "-c", &program]);
    wanted.limits.memory_bytes = 128 * MIB;
    wanted
}

/// Starts a program and has it held; its verdict with it.
fn snapshot(launcher: &Launcher, init: &str) -> (Running, Result<(), String>) {
    let mut wanted = python(init);
    wanted.role = Role::Snapshot;
    let mut running = begin(&wanted, |spec, fds| launcher.spawn(spec, fds));
    ready(&running.sandbox);
    assert_eq!(running.line(), "initialised");
    let verdict = verdict(&running.sandbox, Stance::Alone);
    (running, verdict)
}

/// Has a program held.
pub(crate) fn verdict(sandbox: &Sandbox, stance: Stance) -> Result<(), String> {
    let holding = sandbox.hold(stance, &[9001]).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(verdict) = holding.try_verdict().unwrap() {
            return verdict;
        }
        assert!(Instant::now() < until, "no verdict");
        let mut ready = [PollFd::from_borrowed_fd(holding.as_fd(), PollFlags::IN)];
        poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
    }
}

fn held(launcher: &Launcher, init: &str) -> Running {
    let (running, verdict) = snapshot(launcher, init);
    verdict.unwrap();
    running
}

fn restore(launcher: &Launcher, snapshot: &Running) -> Running {
    fork(launcher, &snapshot.sandbox)
}

/// What a snapshot or an origin is forked into.
pub(crate) fn fork(launcher: &Launcher, from: &Sandbox) -> Running {
    let restored = begin(&python(""), |spec, fds| launcher.restore(from, spec, fds));
    ready(&restored.sandbox);
    restored
}

/// A launcher that can hold programs: as root, on a processor that we know.
pub(crate) fn able() -> Option<Launcher> {
    able_with(&options())
}

pub(crate) fn able_with(options: &LauncherOptions) -> Option<Launcher> {
    if !support::root() || !cfg!(target_arch = "x86_64") {
        support::skip("snapshots need root and x86-64");
        return None;
    }
    launcher_with(options)
}

#[test]
fn a_restored_program_goes_on_where_the_snapshot_stands() {
    let Some(launcher) = able() else { return };
    let mut snapshot = held(&launcher, "made = random.random()");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut restored = restore(&launcher, &snapshot);
        seen.push(restored.says("made"));
        assert_eq!(restored.says("sys.modules['random'] is random"), "True");
        drop(restored.frames);
        let (events, memory) = finish(&restored.sandbox);
        assert!(matches!(events[..], [Event::Exited { code: 7 }]), "{events:?}");
        assert!(memory.unwrap().peak > 0);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "initialised once");
    // The snapshot itself does not hear of anything.
    snapshot.frames.write_all(b"1").unwrap();
    drop(snapshot.frames);
    snapshot.sandbox.kill();
    let mut rest = String::new();
    snapshot.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(finish(&snapshot.sandbox).0.len(), 0);
}

/// What a program can see of its own confinement, one line each.
pub(crate) const CONFINEMENT: &str = "[l.strip() for l in open('/proc/self/status') if l.split(':')[0] in \
    ('Uid','Gid','Groups','CapInh','CapPrm','CapEff','CapBnd','CapAmb','NoNewPrivs','Seccomp', \
    'Seccomp_filters','Threads','TracerPid')], sorted(os.listdir('/proc/self/fd')), \
    sorted(p for p in os.listdir('/proc') if p.isdigit())[0], os.getppid(), os.getcwd(), \
    os.getuid(), os.getgid(), sorted(l.split()[1] for l in open('/proc/self/mounts')), \
    open('/proc/self/oom_score_adj').read(), os.uname().nodename, \
    __import__('resource').getrlimit(7), os.getsid(0) == os.getpid()";

#[test]
fn a_restored_program_is_confined_as_one_that_was_started() {
    let Some(launcher) = able() else { return };
    let mut started = begin(&python(""), |spec, fds| launcher.spawn(spec, fds));
    ready(&started.sandbox);
    assert_eq!(started.line(), "initialised");
    let snapshot = held(&launcher, "import resource");
    let mut restored = restore(&launcher, &snapshot);
    assert_eq!(restored.says(CONFINEMENT), started.says(CONFINEMENT));
}

/// Whether a stack for signals is set, and what the kernel says to who registers restartable sequences
/// (`EBUSY`: there are some) where libc has its own.
const KERNEL_KNOWS: &str = "(s := (ctypes.c_size_t * 3)()) and libc.sigaltstack(None, s), s[1] & 3, \
    libc.syscall(334, ctypes.c_void_p(libc.pthread_self() + \
    ctypes.c_ssize_t.in_dll(libc, '__rseq_offset').value), 32, 0, 0x53053053), ctypes.get_errno()";

#[test]
fn a_restored_program_has_what_the_kernel_knew_of_the_snapshot() {
    let Some(launcher) = able() else { return };
    let init = "import ctypes, faulthandler; faulthandler.enable(); libc = ctypes.CDLL(None, use_errno=True); \
                libc.pthread_self.restype = ctypes.c_void_p";
    let mut started = begin(&python(init), |spec, fds| launcher.spawn(spec, fds));
    ready(&started.sandbox);
    assert_eq!(started.line(), "initialised");
    let snapshot = held(&launcher, init);
    let known = started.says(KERNEL_KNOWS);
    assert!(known.starts_with("(0, 0, -1, "), "{known}");
    assert_eq!(restore(&launcher, &snapshot).says(KERNEL_KNOWS), known);
}

/// What a program tries to do to others, and what it must hear.
pub(crate) const ATTACKS: [(&str, &str); 12] = [
    ("open('/tmp/own', 'w').write('x')", "1"),
    ("open('/dev/shm/own', 'w').write('x')", "1"),
    ("os.mkdir('/var/other')", "OSError(30"),
    ("open('/proc/1/mem', 'rb').read(1)", "PermissionError"),
    ("os.listdir('/proc/1/fd')", "PermissionError"),
    ("os.setuid(0)", "OSError(22"),
    ("open('/proc/sys/kernel/hostname', 'w')", "Error"),
    ("libc.unshare(0x10000000), ctypes.get_errno()", "(-1, 1)"),
    ("libc.setns(os.open('/proc/self/ns/net', 0), 0), ctypes.get_errno()", "(-1, 1)"),
    ("libc.ptrace(16, 1, 0, 0), ctypes.get_errno()", "(-1, 1)"),
    ("libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0), ctypes.get_errno()", "(-1, 1)"),
    ("libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno()", "(-1, 1)"),
];

#[test]
fn a_restored_program_can_do_no_more_than_any() {
    let Some(launcher) = able() else { return };
    let init = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)";
    let snapshot = held(&launcher, init);
    let mut restored = restore(&launcher, &snapshot);
    for (attempt, wanted) in ATTACKS {
        let heard = restored.says(attempt);
        assert!(heard.contains(wanted), "{attempt}: {heard}");
    }
    // Its brother has seen nothing of that.
    let mut brother = restore(&launcher, &snapshot);
    assert_eq!(brother.says("os.listdir('/tmp') + os.listdir('/dev/shm')"), "[]");
    let others =
        "[p for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]";
    assert_eq!(brother.says(others), "[]");
    let network = "os.stat('/proc/self/ns/net').st_ino, os.stat('/proc/self/ns/ipc').st_ino, \
                   os.stat('/proc/self/ns/user').st_ino, os.stat('/proc/self/ns/mnt').st_ino";
    assert_ne!(restored.says(network), brother.says(network));
}

/// Does not wait to be held, but tries what its filter forbids.
const HASTY: &str = "
import ctypes, time
libc, until = ctypes.CDLL(None), time.monotonic() + 1.5
print('initialised', flush=True)
tries = [libc.unshare(0x10000000) for _ in iter(lambda: time.monotonic() < until, False)]
print('broken' if 0 in tries else 'kept', flush=True)
";

#[test]
fn the_filter_applies_until_the_program_stands() {
    let Some(launcher) = able() else { return };
    let (mut running, verdict) = snapshot(&launcher, HASTY);
    assert_eq!(running.line(), "kept");
    verdict.unwrap();
}

/// Has the kernel send it elsewhere, by a restartable sequence (rseq(2)), as soon as it would go on with
/// the instruction of the vDSO that a keeper uses: there a mark is left. Then waits for a frame.
const ELSEWHERE: &str = r"
import ctypes, struct
libc, page, signature = ctypes.CDLL(None), 0x20000000, 0x53053053
libc.pthread_self.restype = ctypes.c_void_p
# Instead of libc's own sequences, which may be registered with either size.
theirs = libc.pthread_self() + ctypes.c_ssize_t.in_dll(libc, '__rseq_offset').value
for size in (32, ctypes.c_uint.in_dll(libc, '__rseq_size').value):
    libc.syscall(334, ctypes.c_void_p(theirs), size, 1, signature)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mmap(page, 4096, 7, 0x32, -1, 0)
line = next(line for line in open('/proc/self/maps') if line.endswith('[vdso]\n'))
begin, end = (int(address, 16) for address in line.split()[0].split('-'))
begin += ctypes.string_at(begin, end - begin).index(bytes.fromhex('0f05'))
put = lambda at, *parts: ctypes.memmove(page + at, b''.join(parts), sum(map(len, parts)))
code = bytes.fromhex
# mov byte [page + 0x700], 1; jmp behind the instruction
put(0x100, struct.pack('<I', signature), code('c60425'), struct.pack('<IB', page + 0x700, 1),
    code('ff2500000000'), struct.pack('<Q', begin + 2))
put(0x200, struct.pack('<IIQQQ', 0, 0, begin, 2, page + 0x104))
registered = libc.syscall(334, ctypes.c_void_p(page + 0x400), 32, 0, signature)
# mov r8, where it is begun; mov r9, the sequence; read(3, page + 0x800, 1), begun just before; ret
put(0x600, code('49b8'), struct.pack('<Q', page + 0x408), code('49b9'), struct.pack('<Q', page + 0x200),
    code('31c0bf0300000048be'), struct.pack('<Q', page + 0x800), code('ba010000004d89080f05c3'))
print('initialised', flush=True)
ctypes.CFUNCTYPE(ctypes.c_long)(page + 0x600)()
print('registered' if registered == 0 else 'refused', ctypes.string_at(page + 0x700, 1)[0], flush=True)
";

#[test]
fn no_sequence_of_the_program_takes_over_from_its_keeper() {
    let Some(launcher) = able() else { return };
    let snapshot = held(&launcher, ELSEWHERE);
    let mut restored = restore(&launcher, &snapshot);
    assert_eq!(restored.says("x"), "registered 0");
}

#[test]
fn what_a_fork_would_break_or_share_is_refused_with_its_reason() {
    let Some(launcher) = able() else { return };
    for (init, reason) in [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
            "threads: 1",
        ),
        ("import socket; s = socket.socket()", "open files or connections: socket:"),
        ("f = open('/etc/../usr/bin/env', 'rb')", "open files or connections: /usr/bin/env"),
        ("import mmap; m = mmap.mmap(-1, 4096)", "shared memory"),
        ("open('/tmp/left', 'w').close()", "files in /tmp: left"),
        ("open('/dev/shm/left', 'w').close()", "files in /dev/shm: left"),
        ("import subprocess; p = subprocess.Popen(['/bin/sleep', '99'])", "other processes"),
        (
            "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.execv('/bin/sleep', ['sleep', '99'])\n    os._exit(0)\nos.wait()",
            "processes",
        ),
    ] {
        let (_, verdict) = snapshot(&launcher, init);
        let why = verdict.unwrap_err();
        assert!(why.contains(reason), "{init}: {why}");
    }
}

#[test]
fn what_a_snapshot_drew_its_process_id_does_not_repeat() {
    let Some(launcher) = able() else { return };
    // OpenSSL knows by it that it was forked.
    let mut snapshot = held(&launcher, "made_as = os.getpid()");
    let mut restored = restore(&launcher, &snapshot);
    assert_eq!(restored.says("made_as == os.getpid()"), "False");
    assert_eq!(restored.says("os.system('exit 3') >> 8"), "3");
    snapshot.sandbox.kill();
    assert!(matches!(finish(&snapshot.sandbox).0[..], []));
    // It ends with the sandbox in which it lies.
    finish(&restored.sandbox);
    let mut line = String::new();
    assert_eq!(snapshot.output.read_line(&mut line).unwrap(), 0);
    assert_eq!(restored.output.read_line(&mut line).unwrap(), 0);
}

#[test]
fn nothing_stays_of_snapshots_when_the_launcher_ends() {
    let Some(launcher) = able() else { return };
    let snapshot = held(&launcher, "");
    let restored = restore(&launcher, &snapshot);
    let pid = launcher.pid();
    let children = move || {
        let file = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(file).map_or(0, |text| text.split_whitespace().count())
    };
    // The two inits and the keeper, at least.
    assert!(children() >= 3, "{}", children());
    launcher.stop();
    eventually("everything has ended", || finish(&restored.sandbox).0.is_empty());
    assert!(finish(&snapshot.sandbox).0.is_empty());
    assert_eq!(children(), 0);
}

#[test]
fn restored_programs_outlive_a_snapshot_that_was_killed() {
    let Some(launcher) = able() else { return };
    let snapshot = held(&launcher, "");
    let children = |pid: u32| {
        let file = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let is_python = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"/usr/bin/python3")
    };
    let below = || children(launcher.pid()).into_iter().flat_map(children);
    eventually("there is a copy", || below().filter(is_python).count() == 2);
    let programs: Vec<u32> = below().filter(is_python).collect();
    // The other is its copy for the next restore.
    let [program, _] = programs[..] else { panic!("{programs:?}") };
    let mut restored = restore(&launcher, &snapshot);
    assert_eq!(restored.says("1 + 1"), "2");
    let program = Pid::from_raw(program.try_into().unwrap()).unwrap();
    kill_process(program, Signal::KILL).unwrap();
    assert!(matches!(next(&snapshot.sandbox), Event::Signaled { signal: 9 }));
    assert_eq!(restored.says("os.system('exit 3') >> 8"), "3");
    let another = begin(&python(""), |spec, fds| launcher.restore(&snapshot.sandbox, spec, fds));
    eventually("there is nothing to fork any more", || {
        matches!(another.sandbox.try_event().unwrap(), Some(Event::Failed { .. } | Event::Gone))
    });
    // Who lets go of the snapshot ends what lies within.
    drop(snapshot);
    assert!(matches!(finish(&restored.sandbox).0[..], []));
}

#[test]
fn only_what_was_meant_for_it_can_be_held_and_restored() {
    let Some(launcher) = able() else { return };
    let mut plain = begin(&python(""), |spec, fds| launcher.spawn(spec, fds));
    ready(&plain.sandbox);
    assert_eq!(plain.line(), "initialised");
    let holding = plain.sandbox.hold(Stance::Alone, &[]).unwrap();
    let verdict = std::cell::RefCell::new(None);
    eventually("a verdict", || {
        *verdict.borrow_mut() = holding.try_verdict().unwrap();
        verdict.borrow().is_some()
    });
    assert!(verdict.take().unwrap().is_err());
    let restored = begin(&python(""), |spec, fds| launcher.restore(&plain.sandbox, spec, fds));
    let (events, _) = finish(&restored.sandbox);
    let [Event::Failed { message }] = &events[..] else { panic!("{events:?}") };
    assert!(message.contains("no such snapshot"), "{message}");
    assert_eq!(plain.says("1 + 1"), "2");
}
