//! A synthetic day of arrivals, drawn from what is published of large serverless platforms.
//!
//! | what | how | source |
//! |---|---|---|
//! | popularity | 45 % of functions are called at most once an hour on average, 81 % at most once a minute; between these marks even on a logarithmic scale | Shahrad et al., "Serverless in the Wild", USENIX ATC 2020 (of applications), and the Azure Functions Trace 2019 published with it |
//! | the most popular | those over once a minute are called once in 30 s at most: they are warm under every policy, and their calls would only take time to simulate | ours; said with the figures |
//! | timers | 15.6 % of functions, at the round period next to their drawn rate | ATC 2020, triggers |
//! | bursty functions | 40 %, with sessions of calls: coefficient of variation of their intervals over 1 | ATC 2020, intervals |
//! | calls in parallel | of one bursty function in twenty all calls of a session come at once | ours, for the bursts within a minute that Joosen et al., "How Does It Function?", SoCC 2023, find |
//! | the hour of the day | half of the load is steady, half follows the day, in one phase for all | ATC 2020, load over two weeks |
//! | duration | a function's mean is log-normal, -0.38 and 2.36 (logarithms of seconds); single calls vary about it | ATC 2020, fit of mean durations |
//! | memory | Burr, c 11.652, k 0.221, scale 107.083 MB | ATC 2020, fit of allocated memory |
//! | start | log-normal about 0.3 s, deviation 1 | ours: spans the two to four orders of magnitude of SoCC 2023, but of a platform that forks |
//!
//! The same seed gives the same day to every policy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lacewing_model::function::{Code, State, UpdateStatus};
use lacewing_model::{
    AccountId, Digest, Function, FunctionConfig, FunctionKey, FunctionName, Region, Timestamp,
    Version,
};
use uuid::Uuid;

use crate::rng::Rng;

const DAY: f64 = 86_400.0;
/// Calls in a day at the marks of popularity, and the share of functions below each.
const POPULARITY: [(f64, f64, f64); 3] =
    [(0.45, 1.0, 24.0), (0.81, 24.0, 1_440.0), (1.0, 1_440.0, 2_880.0)];
const TIMERS: f64 = 0.156;
const BURSTY: f64 = 0.40;
/// Periods of timers, in seconds.
const PERIODS: [f64; 11] =
    [30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Mean number of calls in a session, and of seconds between them.
const SESSION: (f64, f64) = (8.0, 20.0);
/// Share of bursty functions whose calls of a session come at once.
const PARALLEL: f64 = 0.05;
/// Functions of one account.
const PER_ACCOUNT: usize = 50;

/// One function and how it is called.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) function: Arc<Function>,
    pub(crate) memory_mb: u32,
    pub(crate) start: Duration,
    /// The logarithm of its mean duration in seconds.
    duration: f64,
    pattern: Pattern,
    rng: Rng,
}

#[derive(Debug)]
enum Pattern {
    Timer { period: f64, next: f64 },
    Steady { mean: f64 },
    Sessions { mean: f64, gap: f64, left: u32 },
}

/// All functions of a day.
pub(crate) fn functions(seed: u64, count: usize) -> Result<Vec<Caller>> {
    (0..count).map(|number| Caller::new(seed, number)).collect()
}

// === Caller ===

impl Caller {
    fn new(seed: u64, number: usize) -> Result<Self> {
        let mut rng = Rng::new(seed, u64::try_from(number)?);
        let share = rng.even();
        let band = POPULARITY.iter().find(|(up_to, ..)| share < *up_to);
        let (_, from, to) = *band.unwrap_or(&POPULARITY[2]);
        let mean = DAY / rng.log_even(from, to);
        let kind = rng.even();
        let pattern = if kind < TIMERS {
            let off = |period: &f64| (period / mean).ln().abs();
            let nearest = PERIODS.iter().min_by(|a, b| off(a).total_cmp(&off(b)));
            let period = *nearest.unwrap_or(&PERIODS[0]);
            Pattern::Timer { period, next: rng.even() * period }
        } else if kind < TIMERS + BURSTY {
            let gap = if rng.chance(PARALLEL) { 0.01 } else { SESSION.1 };
            Pattern::Sessions { mean, gap, left: 0 }
        } else {
            Pattern::Steady { mean }
        };
        let memory = rng.burr(11.652, 0.221, 107.083).clamp(32.0, 3_008.0);
        let start = rng.log_normal(0.3_f64.ln(), 1.0).clamp(0.02, 10.0);
        let duration = rng.log_normal(-0.38, 2.36).clamp(0.001, 300.0).ln();
        Ok(Self {
            function: Arc::new(function(number)?),
            memory_mb: Duration::from_secs_f64(memory).as_secs().try_into()?,
            start: Duration::from_secs_f64(start),
            duration,
            pattern,
            rng,
        })
    }

    /// When it is called after `now`, its last call.
    pub(crate) fn next(&mut self, now: Timestamp) -> Timestamp {
        let seconds = Duration::from_micros(now.as_micros().cast_unsigned()).as_secs_f64();
        let rng = &mut self.rng;
        let wait = match &mut self.pattern {
            Pattern::Timer { period, next } => {
                let due = *next + rng.even();
                *next += *period;
                (due - seconds).max(0.001)
            }
            Pattern::Steady { mean } => daily(rng, *mean, seconds),
            Pattern::Sessions { gap, left, .. } if *left > 0 => {
                *left -= 1;
                rng.exponential(*gap)
            }
            Pattern::Sessions { mean, gap, left } => {
                let more = rng.exponential(SESSION.0 - 1.0);
                *left = u32::try_from(Duration::from_secs_f64(more).as_secs()).unwrap_or(0);
                // A session takes time itself, and comes the more rarely the more calls it has.
                daily(rng, (SESSION.0 * (*mean - *gap)).max(*mean), seconds)
            }
        };
        now.plus(Duration::from_secs_f64(wait))
    }

    /// How long the call of this number takes.
    pub(crate) fn duration(&self, seed: u64, call: u64) -> Duration {
        let seconds = Rng::new(seed, call).log_normal(self.duration, 0.4);
        Duration::from_secs_f64(seconds.clamp(0.000_5, 900.0))
    }
}

/// The wait for something that happens once in `mean` seconds, by the hour of the day: a process
/// with the highest rate, of which some events do not happen.
fn daily(rng: &mut Rng, mean: f64, now: f64) -> f64 {
    let mut wait = 0.0;
    loop {
        wait += rng.exponential(mean / 1.5);
        let hour = std::f64::consts::TAU * (now + wait) / DAY;
        if rng.chance((1.0 - 0.5 * hour.cos()) / 1.5) {
            return wait;
        }
    }
}

fn function(number: usize) -> Result<Function> {
    let account = format!("{:012}", number / PER_ACCOUNT);
    let role = format!("arn:aws:iam::{account}:role/lambda");
    let key = FunctionKey {
        account: AccountId::new(&account)?,
        region: Region::new("us-east-1")?,
        name: FunctionName::new(&format!("f{number}"))?,
    };
    let mut config = FunctionConfig::new("python3.13".parse()?, "app.handler", role);
    config.memory_mb = lacewing_model::limits::MEMORY_MB.2;
    Ok(Function {
        key,
        version: Version::Latest,
        lineage: Uuid::nil(),
        config,
        code: Code { digest: Digest::new([0; 32]), size: 1 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: Uuid::nil(),
        last_modified: Timestamp::from_seconds(0),
        generation: 1,
    })
}
