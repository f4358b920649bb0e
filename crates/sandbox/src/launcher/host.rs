//! The launcher's start: its socket, its mount namespace, its cgroups, and what the host can do.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::epoll;
use rustix::fs::Mode;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit, umask};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

use crate::cgroup::{self, Layout, Tree};
use crate::network::{Begun, Lack, NameSockets, Namespace, Pool, Router};
use crate::probe::{self, Findings};
use crate::root::Template;
use crate::scratch::{self, InMemory, Scratch};
use crate::sources::Sources;
use crate::spec::Role;
use crate::step::{Failure, Step};
use crate::wire::{Greeting, MESSAGE_LIMIT, Request, Status, receive};
use crate::{
    Identity, Isolation, LauncherOptions, Limits, Network, Report, Spec, TmpFs, root, seccomp, sys,
};

use super::{State, Stock, Uids, Wanted};

/// Takes the control socket from standard input and reads the options from it.
pub(super) fn control() -> Result<(OwnedFd, LauncherOptions), Failure> {
    let control = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).step("take the control socket")?;
    let null = fs::File::open("/dev/null").step("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).step("replace standard input")?;
    let mut buffer = vec![0; MESSAGE_LIMIT];
    match receive(control.as_fd(), &mut buffer, RecvFlags::empty()).step("read the options")? {
        Some((Request::Options(options), _)) => Ok((control, *options)),
        _ => Err(Failure("no options came".to_owned())),
    }
}

/// Cleans what a dead launcher left, prepares everything and tries it once.
pub(super) fn open(
    options: LauncherOptions,
) -> Result<(State, Report, Option<NameSockets>), Greeting> {
    sys::block_stop_signals().map_err(|error| error.to_string())?;
    // What a function makes others may read, as on Lambda; whoever started the server is no matter.
    umask(Mode::from_raw_mode(0o022));
    let mut sources = Sources::resolve(&options.sources)
        .map_err(|error| format!("a directory to bind from cannot be used: {error}"))?;
    let root = is_root();
    let layout = Layout::read(Path::new("/"), options.cgroup_parent.as_deref());
    let (tree, lacks) = Tree::open(&layout, &options.owner);
    if lacks.iter().any(cgroup::Error::is_taken) {
        return Err(Greeting::Taken);
    }
    let left = tree.sweep();
    if !left.is_empty() {
        let left = left[0].display();
        return Err(format!("could not end what an earlier server left in {left}").into());
    }
    raise_open_files();
    let moved = own_mounts(root);
    if let (true, Ok(()), Some(shared)) = (root, &moved, &options.shared) {
        let copy = root::preserve(shared).map_err(|Failure(message)| message)?;
        sources.keep(shared, copy);
    }
    let maker = scratch(root, &options);
    let (scratch, in_memory) = match maker.and_then(Scratch::proven) {
        Ok(scratch) => (Some(scratch), None),
        Err(why) => (None, Some(why)),
    };
    let landlock = sys::landlock_version();
    // Before the template covers a part of /sys: a user may only mount what is seen whole.
    let Ways { pool, names, egress } = match root {
        true => root_network(&options)?,
        false => user_network(&options),
    };
    let prepared = moved.and_then(|()| Template::prepare(options.root.as_deref()));
    let (template, prepared) = match prepared {
        Ok(template) => (Some(template), Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    let isolation = options.isolation;
    let mut state = State {
        root,
        landlock: landlock > 0,
        filter: seccomp::default_program()?,
        template,
        sources,
        uids: Uids::new(options.uid_base, options.uid_count),
        events: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?,
        running: std::collections::HashMap::new(),
        stock: Stock::new(options.empty),
        short: Vec::new(),
        leaving: Vec::new(),
        scratch,
        pool,
        options,
        tree,
    };
    let trial = prepared.and_then(|()| state.trial()).map_err(|Failure(message)| message);
    let report = probe::report(&Findings {
        kind: layout.kind,
        root,
        uid_range: state.options.uid_base > 0 && state.options.uid_count > 0,
        landlock,
        trial,
        in_memory,
        cgroup_lacks: lacks.iter().map(|lack| lack.to_string()).collect(),
        tree: &state.tree,
        egress,
    });
    if isolation == Isolation::Required && !report.is_full() {
        state.end();
        return Err(probe::refusal(&report).into());
    }
    Ok((state, report, names))
}

/// What namespaces for sandboxes are taken from, and the way out.
struct Ways {
    pool: Option<Pool>,
    names: Option<NameSockets>,
    /// What is in force of the way out, or why there is none.
    egress: Result<String, Lack>,
}

impl Ways {
    fn of(home: Namespace, opened: Result<(Router, NameSockets), Lack>) -> Self {
        match opened {
            Ok((router, names)) => {
                let detail = router.detail();
                let pool = Pool::new(home, Some(router));
                Self { pool: Some(pool), names: Some(names), egress: Ok(detail) }
            }
            Err(lack) => Self { pool: Some(Pool::new(home, None)), names: None, egress: Err(lack) },
        }
    }
}

/// Refuses where the configuration wants no way out.
fn wanted(options: &LauncherOptions) -> Result<(), Lack> {
    match options.network.mode {
        Network::Egress => Ok(()),
        Network::None => Err(Lack::new("the configuration allows none", "Set `[network] mode`.")),
    }
}

/// The way out as root, by the host's forwarding.
fn root_network(options: &LauncherOptions) -> Result<Ways, String> {
    let home = Namespace::current().map_err(|error| error.to_string())?;
    let opened =
        wanted(options).and_then(|()| Router::open(&home, &options.owner, &options.network));
    Ok(Ways::of(home, opened))
}

/// The way out of an ordinary user, who can only come back to namespaces of its own: the host's is
/// left once and for all.
fn user_network(options: &LauncherOptions) -> Ways {
    let begun = wanted(options).and_then(|()| Begun::new());
    match Namespace::leave().step("make a network namespace") {
        Ok(home) => {
            let open = |begun| Router::open_by_pasta(&home, begun, &options.network);
            let opened = begun.and_then(open);
            Ways::of(home, opened)
        }
        // Where none can be made ahead, each sandbox makes its own or says better what is lacking.
        Err(failure) => {
            let lack = begun.err().unwrap_or_else(|| failure.into());
            Ways { pool: None, names: None, egress: Err(lack) }
        }
    }
}

impl State {
    /// Builds a whole sandbox without a program, to see that it can be done.
    fn trial(&mut self) -> Result<(), Failure> {
        let (status, inside) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step("socketpair")?;
        let small = TmpFs { bytes: 1 << 20, inodes: 16 };
        let tmp = self.options.scratch.as_ref().map_or(small, |scratch| scratch.expected);
        let wanted = Wanted { spec: Box::new(trial_spec(tmp)), status: inside, fds: Vec::new() };
        self.build(0, &wanted).map_err(Failure)?;
        drop(wanted);
        // Nobody is like it.
        self.stock = Stock::new(self.options.empty);
        let mut buffer = vec![0; 4096];
        let mut ended = Err(Failure("the trial sandbox ended without a word".to_owned()));
        loop {
            match receive(status.as_fd(), &mut buffer, RecvFlags::empty()).step("read status")? {
                Some((Status::Ready { .. } | Status::Furnished, _)) => {}
                Some((Status::Ended { .. }, _)) => ended = Ok(()),
                Some((Status::Failed { message }, _)) => ended = Err(Failure(message)),
                None => break,
            }
        }
        while !self.running.is_empty() || !self.leaving.is_empty() {
            for token in self.wait(None).step("wait for the trial")? {
                self.ended(token);
            }
        }
        ended
    }
}

/// Starts the maker of `/tmp` directories, or tells why they are in memory.
fn scratch(root: bool, options: &LauncherOptions) -> Result<Scratch, InMemory> {
    match (&options.scratch, scratch::lack()) {
        (None, _) => Err(InMemory::Chosen),
        (Some(_), _) if !root => Err(InMemory::NotRoot),
        (Some(_), Some(remedy)) => Err(InMemory::Lacks(remedy)),
        (Some(wanted), None) => Scratch::start(wanted.clone()),
    }
}

fn trial_spec(tmp: TmpFs) -> Spec {
    Spec {
        name: "trial".to_owned(),
        hostname: "trial".to_owned(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        mounts: Vec::new(),
        tmp,
        identity: Identity::default(),
        limits: Limits {
            memory_bytes: 64 << 20,
            pids: 8,
            cpu_weight: 100,
            cpu_quota: None,
            open_files: 64,
            memlock: 0,
            stack: 1 << 20,
            core: 0,
            nproc: None,
        },
        listeners: vec![9002],
        network: Network::Egress,
        role: Role::Program,
    }
}

fn is_root() -> bool {
    let able = capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID)
    });
    geteuid().is_root() && able
}

/// Leaves the host's mount namespace; without root by a user namespace in which we are 0.
fn own_mounts(root: bool) -> Result<(), Failure> {
    if root {
        return sys::unshare(UnshareFlags::NEWNS).step("unshare mounts");
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).step("unshare user and mounts")?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1\n")),
        ("gid_map", format!("0 {gid} 1\n")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).step_of("write", file)?;
    }
    Ok(())
}

/// Each sandbox holds three descriptors here.
fn raise_open_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    // With fewer there are fewer sandboxes, and the one too many is told so.
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).ok();
}
