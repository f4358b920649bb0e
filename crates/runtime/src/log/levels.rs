//! Which of a function's own records its log keeps: in a JSON log those of the level that its owner
//! chose, or above. A text log keeps all.
//!
//! A runtime's framed record tells its level. A printed line has one if it is a JSON object: the
//! member `level`, and INFO if that says nothing or there is no valid timestamp. A line that is no
//! JSON object has no level and is kept, for it may be a runtime's last words.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html>.

use serde::Deserialize;
use serde_json::Value;

use lacewing_model::{LogFormat, LogLevel, Timestamp};

/// Whether a record of that level is kept; one that has none always is.
pub(super) fn keeps(format: LogFormat, level: Option<LogLevel>) -> bool {
    match (least(format), level) {
        (Some(least), Some(level)) => level >= least,
        (None, _) | (_, None) => true,
    }
}

/// Whether a printed line is kept; it is read only if that is in question.
pub(super) fn keeps_line(format: LogFormat, line: &[u8]) -> bool {
    least(format).is_none_or(|least| level_of(line).is_none_or(|level| level >= least))
}

/// The least level that is kept, if anything is left out.
fn least(format: LogFormat) -> Option<LogLevel> {
    match format {
        LogFormat::Text => None,
        LogFormat::Json { application, .. } => Some(application).filter(|it| *it > LogLevel::Trace),
    }
}

/// What a line may say of itself, under the usual names.
#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    level: Value,
    #[serde(default)]
    timestamp: Value,
    #[serde(default)]
    time: Value,
    #[serde(rename = "@timestamp", default)]
    at_timestamp: Value,
}

fn level_of(line: &[u8]) -> Option<LogLevel> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let members: Members = serde_json::from_slice(line).ok()?;
    let Members { level, timestamp, time, at_timestamp } = &members;
    let is_moment =
        |value: &&Value| value.as_str().is_some_and(|it| it.parse::<Timestamp>().is_ok());
    let moment = [timestamp, time, at_timestamp].into_iter().find(is_moment);
    Some(moment.and(level.as_str()).and_then(named).unwrap_or(LogLevel::Info))
}

fn named(name: &str) -> Option<LogLevel> {
    match name.to_ascii_uppercase().as_str() {
        "WARNING" => Some(LogLevel::Warn),
        "CRITICAL" => Some(LogLevel::Fatal),
        name => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(application: LogLevel) -> LogFormat {
        LogFormat::Json { application, system: LogLevel::Info }
    }

    #[test]
    fn a_json_line_has_the_level_that_it_says() {
        for (line, level) in [
            (r#"{"level": "debug", "timestamp": "2024-11-02T16:51:31.587199Z"}"#, LogLevel::Debug),
            (r#"  {"time":"2024-11-02T16:51:31+01:00","level":"ERROR"}"#, LogLevel::Error),
            (r#"{"@timestamp":"2024-11-02T16:51:31Z","level":"warning","x":[1]}"#, LogLevel::Warn),
            (
                r#"{"level":"CRITICAL","time":7,"timestamp":"2024-11-02T16:51:31Z"}"#,
                LogLevel::Fatal,
            ),
            (r#"{"level": "debug"}"#, LogLevel::Info),
            (r#"{"level": "debug", "ts": 1730566291.5}"#, LogLevel::Info),
            (r#"{"level": 20, "timestamp": "2024-11-02T16:51:31Z"}"#, LogLevel::Info),
            (r#"{"message": "x"}"#, LogLevel::Info),
        ] {
            assert_eq!(level_of(line.as_bytes()), Some(level), "{line}");
            for least in LogLevel::ALL {
                assert_eq!(keeps_line(json(least), line.as_bytes()), level >= least, "{line}");
            }
            assert!(keeps_line(LogFormat::Text, line.as_bytes()));
        }
    }

    #[test]
    fn what_has_no_level_is_kept() {
        for line in ["", "plain", "[1]", "{broken", r#"{"level":"trace"} and more"#, "Traceback:"] {
            assert!(keeps_line(json(LogLevel::Fatal), line.as_bytes()), "{line}");
        }
        assert!(keeps(json(LogLevel::Fatal), None));
        assert!(keeps(LogFormat::Text, Some(LogLevel::Trace)));
        assert!(keeps(json(LogLevel::Warn), Some(LogLevel::Warn)));
        assert!(!keeps(json(LogLevel::Warn), Some(LogLevel::Info)));
    }
}
