//! Origins: interpreters that are warm, have never seen a function, and are forked into blank Instances.
//!
//! There is one for each interpreter and account, and for Node.js each size of its heap, made when a function that it suits comes into use. What is forked
//! from one shares its address layout and its seed of string hashes, so it is replaced after a number of
//! forks and some time, and serves no second account. Where there can be none the reason is remembered,
//! and blank Instances are started as ever. No function ever runs in one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use lacewing_model::{AccountId, Family, RuntimeId};
use lacewing_sandbox::OriginProgram;

use crate::blanks::Kind;
use crate::environment;
use crate::layout::Layout;
use crate::process::Origin;
use crate::runtimes::{Interpreter, Runtimes};
use crate::starter::Options;

/// Directories of packages.
const PACKAGES: [&str; 2] = ["site-packages", "dist-packages"];
/// Most that there are at a time.
const MOST: usize = 16;
/// Forks after which it is replaced.
const MOST_FORKS: u32 = 1_000;
/// Age at which it is replaced.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// One that nobody has used for so long goes.
const EXPIRY: Duration = Duration::from_secs(10 * 60);
/// Where there are as many as there may be, one that nobody has used for so long makes room.
const REST: Duration = Duration::from_secs(60);
/// Time until it is tried again where there could be none.
const PENALTY: Duration = Duration::from_secs(10 * 60);
/// Forks that may fail in a row: a busy machine is no reason to give one up.
pub(crate) const MOST_FAILURES: u32 = 3;

/// What only one origin is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    account: AccountId,
    interpreter: Interpreter,
    memory_mb: Option<u32>,
}

impl Key {
    pub(crate) fn of(Kind { account, interpreter, memory_mb, .. }: &Kind) -> Self {
        let (account, interpreter) = (account.clone(), interpreter.clone());
        Self { account, interpreter, memory_mb: *memory_mb }
    }
}

/// All origins of a node.
pub(crate) type Origins = Shelf<Origin>;

/// Which program of the launcher's an interpreter is forked from, or why it cannot be.
pub(crate) type Programs = BTreeMap<RuntimeId, Result<usize, String>>;

/// What stands, or why there is none, by its key.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Mutex<Vec<Entry<T>>>);

#[derive(Debug)]
struct Entry<T> {
    key: Key,
    made: Instant,
    used: Instant,
    forks: u32,
    /// In a row.
    failures: u32,
    stands: Result<Arc<T>, String>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Entry<T> {
    /// Whether another should take its place.
    fn is_over(&self, now: Instant) -> bool {
        let most = if self.stands.is_ok() { LIFE } else { PENALTY };
        self.forks >= MOST_FORKS || now > self.made + most
    }
}

impl<T> Shelf<T> {
    /// How many stand.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().iter().filter(|entry| entry.stands.is_ok()).count()
    }

    /// Whether one should be made.
    pub(crate) fn wants(&self, key: &Key, is_alive: fn(&T) -> bool, now: Instant) -> bool {
        let entries = self.0.lock();
        match entries.iter().find(|entry| entry.key == *key) {
            Some(it) => it.is_over(now) || it.stands.as_ref().is_ok_and(|it| !is_alive(it)),
            None => entries.len() < MOST || entries.iter().any(|it| now > it.used + REST),
        }
    }

    /// Puts one, or the reason why there is none, in the place of the one before.
    pub(crate) fn put(&self, key: Key, made: Result<T, String>, now: Instant) {
        let stands = made.map(Arc::new);
        let entry = Entry { key, made: now, used: now, forks: 0, failures: 0, stands };
        let mut entries = self.0.lock();
        let former: Vec<_> = entries.extract_if(.., |it| it.key == entry.key).collect();
        let oldest = entries.iter().enumerate().min_by_key(|(_, it)| it.used).map(|(at, _)| at);
        let surplus = oldest.filter(|_| entries.len() >= MOST).map(|at| entries.swap_remove(at));
        entries.push(entry);
        drop(entries);
        drop((former, surplus));
    }

    /// One to be forked once.
    pub(crate) fn take(&self, key: &Key, is_alive: fn(&T) -> bool, now: Instant) -> Option<Arc<T>> {
        let mut entries = self.0.lock();
        let entry = entries.iter_mut().find(|entry| entry.key == *key)?;
        let origin =
            entry.stands.as_ref().ok().filter(|it| entry.forks < MOST_FORKS && is_alive(it))?;
        let origin = Arc::clone(origin);
        entry.used = now;
        entry.forks += 1;
        Some(origin)
    }

    /// Notes that a fork lives.
    pub(crate) fn note_success(&self, key: &Key) {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
            entry.failures = 0;
        }
    }

    /// Notes that one could not be forked.
    pub(crate) fn note_failure(&self, key: &Key, origin: &Arc<T>, why: String, now: Instant) {
        let mut entries = self.0.lock();
        let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) else { return };
        if !entry.stands.as_ref().is_ok_and(|present| Arc::ptr_eq(present, origin)) {
            return;
        }
        entry.failures += 1;
        if entry.failures >= MOST_FAILURES {
            entry.made = now;
            let former = std::mem::replace(&mut entry.stands, Err(why));
            drop(entries);
            drop(former);
        }
    }

    /// Ends those that nobody has used for long.
    pub(crate) fn expire(&self, now: Instant) {
        let mut entries = self.0.lock();
        let old: Vec<_> = entries.extract_if(.., |it| now > it.used + EXPIRY).collect();
        drop(entries);
        drop(old);
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}

/// What can be an origin, in the launcher's order, and where each interpreter is in it.
///
/// An origin has capabilities, so nobody but root may be able to change what it runs. It is looked at while
/// nothing hostile can speak through the server.
pub(crate) fn programs(
    options: &Options,
    runtimes: &Runtimes,
    layout: &Layout,
) -> (Vec<OriginProgram>, Programs) {
    let (mut programs, mut places) = (Vec::new(), Programs::new());
    let data_dir = options.run_dir.parent().and_then(|dir| fs::canonicalize(dir).ok());
    let data_dir = data_dir.unwrap_or_default();
    for interpreter in runtimes.list() {
        let fit = fitness(options.forks, options.has_own_root, &data_dir, &interpreter);
        let place = fit.map(|()| {
            let environment = environment::blank(interpreter.runtime, options.endpoint_port);
            programs.push(layout.origin(&interpreter, environment));
            programs.len() - 1
        });
        places.insert(interpreter.runtime, place);
    }
    (programs, places)
}

/// The program of a kind.
pub(crate) fn program_of(kind: &Kind, programs: &Programs) -> Result<usize, String> {
    let unknown = || Err("it was not there at the start".to_owned());
    programs.get(&kind.interpreter.runtime).cloned().unwrap_or_else(unknown)
}

/// Sees that an interpreter can be an origin where the configuration wants forks, and with a tree for
/// sandboxes that is the host's or not; otherwise tells why not. What lies in the data directory cannot.
///
/// # Errors
/// The reason, in words.
pub fn fitness(
    forks: bool,
    has_own_root: bool,
    data_dir: &Path,
    interpreter: &Interpreter,
) -> Result<(), String> {
    if !forks {
        return Err("the configuration wants each interpreter to be started".to_owned());
    }
    if !rustix::process::geteuid().is_root() || !cfg!(target_arch = "x86_64") {
        return Err("it takes a server of root and an x86-64 processor".to_owned());
    }
    if has_own_root {
        return Err("it takes the host's own programs".to_owned());
    }
    let own = [&interpreter.path, &interpreter.prefix].map(fs::canonicalize);
    if own.iter().flatten().any(|path| path.starts_with(data_dir)) {
        return Err("it lies where the server writes".to_owned());
    }
    let only_roots = |path: &Path| match changed_by_others(path) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(format!("somebody else than root can change {}", found.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    only_roots(&interpreter.path)?;
    let library = interpreter.prefix.join("lib");
    if interpreter.runtime.family == Family::Python {
        let (major, minor) = interpreter.runtime.version;
        only_roots(&library.join(format!("python{major}.{minor}")))?;
    }
    if library.exists() {
        // Libraries lie in it, and in those of the system what nobody could change without its directory.
        let entries = fs::read_dir(&library).map_err(|error| error.to_string())?;
        let libraries =
            entries.flatten().filter(|it| it.file_name().as_bytes().starts_with(b"lib"));
        libraries
            .map(|it| it.path())
            .filter(|it| !it.is_dir())
            .try_for_each(|it| only_roots(&it))?;
        only_ancestors(&library)?;
    }
    Ok(())
}

fn only_ancestors(path: &Path) -> Result<(), String> {
    let path = fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match path.ancestors().find(|part| !is_roots(part, true)) {
        Some(found) => Err(format!("somebody else than root can change {}", found.display())),
        None => Ok(()),
    }
}

/// What somebody else than root can change of a file or of a directory with all that is in it, but for the
/// packages that an interpreter without `site` does not look at.
fn changed_by_others(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = fs::canonicalize(path)?;
    let above = path.ancestors().skip(1).find(|part| !is_roots(part, true));
    if let Some(found) = above {
        return Ok(Some(found.to_owned()));
    }
    let mut waiting = vec![path];
    while let Some(next) = waiting.pop() {
        if !is_roots(&next, false) {
            return Ok(Some(next));
        }
        if !fs::symlink_metadata(&next)?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&next)? {
            let name = entry?.file_name();
            if !PACKAGES.iter().any(|packages| name == *packages) {
                waiting.push(next.join(name));
            }
        }
    }
    Ok(None)
}

/// Whether nobody but root can change what is at a place; what is above it others may write to where they
/// cannot replace what is not theirs.
fn is_roots(path: &Path, is_above: bool) -> bool {
    const WRITABLE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let mode = found.mode();
    let is_safe = found.is_symlink() || mode & WRITABLE == 0 || (is_above && mode & STICKY != 0);
    found.uid() == 0 && is_safe
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(minor: u16) -> Key {
        let interpreter = Interpreter {
            runtime: RuntimeId::python(3, minor),
            path: "/usr/bin/python3".into(),
            prefix: "/usr".into(),
            version: "3".to_owned(),
            origin: "/usr".to_owned(),
        };
        Key {
            account: AccountId::new("123456789012").expect("valid"),
            interpreter,
            memory_mb: None,
        }
    }

    fn shelf(now: Instant) -> Shelf<u32> {
        let shelf = Shelf::default();
        assert!(
            shelf.wants(&key(12), |_| true, now) && shelf.take(&key(12), |_| true, now).is_none()
        );
        shelf.put(key(12), Ok(7), now);
        assert!(!shelf.wants(&key(12), |_| true, now) && shelf.wants(&key(13), |_| true, now));
        shelf
    }

    #[test]
    fn one_is_replaced_after_so_many_forks_and_so_much_time() {
        let now = Instant::now();
        let forked = shelf(now);
        let count = std::iter::from_fn(|| forked.take(&key(12), |_| true, now)).count();
        assert_eq!(u32::try_from(count), Ok(MOST_FORKS));
        assert!(forked.wants(&key(12), |_| true, now));
        forked.put(key(12), Ok(8), now);
        assert_eq!(forked.take(&key(12), |_| true, now).as_deref(), Some(&8));
        let old = shelf(now);
        assert!(old.wants(&key(12), |_| true, now + LIFE + Duration::from_secs(1)));
        assert!(old.take(&key(12), |_| true, now).is_some(), "it serves until there is another");
    }

    #[test]
    fn what_fails_again_and_again_is_given_up_for_a_while() {
        let now = Instant::now();
        let shelf = shelf(now);
        let fail = || {
            let origin = shelf.take(&key(12), |_| true, now).expect("it stands");
            shelf.note_failure(&key(12), &origin, "why".to_owned(), now);
        };
        fail();
        fail();
        shelf.note_success(&key(12));
        (0..MOST_FAILURES).for_each(|_| fail());
        assert!(shelf.take(&key(12), |_| true, now).is_none());
        assert!(!shelf.wants(&key(12), |_| true, now));
        assert!(shelf.wants(&key(12), |_| true, now + PENALTY + Duration::from_secs(1)));
    }

    #[test]
    fn a_failure_of_the_one_before_says_nothing_of_the_next() {
        let now = Instant::now();
        let shelf = shelf(now);
        let former = shelf.take(&key(12), |_| true, now).expect("it stands");
        shelf.put(key(12), Ok(8), now);
        (0..9).for_each(|_| shelf.note_failure(&key(12), &former, "why".to_owned(), now));
        assert!(shelf.take(&key(12), |_| true, now).is_some());
    }

    #[test]
    fn those_in_use_make_no_room() {
        let now = Instant::now();
        let shelf = shelf(now);
        for minor in 100..u16::try_from(MOST).expect("few") + 99 {
            shelf.put(key(minor), Ok(1), now);
        }
        assert_eq!((shelf.count(), shelf.wants(&key(13), |_| true, now)), (MOST, false));
        let later = now + REST + Duration::from_secs(1);
        assert!(shelf.take(&key(12), |_| true, later).is_some());
        assert!(shelf.wants(&key(13), |_| true, later));
        shelf.put(key(13), Ok(2), later);
        assert!(shelf.count() == MOST && shelf.take(&key(12), |_| true, later).is_some());
    }

    #[test]
    fn those_out_of_use_go() {
        let now = Instant::now();
        let shelf = shelf(now);
        shelf.expire(now + EXPIRY);
        assert!(!shelf.wants(&key(12), |_| true, now));
        shelf.expire(now + EXPIRY + Duration::from_secs(1));
        assert!(shelf.wants(&key(12), |_| true, now));
        shelf.put(key(12), Ok(1), now);
        shelf.clear();
        assert!(shelf.wants(&key(12), |_| true, now));
    }

    #[test]
    fn only_what_root_alone_can_change_is_trusted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let library = directory.path().join("lib");
        let module = library.join("json/decoder.py");
        fs::create_dir_all(library.join("json")).expect("made");
        fs::create_dir_all(library.join("site-packages")).expect("made");
        fs::write(&module, "").expect("written");
        fs::write(library.join("site-packages/own.py"), "").expect("written");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        };
        set(&library.join("site-packages/own.py"), 0o777);
        let changed = || changed_by_others(&library).expect("looked at");
        assert_eq!(changed(), None);
        for (path, mode) in [
            (module.clone(), 0o664),
            (module.clone(), 0o646),
            (library.join("json"), 0o1777),
            (library.clone(), 0o775),
            (directory.path().to_owned(), 0o777),
        ] {
            let former = fs::metadata(&path).expect("it is there").mode();
            set(&path, mode);
            assert_eq!(changed().as_deref(), Some(path.as_path()), "{mode:o}");
            set(&path, former);
        }
        set(directory.path(), 0o1777);
        assert_eq!(changed(), None, "others cannot replace what is not theirs");
        std::os::unix::fs::chown(&module, Some(1000), None).expect("given away");
        assert_eq!(changed(), Some(module));
        assert!(changed_by_others(&library.join("nothing")).is_err());
    }

    #[test]
    fn a_dead_one_is_replaced_and_not_forked() {
        let now = Instant::now();
        let shelf = shelf(now);
        assert!(shelf.take(&key(12), |_| false, now).is_none());
        assert!(shelf.wants(&key(12), |_| false, now));
    }
}
