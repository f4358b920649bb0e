//! Where the control groups of this process are, by `/proc/self/cgroup` and `mountinfo`.
//!
//! Reads below a root directory, so that tests can show it other hosts. See cgroups(7).

use std::fs;
use std::path::{Component, Path, PathBuf};

/// A controller that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
    CpuAcct,
    Freezer,
}

impl Controller {
    const ALL: [Self; 5] = [Self::Memory, Self::Pids, Self::Cpu, Self::CpuAcct, Self::Freezer];

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuAcct => "cpuacct",
            Self::Freezer => "freezer",
        }
    }

    fn listed(names: &str, separator: char) -> Vec<Self> {
        let names: Vec<&str> = names.trim().split(separator).collect();
        Self::ALL.into_iter().filter(|controller| names.contains(&controller.name())).collect()
    }
}

/// What kind of host this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    V1,
    V2,
    /// Controllers by v1, with a v2 tree beside them.
    Hybrid,
    None,
}

impl Kind {
    /// The name in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::None => "none",
        }
    }
}

/// One hierarchy and the directories below which our groups may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) v2: bool,
    /// What the hierarchy offers at its top; on v2 a group further down may have less.
    pub(crate) controllers: Vec<Controller>,
    /// The process's own group.
    pub(crate) own: PathBuf,
    /// Where our group may be, best first. On v1 the own group; on v2 also those above it, as a group
    /// that other processes live in cannot be divided. Only the chosen parent, if one was chosen.
    pub(crate) dirs: Vec<PathBuf>,
}

/// All hierarchies of use to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kind: Kind,
    pub(crate) places: Vec<Place>,
}

impl Layout {
    /// Reads the layout of the host below `root`; `parent` replaces the process's own groups.
    pub(crate) fn read(root: &Path, parent: Option<&Path>) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (own, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
        let mut places: Vec<Place> = Vec::new();
        for mount in mounts.lines().filter_map(Mount::parse) {
            let controllers = match mount.controllers {
                Some(names) => Controller::listed(names, ','),
                None => Vec::new(),
            };
            let v2 = mount.controllers.is_none();
            if !v2 && controllers.is_empty() {
                continue;
            }
            let Some(path) = own_path(&own, &mount) else { continue };
            let top = root.join(mount.point.trim_start_matches('/'));
            let own: PathBuf = top.join(below(path, mount.root)).components().collect();
            let dirs: Vec<PathBuf> = match parent {
                Some(parent) => vec![top.join(parent.strip_prefix("/").unwrap_or(parent))],
                None if !v2 => vec![own.clone()],
                None => own_and_above(&own, &top),
            };
            let controllers = if v2 { available(&top) } else { controllers };
            if places.iter().all(|place| place.own != own) {
                places.push(Place { v2, controllers, own, dirs });
            }
        }
        let kind = kind(&places);
        if kind == Kind::Hybrid {
            // The v2 tree freezes and kills better; a second freezer would only cost time.
            places.retain(|place| place.v2 || place.controllers != [Controller::Freezer]);
        }
        Self { kind, places }
    }
}

fn kind(places: &[Place]) -> Kind {
    let v2 = places.iter().any(|place| place.v2);
    match (v2, places.iter().any(|place| !place.v2)) {
        (true, true) => Kind::Hybrid,
        (true, false) => Kind::V2,
        (false, true) => Kind::V1,
        (false, false) => Kind::None,
    }
}

/// Finds a group's path below a mount; the mount's top when the group is outside of what it shows.
fn below<'a>(path: &'a Path, mount_root: &str) -> &'a Path {
    let inside = path.strip_prefix(mount_root).unwrap_or_else(|_| Path::new(""));
    let outside = inside.components().any(|part| part == Component::ParentDir);
    if outside { Path::new("") } else { inside }
}

/// Lists a group and all above it. A server that stepped aside is in a group beside the one for its
/// sandboxes, which therefore begins one higher.
fn own_and_above(own: &Path, top: &Path) -> Vec<PathBuf> {
    let all = own.ancestors().take_while(|dir| dir.starts_with(top));
    all.skip(usize::from(is_aside(own))).map(Path::to_owned).collect()
}

/// Tells which controllers a group of v2 has.
pub(super) fn available(dir: &Path) -> Vec<Controller> {
    let names = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let found = Controller::listed(&names, ' ').into_iter();
    found.filter(|it| !matches!(it, Controller::CpuAcct | Controller::Freezer)).collect()
}

/// Finds the process's own group in the hierarchy of a mount: lines are `id:controllers:path`.
fn own_path<'a>(own: &'a str, mount: &Mount<'_>) -> Option<&'a Path> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let same = match mount.controllers {
            None => id == "0" && names.is_empty(),
            // The mount's options hold more than controllers (`rw`), the line only controllers.
            Some(options) => {
                !names.is_empty()
                    && names.split(',').all(|name| options.split(',').any(|o| o == name))
            }
        };
        same.then(|| Path::new(path))
    })
}

fn is_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("lacewing-") && name.ends_with("-server")
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    /// Super block options of a v1 mount; absent for v2.
    controllers: Option<&'a str>,
}

impl<'a> Mount<'a> {
    /// `id parent major:minor root point options [tags] - type source super-options`
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        match right.next()? {
            "cgroup" => Some(Self { root, point, controllers: Some(right.nth(1)?) }),
            "cgroup2" => Some(Self { root, point, controllers: None }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
