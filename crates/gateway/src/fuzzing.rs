//! Doors for the fuzz targets to the parsers of requests: each reads bytes as a handler does that
//! has them from a client, and nothing comes of it.

use std::sync::LazyLock;

use http::HeaderMap;
use http::request::Parts;
use lacewing_model::Result;

use crate::lambda::{Routes, fuzzing};
use crate::{admin, query, sts};

static ROUTES: LazyLock<Routes> = LazyLock::new(Routes::new);

/// Finds out what a request is for; tells the operation's name, if there is one.
///
/// # Errors
/// If a part of the URI is no text.
pub fn route(parts: &Parts) -> Result<Option<(&'static str, String)>> {
    sts::protocol(parts);
    let lambda = ROUTES.find(parts)?;
    let of_ours = admin::route(parts)?;
    for name in ["Qualifier", "MaxItems", "Marker", "cursor", "Action"] {
        query::parameter(parts.uri.query(), name)?;
    }
    let lambda = lambda.map(|route| (route.operation.name, route.resource));
    Ok(lambda.or_else(|| of_ours.map(|_| ("admin", String::new()))))
}

/// Reads a field of a form.
///
/// # Errors
/// If it is no text.
pub fn form(text: &str, name: &str) -> Result<Option<String>> {
    query::field(text, name)
}

/// Reads the headers of an `Invoke`; gives the client context as JSON text.
///
/// # Errors
/// If it is none.
pub fn client_context(headers: &HeaderMap) -> Result<Option<String>> {
    fuzzing::client_context(headers)
}

/// Reads the document of a `CreateFunction`; gives its package.
///
/// # Errors
/// If it asks for nothing that can be made.
pub fn create_function(document: &[u8]) -> Result<Vec<u8>> {
    fuzzing::create_function(document)
}

/// Reads the documents of `UpdateFunctionCode` and `UpdateFunctionConfiguration`; tells whether it
/// was one of each.
pub fn update_function(document: &[u8]) -> (bool, bool) {
    fuzzing::update_function(document)
}
