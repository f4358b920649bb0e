//! Answer documents: a function as Lambda describes it.
//!
//! What a function does not have is left out, never null; what Lacewing does not offer shows the
//! value that means "off".

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lacewing_model::function::{State, StateReason, UpdateStatus};
use lacewing_model::{Function, Qualifier, RuntimeVersion, Timestamp, Version};
use serde_json::{Map, Value, json};

use crate::lambda::logging;

/// How much of a function is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything.
    Whole,
    /// Without its state, as `ListFunctions` answers.
    Listed,
}

/// The document `FunctionConfiguration`; the ARN has the qualifier, if one is given. `serving` is
/// what runs it, if anything does.
pub(crate) fn configuration(
    function: &Function,
    serving: Option<&RuntimeVersion>,
    qualifier: Option<&Qualifier>,
    extent: Extent,
) -> Value {
    let config = &function.config;
    let mut document = json!({
        "FunctionName": function.key.name.as_str(),
        "FunctionArn": function.key.qualified_arn(qualifier.cloned()).to_string(),
        "Runtime": config.runtime.to_string(),
        "Role": config.role,
        "Handler": config.handler,
        "CodeSize": function.code.size,
        "Description": config.description,
        "Timeout": config.timeout_seconds,
        "MemorySize": config.memory_mb,
        "LastModified": modified(function.last_modified),
        "CodeSha256": BASE64_STANDARD.encode(function.code.digest.as_bytes()),
        "Version": function.version.to_string(),
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": function.revision_id.to_string(),
        "PackageType": "Zip",
        "Architectures": [config.architecture.to_string()],
        "EphemeralStorage": {"Size": config.ephemeral_mb},
        "SnapStart": snap_start(function),
        "LoggingConfig": logging::document(function),
    });
    let members = document.as_object_mut().expect("it was written as an object");
    if let Some(environment) = &config.environment {
        members.insert("Environment".into(), json!({"Variables": environment}));
    }
    if extent == Extent::Whole {
        add_state(members, function);
        if let Some(serving) = serving {
            let arn = serving.arn(&function.key.region);
            members.insert("RuntimeVersionConfig".into(), json!({"RuntimeVersionArn": arn}));
        }
    }
    document
}

/// `SnapStart`: as Lambda knows it only a published version can be optimised.
fn snap_start(function: &Function) -> Value {
    let apply_on = if function.config.snap_start { "PublishedVersions" } else { "None" };
    let is_optimised = function.version != Version::Latest && function.is_snap_started();
    let status = if is_optimised { "On" } else { "Off" };
    json!({"ApplyOn": apply_on, "OptimizationStatus": status})
}

fn add_state(members: &mut Map<String, Value>, function: &Function) {
    let state = match function.state {
        State::Pending => "Pending",
        State::Active => "Active",
        State::Failed => "Failed",
    };
    members.insert("State".into(), state.into());
    let update = match function.last_update {
        UpdateStatus::InProgress => "InProgress",
        UpdateStatus::Successful => "Successful",
        UpdateStatus::Failed => "Failed",
    };
    // While a function is being created there is no update to speak of.
    if function.state != State::Pending {
        members.insert("LastUpdateStatus".into(), update.into());
    }
    let reason = function.state_reason.as_ref();
    match (function.state, function.last_update) {
        (State::Pending, _) => add_reason(members, "StateReason", reason, CREATING),
        (_, UpdateStatus::InProgress) => {
            add_reason(members, "LastUpdateStatusReason", reason, CREATING);
        }
        (_, UpdateStatus::Failed) => add_reason(members, "LastUpdateStatusReason", reason, ""),
        _ => add_reason(members, "StateReason", reason, ""),
    }
}

/// The code of everything that is under way.
const CREATING: &str = "Creating";

fn add_reason(
    members: &mut Map<String, Value>,
    name: &str,
    reason: Option<&StateReason>,
    default: &str,
) {
    let (text, code) = match reason {
        Some(reason) => (reason.text.as_str(), reason.code.as_str()),
        None if default == CREATING => ("The function is being created.", CREATING),
        None => return,
    };
    members.insert(name.into(), text.into());
    members.insert(format!("{name}Code"), code.into());
}

/// `2026-11-21T08:53:30.000+0000`.
fn modified(moment: Timestamp) -> String {
    moment.to_jiff().strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
}

#[cfg(test)]
mod tests;
