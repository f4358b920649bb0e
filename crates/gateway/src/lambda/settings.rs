//! Settings that Lambda has and Lacewing does not: accepted when they say "off", else refused by name.
//!
//! A member that nobody knows is refused in the same way: whoever sends it expects something.

use lacewing_model::{Error, Kind, Result};
use serde_json::{Map, Value};

/// Refuses every setting that asks for something.
///
/// # Errors
/// `Unsupported`, naming all of them.
pub(crate) fn refuse(others: &Map<String, Value>) -> Result<()> {
    let wanted: Vec<&str> = others
        .iter()
        .filter(|(name, value)| !is_off(name, value))
        .map(|(name, _)| name.as_str())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let message = format!("These settings are not supported by Lacewing: {}.", wanted.join(", "));
    Err(Error::new(Kind::Unsupported, message))
}

/// Whether a setting's value is what holds without it.
fn is_off(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("PackageType", Value::String(kind)) => kind == "Zip",
        ("TracingConfig", Value::Object(tracing)) => only(tracing, "Mode", "PassThrough"),
        _ => is_empty(value),
    }
}

fn only(object: &Map<String, Value>, name: &str, value: &str) -> bool {
    object.iter().all(|(key, found)| is_empty(found) || (key == name && found == value))
}

/// Nothing at all, in any of the ways that JSON has to say it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(settings: &Value) -> Result<()> {
        refuse(settings.as_object().expect("an object"))
    }

    #[test]
    fn what_says_off_is_accepted() {
        let off = json!({
            "PackageType": "Zip", "Publish": false, "Layers": [], "KMSKeyArn": "",
            "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": [], "Ipv6AllowedForDualStack": false},
            "DeadLetterConfig": {}, "TracingConfig": {"Mode": "PassThrough"},
            "ImageConfig": null,
        });
        assert!(check(&off).is_ok(), "{:?}", check(&off));
    }

    #[test]
    fn what_asks_for_something_is_named() {
        let on = json!({
            "PackageType": "Image", "Publish": true, "Layers": ["arn"], "KMSKeyArn": "arn",
            "VpcConfig": {"SubnetIds": ["subnet"]}, "DeadLetterConfig": {"TargetArn": "arn"},
            "TracingConfig": {"Mode": "Active"},
            "ImageConfig": {"Command": ["x"]}, "FileSystemConfigs": [{}, {"Arn": "x"}],
            "CodeSigningConfigArn": "arn",
            "DurableConfig": {"ExecutionTimeout": 1}, "Invented": "x",
            "TenancyConfig": {"TenantIsolationMode": "PER_TENANT"},
            "CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": {"A": "x"}},
        });
        let error = check(&on).expect_err("refused");
        for name in on.as_object().expect("an object").keys() {
            assert!(error.public().contains(name.as_str()), "{name} was not named");
        }
    }
}
