//! Taking the samples: floors and platform in turn, so that all see the same noise.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::floors::{HttpFloor, PipeFloor};
use crate::http_client::Target;
use crate::platform::Function;

/// Latencies of one measurement with one connection.
#[derive(Clone, Debug, Default)]
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
    /// Requests per second of the bare hyper server at 16 connections.
    pub(crate) http_rate: f64,
    /// Requests per second of the platform at 16 connections.
    pub(crate) warm_rate: f64,
}

/// Connections of the throughput measurement.
const CONNECTIONS: usize = 16;

/// How long [`interleave`] takes: three latencies and two rates a round, and the warm-up of both.
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
    let mut rates: [Vec<f64>; 2] = Default::default();
    sequence(function.target(), length / 2)?;
    for _ in 0..rounds {
        rows[0].push(sequence(http.target(), length)?);
        rows[1].push(repeat(length, || pipe.round_trip())?);
        rows[2].push(sequence(function.target(), length)?);
    }
    crate::http_client::throughput(function.target(), CONNECTIONS, length)?;
    for _ in 0..rounds {
        rates[0].push(crate::http_client::throughput(http.target(), CONNECTIONS, length)?);
        rates[1].push(crate::http_client::throughput(function.target(), CONNECTIONS, length)?);
    }
    let [http, pipe, warm] = rows.map(|row| median_of(&row));
    let [http_rate, warm_rate] = rates.map(median);
    Ok(Results { http, pipe, warm, http_rate, warm_rate })
}

fn sequence(target: &Target, length: Duration) -> Result<Latency> {
    let mut connection = target.connect()?;
    repeat(length, || connection.request())
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
    let total = started.elapsed();
    samples.sort_unstable();
    let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
    let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    Ok(Latency { p50: at(50), p99: at(99), rate: f64::from(count) / total.as_secs_f64() })
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
