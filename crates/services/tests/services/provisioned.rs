//! Instances that are kept ready: of which versions, how many, and gone with them.

use lacewing_model::{FunctionKey, Kind, Qualifier, Version, VersionKey};
use lacewing_services::{AliasPatch, NewAlias, Publish};

use super::bench::{Bench, SIDES, Side, account, any_runtime, key, region};

fn version(number: u64) -> VersionKey {
    VersionKey { function: key("f"), version: Version::Published(number) }
}

fn alias(name: &str) -> Qualifier {
    Qualifier::Alias(name.into())
}

fn left(bench: &Bench) -> u32 {
    bench.services.functions.unreserved(&account(), &region())
}

/// The function `f` with version 1.
async fn published(side: Side) -> (Bench, FunctionKey) {
    let bench = Bench::new(side).await;
    bench.create_active("f").await;
    bench.services.functions.publish(&key("f"), Publish::default()).await.expect("published");
    (bench, key("f"))
}

async fn refused(bench: &Bench, qualifier: &Qualifier, count: u32) -> (Kind, String) {
    let result = bench.services.functions.provision(&key("f"), qualifier, count).await;
    let error = result.expect_err("refused");
    (error.kind(), error.public().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_kept_counted_and_goes_with_its_function() {
    for side in SIDES {
        let (bench, f) = published(side).await;
        let (functions, one) = (&bench.services.functions, Qualifier::Version(1));
        let none = functions.provisioned(&f, &one).expect_err("nothing yet");
        assert_eq!(none.kind(), Kind::NotConfigured);
        functions.provision(&f, &one, 5).await.expect("provisioned");
        functions.provision(&f, &one, 7).await.expect("more");
        let (found, of) = functions.provisioned(&f, &one).expect("there");
        assert_eq!((found.requested, of), (7, version(1)));
        assert_eq!(bench.services.catalog.provided(&f)[&version(1)], 7);
        assert_eq!((left(&bench), bench.services.catalog.providing().len()), (993, 1));
        functions.unprovision(&f, &one).await.expect("taken back");
        functions.unprovision(&f, &one).await.expect("again");
        assert_eq!((left(&bench), bench.services.catalog.provided(&f).len()), (1_000, 0));
        functions.provision(&f, &one, 3).await.expect("provisioned");
        functions.delete(&f).await.expect("deleted");
        assert_eq!((left(&bench), bench.services.catalog.providing().len()), (1_000, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_survives_a_restart() {
    let (bench, f) = published(Side::Embedded).await;
    let one = Qualifier::Version(1);
    bench.services.functions.provision(&f, &one, 4).await.expect("provisioned");
    let bench = bench.reopen(any_runtime()).await;
    assert_eq!(bench.services.catalog.provided(&f)[&version(1)], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_for_a_version_and_an_alias_takes_it_along() {
    let (bench, f) = published(Side::Memory).await;
    let functions = &bench.services.functions;
    let new = |name: &str, version, routing| NewAlias {
        name: name.to_owned(),
        version,
        routing,
        description: String::new(),
    };
    let first = Version::Published(1);
    functions.create_alias(&f, new("live", first, None)).await.expect("made");
    functions.create_alias(&f, new("twin", first, None)).await.expect("made");
    functions.create_alias(&f, new("now", Version::Latest, None)).await.expect("made");
    assert_eq!(refused(&bench, &Qualifier::Latest, 1).await.0, Kind::Invalid);
    assert_eq!(refused(&bench, &alias("now"), 1).await.0, Kind::Invalid);
    assert_eq!(refused(&bench, &alias("nobody"), 1).await.0, Kind::NotFound);
    assert_eq!(refused(&bench, &Qualifier::Version(9), 1).await.0, Kind::NotFound);
    functions.provision(&f, &alias("live"), 2).await.expect("provisioned");
    assert!(refused(&bench, &alias("twin"), 1).await.1.contains("already Provisioned version"));
    assert!(refused(&bench, &Qualifier::Version(1), 1).await.1.contains("alias"));
    let patch = AliasPatch { version: Some(Version::Latest), ..AliasPatch::default() };
    functions.update_alias(&f, "live", patch).await.expect("moved");
    assert!(bench.services.catalog.provided(&f).is_empty(), "not of what is not published");
    let patch = AliasPatch { version: Some(first), ..AliasPatch::default() };
    functions.update_alias(&f, "live", patch).await.expect("moved back");
    assert_eq!(bench.services.catalog.provided(&f)[&version(1)], 2);
    functions.delete_alias(&f, "live").await.expect("deleted");
    functions.create_alias(&f, new("live", first, None)).await.expect("made anew");
    let gone = functions.provisioned(&f, &alias("live")).expect_err("went with the alias");
    assert_eq!(gone.kind(), Kind::NotConfigured);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_part_of_what_is_reserved_or_leaves_a_hundred() {
    let (bench, f) = published(Side::Memory).await;
    let (functions, one) = (&bench.services.functions, Qualifier::Version(1));
    assert!(refused(&bench, &one, 901).await.1.ends_with("minimum value of [100]."));
    functions.provision(&f, &one, 900).await.expect("a hundred are left");
    functions.provision(&f, &one, 10).await.expect("fewer");
    let less = functions.reserve(&f, 9).await.expect_err("less than is provisioned");
    assert!(less.public().contains("total provisioned concurrency [10]"), "{}", less.public());
    functions.reserve(&f, 12).await.expect("reserved");
    assert_eq!(left(&bench), 988, "counted once");
    assert!(refused(&bench, &one, 13).await.1.contains("reservedConcurrentExecution"));
    functions.provision(&f, &one, 12).await.expect("all of it");
    functions.unreserve(&f).await.expect("given back");
    assert_eq!(left(&bench), 988, "it takes its own");
}
