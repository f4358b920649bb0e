//! Where our groups are: as near to the process's own group as they can be limited.
//!
//! On v1 that is the own group. On v2 a group with processes of its own cannot share out controllers
//! (the rule of "no internal processes", cgroups(7)), so of the own group and those above it the
//! first is taken that may be divided with every controller that this host has; else the one that
//! gives most. An ordinary user gets no further than what was delegated to it.
//!
//! It changes nothing but our groups, `cgroup.subtree_control` of their parent, and the place of the
//! server and the launcher when they are alone in that parent.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{getpid, getppid};

use super::layout::{Kind, Layout, Place, available};
use super::{Controller, Error, Lock, PROCS, SUBTREE};
use super::{make_and_lock, make_dir, put, read_pids, remove_dir};

/// Our group in one hierarchy.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) group: PathBuf,
    pub(super) controllers: Vec<Controller>,
    /// Held unless that of another hierarchy is.
    pub(super) lock: Option<Lock>,
    /// Why some controllers are not there.
    pub(super) lacks: Vec<Error>,
}

/// Makes our group where it is best; tells why it cannot be anywhere.
pub(super) fn settle(place: &Place, name: &str, locked: bool) -> Result<Home, Vec<Error>> {
    let (mut homes, mut errors): (Vec<Home>, Vec<Error>) = (Vec::new(), Vec::new());
    for dir in &place.dirs {
        match attempt(place, dir, name, locked) {
            Ok(home) => homes.push(home),
            // Nowhere else either: the other launcher's groups are not ours to end.
            Err(error) if error.is_taken() => {
                for home in &homes {
                    remove_dir(&home.group);
                }
                return Err(vec![error]);
            }
            Err(error) => errors.push(error),
        }
        if homes.last().is_some_and(|it| it.controllers.len() == place.controllers.len()) {
            break;
        }
    }
    // The nearest of those that give most: the last of the greatest, seen from the far end.
    homes.reverse();
    homes.sort_by_key(|home| home.controllers.len());
    let best = homes.pop();
    for home in homes {
        // What a dead server left in it is ended by the sweep.
        remove_dir(&home.group);
    }
    best.ok_or(errors)
}

/// Tells whether this process may divide its own group on v2, with all that the host has: then there
/// is no need to be elsewhere. On v1 another group would not help.
pub(crate) fn own_group_will_do(layout: &Layout) -> bool {
    let place = layout.places.first().filter(|_| layout.kind == Kind::V2);
    let Some((place, dir)) = place.and_then(|place| Some((place, place.dirs.first()?))) else {
        return true;
    };
    let there = available(dir);
    let writable = |file: &&str| access(dir.join(file), Access::WRITE_OK).is_ok();
    // The top of all may have processes and be divided nevertheless.
    let alone =
        place.dirs.len() == 1 || read_pids(&dir.join(PROCS)).iter().all(|pid| *pid == getpid());
    alone
        && [SUBTREE, PROCS].iter().all(writable)
        && place.controllers.iter().all(|controller| there.contains(controller))
}

fn attempt(place: &Place, dir: &Path, name: &str, locked: bool) -> Result<Home, Error> {
    let group = dir.join(name);
    let lock =
        if locked { make_dir(&group).map(|()| None) } else { make_and_lock(&group).map(Some) };
    let mut home =
        Home { lock: lock?, controllers: place.controllers.clone(), lacks: Vec::new(), group };
    if place.v2 {
        if let Err(error) = enterable(&place.own, dir) {
            remove_dir(&home.group);
            return Err(error);
        }
        let there = available(dir);
        home.controllers.retain(|controller| there.contains(controller));
        home.enable(dir);
    }
    Ok(home)
}

impl Home {
    /// Switches controllers on for our leaves, and forgets those for which that fails.
    fn enable(&mut self, parent: &Path) {
        let (group, lacks) = (&self.group, &mut self.lacks);
        self.controllers.retain(|controller| {
            share_out(parent, group, *controller).map_err(|error| lacks.push(error)).is_ok()
        });
    }
}

fn share_out(parent: &Path, group: &Path, controller: Controller) -> Result<(), Error> {
    let value = format!("+{}", controller.name());
    let mut enabled = put(&parent.join(SUBTREE), &value, false);
    if matches!(&enabled, Err(error) if error.is_busy()) {
        // A group with processes of its own cannot share out: move them to a leaf beside ours.
        enabled =
            step_aside(parent, group).and_then(|()| put(&parent.join(SUBTREE), &value, false));
    }
    enabled.and_then(|()| put(&group.join(SUBTREE), &value, false))
}

/// Moves the server and this launcher out of the group that shall have children, if they are alone in it.
fn step_aside(parent: &Path, group: &Path) -> Result<(), Error> {
    let ours = [Some(getpid()), getppid()];
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

/// Tells why processes of ours may not be moved below a group: that takes the right to write
/// `cgroup.procs` of the nearest group that both are in (cgroups(7), "Delegation").
fn enterable(own: &Path, dir: &Path) -> Result<(), Error> {
    let common = own.ancestors().find(|above| dir.starts_with(above)).unwrap_or(dir);
    let procs = common.join(PROCS);
    access(&procs, Access::WRITE_OK).map_err(|errno| Error { path: procs, source: errno.into() })
}
