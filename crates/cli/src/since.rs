//! The option `--since`: a moment, or how long ago.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp as Moment};
use lacewing_model::Timestamp;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// Reads `10m`, or a moment.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(moment) = text.parse::<Moment>() {
            return Ok(Self::At(Timestamp::from_micros(moment.as_microsecond())));
        }
        let ago: Option<SignedDuration> = text.parse().ok();
        let ago = ago.and_then(|ago| Duration::try_from(ago).ok());
        ago.map(Self::Ago)
            .ok_or_else(|| "expected a time such as 10m, 2h or 2026-11-21T08:00:00Z".into())
    }

    /// The moment that it is, if it is `now`.
    pub(crate) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(ago).max(0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_span_or_a_moment() {
        let since = Since::parse;
        assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        assert_eq!(since("1970-01-01T00:00:05Z"), Ok(Since::At(Timestamp::from_seconds(5))));
        assert!(since("-5m").is_err() && since("yesterday").is_err() && since("5").is_err());
        let now = Timestamp::from_seconds(700);
        assert_eq!(since("10m").map(|it| it.moment(now)), Ok(Timestamp::from_seconds(100)));
        assert_eq!(since("9h").map(|it| it.moment(now)), Ok(Timestamp::from_seconds(0)));
    }
}
