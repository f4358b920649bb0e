//! Durations in a configuration file: `30s`, `5m`, `2h 30m`. Never a bare number, whose unit nobody
//! would know.

use std::time::Duration;

use jiff::SignedDuration;
use serde::de::{Deserialize, Deserializer, Error};

/// Reads an optional duration; `with` on a field under `default`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let invalid = || D::Error::custom(format!("'{text}' is no duration such as 30s, 5m or 2h"));
    let signed: SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(signed).map(Some).map_err(|_| invalid())
}
