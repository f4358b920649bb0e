//! Sandboxes on this host: what they can, what they cannot, and that nothing stays of them.
//!
//! Every test starts a launcher of its own with an owner of its own. Where the host cannot isolate
//! fully the tests say so and pass.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

mod blank;
mod cgroup;
mod confinement;
mod empty;
mod free;
mod lifecycle;
mod network;
mod network_bench;
mod origin;
mod program;
mod scratch;
mod snapshot;
mod support;
mod surrender;
mod world;
