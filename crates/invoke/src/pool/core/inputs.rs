//! What comes from outside: changes of functions, what operators promise to them, the end; and
//! how long it is remembered.

use std::sync::Arc;

use lacewing_model::usage::ColdStart;
use lacewing_model::{AccountId, Function, FunctionKey, Timestamp, VersionKey};

use super::mean::Mean;
use super::permits::{Family, Permits};
use super::{
    Account, CodeState, Command, Core, FamilyId, FunctionId, Held, Keep, Kin, Refusal, TenantId,
    place_of,
};

impl<K: Keep> Core<K> {
    pub(super) fn changed(
        &mut self,
        function: Arc<Function>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(&id) = self.names.get(&function.version_key()) else { return };
        if self.known(id).is_some_and(|entry| entry.is_older_than(&function)) {
            self.renew(id, function, now, todo);
        }
    }

    /// From here on only Instances of this state of the function are used.
    pub(super) fn renew(
        &mut self,
        id: FunctionId,
        function: Arc<Function>,
        now: Timestamp,
        todo: &mut Vec<Command>,
    ) {
        let Some(entry) = self.entry(id) else { return };
        let is_stale = entry.deleted || CodeState::of(&entry.function) != CodeState::of(&function);
        let place = place_of(&function);
        entry.seats = function.config.seats();
        let before = std::mem::replace(&mut entry.function, function);
        entry.deleted = false;
        self.places.remove(&place_of(&before));
        self.places.insert(place, id);
        let Some(entry) = self.entry(id) else { return };
        if is_stale {
            entry.renewed = true;
            entry.open.clear();
            for instance in std::mem::take(&mut entry.idle) {
                self.end_idle(instance, ColdStart::Changed, now, todo);
            }
            self.want(id, now);
        }
    }

    pub(super) fn deleted(&mut self, key: &VersionKey, now: Timestamp, todo: &mut Vec<Command>) {
        let Some(&id) = self.names.get(key) else { return };
        self.promise(id, 0);
        let Some(entry) = self.entry(id) else { return };
        entry.deleted = true;
        entry.ahead = None;
        entry.open.clear();
        for instance in std::mem::take(&mut entry.idle) {
            self.end_idle(instance, ColdStart::Changed, now, todo);
        }
        while self.refuse_first(id, Refusal::Deleted, todo) {}
        self.rest(id);
    }

    pub(super) fn reserve(&mut self, key: &FunctionKey, concurrency: Option<u32>) {
        let (tenant, id) = (self.tenant_of(&key.account), self.family_of(key));
        let account = self.accounts.get_mut(tenant.0);
        if let Some((account, share)) = account.zip(self.shares.get_mut(id.0)) {
            account.permits.reserve(&mut share.family, concurrency);
        }
        self.forget_family(id);
    }

    pub(super) fn limit(&mut self, account: &AccountId, concurrency: u32) {
        let tenant = self.tenant_of(account);
        if let Some(account) = self.accounts.get_mut(tenant.0) {
            account.permits.limit = concurrency;
        }
        self.forget_account(tenant);
    }

    pub(super) fn stop(&mut self, now: Timestamp, todo: &mut Vec<Command>) {
        self.stopping = true;
        let lists = self.functions.iter_mut().map(|(_, entry)| std::mem::take(&mut entry.idle));
        for instance in lists.flatten().collect::<Vec<_>>() {
            self.end_idle(instance, ColdStart::MadeRoom, now, todo);
        }
    }

    // --- What is remembered ---

    pub(super) fn tenant_of(&mut self, id: &AccountId) -> TenantId {
        if let Some(&tenant) = self.tenants.get(id) {
            return tenant;
        }
        let permits = Permits::new(self.config.account_concurrency);
        let tenant = TenantId(self.accounts.insert(Account {
            id: id.clone(),
            permits,
            families: 0,
            held: Held::default(),
            leaving: Held::default(),
            idle: 0,
            duration: Mean::default(),
        }));
        self.tenants.insert(id.clone(), tenant);
        tenant
    }

    pub(super) fn family_of(&mut self, key: &FunctionKey) -> FamilyId {
        if let Some(&id) = self.families.get(key) {
            return id;
        }
        let tenant = self.tenant_of(&key.account);
        if let Some(account) = self.accounts.get_mut(tenant.0) {
            account.families += 1;
        }
        let kin = Kin { function: key.clone(), family: Family::default(), versions: 0 };
        let id = FamilyId(self.shares.insert(kin));
        self.families.insert(key.clone(), id);
        id
    }

    /// A function that has neither Instances nor callers is remembered for what was learned of
    /// it, until there are too many of them or it was deleted.
    pub(super) fn rest(&mut self, id: FunctionId) {
        let Some(entry) = self.entry(id).filter(|entry| entry.is_empty()) else { return };
        if entry.deleted {
            self.forget(id);
        } else if !entry.resting {
            entry.resting = true;
            self.resting.push_back(id);
            while self.resting.len() > self.config.max_known {
                let Some(oldest) = self.resting.pop_front() else { return };
                self.forget(oldest);
            }
        }
    }

    fn forget(&mut self, id: FunctionId) {
        let Some(entry) = self.entry(id) else { return };
        entry.resting = false;
        if !entry.is_empty() || entry.queued || entry.provisioned() > 0 {
            return;
        }
        let entry = self.functions.remove(id.0);
        self.names.remove(&entry.function.version_key());
        self.places.remove(&place_of(&entry.function));
        if let Some(share) = self.shares.get_mut(entry.family.0) {
            share.versions -= 1;
        }
        self.forget_family(entry.family);
    }

    /// Forgets what versions shared, if none is left and nothing is reserved.
    fn forget_family(&mut self, id: FamilyId) {
        let Some(share) = self.shares.get(id.0) else { return };
        if share.versions > 0 || share.family.reserved.is_some() {
            return;
        }
        let function = self.shares.remove(id.0).function;
        self.families.remove(&function);
        let tenant = self.tenant_of(&function.account);
        if let Some(account) = self.accounts.get_mut(tenant.0) {
            account.families -= 1;
        }
        self.forget_account(tenant);
    }

    fn forget_account(&mut self, tenant: TenantId) {
        let Some(account) = self.accounts.get(tenant.0) else { return };
        let is_usual = account.permits.limit == self.config.account_concurrency;
        if account.families == 0 && is_usual {
            let account = self.accounts.remove(tenant.0);
            self.tenants.remove(&account.id);
        }
    }
}
