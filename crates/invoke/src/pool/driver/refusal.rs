//! What a caller is told when the pool sends it away.

use std::time::Duration;

use lacewing_model::error::Throttle;
use lacewing_model::{Error, FunctionKey, Kind};

use crate::pool::core::Refusal;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The error for a caller of the function; `cause` is why its Instance could not be made.
pub(super) fn error(reason: Refusal, cause: Option<Error>, function: &FunctionKey) -> Error {
    let unavailable =
        |text: &str| Error::new(Kind::Unavailable, text).with_retry_after(RETRY_AFTER);
    match reason {
        Refusal::AccountConcurrency => {
            let kind = Kind::Throttled(Throttle::AccountConcurrency);
            Error::new(kind, "Rate Exceeded.").with_retry_after(RETRY_AFTER)
        }
        Refusal::TooManyWaiting | Refusal::WaitedTooLong => {
            unavailable("There is no room for another execution environment at the moment.")
        }
        Refusal::Stopping => unavailable("The server is shutting down."),
        Refusal::StartFailed => cause.unwrap_or_else(|| {
            Error::new(Kind::Internal, "The execution environment could not be made.")
        }),
        Refusal::Deleted => {
            Error::new(Kind::NotFound, format!("Function not found: {}", function.arn()))
        }
    }
}
