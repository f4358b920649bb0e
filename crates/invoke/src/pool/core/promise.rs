//! Promises: Instances that are kept ready, whether or not anybody calls.
//!
//! They are started for that and for nothing else, so that a caller never waits for their init phase,
//! which may be long: who finds none ready gets one of his own. They hold up no other start either:
//! no more than half of those that may go on at a time are for promises, these are counted apart, and
//! one that lasts is not counted at all.

use std::sync::Arc;
use std::time::Duration;

use lacewing_model::{Function, FunctionKey, Timestamp, VersionKey};

use super::timers::Alarm;
use super::{Command, Core, Entry, Failed, FunctionId, InstanceId, Keep, Phase, Provided, Slot};

/// How long after a start for nobody has failed the next one is tried, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(320));

/// How long a start counts against those that may go on at a time.
const BURST: Duration = Duration::from_secs(10);

/// What one version is promised, and has of it.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// How many.
    pub(super) wanted: usize,
    /// How many there are, those that are being started included.
    pub(super) live: usize,
    /// How many are being started.
    pub(super) starting: usize,
    /// How many starts have failed since one succeeded, and why the last one did.
    failures: u32,
    failed: Option<Failed>,
    /// After a start has failed: not before this moment again.
    retry: Option<Timestamp>,
}

impl Promise {
    /// One more is being started.
    pub(super) fn begin(&mut self) {
        self.live += 1;
        self.starting += 1;
        self.retry = None;
    }

    /// One is ready.
    pub(super) fn kept(&mut self) {
        self.failures = 0;
        self.failed = None;
    }
}

impl<K: Keep> Core<K> {
    pub(super) fn provision(
        &mut self,
        function: Arc<Function>,
        instances: u32,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let id = self.entry_of(function, now, todo);
        self.promise(id, instances);
        self.want(id, now);
        // Those that were held by a promise may go now.
        self.put_in_rank(id, now);
        self.watch_all(id, now);
        self.rest(id);
    }

    pub(super) fn promise(&mut self, id: FunctionId, instances: u32) {
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let wanted = usize::try_from(instances).unwrap_or(usize::MAX);
        if entry.promise.wanted != wanted {
            // Whoever asks anew wants it tried at once.
            let Promise { live, starting, .. } = entry.promise;
            entry.promise = Promise { wanted, live, starting, ..Promise::default() };
        }
        let account = self.accounts.get_mut(entry.tenant.0);
        if let Some((account, share)) = account.zip(self.shares.get_mut(entry.family.0)) {
            account.permits.provision(&mut share.family, &mut entry.quota, instances);
        }
    }

    /// Whether the version should have one more Instance ready than it has or gets.
    pub(super) fn is_short(&self, entry: &Entry<K::History>, now: Timestamp) -> bool {
        !self.stopping
            && entry.promise.live < entry.provisioned()
            && entry.promise.retry.is_none_or(|retry| now >= retry)
    }

    /// Whether as many are being started for promises as may be.
    pub(super) fn has_promises_enough(&self) -> bool {
        self.readying - self.lasting >= self.starts.most().div_ceil(2)
    }

    /// One is being started from now on.
    pub(super) fn note_readying(&mut self, instance: InstanceId, now: Timestamp) {
        self.readying += 1;
        self.lasts.push_back((now.plus(BURST), instance));
    }

    /// It is ready, or failed.
    pub(super) fn note_readied(&mut self, lasted: bool) {
        self.readying -= 1;
        self.lasting -= usize::from(lasted);
    }

    /// Time has passed for those that are being started.
    pub(super) fn note_lasting(&mut self, now: Timestamp) {
        let is_due = |(due, _): &mut (Timestamp, InstanceId)| *due <= now;
        while let Some((_, instance)) = self.lasts.pop_front_if(is_due) {
            let Some(slot) = self.instances.get_mut(&instance) else { continue };
            if let Phase::Starting = slot.phase {
                slot.lasts = true;
                self.lasting += 1;
            }
        }
    }

    /// Whether an idle Instance must stay because it was promised.
    pub(super) fn is_kept(&self, instance: InstanceId) -> bool {
        let Some(slot) = self.instances.get(&instance) else { return false };
        self.known(slot.function).is_some_and(|entry| entry.keeps(slot))
    }

    /// A start for a promise has failed: it is tried again, less and less often.
    pub(super) fn promise_failed(&mut self, id: FunctionId, why: Failed, now: Timestamp) {
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        let wait = AGAIN.0.saturating_mul(1 << entry.promise.failures.min(6)).min(AGAIN.1);
        entry.promise.failures += 1;
        entry.promise.failed = Some(why);
        let due = now.plus(wait);
        entry.promise.retry = Some(due);
        if entry.queue_due.is_none_or(|before| before > due) {
            entry.queue_due = Some(self.timers.set(Alarm::Queue(id), due, now));
        }
    }

    /// How the promise to a version is kept.
    pub fn provided(&self, version: &VersionKey) -> Provided {
        let entry = self.names.get(version).and_then(|id| self.known(*id));
        let Some(promise) = entry.map(|entry| &entry.promise) else { return Provided::default() };
        let ready = u32::try_from(promise.live - promise.starting).unwrap_or(u32::MAX);
        Provided { ready, failed: promise.failed }
    }

    /// The versions of a function that are promised something.
    pub fn promised(&self, function: &FunctionKey) -> Vec<VersionKey> {
        let share = self.families.get(function).and_then(|id| self.shares.get(id.0));
        if share.is_none_or(|share| share.family.provisioned() == 0) {
            return Vec::new();
        }
        let entries = self.functions.iter().map(|(_, entry)| entry);
        let own =
            entries.filter(|entry| entry.provisioned() > 0 && entry.function.key == *function);
        own.map(|entry| entry.function.version_key()).collect()
    }
}

impl<H> Entry<H> {
    /// Whether an idle Instance of it must stay because it was promised.
    pub(super) fn keeps(&self, slot: &Slot) -> bool {
        slot.provided && self.promise.live <= self.provisioned()
    }

    /// Instances that are kept ready, whether or not anybody calls.
    pub(super) fn provisioned(&self) -> usize {
        if self.deleted { 0 } else { self.promise.wanted }
    }
}
