//! What invocations cost.

use std::time::Duration;

use lacewing_model::usage::{Ending, Trigger, UsageRecord};
use lacewing_model::{AccountId, Clock, FunctionName, RequestId};
use lacewing_services::UsageTotals;

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
    }
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
        usage.append(&records, None).await.expect("appended");
        let (read, next) = usage.read(&account(), &region(), 0, 100).await.expect("read");
        assert_eq!(read, [records[0].clone(), records[2].clone()]);
        let (first, middle) = usage.read(&account(), &region(), 0, 1).await.expect("read");
        assert_eq!(first.len(), 1);
        let (rest, end) = usage.read(&account(), &region(), middle, 9).await.expect("read");
        assert_eq!((rest.len(), end), (1, next));
        let totals = usage.totals(&account(), &region()).await.expect("summed");
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
        assert_eq!(usage.totals(&other, &region()).await.expect("summed").invocations, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_appended_again_counts_once() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let records: Vec<UsageRecord> =
            (0..2_500).map(|_| record(&bench, account(), Ending::Returned)).collect();
        let usage = &bench.services.usage;
        usage.append(&records, Some("batch-1")).await.expect("appended");
        usage.append(&records, Some("batch-1")).await.expect("recognised");
        let count = async || usage.totals(&account(), &region()).await.expect("summed").invocations;
        assert_eq!(count().await, 2_500);
        usage.append(&records, Some("batch-2")).await.expect("appended");
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
            usage.append(&records, None).await.expect("appended");
        };
        let count = async || {
            bench.services.forget_old().await.expect("forgotten");
            usage.totals(&account(), &region()).await.expect("summed").invocations
        };
        append().await;
        bench.clock.advance(399 * DAY);
        append().await;
        assert_eq!(count().await, 2);
        bench.clock.advance(2 * DAY);
        assert_eq!(count().await, 1);
    }
}
