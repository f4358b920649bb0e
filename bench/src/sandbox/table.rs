//! Prints the parts of many starts, one row for each.

use std::time::Duration;

use lacewing_sandbox::Part;

use crate::report::say;

use super::Start;

const PARTS: [(Part, &str); 9] = [
    (Part::Order, "order"),
    (Part::Namespaces, "namespaces"),
    (Part::Cgroup, "cgroup"),
    (Part::Network, "network"),
    (Part::Mounts, "mounts"),
    (Part::Tmp, "/tmp"),
    (Part::User, "user"),
    (Part::Landlock, "Landlock"),
    (Part::Filter, "filter"),
];

/// Prints one table: medians and 99th percentiles, each row by itself, so they do not add up.
pub(super) fn print(pause: Duration, empty: usize, starts: &[Start]) {
    let (count, pause) = (starts.len(), pause.as_millis());
    let ahead = starts.iter().filter(|start| start.was_ahead()).count();
    say(&format!("\nsandbox cost, {count} starts, {pause} ms between them (us)"));
    say(&format!("{empty} empty ones wait; {ahead} starts found one"));
    say(&format!("{:<12} {:>9} {:>9}", "part", "p50", "p99"));
    for (part, name) in PARTS {
        row(name, starts.iter().map(|start| start.of(part)).collect());
    }
    row("rest", starts.iter().map(Start::rest).collect());
    row("whole", starts.iter().map(|start| start.whole).collect());
}

impl Start {
    fn of(&self, part: Part) -> Duration {
        self.parts.iter().filter(|(it, _)| *it == part).map(|(_, took)| *took).sum()
    }

    fn was_ahead(&self) -> bool {
        self.parts.iter().any(|(part, _)| *part == Part::Order)
    }

    /// The request to the launcher, its wake-up, and the answer.
    fn rest(&self) -> Duration {
        let built: Duration = self.parts.iter().map(|(_, took)| *took).sum();
        self.whole.saturating_sub(built)
    }
}

fn row(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    say(&format!("{name:<12} {:>9} {:>9}", at(50), at(99)));
}
