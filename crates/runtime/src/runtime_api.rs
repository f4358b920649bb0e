//! The Lambda Runtime API, by which a custom runtime fetches events and posts answers.
//!
//! Source: "Using the Lambda runtime API",
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. `state` decides what is
//! allowed when; `server` speaks HTTP/1.1 on the listener inside the sandbox; between them one
//! lock that is held for moments only.

pub(crate) mod server;
pub(crate) mod snap_start;
pub(crate) mod state;

pub(crate) use server::{Shared, serve};
pub(crate) use snap_start::{CREDENTIALS_PATH, Counts, SnapStart};
pub(crate) use state::{Answer, Event, Readiness};
