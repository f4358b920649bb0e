//! The query of a URI and the form in a body: pairs of percent-encoded text.

use std::borrow::Cow;

use lacewing_model::{Error, Kind, Result};
use percent_encoding::percent_decode_str;

/// The first value of a parameter of a URI's query, decoded; an empty one counts as none.
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<Cow<'a, str>>> {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    match values.next() {
        None | Some((_, "")) => Ok(None),
        Some((_, value)) => decode(value).map(Some),
    }
}

/// The first value of a field of a form; there a plus sign means a space.
pub(crate) fn field(form: &str, name: &str) -> Result<Option<String>> {
    let pairs = form.split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    values.next().map(|(_, value)| Ok(decode(&value.replace('+', " "))?.into_owned())).transpose()
}

/// Decodes a part of a URI; what is no UTF-8 then is refused.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().map_err(|_| {
        Error::new(Kind::Invalid, "A part of the request's URI is no UTF-8 once it is decoded.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_an_empty_one_does_not() {
        let query = Some("a=1&a=2&b=%24LATEST&c=&d");
        let value = |name| parameter(query, name).expect("UTF-8");
        assert_eq!(value("a").as_deref(), Some("1"));
        assert_eq!(value("b").as_deref(), Some("$LATEST"));
        assert_eq!(value("c"), None);
        assert_eq!(value("d"), None);
    }

    #[test]
    fn a_plus_sign_is_a_space_in_a_form_only() {
        assert_eq!(field("a=x+y", "a").expect("UTF-8").as_deref(), Some("x y"));
        assert_eq!(parameter(Some("a=x+y"), "a").expect("UTF-8").as_deref(), Some("x+y"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(parameter(Some("a=%ff"), "a").is_err());
    }
}
