//! A launcher for one test, and short ways to run something in a sandbox of it.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lacewing_sandbox::{
    Cpu, Error, Event, Identity, Isolation, Launcher, LauncherOptions, Limits, MemoryUse, Mount,
    Network, NetworkOptions, Role, Sandbox, ScratchOptions, Spec, TmpFs,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) const UID_BASE: u32 = 1_300_000_000;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_lacewing-sandbox-probe");
static NEXT: AtomicU32 = AtomicU32::new(0);

/// How many times slower than a real processor this host is: `LACEWING_SLOWNESS`, else once.
pub(crate) fn slowness() -> u32 {
    std::env::var("LACEWING_SLOWNESS").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

/// How long to wait for what must come.
fn patience() -> Duration {
    Duration::from_secs(20) * slowness()
}

/// What a program did, start to end.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) events: Vec<Event>,
    pub(crate) output: String,
    pub(crate) memory: Option<MemoryUse>,
}

impl Run {
    pub(crate) fn code(&self) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Exited { code } => Some(*code),
            _ => None,
        })
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Signaled { signal } => Some(*signal),
            _ => None,
        })
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            Event::Failed { message } => Some(message.as_str()),
            _ => None,
        })
    }
}

fn directory_of_probe() -> &'static Path {
    Path::new(PROBE).parent().unwrap()
}

pub(crate) fn options() -> LauncherOptions {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    LauncherOptions {
        owner: format!("test{:07}x{number}", std::process::id()),
        isolation: if root() { Isolation::Required } else { Isolation::BestEffort },
        cpu: Cpu::Hard,
        uid_base: UID_BASE,
        uid_count: 100,
        cgroup_parent: None,
        root: None,
        sources: vec![std::env::temp_dir(), "/usr".into(), directory_of_probe().to_owned()],
        shared: None,
        origins: Vec::new(),
        scratch: Some(ScratchOptions {
            dir: std::env::temp_dir(),
            expected: TmpFs { bytes: 4 * MIB, inodes: 64 },
            most_bytes: u64::MAX,
        }),
        network: NetworkOptions::none(),
        empty: 0,
    }
}

/// Starts a launcher, or says why this host cannot have one.
pub(crate) fn launcher() -> Option<Launcher> {
    launcher_with(&options())
}

pub(crate) fn launcher_with(options: &LauncherOptions) -> Option<Launcher> {
    match Launcher::start(Path::new(PROBE), options) {
        Ok(launcher) => {
            let lacks = launcher.report().missing().map(|feature| feature.name.as_str());
            // An ordinary user has all the rest at best.
            let lacks: Vec<&str> = lacks.filter(|name| *name != "uid-range").collect();
            if lacks.is_empty() {
                return Some(launcher);
            }
            skip(&format!("this host lacks {}", lacks.join(", ")));
        }
        Err(Error::Refused(why)) => skip(&why),
        Err(error) => panic!("{error:?}"),
    }
    None
}

/// Says why a test cannot be run here; where LACEWING_NO_SKIP is set that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("LACEWING_NO_SKIP").is_none(), "skipped: {why}");
    println!("skipped: {why}");
}

/// Whether the tests run with the rights of root.
pub(crate) fn root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn spec(argv: &[&str]) -> Spec {
    Spec {
        name: format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        hostname: "sandbox".to_owned(),
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        mounts: vec![Mount::Bind {
            source: directory_of_probe().to_owned(),
            target: PathBuf::from("/var/lang"),
            exec: true,
        }],
        tmp: TmpFs { bytes: 4 * MIB, inodes: 64 },
        identity: Identity::default(),
        limits: Limits {
            memory_bytes: 64 * MIB,
            pids: 32,
            cpu_weight: 100,
            cpu_quota: None,
            open_files: 1024,
            memlock: 64 * 1024,
            stack: 8 * MIB,
            core: 0,
            nproc: Some(1024),
        },
        listeners: Vec::new(),
        network: Network::None,
        role: Role::Program,
    }
}

pub(crate) fn probe(arguments: &[&str]) -> Spec {
    let mut argv = vec!["/var/lang/lacewing-sandbox-probe"];
    argv.extend(arguments);
    spec(&argv)
}

pub(crate) fn shell(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", script])
}

/// Waits for the next event.
pub(crate) fn next(sandbox: &Sandbox) -> Event {
    let until = Instant::now() + patience();
    loop {
        if let Some(event) = sandbox.try_event().unwrap() {
            return event;
        }
        assert!(Instant::now() < until, "no event came");
        let mut ready = [PollFd::from_borrowed_fd(sandbox.as_fd(), PollFlags::IN)];
        poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
    }
}

/// Waits until a sandbox is built.
pub(crate) fn ready(sandbox: &Sandbox) -> Vec<TcpListener> {
    match next(sandbox) {
        Event::Ready { listeners } => listeners,
        other => panic!("not ready: {other:?}"),
    }
}

/// Starts a program whose output goes to a pipe.
pub(crate) fn start(launcher: &Launcher, spec: &Spec) -> (Sandbox, std::fs::File) {
    let (output, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let errors = end.try_clone().unwrap();
    (launcher.spawn(spec, vec![(end, 1), (errors, 2)]).unwrap(), output.into())
}

/// Runs a program to its end.
pub(crate) fn run(launcher: &Launcher, spec: &Spec) -> Run {
    let (sandbox, mut output) = start(launcher, spec);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let (events, memory) = finish(&sandbox);
    Run { events, output: text.trim_end().to_owned(), memory }
}

/// Collects all events to the end.
pub(crate) fn finish(sandbox: &Sandbox) -> (Vec<Event>, Option<MemoryUse>) {
    let mut events = Vec::new();
    loop {
        match next(sandbox) {
            Event::Gone => return (events, sandbox.memory().ok()),
            event => events.push(event),
        }
    }
}

/// The output of one experiment of the probe, in a sandbox of its own.
pub(crate) fn experiment(launcher: &Launcher, arguments: &[&str]) -> String {
    let ran = run(launcher, &probe(arguments));
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    ran.output
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + patience();
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All cgroup directories of an owner, in every hierarchy.
pub(crate) fn groups(owner: &str) -> Vec<PathBuf> {
    let wanted = format!("lacewing-{owner}");
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        // Groups of others come and go meanwhile.
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.path().components().any(|part| part.as_os_str() == wanted.as_str()) {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

/// Host processes that run as this uid.
pub(crate) fn processes_of(uid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with(&format!("Uid:\t{uid}\t")))
    })
    .collect()
}

pub(crate) type Passed = Vec<(OwnedFd, RawFd)>;
