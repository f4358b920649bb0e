//! The services on both sides of the storage seam that live in one process.

#[path = "services/bench.rs"]
mod bench;
#[path = "services/collector.rs"]
mod collector;
#[path = "services/concurrency.rs"]
mod concurrency;
#[path = "services/durability.rs"]
mod durability;
#[path = "services/functions.rs"]
mod functions;
#[path = "services/identity.rs"]
mod identity;
#[path = "services/logs.rs"]
mod logs;
#[path = "services/provisioned.rs"]
mod provisioned;
#[path = "services/usage.rs"]
mod usage;
#[path = "services/versions.rs"]
mod versions;
