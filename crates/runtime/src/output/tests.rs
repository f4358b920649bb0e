//! Nothing that was written is left behind.

use std::sync::Arc;

use lacewing_model::{Clock, SystemClock, Timestamp};
use tokio::time::Instant;

use super::*;
use crate::log::{self, LogReceiver};
use crate::testing;

fn log() -> (LogWriter, LogReceiver) {
    log_by(Arc::new(SystemClock))
}

fn log_by(clock: Arc<dyn Clock>) -> (LogWriter, LogReceiver) {
    let (sender, receiver) = log::channel();
    let function = testing::function("python3.11").key;
    (LogWriter::new(sender, clock, function, "stream".into()), receiver)
}

/// The time of the event loop, which a test lets pass without waiting.
#[derive(Debug)]
struct LoopClock(Instant);

impl Clock for LoopClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.0.elapsed().as_micros()).expect("not so long"))
    }
}

async fn logged(log: &mut LogWriter, receiver: &mut LogReceiver) -> Vec<String> {
    log.finish();
    let batch = receiver.next().await.expect("a batch");
    batch.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

#[tokio::test]
async fn a_drain_sees_what_was_written_just_before_it() {
    let (mut output, writers) = Output::open().expect("pipes");
    let (mut log, mut receiver) = log();
    rustix::io::write(&writers.text, b"one\ntwo").expect("room");
    output.drain(&mut log);
    assert_eq!(logged(&mut log, &mut receiver).await, ["one", "two"]);
}

#[tokio::test]
async fn a_record_that_comes_in_parts_is_one() {
    let (mut output, writers) = Output::open().expect("pipes");
    let (mut log, mut receiver) = log();
    let mut record = vec![0xa5, 0x5a, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend_from_slice(b"a\nb\n");
    let (first, second) = record.split_at(10);
    rustix::io::write(&writers.records, first).expect("room");
    output.pump(&mut log).await;
    rustix::io::write(&writers.records, second).expect("room");
    output.pump(&mut log).await;
    assert_eq!(logged(&mut log, &mut receiver).await, ["a\nb"]);
}

#[tokio::test]
async fn a_closed_pipe_wakes_nobody() {
    let (mut output, writers) = Output::open().expect("pipes");
    let (mut log, _receiver) = log();
    drop(writers);
    let moment = std::time::Duration::from_millis(50);
    let pumping = async {
        loop {
            output.pump(&mut log).await;
        }
    };
    assert!(tokio::time::timeout(moment, pumping).await.is_err());
    assert!(output.text.is_closed && output.records.is_closed);
}

#[tokio::test(start_paused = true)]
async fn who_floods_its_output_is_read_no_faster_than_it_may_log_and_loses_nothing() {
    let (mut output, writers) = Output::open().expect("pipes");
    let began = Instant::now();
    let (mut log, mut receiver) = log_by(Arc::new(LoopClock(began)));
    let (mut kept, mut batches) = (0, Vec::new());
    for _ in 0..16 {
        rustix::io::write(&writers.text, &[b'\n'; 64 * 1024]).expect("room");
        output.pump(&mut log).await;
        receiver.take_waiting(&mut batches, usize::MAX);
        kept += batches.drain(..).map(|batch| batch.lines.len()).sum::<usize>();
    }
    log.finish();
    receiver.take_waiting(&mut batches, usize::MAX);
    kept += batches.drain(..).map(|batch| batch.lines.len()).sum::<usize>();
    assert_eq!((kept, receiver.lost()), (16 * 64 * 1024, 0));
    let took = began.elapsed().as_secs_f64();
    assert!((3.0..9.0).contains(&took), "64 MiB as they count, 32 of them ahead: {took} s");
}
