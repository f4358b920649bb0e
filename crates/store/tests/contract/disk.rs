//! A disk that forgets what was not fsynced, as POSIX allows it to.
//!
//! Content and names are kept twice: as the program sees them and as they would be found after a
//! loss of power. `fsync` of a file moves its content over, `fsync` of a directory its names. When
//! the power goes, either all that was not synced is lost, or, with a seed, some of it survives:
//! any subset of the writes to a file, cut at sectors, and the first few changes of a directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};

use fuser::Errno;
use parking_lot::Mutex;

pub const ROOT: u64 = 1;
const SECTOR: usize = 512;

/// Small, seeded, and good enough to choose with (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

/// The disk.
#[derive(Debug)]
pub struct Disk(Mutex<State>);

#[derive(Clone, Debug)]
pub struct State {
    nodes: HashMap<u64, Node>,
    next: u64,
    /// Bytes that fit.
    pub capacity: usize,
    power: Power,
}

#[derive(Clone, Debug)]
enum Power {
    On,
    /// Goes after so many changes; with the seed of what survives.
    OnFor(usize, Option<u64>),
    /// Gone; this is what is left.
    Off(Box<State>),
}

#[derive(Clone, Debug)]
pub enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
pub struct File {
    pub content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Edit>,
    /// SQLite's shared memory: a file by name only, it means nothing after a crash.
    volatile: bool,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub names: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    /// Each change names all it changes at once, so that a rename is atomic.
    unsynced: Vec<Vec<(OsString, Option<u64>)>>,
}

impl Default for Disk {
    fn default() -> Self {
        let nodes = HashMap::from([(ROOT, Node::Directory(Directory::default()))]);
        let next = ROOT + 1;
        Self(Mutex::new(State { nodes, next, capacity: usize::MAX, power: Power::On }))
    }
}

impl Disk {
    /// Has the power go after `changes` more changes.
    pub fn cut_after(&self, changes: usize, seed: Option<u64>) {
        let mut state = self.0.lock();
        if !matches!(state.power, Power::Off(_)) {
            state.power = Power::OnFor(changes, seed);
        }
    }

    /// The disk as it is found when the power is back; cuts the power if it has not gone yet.
    pub fn after_power_loss(&self, seed: Option<u64>) -> Self {
        let mut state = self.0.lock();
        if !matches!(state.power, Power::Off(_)) {
            state.power = Power::Off(Box::new(state.survivor(seed)));
        }
        match &state.power {
            Power::Off(left) => Self(Mutex::new(State::clone(left))),
            Power::On | Power::OnFor(..) => unreachable!("the power was cut above"),
        }
    }

    pub fn set_free(&self, free: usize) {
        let mut state = self.0.lock();
        state.capacity = state.used().saturating_add(free);
    }

    pub fn read<T>(&self, read: impl FnOnce(&State) -> Result<T, Errno>) -> Result<T, Errno> {
        read(&self.0.lock())
    }

    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.0.lock();
        match &mut state.power {
            Power::Off(_) => return Err(Errno::EIO),
            Power::OnFor(0, seed) => {
                let seed = *seed;
                state.power = Power::Off(Box::new(state.survivor(seed)));
                return Err(Errno::EIO);
            }
            Power::OnFor(left, _) => *left -= 1,
            Power::On => {}
        }
        change(&mut state)
    }

    /// A write; one to a volatile file works without power too.
    pub fn write(&self, node: u64, at: usize, data: &[u8]) -> Result<(), Errno> {
        let volatile = |state: &State| state.file(node).map(|file| file.volatile);
        if self.read(volatile)? {
            return self.0.lock().write(node, at, data);
        }
        self.change(|state| state.write(node, at, data))
    }

    pub fn resize(&self, node: u64, size: usize) -> Result<(), Errno> {
        self.change(|state| {
            let file = state.file_mut(node)?;
            file.content.resize(size, 0);
            file.unsynced.push(Edit::Resize(size));
            Ok(())
        })
    }
}

impl State {
    pub fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::ENOENT)
    }

    pub fn file(&self, node: u64) -> Result<&File, Errno> {
        match self.node(node)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(Errno::EISDIR),
        }
    }

    pub fn directory(&self, node: u64) -> Result<&Directory, Errno> {
        match self.node(node)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.directory(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn create(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<u64, Errno> {
        if self.directory(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let node = self.next;
        self.next += 1;
        let volatile = name.to_string_lossy().ends_with("-shm");
        let made = match directory {
            true => Node::Directory(Directory::default()),
            false => Node::File(File { volatile, ..File::default() }),
        };
        self.nodes.insert(node, made);
        self.edit_names(parent, vec![(name.to_owned(), Some(node))])?;
        Ok(node)
    }

    pub fn unlink(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.lookup(parent, name)?;
        self.edit_names(parent, vec![(name.to_owned(), None)])
    }

    pub fn link(&mut self, node: u64, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.edit_names(parent, vec![(name.to_owned(), Some(node))])
    }

    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let node = self.lookup(from.0, from.1)?;
        let (gone, come) = ((from.1.to_owned(), None), (to.1.to_owned(), Some(node)));
        if from.0 == to.0 {
            return self.edit_names(from.0, vec![gone, come]);
        }
        self.edit_names(to.0, vec![come])?;
        self.edit_names(from.0, vec![gone])
    }

    pub fn sync(&mut self, node: u64) -> Result<(), Errno> {
        match self.nodes.get_mut(&node).ok_or(Errno::ENOENT)? {
            Node::File(file) => {
                let File { synced, unsynced, .. } = file;
                unsynced.drain(..).for_each(|edit| edit.apply(synced));
            }
            Node::Directory(directory) => {
                directory.synced = directory.names.clone();
                directory.unsynced.clear();
            }
        }
        Ok(())
    }

    fn used(&self) -> usize {
        let size = |node: &Node| match node {
            Node::File(file) => file.content.len(),
            Node::Directory(_) => 0,
        };
        self.nodes.values().map(size).sum()
    }

    fn file_mut(&mut self, node: u64) -> Result<&mut File, Errno> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(Errno::ENOENT),
        }
    }

    fn write(&mut self, node: u64, at: usize, data: &[u8]) -> Result<(), Errno> {
        let growth = (at + data.len()).saturating_sub(self.file(node)?.content.len());
        if self.capacity != usize::MAX && growth > 0 && self.used() + growth > self.capacity {
            return Err(Errno::ENOSPC);
        }
        let file = self.file_mut(node)?;
        let edit = Edit::Write(at, data.to_vec());
        edit.clone().apply(&mut file.content);
        if !file.volatile {
            file.unsynced.push(edit);
        }
        Ok(())
    }

    fn edit_names(&mut self, parent: u64, edit: Vec<(OsString, Option<u64>)>) -> Result<(), Errno> {
        let Some(Node::Directory(directory)) = self.nodes.get_mut(&parent) else {
            return Err(Errno::ENOTDIR);
        };
        apply_names(&mut directory.names, &edit);
        directory.unsynced.push(edit);
        Ok(())
    }

    fn survivor(&self, seed: Option<u64>) -> Self {
        let mut dice = seed.map(Dice::new);
        let mut numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        let survive = |number| {
            let left = match &self.nodes[&number] {
                Node::File(file) => Node::File(file.survivor(dice.as_mut())),
                Node::Directory(directory) => Node::Directory(directory.survivor(dice.as_mut())),
            };
            (number, left)
        };
        let nodes = numbers.into_iter().map(survive).collect();
        Self { nodes, next: self.next, capacity: usize::MAX, power: Power::On }
    }
}

impl File {
    fn survivor(&self, dice: Option<&mut Dice>) -> Self {
        let mut content = self.synced.clone();
        if let Some(dice) = dice {
            for edit in &self.unsynced {
                match (dice.below(3), edit) {
                    (0, _) => {}
                    (1, Edit::Write(at, data)) => {
                        let kept = dice.below(data.len() / SECTOR + 1) * SECTOR;
                        Edit::Write(*at, data[..kept].to_vec()).apply(&mut content);
                    }
                    _ => edit.clone().apply(&mut content),
                }
            }
        }
        Self { synced: content.clone(), content, unsynced: Vec::new(), volatile: self.volatile }
    }
}

impl Directory {
    fn survivor(&self, dice: Option<&mut Dice>) -> Self {
        let mut names = self.synced.clone();
        let kept = dice.map_or(0, |dice| dice.below(self.unsynced.len() + 1));
        self.unsynced[..kept].iter().for_each(|edit| apply_names(&mut names, edit));
        Self { synced: names.clone(), names, unsynced: Vec::new() }
    }
}

impl Edit {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(&data);
            }
            Self::Resize(size) => content.resize(size, 0),
        }
    }
}

fn apply_names(names: &mut BTreeMap<OsString, u64>, edit: &[(OsString, Option<u64>)]) {
    for (name, node) in edit {
        match node {
            Some(node) => drop(names.insert(name.clone(), *node)),
            None => drop(names.remove(name)),
        }
    }
}
