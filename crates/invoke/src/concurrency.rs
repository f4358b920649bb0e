//! What functions have for themselves: from the catalog, which knows it, to the pool, which acts on it.

use std::collections::HashSet;

use lacewing_model::FunctionKey;

use crate::door::Door;
use crate::pool::driver::Source;

/// Tells the pool what the catalog shows of a function.
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
