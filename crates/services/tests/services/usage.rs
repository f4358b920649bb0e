//! What invocations cost.

use std::time::Duration;

use lacewing_model::usage::{Ending, Trigger, UsageRecord};
use lacewing_model::{AccountId, Clock, FunctionName, RequestId};
use lacewing_services::{Usage, UsageQuery, UsageTotals, Written};

use super::bench::{Bench, SIDES, account, region};

fn record(bench: &Bench, account: AccountId, ending: Ending) -> UsageRecord {
    UsageRecord {
        at: bench.clock.now(),
        account,
        region: region(),
        function: FunctionName::new("f").expect("valid"),
        version: "$LATEST".to_owned(),
        request_id: RequestId::random(),
        trigger: Trigger::Sync,
        ending,
        duration_us: 1_500,
        billed_ms: 2,
        init_us: (ending == Ending::Timeout).then_some(7),
        memory_mb: 256,
        max_memory_mb: 40,
        bytes_in: 10,
        bytes_out: 20,
        network_in: 100,
        network_out: 200,
        timeline: None,
    }
}

/// The sums of all that is kept of the function `f`.
async fn sums(usage: &Usage, account: &AccountId) -> UsageTotals {
    let query = UsageQuery::default();
    let page = usage.totals(account, &region(), &query).await.expect("summed");
    assert!(!page.more);
    let of_f = page.totals.into_iter().find(|(name, _)| name.as_str() == "f");
    of_f.map(|(_, totals)| totals).unwrap_or_default()
}

fn written(records: &[UsageRecord]) -> Vec<Written> {
    let written = |record: &UsageRecord| Written::try_from(record.clone()).expect("written");
    records.iter().map(written).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_read_back_and_summed_for_each_account() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let other = AccountId::new("111111111111").expect("valid");
        let records = [
            record(&bench, account(), Ending::Returned),
            record(&bench, other.clone(), Ending::Returned),
            record(&bench, account(), Ending::Timeout),
        ];
        let usage = &bench.services.usage;
        usage.append(&written(&records), None).await.expect("appended");
        let page = async |cursor, limit| {
            let query = UsageQuery { cursor, limit, ..UsageQuery::default() };
            usage.read(&account(), &region(), &query).await.expect("read")
        };
        let whole = page(None, 100).await;
        assert_eq!(whole.records, [records[0].clone(), records[2].clone()]);
        assert!(!whole.more);
        let first = page(None, 1).await;
        assert_eq!((first.records.len(), first.more), (1, true));
        let rest = page(Some(first.cursor), 9).await;
        assert_eq!((rest.records.len(), rest.cursor, rest.more), (1, whole.cursor, false));
        let totals = sums(usage, &account()).await;
        let expected = UsageTotals {
            invocations: 2,
            errors: 1,
            cold_starts: 1,
            billed_ms: 4,
            memory_mb_ms: 1_024,
            bytes_in: 20,
            bytes_out: 40,
            network_in: 200,
            network_out: 400,
        };
        assert_eq!(totals, expected);
        assert_eq!(sums(usage, &other).await.invocations, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_asked_for_by_function_and_time() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let usage = &bench.services.usage;
        let named = |name: &str| {
            let function = FunctionName::new(name).expect("valid");
            UsageRecord { function, ..record(&bench, account(), Ending::Returned) }
        };
        let mut all = Vec::new();
        for name in ["a", "b", "a", "b"] {
            let record = named(name);
            usage.append(&written(std::slice::from_ref(&record)), None).await.expect("appended");
            all.push(record);
            bench.clock.advance(Duration::from_secs(60));
        }
        let read = async |function: Option<&str>, since| {
            let function = function.map(|name| FunctionName::new(name).expect("valid"));
            let query = UsageQuery { function, since, cursor: None, limit: 10 };
            usage.read(&account(), &region(), &query).await.expect("read").records
        };
        assert_eq!(read(Some("a"), None).await, [all[0].clone(), all[2].clone()]);
        assert_eq!(read(None, Some(all[2].at)).await, all[2..]);
        assert_eq!(read(Some("b"), Some(all[2].at)).await, all[3..]);
        assert_eq!(read(Some("c"), None).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_appended_again_counts_once() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let records: Vec<UsageRecord> =
            (0..2_500).map(|_| record(&bench, account(), Ending::Returned)).collect();
        let usage = &bench.services.usage;
        usage.append(&written(&records), Some("batch-1")).await.expect("appended");
        usage.append(&written(&records), Some("batch-1")).await.expect("recognised");
        let count = async || sums(usage, &account()).await.invocations;
        assert_eq!(count().await, 2_500);
        usage.append(&written(&records), Some("batch-2")).await.expect("appended");
        assert_eq!(count().await, 5_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_are_forgotten() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    for side in SIDES {
        let bench = Bench::new(side).await;
        let usage = &bench.services.usage;
        let append = async || {
            let records = [record(&bench, account(), Ending::Returned)];
            usage.append(&written(&records), None).await.expect("appended");
        };
        let count = async || {
            bench.services.forget_old().await.expect("forgotten");
            sums(usage, &account()).await.invocations
        };
        append().await;
        bench.clock.advance(399 * DAY);
        append().await;
        assert_eq!(count().await, 2);
        bench.clock.advance(2 * DAY);
        assert_eq!(count().await, 1);
    }
}
