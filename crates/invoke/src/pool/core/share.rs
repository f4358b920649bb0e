//! Shares: what one function, and one account, may have of the Instances and their memory.
//!
//! A share is asked before the room of the node is: who has all of its own waits for its own, and
//! holds up nobody behind it in the line.

use lacewing_model::usage::ColdStart;
use lacewing_model::{ByteSize, Timestamp};

use super::{Command, Core, FunctionId, InstanceId, Keep, Phase, Refusal, Share};

/// What a function or an account has, Instances that start or end included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) instances: usize,
    pub(super) memory: ByteSize,
}

impl Held {
    /// Whether one more Instance that needs so much memory is within the share.
    fn fits(self, reserve: ByteSize, share: Share) -> bool {
        let fits = self.memory.saturating_add(reserve) <= share.memory;
        self.instances == 0 || (self.instances < share.instances && fits)
    }

    pub(super) fn add(&mut self, memory: ByteSize) {
        self.instances += 1;
        self.memory = self.memory.saturating_add(memory);
    }

    pub(super) fn remove(&mut self, memory: ByteSize) {
        self.instances = self.instances.saturating_sub(1);
        self.memory = self.memory.saturating_sub(memory);
    }

    pub(super) fn change(&mut self, from: ByteSize, to: ByteSize) {
        self.memory = self.memory.saturating_sub(from).saturating_add(to);
    }
}

impl<K: Keep> Core<K> {
    /// Which share, if any, keeps the function from another Instance.
    pub(super) fn lacking(&self, id: FunctionId) -> Option<Refusal> {
        let entry = self.known(id)?;
        let reserve = self.reserve_of(id);
        let account = self.accounts.get(entry.tenant.0)?;
        if !entry.held.fits(reserve, self.config.function_share) {
            Some(Refusal::FunctionShare)
        } else if !account.held.fits(reserve, self.config.account_share) {
            Some(Refusal::AccountShare)
        } else {
            None
        }
    }

    /// Ends as many idle Instances of the function's account as it takes for the account's share,
    /// longest idle first: what they had comes back with `Retired`.
    pub(super) fn make_share(&mut self, id: FunctionId, now: Timestamp, todo: &mut Vec<Command>) {
        let reserve = self.reserve_of(id);
        for (_, instance) in self.idle_of_account(id) {
            let account = self.known(id).and_then(|own| self.accounts.get(own.tenant.0));
            let Some(account) = account else { return };
            let left = Held {
                instances: account.held.instances - account.leaving.instances,
                memory: account.held.memory.saturating_sub(account.leaving.memory),
            };
            if left.fits(reserve, self.config.account_share) {
                return;
            }
            if !self.is_kept(instance) {
                self.retire_idle(instance, ColdStart::MadeRoom, now, todo);
            }
        }
    }

    /// The idle Instances of the function's account, longest idle first.
    fn idle_of_account(&self, id: FunctionId) -> Vec<(Timestamp, InstanceId)> {
        let tenant = self.known(id).map(|entry| entry.tenant);
        let account = tenant.and_then(|tenant| self.accounts.get(tenant.0));
        if account.is_none_or(|account| account.idle == 0) {
            return Vec::new();
        }
        let own = self.functions.iter().filter(|(_, entry)| Some(entry.tenant) == tenant);
        let idle = own.flat_map(|(_, entry)| &entry.idle).filter_map(|instance| {
            let slot = self.instances.get(instance)?;
            let Phase::Idle { since, .. } = slot.phase else { return None };
            Some((since, *instance))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle
    }

    /// Whether an Instance of `id` that ends would help `other`, who is in the line.
    pub(super) fn would_help(&self, id: FunctionId, other: FunctionId) -> bool {
        let tenant = |id| self.known(id).map(|entry| entry.tenant);
        match self.lacking(other) {
            None => true,
            Some(Refusal::AccountShare) => tenant(id) == tenant(other),
            Some(_) => false,
        }
    }

    /// Changes what the function and its account are said to have.
    pub(super) fn hold(&mut self, id: FunctionId, change: impl Fn(&mut Held)) {
        let Some(entry) = self.functions.get_mut(id.0) else { return };
        change(&mut entry.held);
        if let Some(account) = self.accounts.get_mut(entry.tenant.0) {
            change(&mut account.held);
        }
    }

    /// Counts one idle Instance more or less.
    pub(super) fn note_idle(&mut self, id: FunctionId, is_more: bool) {
        let tenant = self.known(id).map(|entry| entry.tenant);
        let account = tenant.and_then(|tenant| self.accounts.get_mut(tenant.0));
        let of_account = account.map(|account| &mut account.idle);
        for count in [Some(&mut self.counts.idle), of_account].into_iter().flatten() {
            if is_more {
                *count += 1;
            } else {
                *count -= 1;
            }
        }
    }
}
