//! A reader's place in a log, written as `entry-event`.

use std::fmt;
use std::str::FromStr;

use lacewing_model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Where a reader stands; the default is the beginning.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct LogCursor {
    entry: u64,
    event: u64,
}

impl LogCursor {
    pub(super) fn new(entry: u64, event: usize) -> Self {
        Self { entry, event: u64::try_from(event).unwrap_or(u64::MAX) }
    }

    pub(super) const fn entry(self) -> u64 {
        self.entry
    }

    /// How many events of this entry were read already.
    pub(super) fn events_before(self, entry: u64) -> usize {
        if entry == self.entry { usize::try_from(self.event).unwrap_or(usize::MAX) } else { 0 }
    }
}

impl FromStr for LogCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('-');
        let numbers =
            parts.and_then(|(entry, event)| Some((entry.parse().ok()?, event.parse().ok()?)));
        let (entry, event) = numbers
            .ok_or_else(|| Error::new(Kind::Invalid, "The cursor is not one of this log's."))?;
        Ok(Self { entry, event })
    }
}

impl TryFrom<String> for LogCursor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LogCursor> for String {
    fn from(cursor: LogCursor) -> Self {
        cursor.to_string()
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.entry, self.event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_survive_their_text_form(entry: u64, event: u64) {
            let cursor = LogCursor { entry, event };
            prop_assert_eq!(cursor.to_string().parse::<LogCursor>().expect("its own"), cursor);
        }

        #[test]
        fn hostile_cursors_are_refused_without_a_panic(text in "[0-9-]{0,45}|\\PC{0,20}") {
            let _parsed = text.parse::<LogCursor>().is_ok();
        }
    }
}
