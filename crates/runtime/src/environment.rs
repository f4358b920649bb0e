//! The environment variables of a sandbox.
//!
//! Source: "Working with Lambda environment variables", section "Defined runtime environment
//! variables", <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>: reserved
//! keys are the platform's alone, all others give way to what the function's owner sets.

use std::collections::BTreeMap;

use lacewing_model::{Credentials, Family, Function, LogFormat, RuntimeId, Secret};

use crate::platform_log::Initialization;
use crate::runtime_api::CREDENTIALS_PATH;

/// Port of the Lambda Runtime API inside every sandbox.
pub(crate) const RUNTIME_API_PORT: u16 = 9001;
/// Directory of the function's code inside.
pub(crate) const TASK_ROOT: &str = "/var/task";
/// Directory of the bootstraps inside.
pub(crate) const RUNTIME_DIR: &str = "/var/runtime";
/// Names a program of the function's that starts the stock runtime in its place.
pub(crate) const EXEC_WRAPPER: &str = "AWS_LAMBDA_EXEC_WRAPPER";

const PATH: &str = "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin";
const LIBRARIES: &str = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:\
                         /var/task:/var/task/lib:/opt/lib";

/// What the variables are made of.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) function: &'a Function,
    pub(crate) credentials: &'a Credentials,
    /// By what it gets credentials instead: those of what is to be copied would be in each copy.
    pub(crate) authorization: Option<&'a Secret<String>>,
    pub(crate) initialization: Initialization,
    /// What serves, which may be a substitute for what the function asks for.
    pub(crate) serving: RuntimeId,
    pub(crate) log_stream: &'a str,
    pub(crate) endpoint_port: u16,
    /// The descriptor for framed log records.
    pub(crate) telemetry_fd: i32,
}

/// Composes the whole environment, sorted by key.
pub(crate) fn compose(source: &Source<'_>) -> Vec<(String, String)> {
    let mut variables = defaults(source.serving, source.endpoint_port);
    if let LogFormat::Json { application, .. } = source.function.config.logging.format {
        variables.insert("AWS_LAMBDA_LOG_FORMAT".to_owned(), "JSON".to_owned());
        variables.insert("AWS_LAMBDA_LOG_LEVEL".to_owned(), application.to_string());
    }
    if let Some(own) = &source.function.config.environment {
        variables.extend(own.0.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    for (key, value) in reserved(source) {
        match value {
            Some(value) => variables.insert(key.to_owned(), value),
            None => variables.remove(key),
        };
    }
    if let Some(word) = source.authorization {
        let place = format!("http://127.0.0.1:{RUNTIME_API_PORT}{CREDENTIALS_PATH}");
        variables.insert("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), place);
        variables.insert("AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(), word.expose().clone());
    }
    variables.into_iter().collect()
}

/// The environment with which a stock runtime starts that has no function yet.
pub(crate) fn blank(serving: RuntimeId, endpoint_port: u16) -> Vec<(String, String)> {
    defaults(serving, endpoint_port).into_iter().collect()
}

/// Whether a runtime that was started with the environment `of_blank` does as well with the `wanted`
/// one as if it had been started with that: not if they differ in something that is read once.
pub(crate) fn suits(wanted: &[(String, String)], of_blank: &[(String, String)]) -> bool {
    let at_start = |list: &[(String, String)]| -> Vec<(String, String)> {
        list.iter().filter(|(name, _)| is_read_at_start(name)).cloned().collect()
    };
    at_start(wanted) == at_start(of_blank)
}

/// Whether the dynamic loader, libc, OpenSSL or an interpreter reads a variable when it starts. The
/// Python interpreters run with `-I` and read none of their own.
fn is_read_at_start(name: &str) -> bool {
    const PREFIXES: [&str; 8] =
        ["LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "OPENSSL_", "UV_", "NODE_"];
    name == EXEC_WRAPPER
        || (name != "NODE_ENV" && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// What the function's owner may change.
fn defaults(serving: RuntimeId, endpoint_port: u16) -> BTreeMap<String, String> {
    let major = serving.version.0;
    let mut variables = vec![
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{endpoint_port}")),
        ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".to_owned()),
        ("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("LD_LIBRARY_PATH", LIBRARIES.to_owned()),
        ("PATH", PATH.to_owned()),
        ("PWD", TASK_ROOT.to_owned()),
        ("TZ", ":UTC".to_owned()),
    ];
    match serving.family {
        Family::Python => variables.push(("PYTHONPATH", RUNTIME_DIR.to_owned())),
        Family::Node => variables.push((
            "NODE_PATH",
            format!(
                "/opt/nodejs/node{major}/node_modules:/opt/nodejs/node_modules:\
                 /var/runtime/node_modules:/var/runtime:/var/task"
            ),
        )),
        Family::Provided => {}
    }
    if serving.family != Family::Provided {
        variables.push(("SHLVL", "0".to_owned()));
    }
    variables.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What only the platform sets; a key without a value is one that must not be there.
fn reserved(source: &Source<'_>) -> [(&'static str, Option<String>); 22] {
    let Source { function, credentials, .. } = source;
    let config = &function.config;
    let region = function.key.region.to_string();
    let secret = credentials.secret_access_key.expose().clone();
    let token = credentials.session_token.as_ref().map(|token| token.expose().clone());
    let has_them = source.authorization.is_none();
    let is_stock = source.serving.family != Family::Provided;
    let seats = config.seats();
    [
        ("AWS_ACCESS_KEY_ID", has_them.then(|| credentials.access_key_id.clone())),
        ("AWS_SECRET_ACCESS_KEY", has_them.then_some(secret)),
        ("AWS_SESSION_TOKEN", token.filter(|_| has_them)),
        ("AWS_REGION", Some(region.clone())),
        ("AWS_DEFAULT_REGION", Some(region)),
        ("AWS_EXECUTION_ENV", is_stock.then(|| format!("AWS_Lambda_{}", config.runtime))),
        ("AWS_LAMBDA_FUNCTION_NAME", Some(function.key.name.to_string())),
        ("AWS_LAMBDA_FUNCTION_VERSION", Some(function.version.to_string())),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", Some(config.memory_mb.to_string())),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", Some(source.initialization.name().to_owned())),
        ("AWS_LAMBDA_LOG_GROUP_NAME", Some(config.logging.group_of(&function.key.name))),
        ("AWS_LAMBDA_LOG_STREAM_NAME", Some(source.log_stream.to_owned())),
        ("AWS_LAMBDA_RUNTIME_API", Some(format!("127.0.0.1:{RUNTIME_API_PORT}"))),
        ("AWS_LAMBDA_MAX_CONCURRENCY", (seats > 1).then(|| seats.to_string())),
        ("LAMBDA_TASK_ROOT", Some(TASK_ROOT.to_owned())),
        ("LAMBDA_RUNTIME_DIR", Some(RUNTIME_DIR.to_owned())),
        ("_HANDLER", Some(config.handler.clone())),
        ("_LAMBDA_TELEMETRY_LOG_FD", Some(source.telemetry_fd.to_string())),
        ("_X_AMZN_TRACE_ID", None),
        ("_AWS_XRAY_DAEMON_ADDRESS", Some("127.0.0.1".to_owned())),
        ("_AWS_XRAY_DAEMON_PORT", Some("2000".to_owned())),
        ("AWS_ACCESS_KEY", None),
    ]
}

#[cfg(test)]
mod tests {
    use lacewing_model::function::Environment;
    use lacewing_model::{LogLevel, Logging};

    use super::*;
    use crate::testing;

    fn composed(runtime: &str, own: &[(&str, &str)]) -> BTreeMap<String, String> {
        composed_with(Logging::default(), runtime, own)
    }

    fn composed_with(
        logging: Logging,
        runtime: &str,
        own: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let mut function = testing::function(runtime);
        function.config.logging = logging;
        let own = own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        function.config.environment = Some(Environment(own.collect()));
        let credentials = Credentials {
            access_key_id: "ASIAX".to_owned(),
            secret_access_key: Secret::new("secret".to_owned()),
            session_token: Some(Secret::new("token".to_owned())),
            expires: None,
        };
        let source = Source {
            function: &function,
            credentials: &credentials,
            authorization: None,
            initialization: Initialization::OnDemand,
            serving: function.config.runtime,
            log_stream: "2026/11/21/[$LATEST]abc",
            endpoint_port: 9002,
            telemetry_fd: 4,
        };
        compose(&source).into_iter().collect()
    }

    #[test]
    fn a_stock_runtime_sees_what_lambda_documents() {
        let python = composed("python3.11", &[]);
        for (key, value) in [
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "ASIAX"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_python3.11"),
            ("AWS_LAMBDA_FUNCTION_NAME", "hello"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hello"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/21/[$LATEST]abc"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("_HANDLER", "app.handler"),
            ("TZ", ":UTC"),
            ("LANG", "en_US.UTF-8"),
            ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"),
            ("PYTHONPATH", "/var/runtime"),
            ("PWD", "/var/task"),
            ("SHLVL", "0"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9002"),
        ] {
            assert_eq!(python.get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    #[test]
    fn a_json_log_is_named_with_its_level_and_both_give_way() {
        let format = LogFormat::Json { application: LogLevel::Warn, system: LogLevel::Info };
        let logging = Logging { format, group: Some("mine".to_owned()) };
        let seen = composed_with(logging.clone(), "python3.11", &[]);
        assert_eq!(seen["AWS_LAMBDA_LOG_FORMAT"], "JSON");
        assert_eq!(seen["AWS_LAMBDA_LOG_LEVEL"], "WARN");
        assert_eq!(seen["AWS_LAMBDA_LOG_GROUP_NAME"], "mine");
        let own = [("AWS_LAMBDA_LOG_LEVEL", "DEBUG")];
        assert_eq!(composed_with(logging, "python3.11", &own)["AWS_LAMBDA_LOG_LEVEL"], "DEBUG");
        let text = composed("python3.11", &[]);
        assert!(text.keys().all(|name| !name.starts_with("AWS_LAMBDA_LOG_FORMAT")));
        assert!(!text.contains_key("AWS_LAMBDA_LOG_LEVEL"));
    }

    #[test]
    fn a_custom_runtime_has_no_execution_env() {
        let provided = composed("provided.al2023", &[("AWS_EXECUTION_ENV", "mine")]);
        assert!(!provided.contains_key("AWS_EXECUTION_ENV"));
        assert!(!provided.contains_key("PYTHONPATH") && !provided.contains_key("NODE_PATH"));
    }

    #[test]
    fn node_finds_modules_of_its_own_version() {
        let node = composed("nodejs20.x", &[]);
        assert_eq!(
            node["NODE_PATH"],
            "/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:\
             /var/runtime/node_modules:/var/runtime:/var/task"
        );
    }

    #[test]
    fn a_blank_runtime_suits_whoever_changes_nothing_that_is_read_at_start() {
        let suits = |runtime: &str, own: &[(&str, &str)]| {
            let wanted: Vec<_> = composed(runtime, own).into_iter().collect();
            super::suits(&wanted, &blank(runtime.parse().expect("known"), 9002))
        };
        for runtime in ["python3.11", "nodejs20.x"] {
            let same = ("LANG", "en_US.UTF-8");
            let own = [("TZ", "Europe/Berlin"), ("TABLE", "x"), ("NODE_ENV", "production"), same];
            assert!(suits(runtime, &[]) && suits(runtime, &own));
            for name in ["LANG", "LC_ALL", "LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES"] {
                assert!(!suits(runtime, &[(name, "other")]), "{name}");
            }
            for name in ["NODE_OPTIONS", "NODE_PATH", "UV_THREADPOOL_SIZE", EXEC_WRAPPER] {
                assert!(!suits(runtime, &[(name, "other")]), "{name}");
            }
        }
    }

    #[test]
    fn reserved_keys_stay_and_others_give_way() {
        let own = [
            ("AWS_REGION", "mars"),
            ("_HANDLER", "evil"),
            ("_X_AMZN_TRACE_ID", "x"),
            ("TZ", "Europe/Berlin"),
            ("LANG", "C"),
            ("PATH", "/opt/bin"),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("AWS_XRAY_DAEMON_ADDRESS", "1.2.3.4:5"),
            ("GREETING", "hello"),
        ];
        let seen = composed("python3.11", &own);
        assert_eq!(seen["AWS_REGION"], "us-east-1");
        assert_eq!(seen["_HANDLER"], "app.handler");
        assert!(!seen.contains_key("_X_AMZN_TRACE_ID"));
        for (key, value) in &own[3..] {
            assert_eq!(&seen[*key], value, "{key}");
        }
    }
}
