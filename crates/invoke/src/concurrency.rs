//! What functions have for themselves: from the catalog, which knows it, to the pool, which acts on it.

use std::collections::HashSet;

use lacewing_model::function::State;
use lacewing_model::{FunctionKey, VersionKey};

use crate::door::Door;
use crate::pool::driver::Source;

/// Tells the pool what the catalog shows that is reserved for a function.
pub(crate) fn tell<S: Source>(door: &Door<S>, function: &FunctionKey) {
    // One at a time: else what was read first might be told last, and stay.
    let _only = door.telling.lock();
    let reserved = door.services.catalog.reserved(function);
    door.pool.reserve(function.clone(), reserved);
}

/// The same of all functions that have something for themselves here or there.
pub(crate) fn tell_all<S: Source>(door: &Door<S>) {
    let mut functions: HashSet<_> = door.services.catalog.reserving().into_iter().collect();
    functions.extend(door.pool.reserving());
    functions.iter().for_each(|function| tell(door, function));
}

/// Tells the pool how many Instances of a function's versions are kept ready: none of one that
/// cannot be invoked yet.
pub(crate) fn provide<S: Source>(door: &Door<S>, function: &FunctionKey) {
    let _only = door.telling.lock();
    let catalog = &door.services.catalog;
    let wanted = catalog.provided(function);
    let mut versions: HashSet<VersionKey> = wanted.keys().cloned().collect();
    versions.extend(door.pool.promised(function));
    for version in versions {
        // Of one that was deleted the pool hears otherwise.
        let Some(found) = catalog.version(&version) else { continue };
        let is_active = found.state == State::Active;
        let count = wanted.get(&version).copied().filter(|_| is_active).unwrap_or(0);
        door.pool.provision(found, count);
    }
}

/// The same of all functions for which that is set.
pub(crate) fn provide_all<S: Source>(door: &Door<S>) {
    door.services.catalog.providing().iter().for_each(|function| provide(door, function));
}
