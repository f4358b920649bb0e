//! On v2: a leaf that is divided, so that others can lie within it into which its own user may clone
//! (`CLONE_INTO_CGROUP`, see clone(2)). To move a process afterwards, as v1 is content with, has the
//! kernel wait for a grace period each time.

use std::path::{Path, PathBuf};

use rustix::fs::chown;
use rustix::process::Uid;

use crate::Limits;

use super::{Error, Hierarchy, PROCS, SUBTREE, Tree, make_dir, put, read_pids, settings};

/// What lived in a divided leaf goes here, which is no name that a sandbox may have.
const OWN: &str = "own+";

/// The name of a sandbox's leaves.
#[derive(Clone, Debug)]
pub(crate) struct LeafName {
    pub(crate) name: String,
    /// The divided leaf in which that of v2 lies.
    pub(crate) within: Option<Above>,
}

/// A divided leaf.
#[derive(Clone, Debug)]
pub(crate) struct Above {
    pub(crate) name: String,
    /// Who may clone into those within.
    pub(crate) user: u32,
}

impl From<String> for LeafName {
    fn from(name: String) -> Self {
        Self { name, within: None }
    }
}

impl Hierarchy {
    pub(super) fn dir(&self, leaf: &LeafName) -> PathBuf {
        match leaf.within.as_ref().filter(|_| self.v2) {
            Some(above) => self.group.join(&above.name).join(&leaf.name),
            None => self.group.join(&leaf.name),
        }
    }
}

impl Tree {
    /// Divides a leaf of v2: its processes, which it ends with, get a leaf within it, to which their
    /// limits go; the bound on processor time goes, as nothing will run there.
    pub(crate) fn divide(&self, leaf: &str, limits: &Limits, user: u32) -> Result<(), Error> {
        for hierarchy in self.hierarchies.iter().filter(|it| it.v2) {
            let (dir, controllers) = (hierarchy.group.join(leaf), &hierarchy.controllers);
            let own = dir.join(OWN);
            make_dir(&own)?;
            for pid in read_pids(&dir.join(PROCS)) {
                put(&own.join(PROCS), &pid.as_raw_nonzero().to_string(), false)?;
            }
            for controller in controllers {
                put(&dir.join(SUBTREE), &format!("+{}", controller.name()), false)?;
            }
            for (file, value) in settings::limits(true, controllers, limits) {
                put(&own.join(file.name), &value, file.optional)?;
                put(&dir.join(file.name), "max", file.optional)?;
            }
            for (file, value) in settings::quota(true, controllers, None) {
                put(&dir.join(file.name), &value, file.optional)?;
            }
            give(&dir, user)?;
        }
        Ok(())
    }

    /// Gives a divided leaf the weight of so many like the first of those within.
    pub(crate) fn weigh(&self, leaf: &str, limits: &Limits, count: usize) -> Result<(), Error> {
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        let all = Limits { cpu_weight: limits.cpu_weight.saturating_mul(count), ..*limits };
        for hierarchy in self.hierarchies.iter().filter(|it| it.v2) {
            if let Some((file, value)) = settings::weight(true, &hierarchy.controllers, &all) {
                put(&hierarchy.group.join(leaf).join(file.name), &value, file.optional)?;
            }
        }
        Ok(())
    }
}

/// Lets a user clone into a leaf, or from one within it into another.
pub(super) fn give(dir: &Path, user: u32) -> Result<(), Error> {
    let path = dir.join(PROCS);
    chown(&path, Some(Uid::from_raw(user)), None)
        .map_err(|errno| Error { path, source: errno.into() })
}
