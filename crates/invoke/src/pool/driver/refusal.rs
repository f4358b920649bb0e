//! What a caller is told when the pool sends it away.

use std::time::Duration;

use lacewing_model::error::Throttle;
use lacewing_model::{Error, FunctionKey, Kind};

use crate::pool::core::Refusal;

/// The error for a caller of the function; `cause` is why its Instance could not be made.
pub(super) fn error(
    reason: Refusal,
    retry_after: Duration,
    cause: Option<Error>,
    function: &FunctionKey,
) -> Error {
    let unavailable =
        |text: &str| Error::new(Kind::Unavailable, text).with_retry_after(retry_after);
    let throttled =
        |why| Error::new(Kind::Throttled(why), "Rate Exceeded.").with_retry_after(retry_after);
    match reason {
        Refusal::AccountConcurrency => throttled(Throttle::AccountConcurrency),
        Refusal::ReservedConcurrency => throttled(Throttle::ReservedConcurrency),
        Refusal::AccountShare => throttled(Throttle::AccountConcurrency),
        // The nearest of AWS's reasons: it is the function's own bound, whoever else runs.
        Refusal::FunctionShare => throttled(Throttle::ReservedConcurrency),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    #[test]
    fn who_has_all_of_a_share_is_throttled_and_told_whose() {
        let told =
            |reason| error(reason, Duration::from_secs(7), None, &key("000000000000", "hello"));
        for (reason, throttle) in [
            (Refusal::AccountConcurrency, Throttle::AccountConcurrency),
            (Refusal::ReservedConcurrency, Throttle::ReservedConcurrency),
            (Refusal::AccountShare, Throttle::AccountConcurrency),
            (Refusal::FunctionShare, Throttle::ReservedConcurrency),
        ] {
            let error = told(reason);
            assert_eq!(error.kind(), Kind::Throttled(throttle));
            assert_eq!(error.public(), "Rate Exceeded.");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
        assert_eq!(told(Refusal::WaitedTooLong).kind(), Kind::Unavailable, "the node's own lack");
    }
}
