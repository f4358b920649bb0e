//! Every failure, sorted for whoever typed the command: what went wrong, what to do, which exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 1 | the request cannot be done as it was made |
//! | 2 | the command line or the configuration is wrong |
//! | 3 | the server cannot be reached, cannot start or failed |
//! | 4 | the invoked function itself failed |
//! | 70 | a bug of Lacewing |

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

/// What a command gives back.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose turn it is to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    /// The user's: the request cannot be done as it was made.
    User,
    /// The user's: the command line is wrong.
    Usage,
    /// The operator's.
    Server,
    /// The author's of the function.
    Function,
    /// Ours.
    Bug,
    /// Nobody's: whoever read our output has gone.
    ReaderGone,
}

impl Category {
    /// The process's exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::User => 1,
            Self::Usage => 2,
            Self::Server => 3,
            Self::Function => 4,
            Self::Bug => 70,
        }
    }
}

/// A failure with its category, its causes and hints.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) category: Category,
    pub(crate) message: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hints: Vec<String>,
}

impl Error {
    fn new(category: Category, message: impl Into<String>) -> Self {
        Self { category, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// The request cannot be done as it was made.
    pub(crate) fn user(message: impl Into<String>) -> Self {
        Self::new(Category::User, message)
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Category::Usage, message)
    }

    /// The server cannot be reached, cannot start or failed.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(Category::Server, message)
    }

    /// The invoked function itself failed.
    pub(crate) fn function(message: impl Into<String>) -> Self {
        Self::new(Category::Function, message)
    }

    /// An invariant of ours is broken.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Category::Bug, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds `cause` and what caused it in turn.
    #[must_use]
    pub(crate) fn caused_by(mut self, cause: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// The lines for stderr.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            text.push_str("  caused by: ");
            text.push_str(&cause.replace('\n', "\n    "));
            text.push('\n');
        }
        for hint in &self.hints {
            writeln!(text, "hint: {hint}").expect("writing to a string cannot fail");
        }
        if self.category == Category::Bug {
            text.push_str(
                "hint: this is a bug of Lacewing; please report it with the lines above\n",
            );
        }
        text
    }

    /// Writes the report to stderr, unless nobody is to blame.
    pub(crate) fn print(&self) {
        if self.category != Category::ReaderGone {
            let _unwritable = anstream::stderr().write_all(self.report().as_bytes());
        }
    }
}

impl From<io::Error> for Error {
    /// For writing results; other IO errors deserve words of their own.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::new(Category::ReaderGone, "nobody reads the output"),
            _ => Self::user("cannot write the output").caused_by(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_causes_and_hints() {
        let inner = io::Error::other("disk full");
        let error = Error::server("cannot start").caused_by(&inner).hint("free some space");
        assert_eq!(
            error.report(),
            "error: cannot start\n  caused by: disk full\nhint: free some space\n"
        );
        assert_eq!(error.category.exit_code(), 3);
    }

    #[test]
    fn a_bug_asks_for_a_report() {
        assert!(Error::bug("no such state").report().contains("please report it"));
        assert_eq!(Category::Bug.exit_code(), 70);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let error = Error::from(io::Error::from(ErrorKind::BrokenPipe));
        assert_eq!(error.category.exit_code(), 0);
    }
}
