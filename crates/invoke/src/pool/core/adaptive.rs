//! Keeps the Instances that are likely to be wanted soon for what they cost, by each function's
//! own history.
//!
//! A history counts how long Instances were idle before they were wanted, in steps of an eighth of
//! an octave. From it follows what keeping one until a moment costs and saves: memory for as long
//! as it is idle, against the start that a caller would have to wait for. A plan is the moment at
//! which the balance is best, and after it the stretch, if there is one, for which it pays to
//! start again: an hourly timer's Instance ends at once and is there again before the hour.
//!
//! Memory has a price, and `keep_alive` sets it: idle Instances together may take as much memory as
//! if each were kept for just `keep_alive`. The price rises and falls until that holds. Of a function
//! of which little is known, what is usual among the others is believed first.
//!
//! It reads no clock and draws no random number.

use std::time::Duration;

use lacewing_model::Timestamp;

use super::keep::{Facts, Keep, Plan};

/// Steps of an idle time: one for all below a second, then eight to each octave up to 36 hours.
const STEPS: usize = 1 + 17 * 8;
/// The unit of idle time: 2^17 microseconds, an eighth of 1.05 seconds.
const UNIT: u32 = 17;
/// How much weight the other functions have, in samples of one's own.
const PRIOR: f64 = 1.0;
/// Of each function so many samples count towards what is usual.
const TAUGHT: u32 = 16;
/// Before so many are known, nothing is usual.
const USUAL: f64 = 200.0;
/// Samples after which the older half of them is forgotten.
const REMEMBERED: u32 = 2_000;
/// A caller who waits for a start is this bad even if the start is quick.
const STARTING: Duration = Duration::from_secs(1);
/// Starting before anybody calls costs this share of what it saves.
const AHEAD: f64 = 0.05;
/// So many samples of its own are enough to judge a function by.
const SURE: u32 = 8;
/// After so many an Instance is started before anybody calls.
const PATTERN: u32 = 4;
/// No idle Instance is kept longer than this many times `keep_alive`, nor shorter than this part.
const STRETCH: (u32, u32) = (24, 30);
/// What is aimed at of what is allowed: the price follows, and so may be late.
const AIM: f64 = 0.99;
/// How far the price goes at a time, and how fast what was spent is forgotten.
const HASTE: f64 = 0.03;
const FADING: f64 = 0.01;
/// How often the price is looked at.
const ROUND: Duration = Duration::from_secs(60);

/// Judges by each function's arrivals.
#[derive(Debug)]
pub struct Adaptive {
    keep_alive: Duration,
    share: f64,
    /// Of a byte for a second, in seconds of waiting for a start.
    price: f64,
    /// Byte-seconds that idle Instances took lately, and those they might have.
    spent: f64,
    allowed: f64,
    /// When the price was looked at last.
    round: Timestamp,
    usual: [Usual; Facts::LEVELS],
}

/// What is usual among functions of which not much is known.
#[derive(Debug)]
struct Usual {
    steps: Box<[f64; STEPS]>,
    total: f64,
}

/// What is remembered of one function.
#[derive(Debug, Default)]
pub struct History {
    /// For each level of `Facts`.
    levels: Vec<Level>,
}

/// How long Instances of one level were idle before they were wanted.
#[derive(Debug, Default)]
struct Level {
    steps: Option<Box<[u16; STEPS]>>,
    /// All samples, those of Instances never wanted again included.
    total: u32,
    /// Seconds of all samples.
    seconds: f64,
    taught: u32,
}

// === Adaptive ===

impl Adaptive {
    /// Allows as much idle memory as if each Instance were kept for `keep_alive`.
    pub fn new(keep_alive: Duration) -> Self {
        Self {
            keep_alive,
            share: AIM,
            price: 0.0,
            spent: 0.0,
            allowed: 0.0,
            round: Timestamp::from_micros(i64::MIN),
            usual: std::array::from_fn(|_| Usual { steps: Box::new([0.0; STEPS]), total: 0.0 }),
        }
    }

    /// Allows so many times as much.
    #[must_use]
    pub fn times(mut self, share: f64) -> Self {
        self.share = share * AIM;
        self
    }

    /// Counts what an idle Instance took, and what it might have.
    fn count(&mut self, spent: Duration, allowed: f64, facts: &Facts) {
        self.spent += bytes(facts) * spent.as_secs_f64();
        self.allowed += bytes(facts) * allowed * self.share;
        if self.price == 0.0 {
            let rent = bytes(facts) * self.keep_alive.as_secs_f64();
            self.price = self.worth(facts) / rent.max(1.0);
        }
        let now = facts.idle_since.plus(spent);
        if now.since(self.round) >= ROUND {
            self.round = now;
            self.bargain();
        }
    }

    /// Lets the price follow what was spent.
    fn bargain(&mut self) {
        if self.allowed > 0.0 {
            let ratio = (self.spent / self.allowed).clamp(0.1, 10.0);
            self.price *= 1.0 + HASTE * (ratio - 1.0).clamp(-1.0, 1.0);
            self.spent *= 1.0 - FADING;
            self.allowed *= 1.0 - FADING;
        }
    }

    fn learn(&mut self, history: &mut History, idle: Option<Duration>, level: usize) {
        if history.levels.len() <= level {
            history.levels.resize_with(level + 1, Level::default);
        }
        let own = &mut history.levels[level];
        own.add(idle, self.keep_alive * STRETCH.0);
        if own.taught < TAUGHT {
            own.taught += 1;
            let usual = &mut self.usual[level];
            usual.total += 1.0;
            if let Some(step) = idle.and_then(step_of) {
                usual.steps[step] += 1.0;
            }
        }
    }

    /// What a caller's wait for a start is worth avoiding, in seconds.
    fn worth(&self, facts: &Facts) -> f64 {
        (STARTING + facts.start).as_secs_f64()
    }

    /// How much weight one sample of what is usual has.
    fn prior(&self, level: usize) -> f64 {
        let total = self.usual[level].total;
        if total < USUAL { 0.0 } else { PRIOR / total }
    }
}

impl Keep for Adaptive {
    type History = History;

    fn used(&mut self, history: &mut History, idle: Duration, facts: &Facts) {
        self.count(idle, idle.min(self.keep_alive).as_secs_f64(), facts);
        self.learn(history, Some(idle), facts.level);
    }

    fn ended(&mut self, idle: Duration, in_vain: bool, facts: &Facts) {
        let allowed = if in_vain { Duration::ZERO } else { self.keep_alive };
        self.count(idle, allowed.as_secs_f64(), facts);
    }

    fn missed(&mut self, history: &mut History, idle: Option<Duration>, facts: &Facts) {
        // What `ended` allowed was too much if it was wanted within `keep_alive`.
        let idle_or_never = idle.unwrap_or(Duration::MAX);
        let too_much = self.keep_alive.saturating_sub(idle_or_never);
        self.count(Duration::ZERO, -too_much.as_secs_f64(), facts);
        self.learn(history, idle, facts.level);
    }

    fn plan(&self, history: &History, facts: &Facts) -> Plan {
        let prior = self.prior(facts.level);
        let (none, usual) = (Level::default(), &self.usual[facts.level]);
        let history = history.levels.get(facts.level).unwrap_or(&none);
        if history.total == 0 && prior == 0.0 {
            return Plan { keep: self.keep_alive, again: None };
        }
        let rent = self.price * bytes(facts);
        let all = f64::from(history.total) + prior * usual.total;
        let balance = Balance { value: self.worth(facts) / all, rent: rent / all };
        let kept = balance.keep(|step| history.count(step) + prior * usual.steps[step], all);
        let is_sure = prior > 0.0 || history.total >= SURE;
        let least = if is_sure { self.keep_alive / STRETCH.1 } else { self.keep_alive };
        let keep = Duration::from_secs_f64(BEGINS[kept]);
        let keep = keep.clamp(least, self.keep_alive * STRETCH.0);
        let again = (history.total >= PATTERN).then(|| balance.again(history, kept)).flatten();
        Plan { keep, again }
    }

    fn rank(&self, history: &History, facts: &Facts, floor: f64) -> f64 {
        let none = Level::default();
        let history = history.levels.get(facts.level).unwrap_or(&none);
        let wanted = f64::from(history.total + 1);
        let rate = wanted / (history.seconds + self.keep_alive.as_secs_f64().max(1e-3));
        floor + self.worth(facts) * rate / bytes(facts)
    }
}

// === Level ===

impl Level {
    fn add(&mut self, idle: Option<Duration>, never: Duration) {
        let steps = self.steps.get_or_insert_with(|| Box::new([0; STEPS]));
        if let Some(step) = idle.and_then(step_of) {
            steps[step] = steps[step].saturating_add(1);
        }
        self.total += 1;
        self.seconds += idle.unwrap_or(never).as_secs_f64();
        if self.total >= REMEMBERED {
            let before = self.total;
            let found: u32 = steps.iter().map(|count| u32::from(*count)).sum();
            steps.iter_mut().for_each(|count| *count /= 2);
            let left: u32 = steps.iter().map(|count| u32::from(*count)).sum();
            self.total = left + (before - found.min(before)) / 2;
            self.seconds /= 2.0;
        }
    }

    fn count(&self, step: usize) -> f64 {
        self.steps.as_ref().map_or(0.0, |steps| f64::from(steps[step]))
    }
}

// === Balance ===

/// What one sample is worth and what a second of an idle Instance costs, per sample.
struct Balance {
    value: f64,
    rent: f64,
}

impl Balance {
    /// Before which step it is best to end an Instance.
    fn keep(&self, count: impl Fn(usize) -> f64, all: f64) -> usize {
        let (mut left, mut sum) = (all, 0.0);
        let (mut best, mut kept) = (0.0, 0);
        for step in 0..STEPS {
            let wanted = count(step);
            left -= wanted;
            sum += self.gain(step, wanted, left);
            if sum > best {
                (best, kept) = (sum, step + 1);
            }
        }
        kept
    }

    /// The best stretch after `kept` for which to start again, if any pays.
    fn again(&self, history: &Level, kept: usize) -> Option<(Duration, Duration)> {
        let steps = history.steps.as_ref()?;
        let early: f64 = steps[..kept].iter().map(|count| f64::from(*count)).sum();
        let mut left = f64::from(history.total) - early;
        let (mut sum, mut from) = (f64::NEG_INFINITY, kept);
        let (mut best, mut stretch) = (0.0, None);
        for step in kept..STEPS {
            let fee = -AHEAD * self.value * left;
            if sum < fee {
                (sum, from) = (fee, step);
            }
            let wanted = f64::from(steps[step]);
            left -= wanted;
            sum += self.gain(step, wanted, left);
            if sum > best {
                (best, stretch) = (sum, Some((from, step + 1)));
            }
        }
        let (from, to) = stretch?;
        Some((Duration::from_secs_f64(BEGINS[from]), Duration::from_secs_f64(BEGINS[to])))
    }

    /// What it gains to have an Instance during a step in which `wanted` samples fall, `left` after.
    fn gain(&self, step: usize, wanted: f64, left: f64) -> f64 {
        let seconds = BEGINS[step + 1] - BEGINS[step];
        self.value * wanted - self.rent * seconds * (left + wanted / 2.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size of memory need not be exact")]
fn bytes(facts: &Facts) -> f64 {
    facts.memory.as_bytes().max(1) as f64
}

/// The step in which an idle time falls; none if it is beyond the last.
fn step_of(idle: Duration) -> Option<usize> {
    let units = u64::try_from(idle.as_micros() >> UNIT).unwrap_or(u64::MAX);
    if units < 8 {
        return Some(0);
    }
    let octave = units.ilog2() - 3;
    let eighth = usize::try_from((units >> octave) & 7).unwrap_or(7);
    let step = 1 + usize::try_from(octave).unwrap_or(STEPS) * 8 + eighth;
    (step < STEPS).then_some(step)
}

/// Seconds at which each step begins, and the last one ends: each plan looks at all of them.
static BEGINS: [f64; STEPS + 1] = {
    let mut begins = [0.0; STEPS + 1];
    let mut fine = 0;
    while fine < STEPS {
        let eighths = (fine % 8 + 8) as u64;
        let micros = (eighths << (fine / 8)) << UNIT;
        begins[fine + 1] = Duration::from_micros(micros).as_secs_f64();
        fine += 1;
    }
    begins
};
