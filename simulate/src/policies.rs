//! The judgements that ours is compared with, as their papers describe them.

use std::time::Duration;

use lacewing_invoke::pool::core::{Facts, Keep, Plan};

/// Every idle Instance is kept for the same time; when memory is short, the one used longest ago
/// goes.
#[derive(Debug)]
pub(crate) struct Fixed(pub(crate) Duration);

/// The hybrid histogram policy of Shahrad et al., "Serverless in the Wild", USENIX ATC 2020: idle
/// times in minutes up to four hours; from the 5th percentile less a tenth to the 99th and a tenth
/// more an Instance stands ready. If the histogram says little (coefficient of variation of its
/// bins at most 2), it is kept for four hours. If most idle times are beyond it, their mean takes
/// the place of the paper's time series model, with its margins of 15 %.
#[derive(Debug)]
pub(crate) struct Hybrid;

/// Greedy-Dual of Fuerst and Sharma, "FaasCache", ASPLOS 2021: Instances are kept until memory is
/// short; then the one with the least frequency x cost / size goes, counted from the rank of the
/// last that went.
#[derive(Debug)]
pub(crate) struct GreedyDual;

const BINS: usize = 240;
const MINUTE: f64 = 60.0;
/// A keep-alive that does not end within the simulated time.
const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);

/// The histogram of one function.
#[derive(Debug, Default)]
pub(crate) struct Minutes {
    bins: Option<Box<[u16; BINS]>>,
    within: u32,
    beyond: u32,
    /// Sum of those beyond, in seconds.
    seconds: f64,
}

// === Fixed ===

impl Keep for Fixed {
    type History = ();

    fn used(&mut self, _history: &mut (), _idle: Duration, _facts: &Facts) {}

    fn ended(&mut self, _idle: Duration, _in_vain: bool, _facts: &Facts) {}

    fn missed(&mut self, _history: &mut (), _idle: Option<Duration>, _facts: &Facts) {}

    fn plan(&self, _history: &(), _facts: &Facts) -> Plan {
        Plan { keep: self.0, again: None }
    }

    fn rank(&self, _history: &(), facts: &Facts, _floor: f64) -> f64 {
        Duration::from_micros(facts.idle_since.as_micros().cast_unsigned()).as_secs_f64()
    }
}

// === Hybrid ===

impl Keep for Hybrid {
    type History = Minutes;

    fn used(&mut self, history: &mut Minutes, idle: Duration, facts: &Facts) {
        self.missed(history, Some(idle), facts);
    }

    fn ended(&mut self, _idle: Duration, _in_vain: bool, _facts: &Facts) {}

    fn missed(&mut self, history: &mut Minutes, idle: Option<Duration>, _facts: &Facts) {
        let Some(idle) = idle else { return };
        let minute = usize::try_from(idle.as_secs() / 60).unwrap_or(BINS);
        let bins = history.bins.get_or_insert_with(|| Box::new([0; BINS]));
        match bins.get_mut(minute) {
            Some(bin) => {
                *bin = bin.saturating_add(1);
                history.within += 1;
            }
            None => {
                history.beyond += 1;
                history.seconds += idle.as_secs_f64();
            }
        }
    }

    fn plan(&self, history: &Minutes, _facts: &Facts) -> Plan {
        let range = Duration::from_secs(240 * 60);
        let Some(bins) = &history.bins else { return Plan { keep: range, again: None } };
        if history.beyond > history.within {
            let mean = history.seconds / f64::from(history.beyond);
            return stretch(mean * 0.85, mean * 1.15);
        }
        if variation(bins) <= 2.0 {
            return Plan { keep: range, again: None };
        }
        let percentile = |share: f64| {
            let wanted = (f64::from(history.within) * share).max(1.0);
            let mut sum = 0.0;
            let found = bins.iter().position(|count| {
                sum += f64::from(*count);
                sum >= wanted
            });
            f64::from(u32::try_from(found.unwrap_or(BINS - 1)).unwrap_or(0))
        };
        stretch(percentile(0.05) * MINUTE * 0.9, (percentile(0.99) + 1.0) * MINUTE * 1.1)
    }

    fn rank(&self, _history: &Minutes, facts: &Facts, _floor: f64) -> f64 {
        Fixed(Duration::ZERO).rank(&(), facts, 0.0)
    }
}

fn stretch(from: f64, to: f64) -> Plan {
    let (from, to) = (Duration::from_secs_f64(from), Duration::from_secs_f64(to));
    if from.is_zero() {
        return Plan { keep: to, again: None };
    }
    Plan { keep: Duration::ZERO, again: Some((from, to)) }
}

/// The coefficient of variation of the bins' counts.
fn variation(bins: &[u16; BINS]) -> f64 {
    let count = 240.0;
    let mean = bins.iter().map(|bin| f64::from(*bin)).sum::<f64>() / count;
    let square = bins.iter().map(|bin| (f64::from(*bin) - mean).powi(2)).sum::<f64>() / count;
    square.sqrt() / mean
}

// === GreedyDual ===

impl Keep for GreedyDual {
    type History = u32;

    fn used(&mut self, history: &mut u32, _idle: Duration, _facts: &Facts) {
        *history += 1;
    }

    fn ended(&mut self, _idle: Duration, _in_vain: bool, _facts: &Facts) {}

    fn missed(&mut self, history: &mut u32, _idle: Option<Duration>, _facts: &Facts) {
        *history += 1;
    }

    fn plan(&self, _history: &u32, _facts: &Facts) -> Plan {
        Plan { keep: FOR_EVER, again: None }
    }

    fn rank(&self, history: &u32, facts: &Facts, floor: f64) -> f64 {
        let megabytes = u32::try_from(facts.memory.as_mebibytes_rounded_up()).unwrap_or(u32::MAX);
        floor + f64::from(*history + 1) * facts.start.as_secs_f64() / f64::from(megabytes.max(1))
    }
}
