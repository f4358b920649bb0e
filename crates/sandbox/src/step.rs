//! An error that names the step of building a sandbox, short enough for one line.

use std::fmt::Display;

/// What failed and why, as the server will see it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Names the step of a result.
pub(crate) trait Step<T> {
    /// Turns an error into a [`Failure`] of this step.
    fn step(self, step: &str) -> Result<T, Failure>;
    /// The same, with the thing the step was about.
    fn step_of(self, step: &str, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{step}: {error}")))
    }

    fn step_of(self, step: &str, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{step} {what}: {error}")))
    }
}
