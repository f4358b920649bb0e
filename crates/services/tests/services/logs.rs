//! What functions printed.

use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{Clock, RequestId, Timestamp};
use lacewing_services::{LogPage, LogQuery};

use super::bench::{Bench, PATIENCE, SIDES, Side, key};

fn query() -> LogQuery {
    LogQuery { since: None, cursor: None, stream: None, limit: 100, wait: Duration::ZERO }
}

async fn print(bench: &Bench, stream: &str, texts: &[&str]) -> RequestId {
    let id = RequestId::random();
    let at = bench.clock.now();
    let line = |text: &&str| (at, Some(id), Bytes::copy_from_slice(text.as_bytes()));
    let lines = texts.iter().map(line).collect();
    bench.services.logs.append(&key("f"), stream, lines).await.expect("appended");
    id
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
async fn logs_are_durable_and_outlive_their_function() {
    let bench = Bench::new(Side::Embedded).await;
    bench.create("f").await;
    print(&bench, "s", &["kept"]).await;
    bench.services.functions.delete(&key("f")).await.expect("deleted");
    let bench = bench.reopen(super::bench::any_runtime()).await;
    assert_eq!(texts(&read(&bench, query()).await), ["kept"]);
}
