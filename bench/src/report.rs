//! Prints what was measured.

use std::time::Duration;

use crate::cpu::Pinning;
use crate::samples::Results;

/// Prints one line.
#[expect(clippy::print_stdout, reason = "a bench talks to its terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Prints the head of one table.
pub(crate) fn head(pinning: Pinning) {
    say(&format!("\n{} (latencies in us, p50 / p99; rates in requests/s)", pinning.name()));
    say(&format!(
        "{:<10} {:>15} {:>15} {:>17} {:>13} {:>11} {:>13} {:>7}",
        "function",
        "hyper",
        "socketpair",
        "lacewing",
        "p50 ratio *",
        "hyper x16",
        "lacewing x16",
        "ratio"
    ));
}

/// Prints one row. The ratio marked `*` is our p50 over the sum of the floors' p50.
pub(crate) fn row(name: &str, results: &Results) {
    let floor = results.http.p50 + results.pipe.p50;
    say(&format!(
        "{name:<10} {:>15} {:>15} {:>17} {:>13.2} {:>11.0} {:>13.0} {:>7.2}",
        pair(results.http.p50, results.http.p99),
        pair(results.pipe.p50, results.pipe.p99),
        pair(results.warm.p50, results.warm.p99),
        results.warm.p50.as_secs_f64() / floor.as_secs_f64(),
        results.http_rate,
        results.warm_rate,
        results.warm_rate / results.http_rate,
    ));
}

fn pair(p50: Duration, p99: Duration) -> String {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    format!("{:.1} / {:.1}", micros(p50), micros(p99))
}
