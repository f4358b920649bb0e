//! Pages of lists: how many entries one has, and where the next begins.
//!
//! A marker is opaque to clients: the place of the last entry, as JSON in base64.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lacewing_model::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::query;

/// Entries of one page: most that AWS returns, and most that may be asked for.
const PAGE: (usize, usize) = (50, 10_000);

/// How many entries the page may have that a request asks for.
///
/// # Errors
/// `Constraint` in AWS's words, or `Invalid` for what is no number.
pub(crate) fn size(query: Option<&str>) -> Result<usize> {
    let (most, accepted) = PAGE;
    let Some(text) = query::parameter(query, "MaxItems")? else { return Ok(most) };
    let constraint = |bound: &str| {
        let message = format!(
            "1 validation error detected: Value '{text}' at 'maxItems' failed to satisfy \
             constraint: Member must have value {bound}"
        );
        Error::new(Kind::Constraint, message)
    };
    match text.parse::<i64>() {
        Ok(items) if items < 1 => Err(constraint("greater than or equal to 1")),
        Ok(items) => match usize::try_from(items) {
            Ok(items) if items <= accepted => Ok(items.min(most)),
            _ => Err(constraint("less than or equal to 10000")),
        },
        Err(_) => Err(Error::new(Kind::Invalid, "MaxItems must be a number.")),
    }
}

/// The entry behind which the page begins that a request asks for.
///
/// # Errors
/// `Invalid` for a marker that is none of ours.
pub(crate) fn after<T: DeserializeOwned>(query: Option<&str>) -> Result<Option<T>> {
    let Some(marker) = query::parameter(query, "Marker")? else { return Ok(None) };
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(marker.as_bytes()).ok();
    let place = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    place.map(Some).ok_or_else(|| Error::new(Kind::Invalid, "Invalid Marker."))
}

/// The marker of an entry.
pub(crate) fn marker(place: &impl Serialize) -> String {
    let text = serde_json::to_vec(place).expect("a place is plain data");
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// The document of a page: `found` has one entry more than `limit` if there is another page.
pub(crate) fn document<T>(
    member: &str,
    mut found: Vec<T>,
    limit: usize,
    entry: impl Fn(&T) -> Value,
    marker: impl Fn(&T) -> String,
) -> Value {
    let more = found.len() > limit;
    found.truncate(limit);
    let mut document = json!({ member: found.iter().map(entry).collect::<Vec<Value>>() });
    if let Some(last) = found.last().filter(|_| more) {
        document["NextMarker"] = marker(last).into();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_leads_back_to_its_place() {
        let query = format!("Marker={}", marker(&("name", 7)));
        let place: Option<(String, u64)> = after(Some(&query)).expect("ours");
        assert_eq!(place, Some(("name".to_owned(), 7)));
        assert!(after::<(String, u64)>(Some("Marker=AAAA")).is_err());
        assert_eq!(after::<String>(None).expect("none"), None);
    }

    #[test]
    fn the_last_page_has_no_marker() {
        let page = |found| document("All", found, 2, |it| json!(it), |it: &u8| it.to_string());
        assert_eq!(page(vec![1, 2, 3]), json!({"All": [1, 2], "NextMarker": "2"}));
        assert_eq!(page(vec![1, 2]), json!({"All": [1, 2]}));
    }
}
