//! Reads the `REPORT` line with which Lambda ends an invocation's log.

use serde::Serialize;

/// What one invocation cost, as the line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// `Duration`.
    pub(super) duration: Option<String>,
    /// `Billed Duration`.
    pub(super) billed: Option<String>,
    /// `Max Memory Used`.
    pub(super) memory: Option<String>,
    /// `Init Duration`, after a cold start.
    pub(super) init: Option<String>,
}

impl Report {
    /// Finds the line in the end of a log.
    pub(super) fn find(log: &str) -> Option<Self> {
        let line = log.lines().rfind(|line| line.starts_with("REPORT "))?;
        let field = |name: &str| {
            let fields = line.split('\t').map(str::trim);
            let value = fields.filter_map(|field| field.split_once(": "));
            value.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        Some(Self {
            duration: field("Duration"),
            billed: field("Billed Duration"),
            memory: field("Max Memory Used"),
            init: field("Init Duration"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let log = "START RequestId: 1 Version: $LATEST\nhello\nEND RequestId: 1\nREPORT RequestId: 1\t\
                   Duration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\t\
                   Max Memory Used: 36 MB\tInit Duration: 110.10 ms\t\n";
        let report = Report::find(log).unwrap();
        assert_eq!(report.duration.as_deref(), Some("3.01 ms"));
        assert_eq!(report.billed.as_deref(), Some("4 ms"));
        assert_eq!(report.memory.as_deref(), Some("36 MB"));
        assert_eq!(report.init.as_deref(), Some("110.10 ms"));
        assert_eq!(Report::find("nothing"), None);
    }
}
