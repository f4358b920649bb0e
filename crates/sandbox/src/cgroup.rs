//! Control groups: one leaf for each sandbox in every hierarchy that this host has.
//!
//! Leaves are made as `<parent>/lacewing-<owner>/<name>`, where the parent is the launcher's own
//! group or the nearest above it that will do ([`home`]), so that limits on the server as a whole
//! stay in force. v1, v2 and hybrid hosts differ in [`layout`] (where things are) and in
//! [`settings`] (which file says what).
//!
//! Nothing outside `lacewing-<owner>` is changed, except that on v2 controllers must be switched on
//! in the parent.

mod division;
mod home;
pub(crate) mod layout;
mod settings;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, stat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::wire::Gauge;
use crate::{CpuQuota, Limits};

pub(crate) use division::{Above, LeafName};
pub(crate) use home::own_group_will_do;
pub(crate) use layout::{Controller, Kind, Layout};

/// All our groups on this host.
#[derive(Debug)]
pub(crate) struct Tree {
    hierarchies: Vec<Hierarchy>,
    /// Groups of an earlier launcher of this owner, which had its home elsewhere.
    strays: Vec<PathBuf>,
    /// Held as long as this launcher lives: the next one of this owner waits for its end.
    lock: Option<Lock>,
}

/// What keeps other launchers of the same owner away.
#[derive(Debug)]
struct Lock {
    _group: OwnedFd,
    /// The group's list of processes, locked until this launcher begins to end: tells the next one
    /// that there is no end to be waited for.
    serving: Option<OwnedFd>,
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
    /// What says how much of the processors it gets, where that can be said.
    pub(crate) weight: Option<Weight>,
    /// What the server reads.
    pub(crate) gauges: Vec<(Gauge, OwnedFd)>,
}

/// How a process gets into a leaf.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Files of v1 to which it writes `0`.
    pub(crate) joins: Vec<OwnedFd>,
    /// The v2 directory into which it is cloned.
    pub(crate) into: Option<OwnedFd>,
}

/// The open file of a leaf that says how much of the processors it gets. A sandbox builds itself with
/// the usual weight, so that whoever waits for it does not wait longer the less its program may
/// have; the program begins with its own.
#[derive(Debug)]
pub(crate) struct Weight {
    v2: bool,
    file: OwnedFd,
}

impl AsFd for Weight {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Weight {
    /// Puts the weight of a program in force.
    pub(crate) fn set(&self, limits: &Limits) -> io::Result<()> {
        let text = settings::weight(self.v2, &[Controller::Cpu], limits).map(|(_, text)| text);
        rustix::io::write(&self.file, text.unwrap_or_default().as_bytes())?;
        Ok(())
    }
}

/// A file or directory of a group could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {}: {source}", path.display())]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// Whether the group belongs to another launcher of the same owner.
    pub(crate) fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock
    }
}

impl Tree {
    /// Makes our group in each hierarchy where that is possible; tells why it is not elsewhere.
    pub(crate) fn open(layout: &Layout, owner: &str) -> (Self, Vec<Error>) {
        let mut tree = Self { hierarchies: Vec::new(), strays: Vec::new(), lock: None };
        let (mut lacks, name) = (Vec::new(), format!("lacewing-{owner}"));
        for place in &layout.places {
            tree.strays.extend(place.dirs.iter().map(|dir| dir.join(&name)));
            match home::settle(place, &name, tree.lock.is_some()) {
                Ok(home) => {
                    lacks.extend(home.lacks);
                    tree.lock = tree.lock.or(home.lock);
                    let (controllers, group) = (home.controllers, home.group);
                    tree.hierarchies.push(Hierarchy { v2: place.v2, controllers, group });
                }
                Err(why) => lacks.extend(why),
            }
        }
        let used = |stray: &PathBuf| tree.hierarchies.iter().any(|it| it.group == *stray);
        tree.strays.retain(|stray| !used(stray) && stray.is_dir());
        (tree, lacks)
    }

    /// Tells whether a controller's limits can be set.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Makes a leaf in each hierarchy and sets its limits, all but its weight.
    pub(crate) fn make(&self, name: &LeafName, limits: &Limits) -> Result<Leaf, Error> {
        let mut leaf = Leaf::default();
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.dir(name);
            fs::create_dir(&dir).map_err(|source| Error { path: dir.clone(), source })?;
            for (file, value) in settings::limits(hierarchy.v2, &hierarchy.controllers, limits) {
                put(&dir.join(file.name), &value, file.optional)?;
            }
            if hierarchy.controllers.contains(&Controller::Cpu) {
                let name = if hierarchy.v2 { "cpu.weight" } else { "cpu.shares" };
                let file = open(&dir.join(name), OpenOptions::new().write(true))?;
                leaf.weight = Some(Weight { v2: hierarchy.v2, file });
            }
            if hierarchy.v2 {
                leaf.into = Some(open_dir(&dir)?);
                if let Some(above) = &name.within {
                    division::give(&dir, above.user)?;
                }
            } else {
                leaf.joins.push(open(&dir.join("tasks"), OpenOptions::new().write(true))?);
            }
            for (gauge, file) in settings::gauges(hierarchy.v2, &hierarchy.controllers) {
                let is_written = matches!(gauge, Gauge::Freeze | Gauge::FreezerState);
                let how = OpenOptions::new().read(!is_written).write(is_written).clone();
                match open(&dir.join(file.name), &how) {
                    Ok(fd) => leaf.gauges.push((gauge, fd)),
                    Err(error) if !file.optional => return Err(error),
                    Err(_) => {}
                }
            }
        }
        Ok(leaf)
    }

    /// Opens what a process needs to get into a leaf by itself.
    pub(crate) fn ways_into(&self, name: &LeafName) -> Result<Ways, Error> {
        let mut ways = Ways::default();
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.dir(name);
            if hierarchy.v2 {
                ways.into = Some(open_dir(&dir)?);
            } else {
                ways.joins.push(open(&dir.join("tasks"), OpenOptions::new().write(true))?);
            }
        }
        Ok(ways)
    }

    /// Changes the limits of a leaf from what they are to others, all but its weight.
    pub(crate) fn limit(&self, name: &LeafName, from: &Limits, to: &Limits) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.dir(name);
            for (file, value) in settings::change(hierarchy.v2, &hierarchy.controllers, from, to) {
                put(&dir.join(file.name), &value, file.optional)?;
            }
        }
        Ok(())
    }

    /// Changes the weight of a leaf.
    pub(crate) fn set_weight(&self, name: &LeafName, limits: &Limits) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            let (v2, controllers) = (hierarchy.v2, &hierarchy.controllers);
            if let Some((file, value)) = settings::weight(v2, controllers, limits) {
                put(&hierarchy.dir(name).join(file.name), &value, file.optional)?;
            }
        }
        Ok(())
    }

    /// Changes the hard bound on processor time of a leaf.
    pub(crate) fn set_quota(&self, name: &LeafName, quota: Option<CpuQuota>) -> Result<(), Error> {
        for hierarchy in &self.hierarchies {
            for (file, value) in settings::quota(hierarchy.v2, &hierarchy.controllers, quota) {
                put(&hierarchy.dir(name).join(file.name), &value, file.optional)?;
            }
        }
        Ok(())
    }

    /// Thaws a leaf: a process frozen by v1 does not die of a signal.
    pub(crate) fn thaw(&self, name: &LeafName) {
        let freezes = |it: &&Hierarchy| !it.v2 && it.controllers.contains(&Controller::Freezer);
        for hierarchy in self.hierarchies.iter().filter(freezes) {
            thaw(&hierarchy.dir(name));
        }
    }

    /// Removes the leaves of a name; `false` when one is still busy and must be tried again.
    pub(crate) fn remove(&self, name: &LeafName) -> bool {
        let mut done = true;
        for hierarchy in &self.hierarchies {
            done &= remove_with_those_within(&hierarchy.dir(name));
        }
        done
    }

    /// Kills and removes every leaf that a dead server left; tells what could not be removed.
    pub(crate) fn sweep(&self) -> Vec<PathBuf> {
        let groups = self.hierarchies.iter().map(|hierarchy| &hierarchy.group).chain(&self.strays);
        let leaves: Vec<PathBuf> = groups.flat_map(|group| children(group)).collect();
        let within: Vec<PathBuf> = leaves.iter().flat_map(|leaf| children(leaf)).collect();
        let mut left = [within, leaves].concat();
        // After what is in them.
        left.extend(self.strays.iter().cloned());
        let until = Instant::now() + Duration::from_secs(5);
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

    /// Tells a launcher that waits for our groups that it will get them.
    pub(crate) fn give_notice(&mut self) {
        if let Some(serving) = self.lock.as_mut().and_then(|lock| lock.serving.take()) {
            // What was forked of us may still have it open.
            flock(&serving, FlockOperation::Unlock).ok();
        }
    }

    /// Removes our groups, which must be empty.
    pub(crate) fn dismantle(&self) {
        // The first is the locked one, so it goes last: who gets the lock next finds nothing of ours.
        for hierarchy in self.hierarchies.iter().rev() {
            remove_dir(&hierarchy.group);
        }
    }
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
/// in this very group: its lock goes with it. One that serves is not waited for, but for the time
/// that it may take to see that its server has died.
fn make_and_lock(group: &Path) -> Result<Lock, Error> {
    const SERVING: Duration = Duration::from_secs(3);
    const ENDING: Duration = Duration::from_secs(15);
    let error = |source| Error { path: group.to_owned(), source };
    let begun = Instant::now();
    loop {
        make_dir(group)?;
        // The directory may be removed between any two of these steps: then begin again.
        if let Ok(held) = open_dir(group) {
            let locked = flock(&held, FlockOperation::NonBlockingLockExclusive);
            let (mine, there) = (fstat(&held), stat(group));
            match (locked, mine, there) {
                (Ok(()), Ok(mine), Ok(there)) if mine.st_ino == there.st_ino => {
                    return Ok(Lock { _group: held, serving: lock_processes(group).ok() });
                }
                (Err(Errno::WOULDBLOCK), ..) => {
                    let waited = begun.elapsed();
                    let is_serving =
                        || lock_processes(group).is_err_and(|error| error == Errno::WOULDBLOCK);
                    if waited > ENDING || (waited > SERVING && is_serving()) {
                        return Err(error(Errno::WOULDBLOCK.into()));
                    }
                }
                (Ok(()), ..) => {}
                (Err(errno), ..) => return Err(error(errno.into())),
            }
        }
        sleep(Duration::from_millis(5));
    }
}

fn lock_processes(group: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(group.join(PROCS), flags, Mode::empty())?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn remove_dir(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A divided leaf has at least one within it.
fn remove_with_those_within(path: &Path) -> bool {
    remove_dir(path) || (children(path).iter().all(|leaf| remove_dir(leaf)) && remove_dir(path))
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
    // On v2 one write ends all, also those that fork faster than we read; since Linux 5.14.
    if put(&leaf.join("cgroup.kill"), "1", false).is_ok() {
        return;
    }
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
