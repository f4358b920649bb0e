//! Which Instance serves which invocation: a pure core that decides, and a driver that acts.
//!
//! [`core`] turns events into commands and does nothing else, so that the same code can run under
//! the server, under property tests and in a simulator. `driver` holds the Instances, the
//! callers that wait and one short lock. See `docs/design/002-pool.md`.

pub mod core;
pub(crate) mod driver;
