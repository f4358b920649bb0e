//! Taking the samples: floors and platform in turn, so that all see the same noise.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::floors::{HttpFloor, PipeFloor};
use crate::http_client::{Target, crowd};
use crate::platform::Function;

/// What one measurement gave.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    /// The median.
    pub(crate) p50: Duration,
    /// The 99th percentile.
    pub(crate) p99: Duration,
    /// Requests per second.
    pub(crate) rate: f64,
}

/// What was measured for one language on one pinning: medians over all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    /// The bare hyper server, one connection.
    pub(crate) http: Latency,
    /// The bare round trip to a process.
    pub(crate) pipe: Latency,
    /// The platform, one connection.
    pub(crate) warm: Latency,
    /// The bare hyper server at 16 connections.
    pub(crate) http_crowd: Latency,
    /// The platform at 16 connections.
    pub(crate) warm_crowd: Latency,
}

/// Connections of the measurement with many.
pub(crate) const CONNECTIONS: usize = 16;

/// How long [`interleave`] takes: in each round three measurements at one connection and two at 16,
/// and the warm-up of both.
pub(crate) fn expected(rounds: usize, length: Duration) -> Duration {
    length.mul_f64(1.5) + length.saturating_mul(u32::try_from(rounds * 5).unwrap_or(u32::MAX))
}

/// Measures all three in turn, `rounds` times.
pub(crate) fn interleave(
    http: &HttpFloor,
    mut pipe: PipeFloor,
    function: &Function,
    rounds: usize,
    length: Duration,
) -> Result<Results> {
    let mut rows: [Vec<Latency>; 3] = Default::default();
    let mut crowds: [Vec<Latency>; 2] = Default::default();
    sequence(function.target(), length / 2)?;
    for _ in 0..rounds {
        rows[0].push(sequence(http.target(), length)?);
        rows[1].push(repeat(length, || pipe.round_trip())?);
        rows[2].push(sequence(function.target(), length)?);
    }
    throng(function.target(), CONNECTIONS, length)?;
    for _ in 0..rounds {
        crowds[0].push(throng(http.target(), CONNECTIONS, length)?);
        crowds[1].push(throng(function.target(), CONNECTIONS, length)?);
    }
    let [http, pipe, warm] = rows.map(|row| median_of(&row));
    let [http_crowd, warm_crowd] = crowds.map(|row| median_of(&row));
    Ok(Results { http, pipe, warm, http_crowd, warm_crowd })
}

impl Latency {
    /// Of the latency of each answer, and how long all took.
    fn of((mut samples, total): (Vec<Duration>, Duration)) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        Self { p50: at(50), p99: at(99), rate: f64::from(count) / total.as_secs_f64() }
    }
}

/// Asks over one connection for a while.
pub(crate) fn sequence(target: &Target, length: Duration) -> Result<Latency> {
    let mut connection = target.connect()?;
    repeat(length, || connection.request())
}

/// Asks over so many connections for a while.
pub(crate) fn throng(target: &Target, connections: usize, length: Duration) -> Result<Latency> {
    Ok(Latency::of(crowd(target, connections, length)?))
}

/// Repeats an action for a while and gives its latencies.
fn repeat(length: Duration, mut action: impl FnMut() -> Result<()>) -> Result<Latency> {
    let mut samples = Vec::with_capacity(1 << 16);
    let started = Instant::now();
    while started.elapsed() < length {
        let before = Instant::now();
        action()?;
        samples.push(before.elapsed());
    }
    Ok(Latency::of((samples, started.elapsed())))
}

fn median_of(rows: &[Latency]) -> Latency {
    let pick = |of: fn(&Latency) -> f64| median(rows.iter().map(of).collect());
    Latency {
        p50: Duration::from_secs_f64(pick(|row| row.p50.as_secs_f64())),
        p99: Duration::from_secs_f64(pick(|row| row.p99.as_secs_f64())),
        rate: pick(|row| row.rate),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
