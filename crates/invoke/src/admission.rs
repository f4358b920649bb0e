//! What is checked before a call reaches the pool: the function, its state, the qualifier, the
//! payload. It changes nothing and waits only for a function that is being created.
//!
//! The service answers 400 to a payload that is no JSON, so the payload is checked, but no value
//! is built from it: one pass for UTF-8, one for the grammar, no allocation that grows with it.
//!
//! Texts and limits: "Invoke", <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.

use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;

use lacewing_model::function::State;
use lacewing_model::usage::Trigger;
use lacewing_model::{
    ByteSize, Error, Function, FunctionKey, Invocation, Kind, Qualifier, Result, limits,
};
use lacewing_services::Catalog;

/// How long a call waits for a function that is being created.
const PATIENCE: Duration = Duration::from_secs(5);

/// The function for the call, once it can be invoked.
pub(crate) async fn admit(catalog: &Catalog, call: &Invocation) -> Result<Arc<Function>> {
    let function = check(catalog, call)?;
    let function = match function.state {
        State::Active | State::Failed => function,
        State::Pending => match catalog.wait_active(&function.version_key(), PATIENCE).await {
            Some(active) => active,
            None => check_target(catalog, call)?,
        },
    };
    ready(function)
}

/// The function, if it can be invoked in its present state.
pub(crate) fn ready(function: Arc<Function>) -> Result<Arc<Function>> {
    match function.state {
        State::Active => Ok(function),
        State::Pending | State::Failed => Err(not_ready(&function)),
    }
}

/// The checks of a call that is served later: a function that is being created may be waited for.
pub(crate) fn admit_later(catalog: &Catalog, call: &Invocation) -> Result<()> {
    let function = check(catalog, call)?;
    if function.state == State::Failed { Err(not_ready(&function)) } else { Ok(()) }
}

/// All checks that need no waiting.
fn check(catalog: &Catalog, call: &Invocation) -> Result<Arc<Function>> {
    let function = check_target(catalog, call)?;
    let (limit, operation) = match call.trigger {
        Trigger::Sync => (limits::SYNC_REQUEST, "Invoke"),
        Trigger::Async => (limits::ASYNC_REQUEST, "InvokeAsync"),
    };
    check_size(call.payload.len(), limit, operation)?;
    check_json(&call.payload)?;
    Ok(function)
}

/// The version that serves the call, if there is one.
fn check_target(catalog: &Catalog, call: &Invocation) -> Result<Arc<Function>> {
    let qualifier = call.qualifier.as_ref();
    let version = catalog.resolve(&call.function, qualifier, call.request_id);
    version.ok_or_else(|| not_found(&call.function, qualifier))
}

/// The version that a qualifier names.
pub(crate) fn find(
    catalog: &Catalog,
    key: &FunctionKey,
    qualifier: Option<&Qualifier>,
) -> Result<Arc<Function>> {
    catalog.named(key, qualifier).ok_or_else(|| not_found(key, qualifier))
}

/// Whether the payload is UTF-8 JSON, or empty.
pub(crate) fn check_json(payload: &[u8]) -> Result<()> {
    if payload.is_empty() {
        return Ok(());
    }
    // The grammar check skips over strings without looking at their bytes.
    let text = std::str::from_utf8(payload).map_err(|error| no_json(&error))?;
    let _parsed: IgnoredAny = serde_json::from_str(text).map_err(|error| no_json(&error))?;
    Ok(())
}

fn check_size(length: usize, limit: ByteSize, operation: &str) -> Result<()> {
    let limit = limit.as_bytes();
    if u64::try_from(length).unwrap_or(u64::MAX) <= limit {
        return Ok(());
    }
    let message =
        format!("Request must be smaller than {limit} bytes for the {operation} operation");
    Err(Error::new(Kind::PayloadTooLarge, message))
}

fn not_found(key: &FunctionKey, qualifier: Option<&Qualifier>) -> Error {
    let qualifier = qualifier.filter(|qualifier| **qualifier != Qualifier::Latest);
    let arn = key.qualified_arn(qualifier.cloned());
    Error::new(Kind::NotFound, format!("Function not found: {arn}"))
}

fn not_ready(function: &Function) -> Error {
    let mut message = format!(
        "The operation cannot be performed at this time. The function is currently in the \
         following state: {:?}",
        function.state
    );
    if let (State::Failed, Some(reason)) = (function.state, &function.state_reason) {
        message.push_str(". ");
        message.push_str(&reason.text);
    }
    Error::new(Kind::Conflict, message)
}

fn no_json(error: &dyn std::fmt::Display) -> Error {
    let message = format!(
        "Could not parse request body into json: Could not parse payload into json: {error}"
    );
    Error::new(Kind::InvalidContent, message)
}

#[cfg(test)]
mod tests;
