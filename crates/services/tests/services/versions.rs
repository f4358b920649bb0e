//! Versions and aliases: what is published stays, and goes with its function.

use lacewing_model::function::State;
use lacewing_model::{Kind, Qualifier, RequestId, Version, VersionKey};
use lacewing_services::{AliasPatch, ConfigPatch, NewAlias, Publish};
use lacewing_store::Prefix;

use super::bench::{Bench, PATIENCE, SIDES, account, code, key, new};

fn alias(name: &str, version: u64) -> NewAlias {
    NewAlias {
        name: name.to_owned(),
        version: Version::Published(version),
        routing: None,
        description: String::new(),
    }
}

fn number(number: u64) -> VersionKey {
    VersionKey { function: key("f"), version: Version::Published(number) }
}

async fn records_of_account(bench: &Bench) -> usize {
    let all = Prefix::account(&account());
    bench.store.records.list(&all, None, 1_000).await.expect("listed").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_a_copy_that_no_change_reaches() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        let first = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!((first.version, first.state), (Version::Published(1), State::Active));
        functions.update_code(&key("f"), code("new")).await.expect("updated");
        bench.settled("f").await;
        let second = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!(second.version, Version::Published(2));
        let kept = bench.services.catalog.version(&number(1)).expect("there");
        assert_eq!(kept.code, first.code);
        assert_ne!(second.code, first.code);
        assert_ne!(second.revision_id, first.revision_id);
        let used = functions.account_usage(&account());
        assert_eq!(used.function_count, 1, "a function counts once");
        let sizes = first.code.size + 2 * second.code.size;
        assert_eq!(used.code_size.as_bytes(), sizes, "the code of each version counts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_is_published_once() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        let first = functions.publish(&key("f"), Publish::default()).await.expect("published");
        let again = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!(first, again);
        // The same code once more is nothing new either.
        functions.update_code(&key("f"), code("f")).await.expect("updated");
        bench.settled("f").await;
        let again = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!(again.version, Version::Published(1));
        let patch = ConfigPatch { memory_mb: Some(256), ..ConfigPatch::default() };
        functions.update_config(&key("f"), patch).await.expect("updated");
        bench.settled("f").await;
        let other = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!(other.version, Version::Published(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_published_with_its_function_becomes_active() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let mut request = new("f");
        request.publish = true;
        let published = bench.services.functions.create(&key("f"), request).await.expect("made");
        assert_eq!((published.version, published.state), (Version::Published(1), State::Pending));
        let active = bench.services.catalog.wait_active(&number(1), PATIENCE).await;
        assert_eq!(active.expect("it becomes active").code, published.code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_function_leaves_is_hidden_at_once_and_swept_up() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let before = records_of_account(&bench).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        functions.publish(&key("f"), Publish::default()).await.expect("published");
        functions.create_alias(&key("f"), alias("live", 1)).await.expect("made");
        functions.delete(&key("f")).await.expect("deleted");
        let catalog = &bench.services.catalog;
        let live = Qualifier::Alias("live".into());
        assert_eq!(catalog.version(&number(1)), None);
        assert_eq!(catalog.resolve(&key("f"), Some(&live), RequestId::random()), None);
        bench.create_active("f").await;
        assert_eq!(catalog.version(&number(1)), None, "another function has the name now");
        let fresh = functions.publish(&key("f"), Publish::default()).await.expect("published");
        assert_eq!(fresh.version, Version::Published(1));
        functions.delete(&key("f")).await.expect("deleted");
        let swept = async {
            // What stays is the count of numbers that were used. The catalog hears of it a little later.
            while records_of_account(&bench).await > before + 1
                || functions.account_usage(&account()).code_size.as_bytes() > 0
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, swept).await.expect("it is swept up");
        assert_eq!(functions.account_usage(&account()).code_size.as_bytes(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_keeps_its_version_from_being_deleted() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        functions.publish(&key("f"), Publish::default()).await.expect("published");
        functions.create_alias(&key("f"), alias("live", 1)).await.expect("made");
        let refused = functions.delete_version(&key("f"), 1).await.expect_err("in use");
        assert_eq!(refused.kind(), Kind::Conflict);
        let patch = AliasPatch { version: Some(Version::Latest), ..AliasPatch::default() };
        functions.update_alias(&key("f"), "live", patch).await.expect("moved");
        functions.delete_version(&key("f"), 1).await.expect("free now");
        let gone = functions.delete_version(&key("f"), 1).await.expect_err("gone");
        assert_eq!(gone.kind(), Kind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_an_alias_that_know_the_same_revision_one_is_refused() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        functions.publish(&key("f"), Publish::default()).await.expect("published");
        let made = functions.create_alias(&key("f"), alias("live", 1)).await.expect("made");
        let known = Some(made.revision_id);
        let patch = |text: &str| AliasPatch {
            description: Some(text.to_owned()),
            revision_id: known,
            ..AliasPatch::default()
        };
        let (key, name) = (key("f"), "live");
        let both = futures_util::future::join(
            functions.update_alias(&key, name, patch("one")),
            functions.update_alias(&key, name, patch("two")),
        );
        let error = match both.await {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
            other => panic!("exactly one is applied: {other:?}"),
        };
        assert_eq!(error.kind(), Kind::PreconditionFailed);
    }
}
