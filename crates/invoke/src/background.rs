//! What runs beside the invocations: ticks of the pool, news of the catalog, logs and usage on
//! their way to where they are read, the worker of the event queues, and the end of it all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use lacewing_model::{FunctionKey, Version, VersionKey};
use lacewing_runtime::{LogBatch, LogReceiver};
use lacewing_services::{Line, Lines};

use crate::concurrency;
use crate::door::Door;
use crate::events;
use crate::pool::driver::Source;
use crate::pressure;

/// How often time passes for the pool.
const TICK: Duration = Duration::from_millis(500);
/// How often usage is handed over.
const USAGE: Duration = Duration::from_secs(1);
/// Log batches that are handed over at a time.
const LOG_BATCHES: usize = 4_096;
/// How long log batches are gathered, unless somebody waits for them: one durable write for all that
/// came meanwhile, and nobody is woken by each of them.
const GATHER: Duration = Duration::from_millis(250);
/// How long the last logs may take.
const LAST_LOGS: Duration = Duration::from_secs(2);

/// Runs everything until `stop`, then hands over what is left.
pub(crate) async fn run<S: Source>(
    door: Arc<Door<S>>,
    mut logs: LogReceiver,
    stop: &CancellationToken,
) {
    tokio::join!(
        events::run_worker(door.clone(), stop),
        until(stop, ticks(&door)),
        until(stop, door.pool.wake()),
        until(stop, follow_catalog(&door)),
        door.pool.source().work_ahead(stop),
        until(stop, usage(&door)),
        keep_logs(&door, &mut logs, stop),
    );
    hand_over_usage(&door).await;
}

/// Ends all that is going on; see `Invoker::drain`.
pub(crate) async fn drain<S: Source>(door: &Door<S>, grace: Duration) -> usize {
    let end = Instant::now() + grace;
    door.events.stop();
    let left = door.pool.drain(grace).await;
    let acknowledged = tokio::time::timeout_at(end, door.events.drain()).await;
    if acknowledged.is_err() {
        tracing::warn!("Some events were not acknowledged: they will run again.");
    }
    left
}

async fn until(stop: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn ticks<S: Source>(door: &Door<S>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pressure = pressure::Gauge::open();
    loop {
        ticks.tick().await;
        if let Some(percent) = pressure.read() {
            door.pool.press(percent);
        }
        door.pool.tick();
    }
}

/// Tells the pool of changed and deleted functions, and of their concurrency.
pub(crate) async fn follow_catalog<S: Source>(door: &Door<S>) {
    let mut changes = door.services.catalog.changes();
    // What has changed since the door was opened.
    concurrency::tell_all(door);
    concurrency::provide_all(door);
    loop {
        match changes.recv().await {
            Ok(key) => tell_pool(door, key),
            Err(RecvError::Lagged(_)) => {
                door.pool.functions().into_iter().for_each(|key| tell_pool(door, key));
                concurrency::tell_all(door);
                concurrency::provide_all(door);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell_pool<S: Source>(door: &Door<S>, key: VersionKey) {
    if key.version == Version::Latest {
        concurrency::tell(door, &key.function);
    }
    concurrency::provide(door, &key.function);
    match door.services.catalog.version(&key) {
        Some(function) => {
            door.pool.source().expect(&function);
            door.pool.changed(function);
        }
        None => door.pool.deleted(key),
    }
}

async fn usage<S: Source>(door: &Door<S>) {
    let mut ticks = tokio::time::interval(USAGE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        hand_over_usage(door).await;
    }
}

async fn hand_over_usage<S: Source>(door: &Door<S>) {
    if let Err(error) = door.hand_over_usage().await {
        tracing::warn!(error = %error.chain(), "Usage not handed over yet.");
    }
}

/// Keeps records in rounds until `stop`, then once more what has come by then.
async fn keep_logs<S: Source>(door: &Door<S>, logs: &mut LogReceiver, stop: &CancellationToken) {
    let mut batches = Vec::new();
    door.log_rounds.begin();
    while !stop.is_cancelled() {
        let is_wanted = tokio::select! {
            count = logs.next_many(&mut batches, LOG_BATCHES) => {
                if count == 0 {
                    return;
                }
                false
            }
            () = door.log_rounds.wanted() => true,
            () = stop.cancelled() => true,
        };
        if !is_wanted {
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = door.log_rounds.wanted() => {}
                () = stop.cancelled() => {}
            }
        }
        keep_waiting(door, logs, &mut batches).await;
        door.log_records_lost.store(logs.lost(), Ordering::Relaxed);
        door.log_rounds.end_round();
    }
    let last = keep_waiting(door, logs, &mut batches);
    if tokio::time::timeout(LAST_LOGS, last).await.is_err() {
        tracing::warn!("The last log records were not kept in time.");
    }
}

/// Keeps the batches that were taken and all that wait.
async fn keep_waiting<S: Source>(
    door: &Door<S>,
    logs: &mut LogReceiver,
    batches: &mut Vec<LogBatch>,
) {
    loop {
        logs.take_waiting(batches, LOG_BATCHES);
        if batches.is_empty() {
            return;
        }
        keep(door, std::mem::take(batches)).await;
    }
}

/// Hands batches over, those of one stream together and in order.
pub(crate) async fn keep<S: Source>(door: &Door<S>, batches: Vec<LogBatch>) {
    let mut streams: BTreeMap<(FunctionKey, String), Vec<Line>> = BTreeMap::new();
    for batch in batches {
        let lines = streams.entry((batch.function, batch.stream)).or_default();
        lines.extend(batch.lines.into_iter().map(|line| (line.at, line.request_id, line.text)));
    }
    let told: Vec<_> =
        streams.iter().map(|((function, _), lines)| (function.clone(), lines.len())).collect();
    let streams = streams.into_iter();
    let streams = streams.map(|((function, stream), lines)| Lines { function, stream, lines });
    let kept = door.services.logs.keep(streams.collect()).await;
    for ((function, count), kept) in told.into_iter().zip(kept) {
        if let Err(error) = kept {
            let function = function.arn();
            tracing::warn!(%function, count, error = %error.chain(), "Log records lost.");
        }
    }
}
