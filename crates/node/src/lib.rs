//! The composition root: configuration -> parts -> run -> drain.
//!
//! It is the only crate that names implementations. It decides nothing about functions, speaks no
//! wire format and prints nothing.

pub mod config;
pub mod data_dir;
mod doctor;
mod node;
mod start;
mod supervisor;
pub mod telemetry;

pub use config::{Config, ConfigError, Settings, SettingsError};
pub use doctor::{Doctor, probe};
pub use node::{Node, Ready};
pub use start::StartError;
pub use supervisor::Fault;
