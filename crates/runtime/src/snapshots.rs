//! Snapshots: versions of functions that were initialised once, stand, and are forked into each of
//! their Instances.
//!
//! One is made when its version is published, or when it is wanted and there is none; whoever wants
//! it meanwhile waits for the same one. It goes when nobody has used it for a while, and before its
//! credentials expire. It is never used for anything but its version, and of `$LATEST` for nothing but
//! its present state. How many there are is bounded. What cannot be a snapshot is remembered with the reason, and started as ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use uuid::Uuid;

use lacewing_model::{Function, Version};

use crate::process::Process;

/// Most that there are at a time.
const MOST: usize = 16;
/// Most memory that they may hold together.
const MOST_BYTES: u64 = 1 << 30;
/// One that nobody has used for so long goes.
const EXPIRY: Duration = Duration::from_secs(10 * 60);
/// Who can have none is remembered so long, as it is shown to its owner.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What hostile code may have kept of its credentials must outlive the Instances made from it.
const OLDEST: Duration = Duration::from_secs(50 * 60);
/// Restores that may be given up, of one snapshot.
const MOST_FAILURES: u32 = 3;
/// Whose initialisation failed is tried again after so long.
const PENALTY: Duration = Duration::from_secs(60);

/// A version that was initialised and stands.
pub(crate) type Snapshot = Arc<Process>;

/// Why a version has no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It can never have one.
    Unfit(String),
    /// Not now.
    Failed(String),
}

impl Lack {
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Unfit(why) | Self::Failed(why) => why,
        }
    }
}

/// Tells a version from all others, also from those of an earlier function of the same name.
type Key = (Uuid, Version);
type Cell = Arc<OnceCell<Result<Kept, Lack>>>;

/// A snapshot, and the memory that it held when it was made: where its Instances lie within its cgroup
/// what that tells later is theirs as well.
#[derive(Clone, Debug)]
struct Kept {
    snapshot: Snapshot,
    bytes: u64,
}

impl Kept {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.snapshot) > 1
    }
}

#[derive(Debug)]
struct Entry {
    /// Of the function.
    generation: u64,
    made: Instant,
    used: Instant,
    /// Restores that were given up.
    failures: u32,
    cell: Cell,
}

/// All snapshots of a node.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<HashMap<Key, Entry>>);

impl Entry {
    /// Whether it has nothing to give any more.
    fn is_over(&self, now: Instant) -> bool {
        match self.cell.get() {
            None | Some(Err(Lack::Unfit(_))) => false,
            Some(Err(Lack::Failed(_))) => now > self.made + PENALTY,
            Some(Ok(kept)) => now > self.made + OLDEST || !kept.snapshot.is_alive(),
        }
    }

    /// Whether nobody misses it.
    fn is_idle(&self, now: Instant) -> bool {
        let (is_used, most) = match self.cell.get() {
            Some(Ok(kept)) => (kept.is_used(), EXPIRY),
            Some(Err(Lack::Unfit(_))) => (false, MEMORY),
            Some(Err(Lack::Failed(_))) => (false, EXPIRY),
            // Somebody waits for it.
            None => (Arc::strong_count(&self.cell) > 1, EXPIRY),
        };
        !is_used && now > self.used + most
    }
}

impl Snapshots {
    /// The snapshot of a version; made by `make` if there is none.
    pub(crate) async fn get(
        &self,
        function: &Function,
        make: impl Future<Output = Result<Process, Lack>>,
    ) -> Result<Snapshot, Lack> {
        let cell = self.cell(function)?;
        let make = async || {
            let process = make.await?;
            // It has all that it will ever have.
            let bytes = process.memory().current;
            self.make_room(bytes)?;
            Ok(Kept { snapshot: Arc::new(process), bytes })
        };
        cell.get_or_init(make).await.clone().map(|kept| kept.snapshot)
    }

    /// Ends what nobody uses until there is room for so many bytes more.
    fn make_room(&self, bytes: u64) -> Result<(), Lack> {
        let mut entries = self.0.lock();
        let held = entries.iter().filter_map(|(key, entry)| {
            let kept = entry.cell.get()?.as_ref().ok()?;
            let (bytes, is_used) = (kept.bytes, kept.is_used());
            Some(Held { what: *key, bytes, used: entry.used, is_used })
        });
        let Some(unused) = superfluous(held.collect(), bytes) else {
            let most = MOST_BYTES >> 20;
            return Err(Lack::Failed(format!("snapshots would hold more than {most} MB")));
        };
        let ended: Vec<_> = unused.iter().filter_map(|key| entries.remove(key)).collect();
        drop(entries);
        drop(ended);
        Ok(())
    }

    /// Why a version has no snapshot, as far as that is known.
    pub(crate) fn lack(&self, function: &Function) -> Option<String> {
        let entries = self.0.lock();
        let entry = entries.get(&key_of(function))?;
        if entry.generation != function.generation {
            return None;
        }
        entry.cell.get()?.as_ref().err().map(|lack| lack.why().to_owned())
    }

    /// Notes that a restore was given up; after a few of them nobody tries for a while.
    pub(crate) fn note_failure(&self, function: &Function, why: &str) {
        let mut entries = self.0.lock();
        let Some(entry) = entries.get_mut(&key_of(function)) else { return };
        entry.failures += 1;
        if entry.failures >= MOST_FAILURES && matches!(entry.cell.get(), Some(Ok(_))) {
            let lack = Err(Lack::Failed(why.to_owned()));
            let former =
                std::mem::replace(&mut entry.cell, Arc::new(OnceCell::new_with(Some(lack))));
            entry.made = Instant::now();
            drop(entries);
            drop(former);
        }
    }

    /// Ends that of a former state of the function.
    pub(crate) fn renew(&self, function: &Function) {
        let mut entries = self.0.lock();
        let key = key_of(function);
        let is_former = entries.get(&key).is_some_and(|it| it.generation < function.generation);
        let former = if is_former { entries.remove(&key) } else { None };
        drop(entries);
        drop(former);
    }

    /// Ends those that nobody has used for long.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut entries = self.0.lock();
        let old: Vec<Entry> =
            entries.extract_if(|_, entry| entry.is_idle(now)).map(|it| it.1).collect();
        drop(entries);
        drop(old);
    }

    /// Ends all that no Instance stands on.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }

    fn cell(&self, function: &Function) -> Result<Cell, Lack> {
        let (key, generation, now) = (key_of(function), function.generation, Instant::now());
        let mut entries = self.0.lock();
        let is_over = |entry: &Entry| entry.generation < generation || entry.is_over(now);
        if entries.get(&key).is_some_and(is_over) {
            entries.remove(&key);
        }
        if entries.get(&key).is_some_and(|entry| entry.generation > generation) {
            return Err(Lack::Failed("it has changed since".to_owned()));
        }
        if let Some(entry) = entries.get_mut(&key) {
            entry.used = now;
            return Ok(Arc::clone(&entry.cell));
        }
        if entries.values().filter(|it| !matches!(it.cell.get(), Some(Err(_)))).count() >= MOST {
            let unused = entries
                .iter()
                .filter(|(_, entry)| matches!(entry.cell.get(), Some(Ok(kept)) if !kept.is_used()));
            let Some(oldest) = unused.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key)
            else {
                return Err(Lack::Failed(format!("{MOST} versions have a snapshot already")));
            };
            entries.remove(&oldest);
        }
        let cell = Cell::default();
        entries.insert(
            key,
            Entry { generation, made: now, used: now, failures: 0, cell: Arc::clone(&cell) },
        );
        Ok(cell)
    }
}

fn key_of(function: &Function) -> Key {
    (function.lineage, function.version)
}

/// What holds memory.
#[derive(Debug)]
struct Held<T> {
    what: T,
    bytes: u64,
    used: Instant,
    is_used: bool,
}

/// What must go, those used longest ago first, so that there is room for so many bytes; `None` if too
/// much is in use.
fn superfluous<T>(mut held: Vec<Held<T>>, bytes: u64) -> Option<Vec<T>> {
    held.sort_unstable_by_key(|one| one.used);
    let mut total = held.iter().map(|one| one.bytes).sum::<u64>().saturating_add(bytes);
    let mut gone = Vec::new();
    for one in held.into_iter().filter(|one| !one.is_used) {
        if total <= MOST_BYTES {
            break;
        }
        total = total.saturating_sub(one.bytes);
        gone.push(one.what);
    }
    (total <= MOST_BYTES).then_some(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn version(number: u64) -> Function {
        Function { version: Version::Published(number), ..testing::function("python3.12") }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_unfit_is_asked_once_and_who_failed_again() {
        let snapshots = Snapshots::default();
        let unfit = || async { Err(Lack::Unfit("threads".to_owned())) };
        let never = || async { panic!("it was asked again") };
        let why = snapshots.get(&version(1), unfit()).await.expect_err("unfit");
        assert_eq!(why.why(), "threads");
        tokio::time::advance(PENALTY * 2).await;
        snapshots.get(&version(1), never()).await.expect_err("unfit still");
        assert_eq!(snapshots.lack(&version(1)).as_deref(), Some("threads"));
        assert_eq!(snapshots.lack(&version(2)), None);
        let failed = |text: &str| {
            let text = text.to_owned();
            async { Err(Lack::Failed(text)) }
        };
        snapshots.get(&version(2), failed("once")).await.expect_err("failed");
        let again = snapshots.get(&version(2), failed("twice")).await.expect_err("failed");
        assert_eq!(again.why(), "once");
        tokio::time::advance(PENALTY * 2).await;
        let again = snapshots.get(&version(2), failed("twice")).await.expect_err("failed");
        assert_eq!(again.why(), "twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_has_changed_has_another() {
        let of = |generation| Function { generation, ..testing::function("python3.12") };
        let failed = |text: &str| {
            let text = text.to_owned();
            async { Err(Lack::Unfit(text)) }
        };
        let snapshots = Snapshots::default();
        for (generation, why) in [(1, "first"), (2, "second")] {
            let lack = snapshots.get(&of(generation), failed(why)).await.expect_err("unfit");
            assert_eq!(lack.why(), why);
        }
        let late = snapshots.get(&of(1), failed("third")).await.expect_err("it is a former one");
        assert_eq!(late.why(), "it has changed since");
        assert_eq!(snapshots.lack(&of(1)), None);
        assert_eq!(snapshots.lack(&of(2)).as_deref(), Some("second"));
        snapshots.renew(&of(2));
        assert_eq!(snapshots.lack(&of(2)).as_deref(), Some("second"));
        snapshots.renew(&of(3));
        assert_eq!(snapshots.lack(&of(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn those_used_longest_ago_make_room_unless_they_are_in_use() {
        let begin = Instant::now();
        let held = |what, part: u64, age, is_used| {
            let (bytes, used) = (MOST_BYTES / part, begin + Duration::from_secs(age));
            Held { what, bytes, used, is_used }
        };
        let all =
            |first| vec![held("c", 4, 3, false), held("a", 4, 1, first), held("b", 4, 2, false)];
        assert_eq!(superfluous(all(false), MOST_BYTES / 4), Some(vec![]));
        assert_eq!(superfluous(all(false), MOST_BYTES / 4 + 1), Some(vec!["a"]));
        assert_eq!(superfluous(all(true), MOST_BYTES / 2), Some(vec!["b"]));
        assert_eq!(superfluous(all(false), MOST_BYTES), Some(vec!["a", "b", "c"]));
        assert_eq!(superfluous(all(true), MOST_BYTES), None);
        assert_eq!(superfluous(Vec::<Held<()>>::new(), u64::MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_any_more_is_forgotten() {
        let snapshots = Snapshots::default();
        let failed = async { Err(Lack::Unfit("files".to_owned())) };
        snapshots.get(&version(1), failed).await.expect_err("unfit");
        snapshots.expire();
        assert!(snapshots.lack(&version(1)).is_some());
        let failed = async { Err(Lack::Failed("init".to_owned())) };
        snapshots.get(&version(2), failed).await.expect_err("failed");
        tokio::time::advance(EXPIRY * 2).await;
        snapshots.expire();
        assert!(snapshots.lack(&version(2)).is_none());
        assert_eq!(snapshots.lack(&version(1)).as_deref(), Some("files"));
        tokio::time::advance(MEMORY).await;
        snapshots.expire();
        assert!(snapshots.lack(&version(1)).is_none());
    }
}
