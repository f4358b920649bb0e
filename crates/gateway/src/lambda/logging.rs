//! `LoggingConfig`: read from requests, written into answers.
//!
//! Only words are checked here; what goes together is decided by the model.

use lacewing_model::{Function, LogFormat, LogLevel, LoggingPatch, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lambda::functions::not_among;

/// `LoggingConfig` of a request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct LoggingInput {
    log_format: Option<String>,
    application_log_level: Option<String>,
    system_log_level: Option<String>,
    log_group: Option<String>,
}

/// What a request asks for; nothing, if it does not speak of logs.
///
/// # Errors
/// `Constraint` for a word that Lambda does not know.
pub(crate) fn patch(input: Option<LoggingInput>) -> Result<LoggingPatch> {
    let Some(input) = input else { return Ok(LoggingPatch::default()) };
    let is_json = match input.log_format.as_deref() {
        None => None,
        Some("JSON") => Some(true),
        Some("Text") => Some(false),
        Some(other) => return Err(not_among(other, "loggingConfig.logFormat", "JSON, Text")),
    };
    let (application, system) = (input.application_log_level, input.system_log_level);
    Ok(LoggingPatch {
        is_json,
        application: level(application, "loggingConfig.applicationLogLevel", &LogLevel::ALL)?,
        system: level(system, "loggingConfig.systemLogLevel", &SYSTEM)?,
        group: input.log_group,
    })
}

/// The levels that the platform's own records may have.
const SYSTEM: [LogLevel; 3] = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn];

fn level(text: Option<String>, path: &str, known: &[LogLevel]) -> Result<Option<LogLevel>> {
    let Some(text) = text else { return Ok(None) };
    let found = text.parse().ok().filter(|level| known.contains(level));
    let names = || known.iter().map(|level| level.name()).collect::<Vec<_>>().join(", ");
    found.map(Some).ok_or_else(|| not_among(&text, path, &names()))
}

/// `LoggingConfig` of a function.
pub(crate) fn document(function: &Function) -> Value {
    let logging = &function.config.logging;
    let group = logging.group_of(&function.key.name);
    match logging.format {
        LogFormat::Text => json!({"LogFormat": "Text", "LogGroup": group}),
        LogFormat::Json { application, system } => json!({
            "LogFormat": "JSON",
            "ApplicationLogLevel": application.name(),
            "SystemLogLevel": system.name(),
            "LogGroup": group,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value) -> Result<LoggingPatch> {
        patch(Some(serde_json::from_value(config).expect("an object of strings")))
    }

    #[test]
    fn every_word_of_the_model_is_known() {
        for level in LogLevel::ALL {
            let read = read(json!({"LogFormat": "JSON", "ApplicationLogLevel": level.name()}));
            assert_eq!(read.expect("known").application, Some(level));
        }
        for level in SYSTEM {
            let read = read(json!({"SystemLogLevel": level.name()})).expect("known");
            assert_eq!((read.system, read.is_json), (Some(level), None));
        }
    }

    #[test]
    fn another_word_is_refused_with_those_that_are_known() {
        for (config, words) in [
            (json!({"LogFormat": "json"}), "'loggingConfig.logFormat'|[JSON, Text]"),
            (
                json!({"SystemLogLevel": "ERROR"}),
                "'loggingConfig.systemLogLevel'|[DEBUG, INFO, WARN]",
            ),
            (json!({"ApplicationLogLevel": "info"}), "Value 'info'|FATAL]"),
        ] {
            let error = read(config).expect_err("refused");
            assert!(words.split('|').all(|word| error.public().contains(word)), "{error}");
        }
        let unknown = serde_json::from_value::<LoggingInput>(json!({"Invented": "x"}));
        assert!(unknown.is_err());
    }
}
