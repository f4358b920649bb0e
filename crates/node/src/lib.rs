//! The composition root: configuration -> privileges given up -> parts -> run -> drain.
//!
//! It is the only crate that names implementations. It decides nothing about functions, speaks no
//! wire format and prints nothing.

pub mod config;
pub mod data_dir;
mod doctor;
mod node;
mod prepare;
mod start;
mod supervisor;
pub mod telemetry;

pub use config::{Config, ConfigError, Settings, SettingsError};
pub use doctor::{Doctor, Egress, probe};
pub use lacewing_sandbox::Keep;
pub use node::{Node, Ready};
pub use prepare::Prepared;
pub use start::StartError;
pub use supervisor::Fault;
