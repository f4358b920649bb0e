//! How many decisions the pool makes in a second on one core, with many functions known to it.
//!
//! Half of them are callers that arrive and half invocations that end, of functions in no order, so
//! that each is another place in memory. Nothing is started or run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lacewing_invoke::pool::core::{Command, Config, Core, Event, InstanceId, Share, WaiterId};
use lacewing_model::function::{Code, State, UpdateStatus};
use lacewing_model::{
    AccountId, ByteSize, Digest, Function, FunctionConfig, FunctionKey, FunctionName, Region,
    Timestamp, Version,
};

use crate::report::say;

const FUNCTIONS: usize = 100_000;
const CALLS: u32 = 2_000_000;
/// A step through all functions in no order: it has no factor in common with their number.
const STRIDE: usize = 61_803;
const ALL: Share = Share { instances: usize::MAX, memory: ByteSize::bytes(u64::MAX) };
const MEMORY: ByteSize = ByteSize::mebibytes(64);

/// Measures so many rounds and prints the median.
pub(crate) fn measure(rounds: usize) -> Result<()> {
    let functions = (0..FUNCTIONS).map(function).collect::<Result<Vec<_>>>()?;
    let mut core = Core::new(config());
    let mut now = Timestamp::from_seconds(1_000);
    for (number, function) in functions.iter().enumerate() {
        now = now.plus(Duration::from_micros(10));
        let waiter = WaiterId(u64::try_from(number)?);
        core.on(Event::Arrive { waiter, function: function.clone() }, now);
        let instance = InstanceId(waiter.0);
        core.on(Event::Started { instance, memory: MEMORY }, now);
        core.on(Event::Done { instance, waiter, memory: MEMORY, reusable: true }, now);
    }
    ensure!(core.counts().idle == FUNCTIONS, "every function has an Instance: {:?}", core.counts());
    let mut rates = (0..rounds.max(1)).map(|round| {
        let first = u64::try_from(FUNCTIONS)? + u64::try_from(round)? * u64::from(CALLS);
        play(&mut core, &functions, first, &mut now)
    });
    let mut rates = rates.by_ref().collect::<Result<Vec<_>>>()?;
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    say(&format!("\npool, {FUNCTIONS} functions known: {median:.0} decisions/s on one core"));
    Ok(())
}

fn play(
    core: &mut Core,
    functions: &[Arc<Function>],
    first: u64,
    now: &mut Timestamp,
) -> Result<f64> {
    let mut next = 0;
    let started = Instant::now();
    for call in 0..u64::from(CALLS) {
        *now = now.plus(Duration::from_micros(1));
        next = (next + STRIDE) % functions.len();
        let (waiter, function) = (WaiterId(first + call), functions[next].clone());
        let commands = core.on(Event::Arrive { waiter, function }, *now);
        let [Command::Serve { instance, .. }] = commands[..] else {
            anyhow::bail!("not served by an idle Instance: {commands:?}");
        };
        core.on(Event::Done { instance, waiter, memory: MEMORY, reusable: true }, *now);
        if core.next_due().is_some_and(|due| due <= *now) {
            core.on(Event::Tick, *now);
        }
    }
    Ok(2.0 * f64::from(CALLS) / started.elapsed().as_secs_f64())
}

fn config() -> Config {
    Config {
        memory: ByteSize::bytes(u64::MAX),
        start_reserve: MEMORY,
        max_instances: usize::MAX,
        function_share: ALL,
        account_share: ALL,
        max_starting: FUNCTIONS,
        start_rate: 1_000_000,
        start_burst: 1_000_000,
        max_waiting: FUNCTIONS,
        account_concurrency: u32::MAX,
        max_known: FUNCTIONS,
        keep_alive: Duration::from_secs(600),
        freeze_after: None,
        max_age: Duration::from_secs(86_400),
        patience: Duration::from_secs(30),
        fair_wait: Duration::from_secs(1),
    }
}

fn function(number: usize) -> Result<Arc<Function>> {
    let account = format!("{:012}", number / 50);
    let role = format!("arn:aws:iam::{account}:role/lambda");
    let key = FunctionKey {
        account: AccountId::new(&account)?,
        region: Region::new("us-east-1")?,
        name: FunctionName::new(&format!("f{number}"))?,
    };
    Ok(Arc::new(Function {
        key,
        version: Version::Latest,
        lineage: uuid::Uuid::nil(),
        config: FunctionConfig::new("python3.13".parse()?, "app.handler", role),
        code: Code { digest: Digest::new([0; 32]), size: 1 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: uuid::Uuid::nil(),
        last_modified: Timestamp::from_seconds(0),
        generation: 1,
    }))
}
