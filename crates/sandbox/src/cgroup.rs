//! Control groups: one leaf for each sandbox in every hierarchy that this host has.
//!
//! Leaves are made as `<parent>/lacewing-<owner>/<name>`, where the parent is the launcher's own
//! group, so that limits on the server as a whole stay in force. v1, v2 and hybrid hosts differ in
//! [`layout`] (where things are) and in [`settings`] (which file says what).
//!
//! Nothing outside `lacewing-<owner>` is changed, except that on v2 controllers must be switched on
//! in the parent.

pub(crate) mod layout;
mod settings;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat, stat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::wire::Gauge;
use crate::{CpuQuota, Limits};

pub(crate) use layout::{Controller, Kind, Layout};

/// All our groups on this host.
#[derive(Debug)]
pub(crate) struct Tree {
    hierarchies: Vec<Hierarchy>,
    /// Held as long as this launcher lives: the next one of this owner waits for its end.
    _lock: Option<OwnedFd>,
}

/// One hierarchy with what we use of it.
#[derive(Debug)]
struct Hierarchy {
    v2: bool,
    controllers: Vec<Controller>,
    /// `<parent>/lacewing-<owner>`.
    group: PathBuf,
}

/// A new leaf: what its first process and its observers need.
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    /// Files of v1 to which the process writes `0` to join by itself.
    pub(crate) joins: Vec<OwnedFd>,
    /// The v2 directory into which the process is cloned.
    pub(crate) into: Option<OwnedFd>,
    /// What the server reads.
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
}

/// A file or directory of a group could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {}: {source}", path.display())]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Tree {
    /// Makes our group in each hierarchy where that is possible; tells why it is not elsewhere.
    pub(crate) fn open(layout: &Layout, owner: &str) -> (Self, Vec<Error>) {
        let (mut hierarchies, mut failed, mut lock) = (Vec::new(), Vec::new(), None);
        for place in &layout.places {
            let group = place.dir.join(format!("lacewing-{owner}"));
            let mut controllers = place.controllers.clone();
            let made = match lock {
                Some(_) => make_dir(&group),
                None => make_and_lock(&group).map(|held| lock = Some(held)),
            };
            if let Err(error) = made {
                failed.push(error);
                continue;
            }
            if place.v2 && !controllers.is_empty() {
                controllers = enable(&place.dir, &group, &controllers, &mut failed);
            }
            hierarchies.push(Hierarchy { v2: place.v2, controllers, group });
        }
        (Self { hierarchies, _lock: lock }, failed)
    }

    /// Tells whether a controller's limits can be set.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Makes a leaf in each hierarchy and sets its limits.
    pub(crate) fn make(
        &self,
        name: &str,
        limits: &Limits,
        quota: Option<CpuQuota>,
    ) -> Result<Leaf, Error> {
        let mut leaf = Leaf::default();
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.group.join(name);
            fs::create_dir(&dir).map_err(|source| Error { path: dir.clone(), source })?;
            for (file, value) in settings::limits(hierarchy.v2, &hierarchy.controllers, limits) {
                put(&dir.join(file.name), &value, file.optional)?;
            }
            let hard =
                quota.map(|it| settings::quota(hierarchy.v2, &hierarchy.controllers, Some(it)));
            for (file, value) in hard.unwrap_or_default() {
                put(&dir.join(file.name), &value, file.optional)?;
            }
            if hierarchy.v2 {
                leaf.into = Some(open_dir(&dir)?);
            } else {
                leaf.joins.push(open(&dir.join("tasks"), OpenOptions::new().write(true))?);
            }
            for (gauge, file) in settings::gauges(hierarchy.v2, &hierarchy.controllers) {
                match open(&dir.join(file.name), OpenOptions::new().read(true)) {
                    Ok(fd) => leaf.gauges.push((gauge, fd)),
                    Err(error) if !file.optional => return Err(error),
                    Err(_) => {}
                }
            }
        }
        Ok(leaf)
    }

    /// Changes the hard bound on processor time of a leaf.
    pub(crate) fn set_quota(&self, name: &str, quota: Option<CpuQuota>) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            for (file, value) in settings::quota(hierarchy.v2, &hierarchy.controllers, quota) {
                put(&hierarchy.group.join(name).join(file.name), &value, file.optional)?;
            }
        }
        Ok(())
    }

    /// Thaws a leaf: a process frozen by v1 does not die of a signal.
    pub(crate) fn thaw(&self, name: &str) {
        for hierarchy in &self.hierarchies {
            thaw(&hierarchy.group.join(name));
        }
    }

    /// Removes the leaves of a name; `false` when one is still busy and must be tried again.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let mut done = true;
        for hierarchy in &self.hierarchies {
            done &= remove_dir(&hierarchy.group.join(name));
        }
        done
    }

    /// Kills and removes every leaf that a dead server left; tells what could not be removed.
    pub(crate) fn sweep(&self) -> Vec<PathBuf> {
        let leaves: Vec<PathBuf> =
            self.hierarchies.iter().flat_map(|hierarchy| children(&hierarchy.group)).collect();
        let until = Instant::now() + Duration::from_secs(5);
        let mut left = leaves;
        while !left.is_empty() {
            for leaf in &left {
                thaw(leaf);
                kill_all(leaf);
            }
            left.retain(|leaf| !remove_dir(leaf));
            if Instant::now() > until {
                break;
            }
            if !left.is_empty() {
                sleep(Duration::from_millis(2));
            }
        }
        left
    }

    /// Removes our groups, which must be empty.
    pub(crate) fn dismantle(&self) {
        // The first is the locked one, so it goes last: who gets the lock next finds nothing of ours.
        for hierarchy in self.hierarchies.iter().rev() {
            remove_dir(&hierarchy.group);
        }
    }
}

/// Switches v2 controllers on for our leaves; returns those that are.
fn enable(
    parent: &Path,
    group: &Path,
    wanted: &[Controller],
    failed: &mut Vec<Error>,
) -> Vec<Controller> {
    let mut on = Vec::new();
    for controller in wanted {
        let value = format!("+{}", controller.name());
        let mut enabled = put(&parent.join(SUBTREE), &value, false);
        if matches!(&enabled, Err(error) if error.is_busy()) {
            // A group with processes of its own cannot share out: move them to a leaf beside ours.
            enabled =
                step_aside(parent, group).and_then(|()| put(&parent.join(SUBTREE), &value, false));
        }
        match enabled.and_then(|()| put(&group.join(SUBTREE), &value, false)) {
            Ok(()) => on.push(*controller),
            Err(error) => failed.push(error),
        }
    }
    on
}

/// Moves the server and this launcher out of the group that shall have children, if they are alone in it.
fn step_aside(parent: &Path, group: &Path) -> Result<(), Error> {
    let ours = [Some(rustix::process::getpid()), rustix::process::getppid()];
    let pids = read_pids(&parent.join(PROCS));
    if pids.iter().any(|pid| !ours.contains(&Some(*pid))) {
        let source =
            io::Error::other("other processes live in this group; delegate one of its own");
        return Err(Error { path: parent.to_owned(), source });
    }
    let mut aside = group.as_os_str().to_owned();
    aside.push("-server");
    let aside = PathBuf::from(aside);
    make_dir(&aside)?;
    pids.iter()
        .try_for_each(|pid| put(&aside.join(PROCS), &pid.as_raw_nonzero().to_string(), false))
}

const SUBTREE: &str = "cgroup.subtree_control";
const PROCS: &str = "cgroup.procs";

impl Error {
    fn is_busy(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EBUSY)
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|source| Error { path: path.to_owned(), source }),
    }
}

/// Makes a group and locks it. An earlier launcher of this owner may still be ending what it had,
/// in this very group: its lock goes with it.
fn make_and_lock(group: &Path) -> Result<OwnedFd, Error> {
    let error = |source| Error { path: group.to_owned(), source };
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        make_dir(group)?;
        // The directory may be removed between any two of these steps: then begin again.
        if let Ok(held) = open_dir(group) {
            let locked = flock(&held, FlockOperation::NonBlockingLockExclusive);
            let (mine, there) = (fstat(&held), stat(group));
            match (locked, mine, there) {
                (Ok(()), Ok(mine), Ok(there)) if mine.st_ino == there.st_ino => return Ok(held),
                (Err(Errno::WOULDBLOCK), ..) if Instant::now() > until => {
                    return Err(error(io::Error::other("another launcher of this owner lives")));
                }
                (Ok(()) | Err(Errno::WOULDBLOCK), ..) => {}
                (Err(errno), ..) => return Err(error(errno.into())),
            }
        }
        sleep(Duration::from_millis(5));
    }
}

fn remove_dir(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

fn thaw(leaf: &Path) {
    // Only v1 needs it and only its freezer has this file; elsewhere there is nothing to do.
    put(&leaf.join("freezer.state"), "THAWED", true).ok();
}

fn kill_all(leaf: &Path) {
    for pid in read_pids(&leaf.join(PROCS)) {
        // It may have ended since; the caller looks again.
        kill_process(pid, Signal::KILL).ok();
    }
}

fn read_pids(file: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

fn put(path: &Path, value: &str, optional: bool) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    match written {
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| Error { path: path.to_owned(), source }),
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<OwnedFd, Error> {
    options.open(path).map(File::into).map_err(|source| Error { path: path.to_owned(), source })
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY))
}

#[cfg(test)]
mod tests;
