//! The promise of the scheduler on a small day, and that a day can be had again.

use super::*;

fn small() -> Cli {
    Cli { functions: 1_500, hours: 24, seeds: 1, first: 1 }
}

#[test]
fn ours_has_fewer_cold_starts_for_the_same_idle_memory() {
    let day = Day::play(&small(), 7).expect("played");
    let (ours, richer) = (&day.ours, &day.richer);
    assert!(ours.wasted <= 1.02 * day.fixed.wasted, "{} {}", ours.wasted, day.fixed.wasted);
    assert!(ours.cold * 10 <= day.fixed.cold * 7, "{} {}", ours.cold, day.fixed.cold);
    assert!(richer.wasted <= 1.02 * day.hybrid.wasted);
    assert!(richer.cold <= day.hybrid.cold, "{} {}", richer.cold, day.hybrid.cold);
    for figures in [&day.fixed, &day.hybrid, ours, richer] {
        assert_eq!((figures.refused, figures.calls), (0, day.fixed.calls));
    }
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let cli = Cli { functions: 200, hours: 3, ..small() };
    let [one, other] = [(); 2].map(|()| {
        let day = Day::play(&cli, 3).expect("played").ours;
        (day.calls, day.cold, day.starts, day.decisions, day.wasted.to_bits())
    });
    assert_eq!(one, other);
}
