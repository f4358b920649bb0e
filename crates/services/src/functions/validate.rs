//! Values that an owner chooses, checked as the public API model and the real service check them.
//!
//! Violations of the model are collected and answered together; what makes no sense is answered
//! alone. Sources: <https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html> and
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>.

use lacewing_model::function::{Architecture, Environment};
use lacewing_model::{Error, Family, FunctionConfig, Kind, Network, Result, limits};

use crate::identity::roles;

/// Variables that the platform sets itself.
const RESERVED: &[&str] = &[
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_METADATA_API",
    "AWS_LAMBDA_METADATA_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Violations of the model, in the order they were found.
#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn add(&mut self, value: &str, path: &str, must: &str) {
        self.0.push(format!(
            "Value '{value}' at '{path}' failed to satisfy constraint: Member must {must}"
        ));
    }

    fn number(&mut self, value: u32, path: &str, (least, _, most): (u32, u32, u32)) {
        if value < least {
            let must = format!("have value greater than or equal to {least}");
            self.add(&value.to_string(), path, &must);
        }
        if value > most {
            let must = format!("have value less than or equal to {most}");
            self.add(&value.to_string(), path, &must);
        }
    }

    fn length(&mut self, value: &str, path: &str, most: usize) {
        if value.chars().count() > most {
            self.add(value, path, &format!("have length less than or equal to {most}"));
        }
    }

    fn finish(self) -> Result<()> {
        let found = self.0.len();
        if found == 0 {
            return Ok(());
        }
        let errors = if found == 1 { "error" } else { "errors" };
        let message = format!("{found} validation {errors} detected: {}", self.0.join("; "));
        Err(Error::new(Kind::Constraint, message))
    }
}

/// Checks everything about a configuration that needs no knowledge of this machine or account.
///
/// # Errors
/// `Constraint` with all violations of the model, `Invalid` for what makes no sense.
pub fn config(config: &FunctionConfig) -> Result<()> {
    let mut violations = Violations::default();
    violations.number(config.timeout_seconds, "timeout", limits::TIMEOUT_SECONDS);
    violations.number(config.memory_mb, "memorySize", limits::MEMORY_MB);
    violations.number(config.ephemeral_mb, "ephemeralStorage.size", limits::EPHEMERAL_MB);
    violations.length(&config.handler, "handler", limits::HANDLER);
    if config.handler.chars().any(char::is_whitespace) {
        let must = r"satisfy regular expression pattern: [^\s]+";
        violations.add(&config.handler, "handler", must);
    }
    violations.length(&config.description, "description", limits::DESCRIPTION);
    if roles::parse(&config.role).is_none() {
        let must = format!("satisfy regular expression pattern: {}", roles::PATTERN);
        violations.add(&config.role, "role", &must);
    }
    if let Some(group) = &config.logging.group {
        violations.length(group, "loggingConfig.logGroup", limits::LOG_GROUP);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#".contains(&byte);
        if group.is_empty() || !group.bytes().all(allowed) {
            let must = r"satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+";
            violations.add(group, "loggingConfig.logGroup", must);
        }
    }
    if let Some(given) = &config.environment
        && !given.0.keys().all(|name| is_variable_name(name))
    {
        // Values of an environment are never repeated.
        violations.0.push(
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy \
             constraint: [Member must satisfy regular expression pattern: \
             [a-zA-Z]([a-zA-Z0-9_])+]"
                .to_owned(),
        );
    }
    for (tag, value) in &config.tags {
        violations.length(tag, "tags", 128);
        violations.length(value, "tags", 256);
    }
    violations.finish()?;
    if config.handler.is_empty() {
        let message = "Runtime and Handler are mandatory parameters for functions created with \
                       deployment packages.";
        return Err(Error::new(Kind::Invalid, message));
    }
    if config.tags.len() > limits::TAGS {
        return Err(Error::new(Kind::Invalid, "Number of tags exceeds resource tag limit."));
    }
    architecture(config.architecture)?;
    config.network()?;
    snap_start(config)?;
    concurrency_per_instance(config)?;
    config.environment.as_ref().map_or(Ok(()), environment)
}

/// Checks that what asks for SnapStart can have it, see
/// <https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html#snapstart-runtimes>; Node.js and custom
/// runtimes, for which Lambda does not offer it, can have it here.
fn snap_start(config: &FunctionConfig) -> Result<()> {
    const OLDEST: [(Family, (u16, u16)); 2] = [(Family::Python, (3, 12)), (Family::Node, (20, 0))];
    let runtime = config.runtime;
    let refused = |message: String| Err(Error::new(Kind::Invalid, message));
    if !config.snap_starts_latest()? && !config.snap_start {
        return Ok(());
    }
    let is_new_enough = |(family, oldest): &(Family, (u16, u16))| {
        runtime.family == *family && runtime.version >= *oldest
    };
    if runtime.family != Family::Provided && !OLDEST.iter().any(is_new_enough) {
        return refused(format!("{runtime} is not supported for SnapStart enabled functions."));
    }
    if config.ephemeral_mb > limits::EPHEMERAL_MB.1 {
        let most = limits::EPHEMERAL_MB.1;
        return refused(format!(
            "SnapStart does not support ephemeral storage greater than {most} MB."
        ));
    }
    Ok(())
}

/// Checks that what asks for several invocations in an Instance can have them: our bootstrap for
/// Python serves one after the other.
fn concurrency_per_instance(config: &FunctionConfig) -> Result<()> {
    let runtime = config.runtime;
    if config.concurrency_per_instance()? == 1 || runtime.family == Family::Provided {
        return Ok(());
    }
    let variable = FunctionConfig::CONCURRENCY_PER_INSTANCE;
    if runtime.family == Family::Node {
        if !config.snap_start && !config.snap_starts_latest()? {
            return Ok(());
        }
        let message = format!("{variable} and SnapStart are not for one function in {runtime}.");
        return Err(Error::new(Kind::Invalid, message));
    }
    let message = format!("{variable} is for custom runtimes and Node.js, not for {runtime}.");
    Err(Error::new(Kind::Invalid, message))
}

/// Checks a description that comes without a configuration.
pub(super) fn description(text: &str) -> Result<()> {
    let mut violations = Violations::default();
    violations.length(text, "description", limits::DESCRIPTION);
    violations.finish()
}

/// Checks the name of an alias.
pub(super) fn alias_name(name: &str) -> Result<()> {
    let mut violations = Violations::default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    violations.length(name, "name", limits::ALIAS_NAME);
    if name.is_empty() {
        violations.add(name, "name", "have length greater than or equal to 1");
    }
    if !name.bytes().all(allowed) || name.bytes().all(|byte| byte.is_ascii_digit()) {
        let must = "satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)";
        violations.add(name, "name", must);
    }
    violations.finish()
}

/// Checks the part of the calls that goes to an alias's second version.
pub(super) fn weight(version: u64, part: f64) -> Result<()> {
    if (0.0..=1.0).contains(&part) {
        return Ok(());
    }
    let mut violations = Violations::default();
    violations.add(
        &format!("{{{version}={part:?}}}"),
        "routingConfig.additionalVersionWeights",
        "satisfy constraint: [Member must have value less than or equal to 1.0, Member must have \
         value greater than or equal to 0.0, Member must not be null]",
    );
    violations.finish()
}

/// Refuses an architecture that this machine does not have.
pub(super) fn architecture(wanted: Architecture) -> Result<()> {
    let here = Architecture::HOST;
    if wanted == here {
        return Ok(());
    }
    let message = format!("The architecture {wanted} is not available here: this host is {here}.");
    Err(Error::new(Kind::Invalid, message))
}

/// Refuses a way out that this server or account does not give to anybody.
pub(super) fn network(config: &FunctionConfig, most: Network) -> Result<()> {
    let is_chosen = |given: &Environment| given.0.contains_key(Network::VARIABLE);
    if config.network()? <= most || !config.environment.as_ref().is_some_and(is_chosen) {
        return Ok(());
    }
    let message = format!(
        "{} is egress, and the configuration of this server allows this account none.",
        Network::VARIABLE
    );
    Err(Error::new(Kind::Invalid, message))
}

fn environment(given: &Environment) -> Result<()> {
    const REFUSED: &str = "Lambda was unable to configure your environment variables because the \
                           environment variables you have provided";
    let reserved: Vec<&str> = given
        .0
        .keys()
        .map(String::as_str)
        .filter(|name| RESERVED.binary_search(name).is_ok())
        .collect();
    if !reserved.is_empty() {
        let message = format!(
            "{REFUSED} contains reserved keys that are currently not supported for modification. \
             Reserved keys used in this request: {}",
            reserved.join(", ")
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    let length = serde_json::to_vec(given)
        .map_err(|error| Error::internal("An environment could not be measured.", error))?
        .len();
    if u64::try_from(length).unwrap_or(u64::MAX) > limits::ENVIRONMENT.as_bytes() {
        // The real service quotes the whole string here; secrets do not belong into messages.
        let message = format!("{REFUSED} exceeded the 4KB limit. String measured: {length} bytes");
        return Err(Error::new(Kind::Invalid, message));
    }
    if given.0.values().any(|value| value.contains('\0')) {
        let message = format!("{REFUSED} contains a NUL character.");
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(())
}

/// `[a-zA-Z]([a-zA-Z0-9_])+`.
fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests;
