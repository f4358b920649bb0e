//! Tests of the checks, by the words they answer.

use std::collections::BTreeMap;

use lacewing_model::RuntimeId;

use super::*;

fn valid() -> FunctionConfig {
    let config = FunctionConfig::new(
        RuntimeId::python(3, 13),
        "app.handler",
        "arn:aws:iam::000000000000:role/lambda",
    );
    FunctionConfig { architecture: Architecture::HOST, ..config }
}

fn refused(change: impl FnOnce(&mut FunctionConfig)) -> (Kind, String) {
    let mut changed = valid();
    change(&mut changed);
    let error = config(&changed).expect_err("not valid");
    (error.kind(), error.public().to_owned())
}

fn with_variable(name: &str, value: &str) -> (Kind, String) {
    let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    refused(|config| config.environment = Some(Environment(variables)))
}

#[test]
fn reserved_names_are_sorted_for_the_search() {
    assert!(RESERVED.is_sorted());
}

#[test]
fn a_valid_configuration_passes() {
    config(&valid()).expect("valid");
    let mut largest = valid();
    (largest.timeout_seconds, largest.memory_mb, largest.ephemeral_mb) = (900, 10_240, 10_240);
    largest.handler = "h".repeat(128);
    largest.description = "ä".repeat(256);
    let variables = BTreeMap::from([("PATH".to_owned(), "x".repeat(4_085))]);
    largest.environment = Some(Environment(variables));
    config(&largest).expect("valid");
}

#[test]
fn snap_start_is_for_what_can_have_it() {
    let mut good = valid();
    good.snap_start = true;
    config(&good).expect("valid");
    good.runtime = "provided.al2023".parse().expect("known");
    config(&good).expect("valid");
    for runtime in ["python3.11", "nodejs18.x"] {
        let (kind, message) = refused(|config| {
            config.snap_start = true;
            config.runtime = runtime.parse().expect("known");
        });
        assert_eq!(kind, Kind::Invalid);
        let wanted = format!("{runtime} is not supported for SnapStart enabled functions.");
        assert_eq!(message, wanted);
    }
    let (_, message) = refused(|config| (config.snap_start, config.ephemeral_mb) = (true, 513));
    assert!(message.contains("ephemeral storage greater than 512 MB"), "{message}");
}

#[test]
fn several_invocations_in_an_instance_are_for_custom_runtimes() {
    let with = |runtime: &'static str, number: &'static str| {
        move |config: &mut FunctionConfig| {
            config.runtime = runtime.parse().expect("known");
            let variable = FunctionConfig::CONCURRENCY_PER_INSTANCE.to_owned();
            let variables = BTreeMap::from([(variable, number.to_owned())]);
            config.environment = Some(Environment(variables));
        }
    };
    let good = [("provided.al2023", "64"), ("nodejs22.x", "64"), ("python3.13", "1")];
    for (runtime, number) in good {
        let mut good = valid();
        with(runtime, number)(&mut good);
        config(&good).expect("valid");
    }
    let wanted =
        "LACEWING_CONCURRENCY_PER_INSTANCE is for custom runtimes and Node.js, not for python3.13.";
    assert_eq!(refused(with("python3.13", "2")), (Kind::Invalid, wanted.to_owned()));
    let (_, message) = refused(with("provided.al2023", "0"));
    assert_eq!(
        message,
        "LACEWING_CONCURRENCY_PER_INSTANCE must be a number from 1 to 64, not '0'."
    );
}

#[test]
fn one_violation_is_worded_as_the_real_service_does() {
    let (kind, message) = refused(|config| config.timeout_seconds = 901);
    assert_eq!(kind, Kind::Constraint);
    let expected = "1 validation error detected: Value '901' at 'timeout' failed to satisfy \
                    constraint: Member must have value less than or equal to 900";
    assert_eq!(message, expected);
}

#[test]
fn several_violations_are_counted_and_joined() {
    let (kind, message) = refused(|config| (config.timeout_seconds, config.memory_mb) = (0, 64));
    assert_eq!(kind, Kind::Constraint);
    let expected = "2 validation errors detected: Value '0' at 'timeout' failed to satisfy \
                    constraint: Member must have value greater than or equal to 1; Value '64' at \
                    'memorySize' failed to satisfy constraint: Member must have value greater \
                    than or equal to 128";
    assert_eq!(message, expected);
}

#[test]
fn every_bound_is_kept() {
    type Change = fn(&mut FunctionConfig);
    let changes: [(&str, Change); 6] = [
        ("'ephemeralStorage.size'", |config| config.ephemeral_mb = 511),
        ("'handler'", |config| config.handler = "h".repeat(129)),
        ("[^\\s]+", |config| config.handler = "a b".to_owned()),
        ("'description'", |config| config.description = "d".repeat(257)),
        ("'role'", |config| config.role = "lambda".to_owned()),
        ("'memorySize'", |config| config.memory_mb = 10_241),
    ];
    for (part, change) in changes {
        let (kind, message) = refused(change);
        assert_eq!(kind, Kind::Constraint);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_function_without_a_handler_is_refused() {
    let (kind, message) = refused(|config| config.handler.clear());
    assert_eq!(kind, Kind::Invalid);
    assert!(message.starts_with("Runtime and Handler are mandatory"), "{message}");
}

#[test]
fn an_architecture_that_is_not_here_is_refused_by_name() {
    let other = match Architecture::HOST {
        Architecture::X86_64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::X86_64,
    };
    let (kind, message) = refused(|config| config.architecture = other);
    assert_eq!(kind, Kind::Invalid);
    assert!(message.contains(&other.to_string()), "{message}");
}

#[test]
fn reserved_variables_are_named() {
    for name in ["AWS_REGION", "LAMBDA_TASK_ROOT", "AWS_ACCESS_KEY_ID"] {
        let (kind, message) = with_variable(name, "x");
        assert_eq!(kind, Kind::Invalid);
        let ending = format!("Reserved keys used in this request: {name}");
        assert!(message.ends_with(&ending), "{message}");
    }
}

#[test]
fn odd_names_of_variables_are_refused() {
    for name in ["", "x", "_X", "1X", "A-B", "_HANDLER", "A B", "Ä2"] {
        let (kind, message) = with_variable(name, "x");
        assert_eq!(kind, Kind::Constraint, "{name}");
        assert!(message.contains("'environment.variables'"), "{message}");
    }
}

#[test]
fn a_large_environment_is_refused_without_being_repeated() {
    let secret = "hunter2-".repeat(600);
    let (kind, message) = with_variable("PASSWORD", &secret);
    assert_eq!(kind, Kind::Invalid);
    assert!(message.contains("exceeded the 4KB limit"), "{message}");
    assert!(!message.contains("hunter2"));
}

#[test]
fn too_many_tags_are_refused() {
    let (kind, message) = refused(|config| {
        config.tags = (0..51).map(|number| (format!("t{number}"), String::new())).collect();
    });
    assert_eq!(kind, Kind::Invalid);
    assert_eq!(message, "Number of tags exceeds resource tag limit.");
}

#[test]
fn a_log_group_has_a_name_that_cloudwatch_could_have() {
    let named = |group: &str| {
        let mut changed = valid();
        changed.logging.group = Some(group.to_owned());
        config(&changed)
    };
    named("/aws/lambda/other.all-functions_#1").expect("valid");
    for (group, must) in [
        ("", "pattern: [\\.\\-_/#A-Za-z0-9]+"),
        ("with space", "pattern: [\\.\\-_/#A-Za-z0-9]+"),
        (&"g".repeat(513), "have length less than or equal to 512"),
    ] {
        let error = named(group).expect_err("refused");
        assert_eq!(error.kind(), Kind::Constraint);
        assert!(error.public().contains("'loggingConfig.logGroup'"), "{error}");
        assert!(error.public().ends_with(must), "{error}");
    }
}
