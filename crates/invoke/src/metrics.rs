//! What a monitoring system asks for, as OpenMetrics text.
//!
//! The counters of invocations are made of the usage records, when these are handed over: an
//! invocation knows nothing of them, and they cannot disagree with bills. What there is at the
//! moment is read when somebody asks. Labels are bounded: of functions beyond [`FUNCTIONS`] the
//! sums have no name. It never decides who may ask.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use lacewing_model::error::Throttle;
use lacewing_model::usage::UsageRecord;
use lacewing_model::{AccountId, Error, FunctionName, Kind, Result};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Stats;

/// Functions that have labels of their own; all further ones together are `other`.
const FUNCTIONS: usize = 200;
/// The name of all further ones, which have no account.
const OTHER: &str = "other";
/// Upper bounds of what a duration is counted under, in seconds.
const SECONDS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 900.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFunction {
    account: String,
    function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    account: String,
    function: String,
    ending: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// A number that somebody else counts.
type Told = Counter<u64, AtomicU64>;

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    taken: Mutex<Taken>,
    invocations: Family<Ended, Counter>,
    durations: Family<OfFunction, Histogram, fn() -> Histogram>,
    queued: Histogram,
    cold_starts: Family<Because, Counter>,
    cold_start_time: Histogram,
    throttles: Family<Because, Counter>,
    instances: Family<InState, Gauge>,
    waiting: Gauge,
    blank_used: Told,
    origins: Gauge,
    usage_lost: Told,
    log_records_lost: Told,
    log_bytes_cut: Told,
}

/// What was taken of the usage records.
#[derive(Debug, Default)]
struct Taken {
    functions: HashSet<(AccountId, FunctionName)>,
    /// The last batch: the journal's segment, and the number in it.
    last: Option<(String, u64)>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lacewing"),
            taken: Mutex::default(),
            invocations: Family::default(),
            durations: Family::new_with_constructor(seconds),
            queued: seconds(),
            cold_starts: Family::default(),
            cold_start_time: seconds(),
            throttles: Family::default(),
            instances: Family::default(),
            waiting: Gauge::default(),
            blank_used: Told::default(),
            origins: Gauge::default(),
            usage_lost: Told::default(),
            log_records_lost: Told::default(),
            log_bytes_cut: Told::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let text = "Invocations that are over, by how they ended";
        registry.register("invocations", text, self.invocations.clone());
        let text = "Time in the handler";
        registry.register("invocation_duration_seconds", text, self.durations.clone());
        let text = "Time that invocations waited for a busy Instance or the turn of a start";
        registry.register("queue_duration_seconds", text, self.queued.clone());
        let text = "Instances that served their first invocation, by why they were started";
        registry.register("cold_starts", text, self.cold_starts.clone());
        let text = "Time that first invocations waited for their Instance to be made";
        registry.register("cold_start_duration_seconds", text, self.cold_start_time.clone());
        let text = "Calls that were sent away, by the bound that they met";
        registry.register("throttles", text, self.throttles.clone());
        let text = "Instances by state; blank ones have no function yet";
        registry.register("instances", text, self.instances.clone());
        let text = "Invocations that wait for an Instance";
        registry.register("waiting_invocations", text, self.waiting.clone());
        let text = "Cold starts that found a blank Instance";
        registry.register("blank_instances_used", text, self.blank_used.clone());
        let text = "Warm interpreters from which Instances are forked";
        registry.register("origins", text, self.origins.clone());
        let text = "Usage records that could not be written";
        registry.register("usage_records_lost", text, self.usage_lost.clone());
        let text = "Log records that were lost because more came than is taken";
        registry.register("log_records_lost", text, self.log_records_lost.clone());
        let text = "Bytes of stored logs that were forgotten to stay within their bounds";
        registry.register("log_bytes_cut", text, self.log_bytes_cut.clone());
    }

    /// Counts a batch of usage records, unless it was counted already: those of a segment come again,
    /// in the same order, if it could not be handed over to its end.
    pub(crate) fn take<'a>(
        &self,
        segment: &str,
        number: u64,
        records: impl IntoIterator<Item = &'a UsageRecord>,
    ) {
        let mut taken = self.taken.lock();
        let is_known = |(last, n): &(String, u64)| segment == last && number <= *n;
        if taken.last.as_ref().is_some_and(is_known) {
            return;
        }
        taken.last = Some((segment.to_owned(), number));
        for record in records {
            self.count(record, &mut taken.functions);
        }
    }

    fn count(&self, record: &UsageRecord, known: &mut HashSet<(AccountId, FunctionName)>) {
        let name = (record.account.clone(), record.function.clone());
        let is_named = known.contains(&name) || known.len() < FUNCTIONS && known.insert(name);
        let (account, function) = if is_named {
            (record.account.to_string(), record.function.to_string())
        } else {
            (String::new(), OTHER.to_owned())
        };
        let of_function = OfFunction { account: account.clone(), function: function.clone() };
        self.durations.get_or_create(&of_function).observe(to_seconds(record.duration_us));
        let ended = Ended { account, function, ending: record.ending.to_string() };
        self.invocations.get_or_create(&ended).inc();
        let Some(timeline) = &record.timeline else { return };
        self.queued.observe(to_seconds(timeline.queued_us));
        if let Some(reason) = timeline.cold_start {
            self.cold_starts.get_or_create(&Because { reason: reason.to_string() }).inc();
            let made = timeline.placed_us + timeline.sandbox_us + timeline.init_us;
            self.cold_start_time.observe(to_seconds(made));
        }
    }

    /// Counts a call that was sent away because a bound was met; passes all else on.
    pub(crate) fn note<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error: &Error| {
            let reason = match error.kind() {
                Kind::Throttled(Throttle::AccountConcurrency) => "account_concurrency",
                Kind::Throttled(Throttle::ReservedConcurrency) => "reserved_concurrency",
                Kind::Throttled(Throttle::CallerRate) => "caller_rate",
                Kind::Throttled(Throttle::FunctionRate) => "function_rate",
                Kind::Unavailable => "unavailable",
                _ => return,
            };
            self.throttles.get_or_create(&Because { reason: reason.to_owned() }).inc();
        })
    }

    /// Everything as text, with what there is at the moment.
    pub(crate) fn text(&self, stats: &Stats) -> Result<String> {
        let states = [
            ("starting", stats.starting),
            ("idle", stats.idle),
            ("busy", stats.busy),
            ("retiring", stats.retiring),
            ("blank", stats.blank),
        ];
        for (state, count) in states {
            self.instances.get_or_create(&InState { state }).set(to_gauge(count));
        }
        self.waiting.set(to_gauge(stats.waiting));
        self.blank_used.inner().store(stats.blank_used, Ordering::Relaxed);
        self.origins.set(to_gauge(stats.origins));
        self.usage_lost.inner().store(stats.usage_lost, Ordering::Relaxed);
        self.log_records_lost.inner().store(stats.log_records_lost, Ordering::Relaxed);
        self.log_bytes_cut.inner().store(stats.log_bytes_cut, Ordering::Relaxed);
        let mut text = String::new();
        text::encode(&mut text, &self.registry)
            .map_err(|error| Error::internal("cannot write the metrics", error))?;
        Ok(text)
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn to_seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

fn to_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lacewing_model::usage::{ColdStart, Ending, Timeline};

    use super::*;
    use crate::testing::record;

    fn named(name: &str) -> UsageRecord {
        UsageRecord { function: FunctionName::new(name).expect("valid"), ..record(1) }
    }

    fn text(metrics: &Metrics) -> String {
        metrics.text(&Stats { idle: 3, usage_lost: 2, ..Stats::default() }).expect("text")
    }

    #[test]
    fn records_become_counters_once() {
        let metrics = Metrics::new();
        let cold_start = Some(ColdStart::AllBusy);
        let timeline = Timeline {
            queued_us: 3_000,
            init_us: 40_000,
            cold_start,
            ..named("a").timeline.unwrap_or_default()
        };
        let failed =
            UsageRecord { ending: Ending::Timeout, timeline: Some(timeline), ..named("a") };
        let records = [named("a"), failed];
        metrics.take("one", 0, &records);
        metrics.take("one", 0, &records);
        metrics.take("one", 10, &records[..1]);
        metrics.take("one", 9, &records);
        metrics.take("two", 0, &records[..1]);
        let text = text(&metrics);
        for line in [
            "lacewing_invocations_total{account=\"000000000000\",function=\"a\",ending=\"returned\"} 3",
            "lacewing_invocations_total{account=\"000000000000\",function=\"a\",ending=\"timeout\"} 1",
            "lacewing_invocation_duration_seconds_count{account=\"000000000000\",function=\"a\"} 4",
            "lacewing_invocation_duration_seconds_bucket{le=\"0.001\",account=\"000000000000\",function=\"a\"} 4",
            "lacewing_queue_duration_seconds_sum 0.003",
            "lacewing_cold_starts_total{reason=\"all_busy\"} 1",
            "lacewing_cold_start_duration_seconds_bucket{le=\"0.05\"} 1",
            "lacewing_instances{state=\"idle\"} 3",
            "lacewing_usage_records_lost_total 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn functions_beyond_the_bound_are_counted_without_their_name() {
        let metrics = Metrics::new();
        let names = 0..u64::try_from(FUNCTIONS).expect("small") + 5;
        for number in names {
            metrics.take("one", number, &[named(&format!("f{number}")), named("f0")]);
        }
        let text = text(&metrics);
        let invocations = text.lines().filter(|line| line.starts_with("lacewing_invocations_t"));
        assert_eq!(invocations.count(), FUNCTIONS + 1);
        assert!(text.contains("{account=\"\",function=\"other\",ending=\"returned\"} 5\n"));
        assert!(!text.contains(&format!("f{FUNCTIONS}")));
    }

    #[test]
    fn only_who_met_a_bound_is_counted() {
        let metrics = Metrics::new();
        let fail = |kind| drop(metrics.note::<()>(Err(Error::new(kind, "x"))));
        fail(Kind::Throttled(Throttle::ReservedConcurrency));
        fail(Kind::NotFound);
        assert!(metrics.note(Ok(1)).is_ok());
        let text = text(&metrics);
        assert!(text.contains("lacewing_throttles_total{reason=\"reserved_concurrency\"} 1\n"));
        assert_eq!(text.lines().filter(|line| line.starts_with("lacewing_throttles_t")).count(), 1);
    }
}
