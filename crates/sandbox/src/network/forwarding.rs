//! The host's switches for forwarding: turned on where that is allowed, put back at the end.
//!
//! They belong to the whole host. Each launcher that relies on them leaves a note of what it
//! changed; the last one to go puts it back, unless somebody else has rules for forwarding by then.
//! After a launcher was killed its note is found at the next start of the same owner.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::step::{Failure, Step};

use super::netlink::{Batch, Socket, find};
use super::{NetworkOptions, nft, route};

const NOTES: &str = "/run/lacewing/forwarding";
const V4: &str = "/proc/sys/net/ipv4/ip_forward";
const V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// What was changed, and has to be put back.
#[derive(Debug)]
pub(super) struct Forwarding {
    path: PathBuf,
    /// Locked as long as this launcher lives, by which others know that it does.
    _note: File,
}

impl Forwarding {
    /// Sees to it that the host forwards; the second result says so for IPv6.
    pub(super) fn open(
        owner: &str,
        options: &NetworkOptions,
        host: &Socket,
        has_v6: bool,
    ) -> Result<(Self, Result<(), String>), Failure> {
        let notes = notes().step("find the notes on forwarding")?;
        fs::create_dir_all(NOTES).step_of("make", NOTES)?;
        let _all = lock().step("lock the notes on forwarding")?;
        fs::create_dir_all(&notes).step_of("make", notes.display())?;
        let path = notes.join(owner);
        let note = File::options().create(true).append(true).open(&path);
        let note = note.step_of("open", path.display())?;
        flock(&note, FlockOperation::NonBlockingLockExclusive).step_of("lock", path.display())?;
        let v4 = switch(V4, options, &note);
        let v6 = match is_on(V6) {
            _ if !has_v6 => Ok(()),
            false if takes_advertised_route(host) => Err(format!(
                "the host has its default route from router advertisements, which a router \
                 ignores: set accept_ra=2 on that interface and write 1 to {V6}"
            )),
            _ => switch(V6, options, &note),
        };
        let this = Self { path, _note: note };
        match v4 {
            Ok(()) => Ok((this, v6)),
            Err(why) => {
                this.put_back();
                Err(Failure(why))
            }
        }
    }

    /// Puts back what was changed, if nobody else relies on it.
    pub(super) fn close(self) {
        let Ok(_all) = lock() else { return };
        self.put_back();
    }

    fn put_back(self) {
        let Some(notes) = self.path.parent() else { return };
        let mut changed = take(&self.path);
        for other in fs::read_dir(notes).into_iter().flatten().flatten() {
            let other = other.path();
            let Ok(note) = File::options().append(true).open(&other) else { continue };
            if flock(&note, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // Its launcher was killed.
                changed += &take(&other);
            } else {
                // It puts back what is ours to put back.
                (&note).write_all(changed.as_bytes()).ok();
                return;
            }
        }
        fs::remove_dir(notes).ok();
        if foreign_chains().is_empty() {
            changed.lines().for_each(|switch| drop(fs::write(switch, "0")));
        }
    }
}

/// Removes a note; returns what it said.
fn take(note: &Path) -> String {
    let text = fs::read_to_string(note).unwrap_or_default();
    fs::remove_file(note).ok();
    text
}

/// Turns one switch on and notes it, before.
fn switch(path: &str, options: &NetworkOptions, mut note: &File) -> Result<(), String> {
    if is_on(path) {
        return Ok(());
    }
    if !options.may_forward {
        return Err(format!("{path} is 0, and the server was told to leave it: write 1 to it"));
    }
    let done = note.write_all(format!("{path}\n").as_bytes()).and_then(|()| fs::write(path, "1"));
    done.map_err(|error| format!("{path} could not be set: {error}"))
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

/// The directory of notes for this network namespace.
fn notes() -> io::Result<PathBuf> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(Path::new(NOTES).join(namespace.to_string()))
}

/// One for all, on the directory itself.
fn lock() -> io::Result<File> {
    let file = File::open(NOTES)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn takes_advertised_route(host: &Socket) -> bool {
    host.ask(Batch::default().routes6()).is_ok_and(|answers| route::is_advertised(&answers))
}

/// Chains of others at which forwarded packets are dropped unless a rule says otherwise.
pub(super) fn closed_chains() -> Vec<String> {
    foreign_chains().into_iter().filter(|chain| chain.is_closed).map(|chain| chain.name).collect()
}

struct Chain {
    name: String,
    is_closed: bool,
}

/// Chains of others that see forwarded packets.
fn foreign_chains() -> Vec<Chain> {
    const FORWARD: [u8; 4] = 2_u32.to_be_bytes();
    let answers = Socket::netfilter().and_then(|socket| socket.ask(&nft::chains()));
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let mut found = Vec::new();
    for (_, body) in answers.unwrap_or_default() {
        let (Some(family), Some(attributes)) = (body.first(), body.get(4..)) else { continue };
        let part = |kind| find(attributes, kind);
        let (Some(table), Some(name), Some(hook)) = (part(1), part(3), part(4)) else { continue };
        let is_inet = [1, 2, 10].contains(family);
        if is_inet && find(hook, 1) == Some(&FORWARD) && !table.starts_with(b"lacewing-") {
            let name = format!("the chain {} of table {}", text(name), text(table));
            found.push(Chain { name, is_closed: part(5) == Some(&[0; 4]) });
        }
    }
    found
}
