//! Prints what was measured.

use std::time::Duration;

use crate::cpu::Pinning;
use crate::samples::{Latency, Results};

/// Prints one line.
#[expect(clippy::print_stdout, reason = "a bench talks to its terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Prints the head of one table.
pub(crate) fn head(pinning: Pinning) {
    say(&format!("\n{} (latencies in us, p50 / p99; rates in requests/s)", pinning.name()));
    say(&format!(
        "{:<10} {:>11} {:>17} {:>17} {:>19} {:>11} {:>11} {:>13} {:>7}",
        "function",
        "connections",
        "hyper",
        "socketpair",
        "lacewing",
        "p50 ratio *",
        "hyper/s",
        "lacewing/s",
        "ratio"
    ));
}

/// Prints two rows, for one connection and for 16. The ratio marked `*` is our p50 over the sum of
/// the floors' p50, which is a fair floor of one connection only.
pub(crate) fn rows(name: &str, results: &Results) {
    let floor = results.http.p50 + results.pipe.p50;
    let ratio = format!("{:.2}", results.warm.p50.as_secs_f64() / floor.as_secs_f64());
    row(name, "1", &results.http, &pair(&results.pipe), &results.warm, &ratio);
    row(name, "16", &results.http_crowd, "-", &results.warm_crowd, "-");
}

fn row(name: &str, connections: &str, http: &Latency, pipe: &str, warm: &Latency, ratio: &str) {
    say(&format!(
        "{name:<10} {connections:>11} {:>17} {pipe:>17} {:>19} {ratio:>11} {:>11.0} {:>13.0} {:>7.2}",
        pair(http),
        pair(warm),
        http.rate,
        warm.rate,
        warm.rate / http.rate,
    ));
}

fn pair(latency: &Latency) -> String {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    format!("{:.1} / {:.1}", micros(latency.p50), micros(latency.p99))
}
