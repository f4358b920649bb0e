//! How a function's log is written: as text or as JSON, and what of it is left out.
//!
//! Only a JSON log has levels, so only that form holds any.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/api/API_LoggingConfig.html>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, FunctionName, Kind, Result};

/// What the name of a function's log group begins with, if it was given no other.
const DEFAULT_GROUP: &str = "/aws/lambda/";

/// What a function's owner chose for its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// The form of its records.
    pub format: LogFormat,
    /// The name that its log group was given; kept and shown, for logs are kept by function.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
}

/// The form of a log's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// As they come; the platform's own are lines of text.
    #[default]
    Text,
    /// JSON objects, each with a level.
    Json {
        /// The least level of the function's own records.
        application: LogLevel,
        /// The least level of the platform's.
        system: LogLevel,
    },
}

/// How much a record matters, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// TRACE.
    Trace,
    /// DEBUG.
    Debug,
    /// INFO.
    Info,
    /// WARN.
    Warn,
    /// ERROR.
    Error,
    /// FATAL.
    Fatal,
}

/// New settings for a log; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct LoggingPatch {
    /// Whether it is JSON.
    pub is_json: Option<bool>,
    /// The least level of the function's own records.
    pub application: Option<LogLevel>,
    /// The least level of the platform's.
    pub system: Option<LogLevel>,
    /// The name of the log group.
    pub group: Option<String>,
}

// === Logging ===

impl Logging {
    /// These settings with a patch over them. A JSON log that was told no level has INFO.
    ///
    /// # Errors
    /// If a level is given to a text log.
    pub fn patched(&self, patch: &LoggingPatch) -> Result<Self> {
        const DEFAULT: LogLevel = LogLevel::Info;
        let (is_json, application, system) = match self.format {
            LogFormat::Text => (false, DEFAULT, DEFAULT),
            LogFormat::Json { application, system } => (true, application, system),
        };
        let has_level = patch.application.is_some() || patch.system.is_some();
        let format = match (patch.is_json.unwrap_or(is_json), has_level) {
            (true, _) => LogFormat::Json {
                application: patch.application.unwrap_or(application),
                system: patch.system.unwrap_or(system),
            },
            (false, false) => LogFormat::Text,
            (false, true) => {
                let message = "LogLevel is not supported when LogFormat is set to \"Text\". Remove \
                               LogLevel from your request or change the LogFormat to \"Json\" and \
                               try again.";
                return Err(Error::new(Kind::Invalid, message));
            }
        };
        Ok(Self { format, group: patch.group.clone().or_else(|| self.group.clone()) })
    }

    /// The name of a log group that is not the one which a function of this name has by itself.
    pub fn other_group(&self, function: &FunctionName) -> Option<&str> {
        let is_other = |group: &&str| group.strip_prefix(DEFAULT_GROUP) != Some(function.as_str());
        self.group.as_deref().filter(is_other)
    }

    /// The name of the log group: its own, or the one that a function of this name has otherwise.
    pub fn group_of(&self, function: &FunctionName) -> String {
        self.group.clone().unwrap_or_else(|| format!("{DEFAULT_GROUP}{function}"))
    }
}

// === LogLevel ===

impl LogLevel {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// The level's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no level of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or(UnknownLevel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(application: LogLevel, system: LogLevel) -> Logging {
        Logging { format: LogFormat::Json { application, system }, group: None }
    }

    #[test]
    fn a_json_log_has_info_where_nothing_is_said() {
        let patch = LoggingPatch { is_json: Some(true), ..LoggingPatch::default() };
        let patched = Logging::default().patched(&patch).expect("valid");
        assert_eq!(patched, json(LogLevel::Info, LogLevel::Info));
    }

    #[test]
    fn what_is_not_given_stays() {
        let before = json(LogLevel::Error, LogLevel::Warn);
        let patch = LoggingPatch { system: Some(LogLevel::Debug), ..LoggingPatch::default() };
        assert_eq!(before.patched(&patch).expect("valid"), json(LogLevel::Error, LogLevel::Debug));
        let patch = LoggingPatch { group: Some("mine".into()), ..LoggingPatch::default() };
        let patched = before.patched(&patch).expect("valid");
        assert_eq!((patched.format, patched.group.as_deref()), (before.format, Some("mine")));
    }

    #[test]
    fn a_text_log_forgets_its_levels_and_takes_none() {
        let before = json(LogLevel::Error, LogLevel::Warn);
        let text = LoggingPatch { is_json: Some(false), ..LoggingPatch::default() };
        assert_eq!(before.patched(&text).expect("valid"), Logging::default());
        for is_json in [None, Some(false)] {
            let system = Some(LogLevel::Info);
            let patch = LoggingPatch { is_json, system, ..LoggingPatch::default() };
            let error = Logging::default().patched(&patch).expect_err("refused");
            assert!(error.public().starts_with("LogLevel is not supported"), "{error}");
        }
    }

    #[test]
    fn levels_are_ordered_and_named() {
        assert!(LogLevel::ALL.is_sorted());
        for level in LogLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("info".parse::<LogLevel>(), Err(UnknownLevel));
    }
}
