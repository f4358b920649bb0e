//! Stored code that nobody names is deleted, and no other.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::{AccountId, Digest, Function};
use lacewing_store::{BlobAddress, Blobs, BoxFuture, ByteStream, Result};

use super::bench::{Bench, SIDES, account, key, new, zip};

const HOUR: Duration = Duration::from_secs(3_600);

/// Blobs that take their time to be deleted.
#[derive(Debug)]
struct Slow(Arc<dyn Blobs>);

impl Blobs for Slow {
    fn put<'a>(
        &'a self,
        account: &'a AccountId,
        bytes: ByteStream,
    ) -> BoxFuture<'a, Result<(Digest, u64)>> {
        self.0.put(account, bytes)
    }

    fn get<'a>(
        &'a self,
        address: &'a BlobAddress,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        self.0.get(address, range)
    }

    fn stat<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<Option<u64>>> {
        self.0.stat(address)
    }

    fn delete<'a>(&'a self, address: &'a BlobAddress) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.0.delete(address).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_waits_for_a_deletion_that_is_under_way() {
    let bench = Bench::on_blobs(|blobs| Arc::new(Slow(blobs))).await;
    let functions = &bench.services.functions;
    bench.create_active("f").await;
    functions.delete(&key("f")).await.expect("deleted");
    for _ in 0..2 {
        bench.clock.advance(HOUR);
        functions.collect_unused_code().await.expect("collected");
    }
    let (collected, _) =
        futures_util::future::join(functions.collect_unused_code(), bench.create("f")).await;
    collected.expect("collected");
    assert_eq!(bench.bytes_of("f").await, zip("f"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_code_is_collected_late_and_used_code_never() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let functions = &bench.services.functions;
        let (kept, gone) = (bench.create_active("kept").await, bench.create_active("gone").await);
        let has = async |function: &Function| {
            let address = BlobAddress { account: account(), digest: function.code.digest };
            bench.store.blobs.stat(&address).await.expect("readable").is_some()
        };
        functions.delete(&key("gone")).await.expect("deleted");
        for after in [Duration::ZERO, HOUR] {
            bench.clock.advance(after);
            functions.collect_unused_code().await.expect("collected");
            functions.collect_unused_code().await.expect("collected");
            assert!(has(&gone).await, "somebody may still read it");
        }
        bench.clock.advance(HOUR);
        for _ in 0..3 {
            functions.collect_unused_code().await.expect("collected");
        }
        assert!(!has(&gone).await);
        assert!(has(&kept).await);
        bench.services.functions.create(&key("gone"), new("gone")).await.expect("again");
        assert_eq!(bench.bytes_of("gone").await, zip("gone"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_wins_against_the_collector() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let functions = &bench.services.functions;
        for round in 0..20 {
            bench.create_active("f").await;
            functions.delete(&key("f")).await.expect("deleted");
            for _ in 0..2 {
                bench.clock.advance(HOUR);
                functions.collect_unused_code().await.expect("collected");
            }
            let collect = async {
                for _ in 0..4 {
                    functions.collect_unused_code().await.expect("collected");
                    tokio::task::yield_now().await;
                }
            };
            let key = key("f");
            let create = functions.create(&key, new("f"));
            // Half of the rounds let the collector go first.
            let created = if round % 2 == 0 {
                futures_util::future::join(collect, create).await.1
            } else {
                futures_util::future::join(create, collect).await.0
            };
            created.expect("created");
            functions.collect_unused_code().await.expect("collected");
            assert_eq!(bench.bytes_of("f").await, zip("f"));
            bench.active("f").await;
            functions.delete(&key).await.expect("deleted");
        }
    }
}
