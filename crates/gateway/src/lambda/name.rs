//! Which function a request means: from the forms a caller may use to our key and qualifier.

use lacewing_model::{Error, FunctionKey, FunctionRef, Kind, Qualifier, Result};

use crate::gateway::{Call, Inner};
use crate::query;

/// A function and what the caller said about its version.
#[derive(Debug)]
pub(crate) struct Target {
    /// The function, in the caller's account and this region.
    pub(crate) key: FunctionKey,
    /// The qualifier, by name or parameter.
    pub(crate) qualifier: Option<Qualifier>,
}

impl Target {
    /// The ARN with the caller's qualifier.
    pub(crate) fn arn(&self) -> String {
        self.key.qualified_arn(self.qualifier.clone()).to_string()
    }

    /// Refuses any qualifier, for what can be done to a whole function only.
    ///
    /// # Errors
    /// `Invalid` with AWS's text.
    pub(crate) fn require_unqualified(&self) -> Result<()> {
        if self.qualifier.is_none() {
            return Ok(());
        }
        let message = "This operation is permitted on Lambda functions only. Aliases and versions \
                       do not support this operation. Please specify either a function name or an \
                       unqualified function ARN.";
        Err(Error::new(Kind::Invalid, message))
    }
}

/// Reads the function's name out of a path, and the `Qualifier` parameter.
///
/// # Errors
/// If the name is malformed, contradicts the parameter, or is of another region or account.
pub(crate) fn resolve(inner: &Inner, call: &Call, action: &str, text: &str) -> Result<Target> {
    let reference: FunctionRef = text.parse()?;
    let region = &inner.options.region;
    if let Some(other) = reference.region.as_ref().filter(|other| *other != region) {
        let message =
            format!("Functions from '{other}' are not reachable in this region ('{region}')");
        return Err(Error::new(Kind::NotFound, message));
    }
    let principal = &call.caller.principal;
    let key = reference.key(&principal.account, region);
    let parameter = query::parameter(call.parts.uri.query(), "Qualifier")?;
    let parameter: Option<Qualifier> = parameter.map(|text| text.parse()).transpose()?;
    let qualifier = match (reference.qualifier, parameter) {
        (Some(derived), Some(given)) if derived != given => {
            let message = "The derived qualifier from the function name does not match the \
                           specified qualifier.";
            return Err(Error::new(Kind::Invalid, message));
        }
        (derived, given) => derived.or(given),
    };
    if key.account != principal.account {
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {} because no \
             resource-based policy allows the {action} action",
            principal.arn(),
            key.arn(),
        );
        return Err(Error::new(Kind::Forbidden, message));
    }
    Ok(Target { key, qualifier })
}
