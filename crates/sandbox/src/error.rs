//! Errors of the server's side of the crate.

use std::io;

/// What can go wrong when the launcher is started or asked for something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launcher program could not be started.
    #[error("could not start the launcher")]
    Start(#[source] io::Error),
    /// The launcher started and said why it will not serve.
    #[error("the launcher refused to start: {0}")]
    Refused(String),
    /// Another launcher of the same owner serves.
    #[error("another launcher of the same owner serves")]
    Taken,
    /// The launcher did not answer as it should.
    #[error("the launcher's answer could not be understood: {0}")]
    Protocol(String),
    /// The launcher said nothing for so many seconds.
    #[error(
        "the launcher did not answer within {0} s: the host is very busy, or does not do what it asks"
    )]
    Silent(u64),
    /// The request itself is wrong.
    #[error("the sandbox cannot be described so: {0}")]
    Invalid(String),
    /// The request is too large for one message.
    #[error("the description of the sandbox has {size} bytes, {limit} are allowed")]
    TooLarge {
        /// Size of the request.
        size: usize,
        /// Largest size.
        limit: usize,
    },
    /// The server cannot give up what it does not need.
    #[error("cannot give up privileges: {0}")]
    Surrender(String),
    /// The launcher has more requests waiting than it can take now.
    #[error("the launcher is busy")]
    Busy,
    /// The launcher is gone.
    #[error("the launcher is gone")]
    Gone,
    /// The socket to the launcher failed.
    #[error("could not talk to the launcher")]
    Send(#[source] io::Error),
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }
}
