//! Origins: interpreters that are warm, have never seen a function, and are forked into blank Instances.
//!
//! There is one for each interpreter and account, made when a blank Instance is wanted. What is forked
//! from one shares its address layout and its seed of string hashes, so it is replaced after a number of
//! forks and some time, and serves no second account. Where there can be none the reason is remembered,
//! and blank Instances are started as ever. No function ever runs in one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use lacewing_model::{AccountId, Family};

use crate::blanks::Kind;
use crate::process::Process;
use crate::runtimes::Interpreter;

/// Forks after which it is replaced.
const MOST_FORKS: u32 = 1_000;
/// Age at which it is replaced.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// One that nobody has used for so long goes.
const EXPIRY: Duration = Duration::from_secs(10 * 60);
/// Time until it is tried again where there could be none.
const PENALTY: Duration = Duration::from_secs(10 * 60);
/// Forks that may fail in a row: a busy machine is no reason to give one up.
const MOST_FAILURES: u32 = 3;

/// What only one origin is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    account: AccountId,
    interpreter: Interpreter,
}

impl Key {
    pub(crate) fn of(kind: &Kind) -> Self {
        Self { account: kind.account.clone(), interpreter: kind.interpreter.clone() }
    }
}

/// All origins of a node.
pub(crate) type Origins = Shelf<Process>;

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
    /// Whether one should be made.
    pub(crate) fn wants(&self, key: &Key, now: Instant) -> bool {
        let entries = self.0.lock();
        entries.iter().find(|entry| entry.key == *key).is_none_or(|entry| entry.is_over(now))
    }

    /// Puts one, or the reason why there is none, in the place of the one before.
    pub(crate) fn put(&self, key: Key, made: Result<T, String>, now: Instant) {
        let stands = made.map(Arc::new);
        let entry = Entry { key, made: now, used: now, forks: 0, failures: 0, stands };
        let mut entries = self.0.lock();
        let former: Vec<_> = entries.extract_if(.., |it| it.key == entry.key).collect();
        entries.push(entry);
        drop(entries);
        drop(former);
    }

    /// One to be forked once.
    pub(crate) fn take(&self, key: &Key, now: Instant) -> Option<Arc<T>> {
        let mut entries = self.0.lock();
        let entry = entries.iter_mut().find(|entry| entry.key == *key)?;
        let origin = entry.stands.as_ref().ok().filter(|_| entry.forks < MOST_FORKS)?;
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

/// Whether an interpreter can be an origin: it has capabilities there, so nobody but root may be able to
/// change what it runs.
pub(crate) fn fitness(interpreter: &Interpreter) -> Result<(), String> {
    if interpreter.runtime.family != Family::Python {
        return Err("only Python's interpreters can be forked".to_owned());
    }
    for path in [&interpreter.path, &interpreter.prefix.join("lib")] {
        let path =
            fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some(found) = path.ancestors().find(|part| !is_roots(part)) {
            return Err(format!("somebody else than root can change {}", found.display()));
        }
    }
    Ok(())
}

/// Whether nobody but root can change what is at a place, but for what has a sticky bit around it.
fn is_roots(path: &Path) -> bool {
    const WRITABLE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let is_safe = |mode: u32| mode & WRITABLE == 0 || mode & STICKY != 0;
    fs::symlink_metadata(path).is_ok_and(|found| found.uid() == 0 && is_safe(found.mode()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use lacewing_model::RuntimeId;

    use super::*;

    fn key(minor: u16) -> Key {
        let interpreter = Interpreter {
            runtime: RuntimeId::python(3, minor),
            path: "/usr/bin/python3".into(),
            prefix: "/usr".into(),
            version: "3".to_owned(),
            origin: "/usr".to_owned(),
        };
        Key { account: AccountId::new("123456789012").expect("valid"), interpreter }
    }

    fn shelf(now: Instant) -> Shelf<u32> {
        let shelf = Shelf::default();
        assert!(shelf.wants(&key(12), now) && shelf.take(&key(12), now).is_none());
        shelf.put(key(12), Ok(7), now);
        assert!(!shelf.wants(&key(12), now) && shelf.wants(&key(13), now));
        shelf
    }

    #[test]
    fn one_is_replaced_after_so_many_forks_and_so_much_time() {
        let now = Instant::now();
        let forked = shelf(now);
        let count = std::iter::from_fn(|| forked.take(&key(12), now)).count();
        assert_eq!(u32::try_from(count), Ok(MOST_FORKS));
        assert!(forked.wants(&key(12), now));
        forked.put(key(12), Ok(8), now);
        assert_eq!(forked.take(&key(12), now).as_deref(), Some(&8));
        let old = shelf(now);
        assert!(old.wants(&key(12), now + LIFE + Duration::from_secs(1)));
        assert!(old.take(&key(12), now).is_some(), "it serves until there is another");
    }

    #[test]
    fn what_fails_again_and_again_is_given_up_for_a_while() {
        let now = Instant::now();
        let shelf = shelf(now);
        let fail = || {
            let origin = shelf.take(&key(12), now).expect("it stands");
            shelf.note_failure(&key(12), &origin, "why".to_owned(), now);
        };
        fail();
        fail();
        shelf.note_success(&key(12));
        (0..MOST_FAILURES).for_each(|_| fail());
        assert!(shelf.take(&key(12), now).is_none());
        assert!(!shelf.wants(&key(12), now));
        assert!(shelf.wants(&key(12), now + PENALTY + Duration::from_secs(1)));
    }

    #[test]
    fn a_failure_of_the_one_before_says_nothing_of_the_next() {
        let now = Instant::now();
        let shelf = shelf(now);
        let former = shelf.take(&key(12), now).expect("it stands");
        shelf.put(key(12), Ok(8), now);
        (0..9).for_each(|_| shelf.note_failure(&key(12), &former, "why".to_owned(), now));
        assert!(shelf.take(&key(12), now).is_some());
    }

    #[test]
    fn those_out_of_use_go() {
        let now = Instant::now();
        let shelf = shelf(now);
        shelf.expire(now + EXPIRY);
        assert!(!shelf.wants(&key(12), now));
        shelf.expire(now + EXPIRY + Duration::from_secs(1));
        assert!(shelf.wants(&key(12), now));
        shelf.put(key(12), Ok(1), now);
        shelf.clear();
        assert!(shelf.wants(&key(12), now));
    }

    #[test]
    fn only_what_root_alone_can_change_is_trusted() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("python3");
        fs::write(&file, "").expect("written");
        let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode));
        let is_root = fs::metadata(&file).expect("it is there").uid() == 0;
        for (mode, is_safe) in [(0o755, true), (0o775, false), (0o757, false), (0o1777, true)] {
            set(mode).expect("set");
            assert_eq!(is_roots(&file), is_safe && is_root, "{mode:o}");
        }
        assert!(!is_roots(&directory.path().join("nothing")));
    }
}
