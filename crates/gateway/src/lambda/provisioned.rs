//! The operations on provisioned concurrency: Instances of a version that are kept ready.

use std::sync::Arc;

use lacewing_invoke::{Failed, Provided};
use lacewing_model::{Error, FunctionKey, Kind, Qualifier, Result, Timestamp, VersionKey};
use lacewing_services::Provision;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::gateway::{Answer, Call, Inner};
use crate::lambda::concurrency::put_in_force;
use crate::lambda::functions::{authorize, document};
use crate::lambda::input::{self, Violations};
use crate::lambda::versions::{nothing, whole_function};
use crate::lambda::{Route, name, page, settings};

/// `PutProvisionedConcurrencyConfig`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutProvisionedConcurrencyConfig {
    provisioned_concurrent_executions: Option<i64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// `PutProvisionedConcurrencyConfig`.
pub(crate) async fn put(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:PutProvisionedConcurrencyConfig";
    let (key, qualifier) = target(inner, call, action, route)?;
    let input: PutProvisionedConcurrencyConfig = input::document(&call.body.bytes)?;
    settings::refuse(&input.others)?;
    let path = "provisionedConcurrentExecutions";
    let mut violations = Violations::default();
    let requested =
        violations.read(input.provisioned_concurrent_executions, path, (1, 1, u32::MAX));
    violations.check()?;
    let requested = input::required(requested, path)?;
    if requested == 0 {
        let message = format!(
            "1 validation error detected: Value '0' at '{path}' failed to satisfy constraint: \
             Member must have value greater than or equal to 1"
        );
        return Err(Error::new(Kind::Constraint, message).into());
    }
    let provision = inner.services.functions.provision(&key, &qualifier, requested).await?;
    put_in_force(inner, &key);
    let (_, version) = inner.services.functions.provisioned(&key, &qualifier)?;
    Ok(document(route, &described(inner, &provision, &version)))
}

/// `GetProvisionedConcurrencyConfig`.
pub(crate) fn get(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let (key, qualifier) = target(inner, call, "lambda:GetProvisionedConcurrencyConfig", route)?;
    let (provision, version) = inner.services.functions.provisioned(&key, &qualifier)?;
    Ok(document(route, &described(inner, &provision, &version)))
}

/// `ListProvisionedConcurrencyConfigs`.
pub(crate) fn list(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:ListProvisionedConcurrencyConfigs";
    let target = whole_function(inner, call, action, route)?;
    let _exists = inner.services.functions.get(&target.key)?;
    let query = call.parts.uri.query();
    let (limit, after) = (page::size(query)?, page::after::<String>(query)?);
    let catalog = &inner.services.catalog;
    let found = catalog.provisions(&target.key, after.as_deref(), limit.saturating_add(1));
    let entry = |provision: &Arc<Provision>| {
        let Provision { key, qualifier, .. } = &**provision;
        let version = catalog.named(key, Some(qualifier)).map(|version| version.version_key());
        let version = version.unwrap_or_else(|| key.clone().into());
        let mut entry = described(inner, provision, &version);
        entry["FunctionArn"] = key.qualified_arn(Some(qualifier.clone())).to_string().into();
        entry
    };
    let marker = |provision: &Arc<Provision>| page::marker(&provision.qualifier.to_string());
    let member = "ProvisionedConcurrencyConfigs";
    Ok(document(route, &page::document(member, found, limit, entry, marker)))
}

/// `DeleteProvisionedConcurrencyConfig`.
pub(crate) async fn delete(inner: &Inner, call: &Call, route: &Route) -> Answer {
    let action = "lambda:DeleteProvisionedConcurrencyConfig";
    let (key, qualifier) = target(inner, call, action, route)?;
    inner.services.functions.unprovision(&key, &qualifier).await?;
    put_in_force(inner, &key);
    Ok(nothing())
}

/// The function, and its version or alias, which must be named.
fn target(
    inner: &Inner,
    call: &Call,
    action: &str,
    route: &Route,
) -> Result<(FunctionKey, Qualifier)> {
    let target = name::resolve(inner, call, action, &route.resource)?;
    authorize(inner, call, action, &target.arn())?;
    let qualifier = input::required(target.qualifier, "qualifier")?;
    Ok((target.key, qualifier))
}

/// What is set and how far it is.
fn described(inner: &Inner, provision: &Provision, version: &VersionKey) -> Value {
    // A node that runs no functions keeps none ready.
    let provided = inner.invoker().map(|invoker| invoker.provided(version)).unwrap_or_default();
    report(provision.requested, provision.modified, provided)
}

fn report(requested: u32, modified: Timestamp, provided: Provided) -> Value {
    let ready = provided.ready.min(requested);
    let (status, reason) = match provided.failed {
        _ if ready == requested => ("READY", None),
        None => ("IN_PROGRESS", None),
        Some(Failed::Init) => ("FAILED", Some("FUNCTION_ERROR_INIT_FAILURE")),
        Some(Failed::Start) => ("FAILED", Some("INTERNAL_ERROR")),
    };
    let mut report = json!({
        "RequestedProvisionedConcurrentExecutions": requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": status,
        "LastModified": modified.to_jiff().strftime("%Y-%m-%dT%H:%M:%S+0000").to_string(),
    });
    if let Some(reason) = reason {
        report["StatusReason"] = reason.into();
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_decides_the_status() {
        let told = |ready, failed| {
            let report = report(2, Timestamp::from_seconds(0), Provided { ready, failed });
            assert_eq!(report["RequestedProvisionedConcurrentExecutions"], 2);
            assert_eq!(report["LastModified"], "1970-01-01T00:00:00+0000");
            let of = |name: &str| report[name].clone();
            assert_eq!(
                of("AvailableProvisionedConcurrentExecutions"),
                of("AllocatedProvisionedConcurrentExecutions")
            );
            (of("Status"), of("AllocatedProvisionedConcurrentExecutions"), of("StatusReason"))
        };
        assert_eq!(told(0, None), (json!("IN_PROGRESS"), json!(0), Value::Null));
        assert_eq!(told(1, None), (json!("IN_PROGRESS"), json!(1), Value::Null));
        assert_eq!(told(3, None), (json!("READY"), json!(2), Value::Null));
        let init = json!("FUNCTION_ERROR_INIT_FAILURE");
        assert_eq!(told(1, Some(Failed::Init)), (json!("FAILED"), json!(1), init));
        assert_eq!(told(0, Some(Failed::Start)).0, json!("FAILED"));
        assert_eq!(told(2, Some(Failed::Init)).0, json!("READY"));
    }
}
