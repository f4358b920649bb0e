//! Tests of `stream`.

use std::task::{Context, Waker};

use tokio_util::task::TaskTracker;

use super::*;

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// What is waited for without anybody's help.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

/// Whether so many bytes find room at once.
fn fits(outlet: &Outlet, length: usize) -> bool {
    now(outlet.send(Bytes::from(vec![7; length]))).is_some()
}

#[tokio::test]
async fn pieces_come_in_order_and_end_with_the_outlet() {
    let (outlet, mut pieces) = channel();
    let closing = outlet.closing();
    assert_eq!(now(pieces.begun()), None);
    outlet.begin("text/plain");
    outlet.send(text("a")).await;
    outlet.send(text("b")).await;
    assert_eq!(pieces.begun().await.as_deref(), Some("text/plain"));
    assert_eq!(pieces.next().await, Some(text("a")));
    assert_eq!(pieces.next().await, Some(text("b")));
    assert_eq!(now(pieces.next()), None);
    drop(closing);
    assert_eq!(pieces.next().await, None);
    assert!(!pieces.is_abandoned());
    assert_eq!(outlet.size(), 2);
}

#[tokio::test]
async fn an_outlet_that_was_never_begun_ends_both_waits() {
    let (outlet, mut pieces) = channel();
    drop(outlet.closing());
    assert_eq!(pieces.begun().await, None);
    assert_eq!(pieces.next().await, None);
}

#[tokio::test]
async fn the_sender_waits_while_there_is_no_room() {
    let (outlet, mut pieces) = channel();
    assert!(fits(&outlet, 3 * PIECE));
    assert!(
        !fits(&outlet, PIECE),
        "a fourth piece and the overhead are more than there is room for"
    );
    assert_eq!(outlet.size(), 3 * PIECE as u64);
    let sender = outlet.clone();
    let tasks = TaskTracker::new();
    let sending = tasks.spawn(async move { sender.send(Bytes::from(vec![7; PIECE])).await });
    tokio::task::yield_now().await;
    assert!(!sending.is_finished());
    assert_eq!(pieces.next().await.map(|piece| piece.len()), Some(PIECE));
    sending.await.expect("sent");
    assert_eq!(outlet.size(), 4 * PIECE as u64);
}

#[tokio::test]
async fn tiny_pieces_are_bounded_in_number() {
    let (outlet, _pieces) = channel();
    let count = (0..ROOM).take_while(|_| fits(&outlet, 1)).count();
    assert_eq!(count, ROOM / (1 + OVERHEAD));
}

#[tokio::test]
async fn a_long_part_is_cut_into_pieces() {
    let (outlet, mut pieces) = channel();
    outlet.send(Bytes::from(vec![1; PIECE + 1])).await;
    let lengths = [pieces.next().await, pieces.next().await].map(|piece| piece.map(|p| p.len()));
    assert_eq!(lengths, [Some(PIECE), Some(1)]);
}

#[tokio::test]
async fn when_the_caller_is_gone_nothing_waits_and_nothing_is_kept() {
    let (outlet, pieces) = channel();
    assert!(fits(&outlet, 3 * PIECE));
    let sender = outlet.clone();
    let tasks = TaskTracker::new();
    let sending = tasks.spawn(async move { sender.send(Bytes::from(vec![7; PIECE])).await });
    tokio::task::yield_now().await;
    drop(pieces);
    sending.await.expect("sent to nobody");
    assert!(fits(&outlet, 100 * PIECE));
    assert_eq!(outlet.size(), 104 * PIECE as u64);
    assert_eq!(outlet.0.state.lock().weight, 0);
}

#[tokio::test]
async fn closing_frees_a_sender_that_waits() {
    let (outlet, _pieces) = channel();
    let closing = outlet.closing();
    assert!(fits(&outlet, 3 * PIECE));
    let sender = outlet.clone();
    let tasks = TaskTracker::new();
    let sending = tasks.spawn(async move { sender.send(Bytes::from(vec![7; PIECE])).await });
    tokio::task::yield_now().await;
    drop(closing);
    sending.await.expect("its invocation is over");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_dropped_when_it_is_not_taken_in_time() {
    let (outlet, mut pieces) = channel();
    let closing = outlet.closing();
    outlet.send(text("a")).await;
    outlet.send(text("b")).await;
    drop(closing);
    assert_eq!(pieces.next().await, Some(text("a")));
    outlet.taken(Duration::from_secs(60)).await;
    assert_eq!(pieces.next().await, None);
    assert!(pieces.is_abandoned());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_takes_all_in_time_loses_nothing() {
    let (outlet, mut pieces) = channel();
    let closing = outlet.closing();
    outlet.send(text("a")).await;
    drop(closing);
    let reader = async {
        tokio::time::sleep(Duration::from_secs(50)).await;
        (pieces.next().await, pieces.next().await)
    };
    let (read, ()) = tokio::join!(reader, outlet.taken(Duration::from_secs(60)));
    assert_eq!(read, (Some(text("a")), None));
    assert!(!pieces.is_abandoned());
}

#[tokio::test]
async fn a_content_type_that_no_header_can_hold_is_replaced() {
    for bad in ["", "a\nb", "é", "a\u{0}", &"x".repeat(257)] {
        let (outlet, mut pieces) = channel();
        outlet.begin(bad);
        assert_eq!(pieces.begun().await.as_deref(), Some(DEFAULT_TYPE), "{bad:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_limit_to_the_byte() {
    let (outlet, pieces) = channel();
    drop(pieces);
    let mut intake = Intake::begin(Some(&outlet), "");
    let mebibyte = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..200 {
        assert_eq!(intake.take(mebibyte.clone()).await, Ok(()));
    }
    assert_eq!(intake.take(Bytes::new()).await, Ok(()));
    assert_eq!(intake.take(text("x")).await, Err(TooLarge));
    assert_eq!(outlet.size(), limits::STREAMED_RESPONSE.as_bytes());
    assert_eq!(intake.end(), Answer::Streamed);
}

#[tokio::test]
async fn without_an_outlet_a_response_is_collected_up_to_its_limit() {
    let most = usize::try_from(limits::SYNC_RESPONSE.as_bytes()).expect("fits");
    let mut intake = Intake::begin(None, "");
    assert_eq!(intake.take(Bytes::from(vec![0; most - 1])).await, Ok(()));
    assert_eq!(intake.take(text("xy")).await, Err(TooLarge));
    assert_eq!(intake.take(text("z")).await, Ok(()));
    let Answer::Returned(whole) = intake.end() else { panic!("it was collected") };
    assert_eq!((whole.len(), whole.last()), (most, Some(&b'z')));
}
