//! Concurrency that functions have for themselves: bounded, kept, and gone with its function.

use lacewing_model::Kind;
use lacewing_services::Options;
use lacewing_store::Prefix;

use super::bench::{Bench, SIDES, Side, account, any_runtime, key, region};

fn left(bench: &Bench) -> u32 {
    bench.services.functions.unreserved(&account(), &region())
}

fn limited(concurrency: u32) -> impl FnOnce(&mut Options) {
    move |options| options.account_concurrency = concurrency
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_is_taken_from_the_others_until_it_is_given_back() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let functions = &bench.services.functions;
        let missing = functions.reserve(&key("f"), 1).await.expect_err("no such function");
        assert_eq!(missing.kind(), Kind::NotFound);
        bench.create_active("f").await;
        bench.create_active("g").await;
        assert_eq!(functions.reserved(&key("f")).expect("there"), None);
        functions.reserve(&key("f"), 300).await.expect("reserved");
        functions.reserve(&key("g"), 0).await.expect("reserved");
        assert_eq!(functions.reserved(&key("f")).expect("there"), Some(300));
        assert_eq!(functions.reserved(&key("g")).expect("there"), Some(0));
        assert_eq!(left(&bench), 700);
        functions.reserve(&key("f"), 20).await.expect("less");
        assert_eq!(left(&bench), 980);
        functions.unreserve(&key("f")).await.expect("given back");
        functions.unreserve(&key("f")).await.expect("again");
        assert_eq!(functions.reserved(&key("f")).expect("there"), None);
        assert_eq!(left(&bench), 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_are_left_to_the_others() {
    let bench = Bench::with(Side::Memory, limited(150), any_runtime()).await;
    let functions = &bench.services.functions;
    bench.create_active("f").await;
    bench.create_active("g").await;
    functions.reserve(&key("f"), 50).await.expect("a hundred are left");
    for (name, count) in [("f", 51), ("g", 1), ("g", u32::MAX)] {
        let refused = functions.reserve(&key(name), count).await.expect_err("too many");
        assert_eq!(refused.kind(), Kind::Invalid);
        assert_eq!(
            refused.public(),
            "Specified ReservedConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [100]."
        );
    }
    functions.reserve(&key("g"), 0).await.expect("to turn off takes nothing");
    functions.reserve(&key("f"), 50).await.expect("what it has");
    functions.unreserve(&key("f")).await.expect("given back");
    let (f, g) = (key("f"), key("g"));
    let both = futures_util::future::join(functions.reserve(&f, 50), functions.reserve(&g, 50));
    let (first, second) = both.await;
    assert!(first.is_ok() != second.is_ok(), "who comes second is too late");
    assert_eq!(left(&bench), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_account_keeps_all_it_has() {
    let bench = Bench::with(Side::Memory, limited(10), any_runtime()).await;
    bench.create_active("f").await;
    let functions = &bench.services.functions;
    let refused = functions.reserve(&key("f"), 1).await.expect_err("too many");
    assert!(refused.public().ends_with("minimum value of [10]."), "{}", refused.public());
    functions.reserve(&key("f"), 0).await.expect("to turn off takes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_kept_and_goes_with_its_function() {
    let bench = Bench::new(Side::Embedded).await;
    bench.create_active("f").await;
    bench.services.functions.reserve(&key("f"), 7).await.expect("reserved");
    let bench = bench.reopen(any_runtime()).await;
    let functions = &bench.services.functions;
    assert_eq!(functions.reserved(&key("f")).expect("there"), Some(7));
    assert_eq!(bench.services.catalog.reserving(), [key("f")]);
    functions.delete(&key("f")).await.expect("deleted");
    assert_eq!((bench.services.catalog.reserving(), left(&bench)), (vec![], 1_000));
    bench.create_active("f").await;
    assert_eq!(functions.reserved(&key("f")).expect("there"), None);
    functions.reserve(&key("f"), 9).await.expect("over what was left behind");
    assert_eq!(functions.reserved(&key("f")).expect("there"), Some(9));
    functions.delete(&key("f")).await.expect("deleted");
    let all = Prefix::account(&account());
    let swept = async {
        while !bench.store.records.list(&all, None, 100).await.expect("listed").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::bench::PATIENCE, swept).await.expect("swept up in time");
}
