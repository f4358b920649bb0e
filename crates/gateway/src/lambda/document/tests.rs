//! Configuration documents in each state.

use std::collections::BTreeMap;

use lacewing_model::function::{Architecture, Code, Environment};
use lacewing_model::{
    AccountId, Digest, FunctionConfig, FunctionKey, FunctionName, LogFormat, LogLevel, Logging,
    Region, RuntimeId,
};
use uuid::Uuid;

use super::*;

fn function() -> Function {
    Function {
        key: FunctionKey {
            account: AccountId::new("000000000000").expect("valid"),
            region: Region::new("us-east-1").expect("valid"),
            name: FunctionName::new("hello").expect("valid"),
        },
        version: Version::Latest,
        lineage: Uuid::nil(),
        config: FunctionConfig {
            runtime: RuntimeId::python(3, 13),
            handler: "app.handler".into(),
            role: "arn:aws:iam::000000000000:role/lambda".into(),
            description: String::new(),
            timeout_seconds: 3,
            memory_mb: 128,
            ephemeral_mb: 512,
            architecture: Architecture::X86_64,
            logging: Logging::default(),
            snap_start: false,
            environment: None,
            tags: BTreeMap::new(),
        },
        code: Code { digest: Digest::new([0xab; 32]), size: 1234 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: Uuid::nil(),
        last_modified: Timestamp::from_millis(1_795_251_210_000),
        generation: 1,
    }
}

#[test]
fn an_active_function_is_described_as_lambda_does() {
    let mut function = function();
    let variables = BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]);
    function.config.environment = Some(Environment(variables));
    let serving = RuntimeVersion::new(RuntimeId::python(3, 13), "3.13.2");
    let document =
        configuration(&function, Some(&serving), Some(&Qualifier::Latest), Extent::Whole);
    insta::assert_json_snapshot!(document);
}

#[test]
fn only_published_versions_are_optimised() {
    let mut function = function();
    function.config.snap_start = true;
    let shown = |function: &Function| {
        configuration(function, None, None, Extent::Listed)["SnapStart"].clone()
    };
    let wanted =
        |status: &str| json!({"ApplyOn": "PublishedVersions", "OptimizationStatus": status});
    assert_eq!(shown(&function), wanted("Off"));
    function.version = Version::Published(1);
    assert_eq!(shown(&function), wanted("On"));
    function.config.snap_start = false;
    assert_eq!(shown(&function), json!({"ApplyOn": "None", "OptimizationStatus": "Off"}));
}

#[test]
fn a_json_log_shows_its_levels_and_its_group() {
    let mut function = function();
    let format = LogFormat::Json { application: LogLevel::Debug, system: LogLevel::Warn };
    function.config.logging = Logging { format, group: Some("mine".to_owned()) };
    assert_eq!(
        configuration(&function, None, None, Extent::Listed)["LoggingConfig"],
        json!({
            "LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "WARN",
            "LogGroup": "mine",
        })
    );
}

#[test]
fn a_listed_function_has_no_state_and_no_nulls() {
    let document = configuration(&function(), None, None, Extent::Listed);
    let members = document.as_object().expect("an object");
    for absent in ["State", "LastUpdateStatus", "RuntimeVersionConfig", "Environment"] {
        assert!(!members.contains_key(absent), "{absent}");
    }
    assert!(members.values().all(|value| !value.is_null()));
}

#[test]
fn each_state_says_why() {
    let describe = |state, last_update, reason: Option<(&str, &str)>| {
        let mut function = function();
        function.state = state;
        function.last_update = last_update;
        function.state_reason =
            reason.map(|(text, code)| StateReason { text: text.into(), code: code.into() });
        let mut document = configuration(&function, None, None, Extent::Whole);
        let members = document.as_object_mut().expect("an object");
        members.retain(|name, _| name.starts_with("State") || name.starts_with("LastUpdate"));
        document
    };
    use UpdateStatus::{Failed, InProgress, Successful};
    insta::assert_json_snapshot!([
        describe(State::Pending, InProgress, None),
        describe(State::Pending, Successful, Some(("The function is being created.", "Creating"))),
        describe(State::Active, Successful, Some(("python3.12 stands in.", "Substituted"))),
        describe(State::Active, InProgress, None),
        describe(State::Active, Failed, Some(("No space.", "InternalError"))),
        describe(State::Failed, Successful, Some(("No space.", "InternalError"))),
    ]);
}
