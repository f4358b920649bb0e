//! What functions printed.

use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{Clock, RequestId, Timestamp};
use lacewing_services::{Line, Lines, LogBounds, LogPage, LogQuery, Options};
use lacewing_store::Prefix;

use super::bench::{Bench, PATIENCE, SIDES, Side, key};

fn query() -> LogQuery {
    LogQuery { since: None, cursor: None, stream: None, limit: 100, wait: Duration::ZERO }
}

async fn print(bench: &Bench, stream: &str, texts: &[&str]) -> RequestId {
    let id = RequestId::random();
    let at = bench.clock.now();
    let line = |text: &&str| (at, Some(id), Bytes::copy_from_slice(text.as_bytes()));
    let lines = texts.iter().map(line).collect();
    keep(bench, "f", stream, lines).await;
    id
}

async fn keep(bench: &Bench, function: &str, stream: &str, lines: Vec<Line>) {
    let lines = Lines { function: key(function), stream: stream.to_owned(), lines };
    let kept = bench.services.logs.keep(vec![lines]).await;
    kept.into_iter().for_each(|kept| kept.expect("kept"));
}

async fn read(bench: &Bench, query: LogQuery) -> LogPage {
    bench.services.logs.read(&key("f"), query).await.expect("read")
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.events.iter().map(|event| event.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_back_in_order_and_page_by_page() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let id = print(&bench, "s1", &["a", "b", "c\nd"]).await;
        print(&bench, "s2", &["e"]).await;
        let all = read(&bench, query()).await;
        assert_eq!(texts(&all), ["a", "b", "c\nd", "e"]);
        assert_eq!(all.events[0].request_id, Some(id));
        assert_eq!(all.events[3].stream, "s2");
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = read(&bench, LogQuery { limit: 1, cursor, ..query() }).await;
            if page.events.is_empty() {
                break;
            }
            seen.extend(page.events);
            let text = page.cursor.to_string();
            cursor = Some(text.parse().expect("its own text"));
        }
        assert_eq!(seen, all.events);
        let one = read(&bench, LogQuery { stream: Some("s2".to_owned()), ..query() }).await;
        assert_eq!(texts(&one), ["e"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn since_finds_its_place_among_many() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let start = bench.clock.now();
        for number in 0..70 {
            print(&bench, "s", &[&number.to_string()]).await;
            bench.clock.advance(Duration::from_secs(1));
        }
        for from in [0_u64, 1, 37, 69, 70, 500] {
            let since = Some(start.plus(Duration::from_secs(from)));
            let page = read(&bench, LogQuery { since, ..query() }).await;
            let expected: Vec<String> = (from..70).map(|number| number.to_string()).collect();
            assert_eq!(texts(&page), expected, "since {from}");
        }
        let long_ago = Some(Timestamp::default());
        assert_eq!(read(&bench, LogQuery { since: long_ago, ..query() }).await.events.len(), 70);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_woken_by_what_it_wants() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let cursor = Some(read(&bench, query()).await.cursor);
        let stream = Some("wanted".to_owned());
        let follow = read(&bench, LogQuery { cursor, stream, wait: PATIENCE, ..query() });
        let write = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            print(&bench, "other", &["no"]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            print(&bench, "wanted", &["yes"]).await;
        };
        let (page, ()) = futures_util::future::join(follow, write).await;
        assert_eq!(texts(&page), ["yes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_forgotten() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    for side in SIDES {
        let bench = Bench::new(side).await;
        print(&bench, "s", &["old"]).await;
        bench.clock.advance(DAY * 29);
        print(&bench, "s", &["new"]).await;
        bench.services.forget_old().await.expect("forgotten");
        assert_eq!(texts(&read(&bench, query()).await), ["old", "new"]);
        bench.clock.advance(DAY * 2);
        bench.services.forget_old().await.expect("forgotten");
        assert_eq!(texts(&read(&bench, query()).await), ["new"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_stay_within_their_bounds_and_the_oldest_go_first() {
    const MB: usize = 1 << 20;
    for side in SIDES {
        let bounds = LogBounds { function: 2 << 20, account: 3 << 20 };
        let change = |options: &mut Options| options.log_bounds = bounds;
        let bench = Bench::with(side, change, super::bench::any_runtime()).await;
        let line = |text: String| -> Line { (bench.clock.now(), None, text.into()) };
        keep(&bench, "quiet", "s", vec![line("kept".to_owned())]).await;
        for function in ["f", "g"] {
            for number in 0..40 {
                let text = format!("{number} {}", "x".repeat(MB / 8));
                keep(&bench, function, "s", vec![line(text)]).await;
                let held = bench.store.log.weigh(&Prefix::all()).await.expect("weighed");
                assert!(held.iter().all(|(_, bytes)| *bytes <= bounds.function), "{held:?}");
                assert!(held.iter().map(|(_, bytes)| bytes).sum::<u64>() <= bounds.account);
            }
        }
        assert!(bench.services.logs.cut_bytes() > 6 << 20);
        let f = read(&bench, query()).await;
        let last = f.events.last().expect("some are left");
        assert!(last.text.starts_with("39 "), "the newest are kept");
        assert!(!f.events.iter().any(|event| event.text.starts_with("0 ")));
        let g = bench.services.logs.read(&key("g"), query()).await.expect("read");
        let numbers =
            g.events.iter().filter_map(|event| event.text.split(' ').next()?.parse().ok());
        let numbers: Vec<u32> = numbers.collect();
        assert!(numbers.is_sorted() && numbers.last() == Some(&39), "{numbers:?}");
        let quiet = bench.services.logs.read(&key("quiet"), query()).await.expect("read");
        assert_eq!(texts(&quiet), ["kept"], "who wrote little lost nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_says_so_once() {
    let bounds = LogBounds { function: 1 << 20, account: 1 << 30 };
    let change = |options: &mut Options| options.log_bounds = bounds;
    let bench = Bench::with(Side::Memory, change, super::bench::any_runtime()).await;
    let mut told = 0;
    for number in 0..40 {
        let text = format!("{number} {}", "x".repeat(100 << 10));
        keep(&bench, "f", "s", vec![(bench.clock.now(), None, text.into())]).await;
        let page = read(&bench, query()).await;
        let last = page.events.len().saturating_sub(2);
        let warned = |text: &str| text.contains("bounded to 1 MB");
        told += page.events[last..].iter().filter(|event| warned(&event.text)).count();
    }
    assert_eq!(told, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_durable_and_outlive_their_function() {
    let bench = Bench::new(Side::Embedded).await;
    bench.create("f").await;
    print(&bench, "s", &["kept"]).await;
    bench.services.functions.delete(&key("f")).await.expect("deleted");
    let bench = bench.reopen(super::bench::any_runtime()).await;
    assert_eq!(texts(&read(&bench, query()).await), ["kept"]);
}
