//! Runs one Instance of one function, with all of Lambda's semantics of init, invoke, logs and
//! errors.
//!
//! A [`Starter`] turns a function's version into an [`Instance`]: it finds the interpreter,
//! unpacks the code, composes the sandbox, and talks to what runs inside, over framed messages
//! with our own bootstraps or over the Lambda Runtime API with anybody else's. Above it, `invoke`
//! decides who serves what; below it, `sandbox` isolates and knows nothing of Lambda.
//!
//! It never parses a payload, never waits without a bound, and never runs two invocations in one
//! Instance at a time unless its function's owner says so. See `docs/lambda.md`.

mod blanks;
mod channel;
mod crowd;
mod endpoint;
mod environment;
mod etc;
mod failure;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod instance;
mod layout;
mod log;
mod names;
mod origins;
mod output;
pub mod package;
mod platform_log;
mod process;
mod runtime_api;
pub mod runtimes;
mod snapshots;
mod starter;
pub mod stream;
pub mod telemetry_frames;
#[cfg(test)]
mod testing;

pub use blanks::BlankCounts;
pub use endpoint::{EndpointListener, EndpointListeners};
pub use instance::{Completion, Instance, StartTimes};
pub use lacewing_sandbox::{Freezer, Traffic};
pub use layout::tmp_of;
pub use log::{LogBatch, LogLine, LogReceiver};
pub use names::NameRelay;
pub use origins::fitness as origin_fitness;
pub use runtimes::{Interpreter, Resolved, Runtimes};
pub use starter::{Options, Premises, StartRequest, Starter};
