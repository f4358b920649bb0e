//! Values that several tests of this crate share.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use lacewing_model::function::{Code, Environment, State, UpdateStatus};
use lacewing_model::usage::{Ending, Trigger, UsageRecord};
use lacewing_model::{
    AccountId, Digest, Function, FunctionConfig, FunctionKey, FunctionName, Invocation, Region,
    RequestId, Timestamp, Version,
};
use lacewing_services::{Usage, UsageQuery};

pub(crate) fn key(account: &str, name: &str) -> FunctionKey {
    FunctionKey {
        account: AccountId::new(account).expect("valid"),
        region: Region::new("us-east-1").expect("valid"),
        name: FunctionName::new(name).expect("valid"),
    }
}

pub(crate) fn config() -> FunctionConfig {
    let role = "arn:aws:iam::000000000000:role/lambda";
    FunctionConfig::new("python3.13".parse().expect("known"), "app.handler", role)
}

/// An active function; each generation was made a second after the one before.
pub(crate) fn function(key: FunctionKey, generation: u64) -> Function {
    Function {
        key,
        version: Version::Latest,
        lineage: Uuid::nil(),
        config: config(),
        code: Code { digest: Digest::new([7; 32]), size: 1 },
        state: State::Active,
        last_update: UpdateStatus::Successful,
        before: None,
        state_reason: None,
        revision_id: Uuid::nil(),
        last_modified: Timestamp::from_seconds(i64::try_from(generation).expect("small")),
        generation,
    }
}

/// The same, with Instances that serve so many invocations at a time.
pub(crate) fn with_seats(mut function: Function, seats: u32) -> Function {
    let variable = FunctionConfig::CONCURRENCY_PER_INSTANCE.to_owned();
    let variables = BTreeMap::from([(variable, seats.to_string())]);
    function.config.runtime = "provided.al2023".parse().expect("known");
    function.config.environment = Some(Environment(variables));
    function
}

pub(crate) fn call(function: FunctionKey, payload: &str) -> Invocation {
    Invocation {
        request_id: RequestId::random(),
        function,
        qualifier: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        client_context: None,
        trace: None,
        wants_log_tail: false,
        trigger: Trigger::Sync,
    }
}

/// A record of the function `hello`; the number is when it ended, in seconds.
pub(crate) fn record(number: i64) -> UsageRecord {
    let key = key("000000000000", "hello");
    UsageRecord {
        at: Timestamp::from_seconds(number),
        account: key.account,
        region: key.region,
        function: key.name,
        version: "$LATEST".into(),
        request_id: RequestId::random(),
        trigger: Trigger::Sync,
        ending: Ending::Returned,
        duration_us: 900,
        billed_ms: 1,
        init_us: None,
        memory_mb: 128,
        max_memory_mb: 20,
        bytes_in: 2,
        bytes_out: 5,
        network_in: 6,
        network_out: 7,
        timeline: None,
    }
}

/// The usage records that were handed over.
pub(crate) async fn records(usage: &Usage) -> Vec<UsageRecord> {
    let key = key("000000000000", "x");
    let query = UsageQuery { limit: 100, ..UsageQuery::default() };
    usage.read(&key.account, &key.region, &query).await.expect("reads").records
}
