//! The operations on the concurrency that a function has for itself.

use lacewing_model::FunctionKey;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::gateway::{Answer, Call, Inner};
use crate::lambda::input::{self, Violations};
use crate::lambda::versions::{nothing, whole_function};
use crate::lambda::{Route, functions, settings};

/// `PutFunctionConcurrency`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutFunctionConcurrency {
    reserved_concurrent_executions: Option<i64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// `PutFunctionConcurrency`.
pub(crate) async fn put(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:PutFunctionConcurrency", route)?;
    let input: PutFunctionConcurrency = input::document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let path = "reservedConcurrentExecutions";
    let mut violations = Violations::default();
    let reserved = violations.read(input.reserved_concurrent_executions, path, (0, 0, u32::MAX));
    violations.check()?;
    let reserved = input::required(reserved, path)?;
    inner.services.functions.reserve(&target.key, reserved).await?;
    put_in_force(inner, &target.key);
    Ok(functions::document(route, &document(reserved)))
}

/// `GetFunctionConcurrency`. Of a function without any the answer is empty.
pub(crate) fn get(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:GetFunctionConcurrency", route)?;
    let reserved = inner.services.functions.reserved(&target.key)?;
    Ok(functions::document(route, &reserved.map_or_else(|| json!({}), document)))
}

/// `DeleteFunctionConcurrency`.
pub(crate) async fn delete(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let target = whole_function(inner, call, "lambda:DeleteFunctionConcurrency", route)?;
    inner.services.functions.unreserve(&target.key).await?;
    put_in_force(inner, &target.key);
    Ok(nothing())
}

/// The document `Concurrency`.
pub(crate) fn document(reserved: u32) -> Value {
    json!({ "ReservedConcurrentExecutions": reserved })
}

/// Lets the next call meet the change; without this it would be in force a moment after the answer.
pub(crate) fn put_in_force(inner: &Inner, key: &FunctionKey) {
    // A node that runs no functions has nothing to put in force.
    if let Ok(invoker) = inner.invoker() {
        invoker.concurrency_changed(key);
    }
}
