//! From method and path to an operation, by the generated table.

use std::collections::BTreeMap;

use http::StatusCode;
use http::request::Parts;
use lacewing_model::{ByteSize, Result, limits};
use matchit::Router;

use crate::lambda::generated::OPERATIONS;
use crate::query;

/// One operation of the API.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Its name.
    pub(crate) name: &'static str,
    /// The HTTP method.
    pub(crate) method: &'static str,
    /// The path, with names in braces.
    pub(crate) path: &'static str,
    /// The parameter that tells it from another operation with the same path.
    pub(crate) query: Option<&'static str>,
    /// The status of success.
    pub(crate) status: u16,
}

/// One exception of the API.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Exception {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its status, if the model says it.
    pub(crate) status: Option<u16>,
    /// How its member for the message is spelt.
    pub(crate) message: &'static str,
}

/// An operation with the names in its path.
#[derive(Debug)]
pub(crate) struct Route {
    /// The operation.
    pub(crate) operation: &'static Operation,
    /// The first name in the path, decoded; empty if there is none.
    pub(crate) resource: String,
    /// The second name in the path, decoded; empty if there is none.
    pub(crate) second: String,
}

impl Route {
    /// The status of the operation's success.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.operation.status).expect("the model has valid statuses")
    }

    /// The most bytes that the operation's body may have.
    pub(crate) fn limit(&self) -> ByteSize {
        match self.operation.name {
            "CreateFunction" | "UpdateFunctionCode" => limits::ZIP_REQUEST,
            "Invoke" | "InvokeWithResponseStream" => limits::SYNC_REQUEST,
            _ => limits::CONTROL_REQUEST,
        }
    }
}

/// All operations, by path.
#[derive(Debug)]
pub(crate) struct Routes(Router<Vec<&'static Operation>>);

impl Routes {
    /// The routes of the generated table.
    pub(crate) fn new() -> Self {
        let mut paths: BTreeMap<&'static str, Vec<&'static Operation>> = BTreeMap::new();
        for operation in OPERATIONS {
            paths.entry(operation.path).or_default().push(operation);
        }
        let mut router = Router::new();
        for (path, mut operations) in paths {
            // The one that asks for a parameter goes first: the other takes what is left.
            operations.sort_by_key(|operation| operation.query.is_none());
            router.insert(path, operations).expect("no two paths of the API contradict each other");
        }
        Self(router)
    }

    /// The operation that a request is for, if there is one.
    ///
    /// # Errors
    /// If a name in the path is no UTF-8 once it is decoded.
    pub(crate) fn find(&self, parts: &Parts) -> Result<Option<Route>> {
        // Some clients send a slash at the end where the model has none.
        let path = parts.uri.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let Ok(found) = self.0.at(path) else { return Ok(None) };
        let query = parts.uri.query().unwrap_or_default();
        let fits = |operation: &&&Operation| {
            let asked = |wanted| query.split('&').any(|pair| pair == wanted);
            operation.method == parts.method.as_str() && operation.query.is_none_or(asked)
        };
        let Some(operation) = found.value.iter().find(fits) else { return Ok(None) };
        let mut names = found.params.iter().map(|(_, name)| query::decode(name));
        let mut next = || names.next().transpose().map(Option::unwrap_or_default);
        let (resource, second) = (next()?.into_owned(), next()?.into_owned());
        Ok(Some(Route { operation, resource, second }))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn find(method: &str, target: &str) -> Option<(&'static str, String)> {
        let request = Request::builder().method(method).uri(target).body(()).expect("valid");
        let route = Routes::new().find(&request.into_parts().0).expect("UTF-8")?;
        Some((route.operation.name, route.resource))
    }

    #[test]
    fn every_operation_is_found_by_its_own_path() {
        assert_eq!(OPERATIONS.len(), 91);
        for operation in OPERATIONS {
            let path = operation.path.replace(['{', '}'], "");
            let target = match operation.query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let found = find(operation.method, &target).map(|(name, _)| name);
            assert_eq!(found, Some(operation.name), "{target}");
        }
    }

    #[test]
    fn names_in_paths_are_decoded() {
        let target = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Ax%3A1%3Afunction%3Ah/invocations";
        let found = find("POST", target);
        assert_eq!(found, Some(("Invoke", "arn:aws:lambda:x:1:function:h".to_owned())));
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        let found = find("GET", "/2015-03-31/functions/?MaxItems=1").map(|(name, _)| name);
        assert_eq!(found, Some("ListFunctions"));
        assert_eq!(find("POST", "/2015-03-31/functions/").map(|f| f.0), Some("CreateFunction"));
    }

    #[test]
    fn strangers_are_not_found() {
        assert_eq!(find("GET", "/"), None);
        assert_eq!(find("PATCH", "/2015-03-31/functions"), None);
        assert_eq!(find("GET", "/2016-03-31/functions"), None);
        assert_eq!(find("GET", "/2015-03-31/functions/a/b/c/d"), None);
    }

    #[test]
    fn a_name_that_is_no_text_is_refused() {
        let request = Request::builder().uri("/2015-03-31/functions/%ff").body(()).expect("valid");
        assert!(Routes::new().find(&request.into_parts().0).is_err());
    }
}
