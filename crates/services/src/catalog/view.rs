//! One consistent state of the catalog: persistent maps, cheap to copy and to change.
//!
//! A version, an alias, a concurrency or a provision shows only beside the function that it was made for: what a deleted
//! function left behind is never seen, also if another function has the name by now.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use lacewing_model::{
    AccountId, Alias, ByteSize, Function, FunctionKey, FunctionName, Qualifier, Region, Result,
    Version, VersionKey,
};
use lacewing_store::{Key, Record};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::reader::Reader;
use crate::functions::AccountUsage;
use crate::record;
use crate::record::concurrency::Concurrency;
use crate::record::provisioned::Provision;

/// What there is.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    latest: RedBlackTreeMapSync<FunctionKey, Arc<Function>>,
    published: RedBlackTreeMapSync<VersionKey, Arc<Function>>,
    aliases: RedBlackTreeMapSync<(FunctionKey, Arc<str>), Arc<Alias>>,
    concurrencies: RedBlackTreeMapSync<FunctionKey, Concurrency>,
    provisions: RedBlackTreeMapSync<(FunctionKey, Arc<str>), Arc<Provision>>,
    unsettled: RedBlackTreeSetSync<VersionKey>,
    usage: HashTrieMapSync<AccountId, AccountUsage>,
}

// === Looking ===

impl View {
    /// The unpublished version of a function.
    pub(super) fn latest(&self, key: &FunctionKey) -> Option<&Arc<Function>> {
        self.latest.get(key)
    }

    /// A version, if it belongs to the function that there is now.
    pub(super) fn version(&self, key: &VersionKey) -> Option<&Arc<Function>> {
        let latest = self.latest(&key.function)?;
        match key.version {
            Version::Latest => Some(latest),
            Version::Published(_) => {
                self.published.get(key).filter(|version| version.lineage == latest.lineage)
            }
        }
    }

    /// An alias, if it belongs to the function that there is now.
    pub(super) fn alias(&self, key: &FunctionKey, name: &str) -> Option<&Arc<Alias>> {
        let latest = self.latest(key)?;
        let alias = self.aliases.get(&(key.clone(), name.into()))?;
        Some(alias).filter(|alias| alias.lineage == latest.lineage)
    }

    /// The version that a qualifier means; `choose` says which one for an alias.
    pub(super) fn resolve(
        &self,
        key: &FunctionKey,
        qualifier: Option<&Qualifier>,
        choose: impl FnOnce(&Alias) -> Version,
    ) -> Option<Arc<Function>> {
        let version = match qualifier {
            None | Some(Qualifier::Latest) => return self.latest(key).cloned(),
            Some(Qualifier::Version(number)) => Version::Published(*number),
            Some(Qualifier::Alias(name)) => choose(self.alias(key, name)?),
        };
        self.version(&VersionKey { function: key.clone(), version }).cloned()
    }

    /// The functions of an account whose names come behind `after`.
    pub(super) fn functions_after<'a>(
        &'a self,
        account: &'a AccountId,
        region: &'a Region,
        after: Option<&FunctionName>,
    ) -> impl Iterator<Item = &'a Arc<Function>> {
        let of = |name| FunctionKey { account: account.clone(), region: region.clone(), name };
        let start = match after {
            Some(name) => Bound::Excluded(of(name.clone())),
            None => Bound::Included(of(least_name())),
        };
        self.latest.range((start, Bound::Unbounded)).map(|(_, function)| function).take_while(
            move |function| function.key.account == *account && function.key.region == *region,
        )
    }

    /// The versions of a function that come behind `after`, `$LATEST` first.
    pub(super) fn versions_after(
        &self,
        key: &FunctionKey,
        after: Option<Version>,
    ) -> impl Iterator<Item = &Arc<Function>> {
        let latest = self.latest(key);
        let number = match after {
            None | Some(Version::Latest) => 0,
            Some(Version::Published(number)) => number,
        };
        let start = VersionKey { function: key.clone(), version: Version::Published(number) };
        let published = self
            .published
            .range((Bound::Excluded(start), Bound::Unbounded))
            .map(|(_, version)| version)
            .take_while(move |version| latest.is_some_and(|latest| latest.key == version.key))
            .filter(move |version| latest.is_some_and(|it| it.lineage == version.lineage));
        latest.filter(|_| after.is_none()).into_iter().chain(published)
    }

    /// The aliases of a function whose names come behind `after`.
    pub(super) fn aliases_after(
        &self,
        key: &FunctionKey,
        after: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Alias>> {
        let latest = self.latest(key);
        // No alias has an empty name.
        let start = (key.clone(), after.unwrap_or_default().into());
        self.aliases
            .range((Bound::Excluded(start), Bound::Unbounded))
            .map(|(_, alias)| alias)
            .take_while(move |alias| latest.is_some_and(|latest| latest.key == alias.key))
            .filter(move |alias| latest.is_some_and(|latest| latest.lineage == alias.lineage))
    }

    /// What is reserved for a function, if it was for the function that there is now.
    pub(super) fn reserved(&self, key: &FunctionKey) -> Option<u32> {
        let latest = self.latest(key)?;
        let found = self.concurrencies.get(key)?;
        (found.lineage == latest.lineage).then_some(found.reserved)
    }

    /// The functions that have something reserved.
    pub(super) fn reserving(&self) -> impl Iterator<Item = &FunctionKey> {
        self.concurrencies.keys().filter(|key| self.reserved(key).is_some())
    }

    /// What is kept ready for a version or alias, if it was for one that there is now.
    pub(super) fn provision(&self, key: &FunctionKey, qualifier: &str) -> Option<&Arc<Provision>> {
        let found = self.provisions.get(&(key.clone(), qualifier.into()))?;
        self.target(found).map(|_| found)
    }

    /// What is kept ready of a function, behind `after`.
    pub(super) fn provisions_after(
        &self,
        key: &FunctionKey,
        after: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Provision>> {
        // No qualifier is empty.
        let start = (key.clone(), after.unwrap_or_default().into());
        let own = key.clone();
        self.provisions
            .range((Bound::Excluded(start), Bound::Unbounded))
            .map(|(_, provision)| provision)
            .take_while(move |provision| provision.key == own)
            .filter(|provision| self.target(provision).is_some())
    }

    /// How many Instances of which versions of a function are kept ready.
    pub(super) fn provided(&self, key: &FunctionKey) -> HashMap<VersionKey, u32> {
        let mut versions: HashMap<VersionKey, u32> = HashMap::new();
        for provision in self.provisions_after(key, None) {
            let Some(target) = self.target(provision) else { continue };
            // An alias may have been moved to a version that has some of its own.
            let count = versions.entry(target.version_key()).or_default();
            *count = count.saturating_add(provision.requested);
        }
        versions
    }

    /// All of them together.
    pub(super) fn provisioned_of(&self, key: &FunctionKey) -> u32 {
        let counts = self.provisions_after(key, None).map(|provision| provision.requested);
        counts.fold(0, u32::saturating_add)
    }

    /// The functions of which Instances are kept ready.
    pub(super) fn providing(&self) -> HashSet<FunctionKey> {
        let shown = self.provisions.values().filter(|provision| self.target(provision).is_some());
        shown.map(|provision| provision.key.clone()).collect()
    }

    /// The published version of which it keeps Instances ready.
    fn target(&self, provision: &Provision) -> Option<Arc<Function>> {
        let named = self.resolve(&provision.key, Some(&provision.qualifier), |it| it.version)?;
        let is_one = named.lineage == provision.lineage && named.version != Version::Latest;
        is_one.then_some(named)
    }

    /// What functions of an account have for themselves, all together.
    pub(super) fn guaranteed_in_all(&self, account: &AccountId, region: &Region) -> u32 {
        let of_account = |key: &FunctionKey| key.account == *account && key.region == *region;
        let provided: u32 = self
            .providing()
            .iter()
            .filter(|key| of_account(key) && self.reserved(key).is_none())
            .map(|key| self.provisioned_of(key))
            .fold(0, u32::saturating_add);
        provided.saturating_add(self.reserved_in_all(account, region))
    }

    /// What is reserved for functions of an account, all together.
    fn reserved_in_all(&self, account: &AccountId, region: &Region) -> u32 {
        let name = least_name();
        let least = FunctionKey { account: account.clone(), region: region.clone(), name };
        self.concurrencies
            .range((Bound::Included(least), Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.account == *account && key.region == *region)
            .filter_map(|key| self.reserved(key))
            .fold(0, u32::saturating_add)
    }

    /// All versions that are stored, also those whose function is gone.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.latest.values().chain(self.published.values())
    }

    /// Whether a version is stored, also if its function is gone.
    pub(super) fn has(&self, key: &VersionKey) -> bool {
        match key.version {
            Version::Latest => self.latest.contains_key(&key.function),
            Version::Published(_) => self.published.contains_key(key),
        }
    }

    /// Versions whose creation or update is not finished.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = &VersionKey> {
        self.unsettled.iter()
    }

    /// Records of what belonged to a function that is gone.
    pub(super) fn orphans(&self) -> Vec<Key> {
        let versions = self.published.keys().filter(|key| self.version(key).is_none());
        let aliases = self.aliases.keys().filter(|(key, name)| self.alias(key, name).is_none());
        let concurrencies = self.concurrencies.keys().filter(|key| self.reserved(key).is_none());
        let has_owner = |provision: &&Arc<Provision>| {
            self.latest(&provision.key).is_some_and(|latest| latest.lineage == provision.lineage)
        };
        let provisions = self.provisions.values().filter(|provision| !has_owner(provision));
        let provision_key = |provision: &Arc<Provision>| {
            record::provisioned::key(&provision.key, &provision.qualifier.to_string())
        };
        versions
            .map(record::key)
            .chain(aliases.map(|(key, name)| record::alias::key(key, name)))
            .chain(concurrencies.map(record::concurrency::key))
            .chain(provisions.map(provision_key))
            .collect()
    }

    /// What an account has stored.
    pub(super) fn account_usage(&self, account: &AccountId) -> AccountUsage {
        self.usage.get(account).copied().unwrap_or_default()
    }
}

// === Changing ===

impl View {
    /// Takes over a record of a version, an alias, a concurrency or a provision; others are none of its business.
    ///
    /// # Errors
    /// If the record cannot be read: nothing has changed then.
    pub(super) fn read(&mut self, reader: &Reader, found: &Record) -> Result<()> {
        if record::version_key(&found.key).is_some() {
            self.insert(reader.version(found)?);
        } else if record::alias::alias_key(&found.key).is_some() {
            let alias = record::alias::decode(found)?;
            self.aliases.insert_mut((alias.key.clone(), alias.name.clone()), Arc::new(alias));
        } else if record::concurrency::function_key(&found.key).is_some() {
            let (function, concurrency) = record::concurrency::decode(found)?;
            self.concurrencies.insert_mut(function, concurrency);
        } else if let Some(key) = record::provisioned::provision_key(&found.key) {
            self.provisions.insert_mut(key, Arc::new(record::provisioned::decode(found)?));
        }
        Ok(())
    }

    /// Forgets a version, an alias, a concurrency or a provision.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(version) = record::version_key(key) {
            self.remove(&version);
        } else if let Some(alias) = record::alias::alias_key(key) {
            self.aliases.remove_mut(&alias);
        } else if let Some(function) = record::concurrency::function_key(key) {
            self.concurrencies.remove_mut(&function);
        } else if let Some(provision) = record::provisioned::provision_key(key) {
            self.provisions.remove_mut(&provision);
        }
    }

    fn insert(&mut self, function: Function) {
        let key = function.version_key();
        self.remove(&key);
        if function.is_unsettled() {
            self.unsettled.insert_mut(key.clone());
        }
        let mut usage = self.account_usage(&function.key.account);
        usage.code_size = usage.code_size.saturating_add(ByteSize::bytes(function.code.size));
        usage.function_count = usage.function_count.saturating_add(counted(&key));
        self.usage.insert_mut(function.key.account.clone(), usage);
        match key.version {
            Version::Latest => self.latest.insert_mut(key.function, Arc::new(function)),
            Version::Published(_) => self.published.insert_mut(key, Arc::new(function)),
        }
    }

    fn remove(&mut self, key: &VersionKey) {
        let old = match key.version {
            Version::Latest => self.latest.get(&key.function).cloned(),
            Version::Published(_) => self.published.get(key).cloned(),
        };
        let Some(old) = old else { return };
        let mut usage = self.account_usage(&old.key.account);
        usage.code_size = usage.code_size.saturating_sub(ByteSize::bytes(old.code.size));
        usage.function_count = usage.function_count.saturating_sub(counted(key));
        self.usage.insert_mut(old.key.account.clone(), usage);
        self.unsettled.remove_mut(key);
        match key.version {
            Version::Latest => self.latest.remove_mut(&key.function),
            Version::Published(_) => self.published.remove_mut(key),
        };
    }
}

/// A function counts once, however many versions it has; the code of each of them counts.
fn counted(key: &VersionKey) -> u64 {
    u64::from(key.version == Version::Latest)
}

/// The name that sorts before all others: `-` is the least of the characters of a name.
fn least_name() -> FunctionName {
    FunctionName::new("-").expect("'-' is a valid name")
}
