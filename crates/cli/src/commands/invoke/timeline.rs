//! How a timeline reads for people.

use serde_json::Value;

/// The parts in their order, as the server names them and as we do.
const PARTS: [(&str, &str); 6] = [
    ("queued_us", "queued"),
    ("placed_us", "placed"),
    ("sandbox_us", "sandbox"),
    ("init_us", "init"),
    ("handler_us", "handler"),
    ("response_us", "response"),
];

/// One line.
pub(crate) fn text(timeline: &Value) -> String {
    let start = match timeline["cold_start"].as_str() {
        Some(reason) => format!("cold start ({reason})"),
        None => "warm".to_owned(),
    };
    let micros = |name: &str| timeline[name].as_u64().unwrap_or_default();
    let parts = PARTS.map(|(member, name)| format!("{name} {}", millis(micros(member))));
    let whole = PARTS.iter().map(|(member, _)| micros(member)).sum();
    format!("{start}: {}; in all {}", parts.join(", "), millis(whole))
}

fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_parts_come_in_their_order_and_are_summed() {
        let timeline = json!({
            "queued_us": 0, "placed_us": 1_200, "sandbox_us": 30, "init_us": 40_000,
            "handler_us": 900, "response_us": 7, "cold_start": "first",
        });
        let expected = "cold start (first): queued 0.000 ms, placed 1.200 ms, sandbox 0.030 ms, \
                        init 40.000 ms, handler 0.900 ms, response 0.007 ms; in all 42.137 ms";
        assert_eq!(text(&timeline), expected);
        assert!(text(&json!({ "cold_start": null })).starts_with("warm: queued 0.000 ms"));
    }
}
