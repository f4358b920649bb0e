//! What the suites said of themselves: how many tests passed, failed or were left out, from the
//! machine's log, and all of it as one table.

use std::collections::BTreeMap;

use super::suites::{Kind, Suite, USERS};

/// How one command of the machine ended, as `scripts/vm/guest` noted it and as its tests told.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    suite: String,
    column: (Kind, &'static str),
    /// Exit code and seconds; `None` if it did not end.
    ended: Option<(i32, u64)>,
    /// Of each file of tests; one without a name for a program of tests.
    counts: BTreeMap<String, Counts>,
    /// What was left out by the tests themselves and why, and what they sum up.
    pub(super) remarks: Vec<String>,
}

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    left_out: u32,
}

impl Outcome {
    /// Reads how a suite ended from `/vm/results` and from what the machine said.
    pub(super) fn of(suite: &Suite, results: &str, console: &str) -> Self {
        let name = suite.name();
        let ended = results.lines().find_map(|line| {
            let (code, seconds) = line.strip_prefix(&name)?.strip_prefix(' ')?.split_once(' ')?;
            Some((code.parse().ok()?, seconds.parse().ok()?))
        });
        let (begin, end) = (format!("vm: {name} begins"), format!("vm: {name} ends"));
        let lines = console.lines().map(str::trim_end).skip_while(|line| *line != begin);
        let (mut counts, mut remarks) = (BTreeMap::<String, Counts>::new(), Vec::new());
        let mut skipped = BTreeMap::<&str, u32>::new();
        for line in lines.take_while(|line| !line.starts_with(&end)) {
            if let Some((file, more)) = of_cargo(line).or_else(|| of_pytest(line)) {
                counts.entry(file.to_owned()).or_default().add(more);
            }
            remarks.extend(remark(line));
            if let Some(why) = line.strip_prefix("skipped: ") {
                *skipped.entry(why).or_default() += 1;
            }
        }
        // For a program of Rust tests one that leaves itself out has passed.
        if let Some(counts) = counts.get_mut("") {
            let number = skipped.values().sum();
            counts.passed = counts.passed.saturating_sub(number);
            counts.left_out += number;
        }
        remarks.extend(skipped.iter().map(|(why, number)| format!("SKIPPED [{number}] {why}")));
        let column = (suite.kind, suite.user);
        Self { name, suite: suite.name.clone(), column, ended, counts, remarks }
    }

    /// It ran to its end, and nothing failed.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.ended, Some((0, _))) && self.counts.values().all(|it| it.failed == 0)
    }

    /// The rows of the table that it has a part in, and what stands there.
    fn cells(&self) -> Vec<(String, String)> {
        let mark = if self.is_good() { "" } else { "! " };
        let how = match self.ended {
            None => "did not end".to_owned(),
            Some((0, seconds)) => format!("{seconds} s"),
            Some((124 | 137, seconds)) => format!("not done in {seconds} s"),
            Some((code, seconds)) => format!("{code} in {seconds} s"),
        };
        let mut cells = vec![(self.suite.clone(), format!("{mark}{how}"))];
        for (file, Counts { passed, failed, left_out }) in &self.counts {
            let mark = if *failed == 0 { "" } else { "! " };
            let row = if file.is_empty() { "  its tests" } else { file };
            cells.push((row.to_owned(), format!("{mark}{passed}/{failed}/{left_out}")));
        }
        cells
    }
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.left_out += more.left_out;
    }
}

/// The table of all outcomes: suites down, hosts and users across.
pub(super) fn table(outcomes: &[Outcome]) -> Vec<String> {
    let columns = Kind::ALL.into_iter().flat_map(|kind| USERS.map(|user| (kind, user)));
    let columns: Vec<_> = columns.collect();
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for outcome in outcomes {
        let place = columns.iter().position(|column| *column == outcome.column);
        for (name, text) in outcome.cells() {
            let row = rows.iter().position(|(row, _)| *row == name).unwrap_or_else(|| {
                rows.push((name, vec!["-".to_owned(); columns.len()]));
                rows.len() - 1
            });
            if let Some(cell) = place.and_then(|place| rows.get_mut(row)?.1.get_mut(place)) {
                *cell = text;
            }
        }
    }
    let heads = columns.iter().map(|(kind, user)| format!("{} {user}", kind.name())).collect();
    rows.insert(0, (String::new(), heads));
    let line = |(name, cells): &(String, Vec<String>)| {
        cells.iter().fold(format!("{name:18}"), |line, cell| line + &format!("{cell:>20}"))
    };
    rows.iter().map(line).collect()
}

/// The counts in the last line of a program of Rust tests.
fn of_cargo(line: &str) -> Option<(&'static str, Counts)> {
    let (_, text) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in text.split("; ") {
        let Some((number, what)) = part.split_once(' ') else { continue };
        let place = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" | "filtered out" => &mut counts.left_out,
            _ => continue,
        };
        *place += number.parse::<u32>().ok()?;
    }
    Some(("", counts))
}

/// One test in the output of `pytest -v`, with the name of its file.
fn of_pytest(line: &str) -> Option<(&str, Counts)> {
    let (file, rest) = line.strip_prefix("tests/e2e/test_")?.split_once(".py::")?;
    let mut counts = Counts::default();
    for word in rest.split(' ').skip(1) {
        match word {
            "PASSED" => counts.passed = 1,
            "FAILED" | "ERROR" => counts.failed = 1,
            "SKIPPED" => counts.left_out = 1,
            _ => continue,
        }
        return Some((file, counts));
    }
    None
}

/// Why a test was left out, as pytest tells it, or what a suite sums up.
fn remark(line: &str) -> Option<String> {
    let summary = line.strip_prefix("summary: ");
    summary.or_else(|| line.starts_with("SKIPPED ").then_some(line)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_from_what_both_kinds_of_suites_say() {
        let line = "test result: FAILED. 63 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; \
                    finished in 86.99s";
        assert_eq!(of_cargo(line), Some(("", Counts { passed: 63, failed: 1, left_out: 5 })));
        let told = |word: &str| {
            let line = format!("tests/e2e/test_x.py::y[a b] {word} [  3%]");
            of_pytest(&line).map(|(file, counts)| (file.to_owned(), counts))
        };
        assert_eq!(
            told("PASSED"),
            Some(("x".to_owned(), Counts { passed: 1, ..Counts::default() }))
        );
        assert_eq!(
            told("ERROR"),
            Some(("x".to_owned(), Counts { failed: 1, ..Counts::default() }))
        );
        let skipped = Counts { left_out: 1, ..Counts::default() };
        assert_eq!(told("SKIPPED (there is no FAILED)"), Some(("x".to_owned(), skipped)));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["running 30 tests", "PASSED tests/e2e/test_x.py::y", "", "tests/e2e/test_x.py::y "]
        {
            assert_eq!((of_cargo(line), of_pytest(line)), (None, None), "{line}");
        }
    }
}
