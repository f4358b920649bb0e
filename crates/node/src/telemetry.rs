//! What the server says about itself: `tracing` events on stderr, as text or as JSON lines.
//!
//! stdout belongs to the ready line. Which events are shown is said by `LACEWING_LOG`, else by
//! `RUST_LOG`, in the syntax of `tracing_subscriber::EnvFilter`; `info` when neither is set.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter that cannot be understood, or a second call.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter's syntax is wrong.
    #[error("{variable} is no valid log filter: {reason}")]
    Filter {
        /// Which environment variable holds it.
        variable: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Somebody installed a subscriber before.
    #[error("logging was set up twice")]
    Twice,
}

/// Installs the subscriber of this process; `default` is the filter when no variable is set.
///
/// # Errors
/// If the filter cannot be understood.
pub fn install(format: LogFormat, default: &str) -> Result<(), TelemetryError> {
    let filter = filter(default)?;
    // What cannot be written is lost: telling stderr of it would panic, on a full disk for example.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| TelemetryError::Twice)
}

fn filter(default: &str) -> Result<EnvFilter, TelemetryError> {
    for variable in ["LACEWING_LOG", "RUST_LOG"] {
        match std::env::var(variable) {
            Ok(text) if !text.is_empty() => {
                return EnvFilter::try_new(text).map_err(|error| TelemetryError::Filter {
                    variable,
                    reason: error.to_string(),
                });
            }
            _ => {}
        }
    }
    Ok(EnvFilter::new(default))
}
