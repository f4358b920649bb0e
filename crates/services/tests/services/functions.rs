//! Creating, changing, deleting: what callers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lacewing_model::function::{Architecture, State, StateReason, UpdateStatus};
use lacewing_model::{ByteSize, Error, Kind};
use lacewing_services::{AccountUsage, ConfigPatch, NewFunction, RuntimeCheck};
use uuid::Uuid;

use super::bench::{
    Bench, SIDES, Side, account, any_runtime, code, config, environment, key, new, region, serving,
    zip,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_function_is_pending_then_active() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let created = bench.create("hello").await;
        assert_eq!(created.state, State::Pending);
        let reason = created.state_reason.as_ref().expect("one");
        assert_eq!(reason.text, "The function is being created.");
        assert_eq!(reason.code, "Creating");
        assert!(bench.services.functions.get(&key("hello")).is_ok(), "it shows at once");
        let active = bench.active("hello").await;
        assert_eq!(active.last_update, UpdateStatus::Successful);
        assert_eq!(active.state_reason, None);
        assert_eq!(active.revision_id, created.revision_id);
        assert_eq!(bench.bytes_of("hello").await, zip("hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let key = key("f");
        let both = futures_util::future::join(
            bench.services.functions.create(&key, new("one")),
            bench.services.functions.create(&key, new("two")),
        );
        let (first, second) = both.await;
        let error = match (first, second) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
            other => panic!("exactly one is created: {other:?}"),
        };
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert_eq!(error.public(), "Function already exist: f");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_change_code_and_settings_and_grow_the_generation() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let first = bench.create_active("f").await;
        let update = bench.services.functions.update_code(&key("f"), code("new")).await;
        let second = update.expect("updated");
        assert_eq!(second.last_update, UpdateStatus::InProgress);
        assert_eq!(second.state, State::Active);
        assert!(second.generation > first.generation);
        assert_ne!(second.revision_id, first.revision_id);
        assert_ne!(second.code, first.code);
        bench.settled("f").await;
        assert_eq!(bench.bytes_of("f").await, zip("new"));
        let patch = ConfigPatch {
            memory_mb: Some(512),
            environment: Some(environment("COLOUR", "blue")),
            ..ConfigPatch::default()
        };
        let third =
            bench.services.functions.update_config(&key("f"), patch).await.expect("updated");
        assert!(third.generation > second.generation);
        let settled = bench.settled("f").await;
        assert_eq!(settled.config.memory_mb, 512);
        assert_eq!(settled.config.timeout_seconds, 3, "what was not given stays");
        assert_eq!(settled.config.environment, Some(environment("COLOUR", "blue")));
        let patch = ConfigPatch { environment: Some(Default::default()), ..ConfigPatch::default() };
        bench.services.functions.update_config(&key("f"), patch).await.expect("updated");
        assert_eq!(bench.settled("f").await.config.environment, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_changes_nothing() {
    let bench = Bench::new(Side::Memory).await;
    let before = bench.create_active("f").await;
    let patch = ConfigPatch { timeout_seconds: Some(901), ..ConfigPatch::default() };
    let refused = bench.services.functions.update_config(&key("f"), patch).await;
    assert_eq!(refused.expect_err("too long").kind(), Kind::Constraint);
    let patch = ConfigPatch {
        role: Some("arn:aws:iam::000000000000:role/other".to_owned()),
        ..ConfigPatch::default()
    };
    let refused = bench.services.functions.update_config(&key("f"), patch).await;
    assert_eq!(refused.expect_err("no such role").kind(), Kind::Invalid);
    let mut dry = code("other");
    dry.dry_run = true;
    let would_be = bench.services.functions.update_code(&key("f"), dry).await.expect("valid");
    assert_ne!(would_be.code, before.code);
    assert_eq!(bench.services.functions.get(&key("f")).expect("there"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_revision_is_refused() {
    let bench = Bench::new(Side::Memory).await;
    let function = bench.create_active("f").await;
    let patch = |revision_id| ConfigPatch {
        description: Some("x".to_owned()),
        revision_id: Some(revision_id),
        ..ConfigPatch::default()
    };
    let functions = &bench.services.functions;
    let refused = functions.update_config(&key("f"), patch(Uuid::nil())).await.expect_err("stale");
    assert_eq!(refused.kind(), Kind::PreconditionFailed);
    assert!(refused.public().starts_with("The Revision Id provided does not match"));
    functions.update_config(&key("f"), patch(function.revision_id)).await.expect("newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_updates_are_applied_or_refused_and_never_mixed() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        let first = bench.create_active("f").await;
        let updates = (0..16_u32).map(|number| {
            let patch = ConfigPatch {
                memory_mb: Some(128 + number),
                timeout_seconds: Some(1 + number),
                ..ConfigPatch::default()
            };
            let functions = bench.services.functions.clone();
            async move { functions.update_config(&key("f"), patch).await }
        });
        let outcomes = futures_util::future::join_all(updates).await;
        let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(applied >= 1);
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), Kind::Conflict);
            assert_eq!(
                error.public(),
                "The operation cannot be performed at this time. An update is in progress for \
                 resource: arn:aws:lambda:us-east-1:000000000000:function:f"
            );
        }
        let last = bench.settled("f").await;
        let generations = u64::try_from(applied).expect("few");
        assert_eq!(last.generation, first.generation + generations);
        assert_eq!(last.config.memory_mb - 128, last.config.timeout_seconds - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_function_is_gone_at_once() {
    for side in SIDES {
        let bench = Bench::new(side).await;
        bench.create_active("f").await;
        bench.services.functions.delete(&key("f")).await.expect("deleted");
        let arn = "Function not found: arn:aws:lambda:us-east-1:000000000000:function:f";
        let gone = bench.services.functions.get(&key("f")).expect_err("deleted");
        assert_eq!((gone.kind(), gone.public()), (Kind::NotFound, arn));
        let again = bench.services.functions.delete(&key("f")).await.expect_err("deleted");
        assert_eq!((again.kind(), again.public()), (Kind::NotFound, arn));
        let update = bench.services.functions.update_code(&key("f"), code("x")).await;
        assert_eq!(update.expect_err("deleted").kind(), Kind::NotFound);
        assert_eq!(bench.services.functions.account_usage(&account()), AccountUsage::default());
        bench.create_active("f").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_sorted_paged_and_of_one_account() {
    let bench = Bench::new(Side::Memory).await;
    for name in ["b", "_", "-a", "Z", "a"] {
        bench.create(name).await;
    }
    let mut foreign = key("c");
    foreign.account = lacewing_model::AccountId::new("111111111111").expect("valid");
    let mut other = new("c");
    other.config.role = "arn:aws:iam::111111111111:role/lambda".to_owned();
    bench.services.functions.create(&foreign, other).await.expect("created");
    let names = |after: Option<&str>, limit| {
        let after = after.map(|after| key(after).name);
        let page = bench.services.catalog.list(&account(), &region(), after.as_ref(), limit);
        page.iter().map(|function| function.key.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 10), ["-a", "Z", "_", "a", "b"]);
    assert_eq!(names(None, 2), ["-a", "Z"]);
    assert_eq!(names(Some("Z"), 2), ["_", "a"]);
    assert_eq!(names(Some("b"), 2), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_refused_in_known_words() {
    let bench = Bench::new(Side::Memory).await;
    let refused = async |bytes: Bytes| {
        let new = NewFunction { config: config(), zip: bytes, publish: false };
        let error = bench.services.functions.create(&key("f"), new).await.expect_err("bad archive");
        (error.kind(), error.public().to_owned())
    };
    let unzip = "Could not unzip uploaded file. Please check your file, then try to upload again.";
    for (bytes, cause) in [
        (&b""[..], "(It is not a zip archive.)"),
        (b"not a zip", "(It is not a zip archive.)"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "(The archive is empty.)"),
    ] {
        let answer = refused(Bytes::from_static(bytes)).await;
        assert_eq!(answer, (Kind::Invalid, format!("{unzip} {cause}")));
    }
    let bomb =
        tokio::task::spawn_blocking(|| zip(&"\0".repeat(262_144_001))).await.expect("packed");
    let too_large = "Unzipped size must be smaller than 262144000 bytes";
    assert_eq!(refused(bomb).await, (Kind::Invalid, too_large.to_owned()));
    let huge = refused(Bytes::from(vec![0; 52_428_801])).await;
    let too_long = "Zipped size must be smaller than 52428800 bytes";
    assert_eq!(huge, (Kind::RequestTooLarge, too_long.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_quota_is_kept() {
    let small = |options: &mut lacewing_services::Options| {
        options.code_storage = ByteSize::bytes(u64::try_from(zip("a").len()).expect("small") + 10);
    };
    let bench = Bench::with(Side::Memory, small, any_runtime()).await;
    let function = bench.create_active("f").await;
    let usage = bench.services.functions.account_usage(&account());
    assert_eq!(usage.function_count, 1);
    assert_eq!(usage.code_size, ByteSize::bytes(function.code.size));
    let refused = bench.services.functions.create(&key("g"), new("g")).await.expect_err("full");
    assert_eq!(refused.kind(), Kind::StorageExceeded);
    // Replacing code does not count the old.
    bench.services.functions.update_code(&key("f"), code("b")).await.expect("room");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_settings_are_refused_by_name() {
    let check: RuntimeCheck =
        Arc::new(|runtime| Err(Error::new(Kind::Invalid, format!("No {runtime} here."))));
    let bench = Bench::with(Side::Memory, |_| {}, check).await;
    let refused = bench.services.functions.create(&key("f"), new("f")).await.expect_err("none");
    assert_eq!(refused.public(), "No python3.13 here.");
    let mut foreign = code("x");
    foreign.architecture = Some(match Architecture::HOST {
        Architecture::X86_64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::X86_64,
    });
    let refused = bench.services.functions.update_code(&key("f"), foreign).await.expect_err("none");
    assert_eq!(refused.kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_substitute_is_told_and_a_lost_runtime_fails_the_function() {
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&is_lost);
    let check: RuntimeCheck = Arc::new(move |runtime| {
        if lost.swap(true, Ordering::SeqCst) {
            return Err(Error::new(Kind::Invalid, "python3.13 is gone."));
        }
        Ok(serving(runtime, None))
    });
    let bench = Bench::with(Side::Memory, |_| {}, check).await;
    bench.create("f").await;
    let patience = Duration::from_secs(5);
    assert!(bench.services.catalog.wait_active(&key("f").into(), patience).await.is_none());
    let failed = bench.services.functions.get(&key("f")).expect("there");
    assert_eq!(failed.state, State::Failed);
    assert_eq!(failed.state_reason.as_ref().expect("one").text, "python3.13 is gone.");

    let note = StateReason { text: "3.11 instead".to_owned(), code: "Substituted".to_owned() };
    let told = note.clone();
    let check: RuntimeCheck = Arc::new(move |runtime| Ok(serving(runtime, Some(told.clone()))));
    let bench = Bench::with(Side::Memory, |_| {}, check).await;
    assert_eq!(bench.create_active("f").await.state_reason, Some(note));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_says_what_is_true_since_this_start() {
    let note = StateReason { text: "3.11 instead".to_owned(), code: "Substituted".to_owned() };
    let told = note.clone();
    let stand_in: RuntimeCheck = Arc::new(move |runtime| Ok(serving(runtime, Some(told.clone()))));
    let lost: RuntimeCheck = Arc::new(|_| Err(Error::new(Kind::Invalid, "python3.13 is gone.")));
    let bench = Bench::with(Side::Embedded, |_| {}, Arc::clone(&stand_in)).await;
    bench.create_active("f").await;
    let shown = |bench: &Bench| {
        let function = bench.services.functions.get(&key("f")).expect("there");
        (function.state, function.state_reason.clone())
    };
    let bench = bench.reopen(lost).await;
    let (state, reason) = shown(&bench);
    assert_eq!((state, reason.expect("one").text.as_str()), (State::Failed, "python3.13 is gone."));
    let bench = bench.reopen(any_runtime()).await;
    assert_eq!(shown(&bench), (State::Active, None));
    let bench = bench.reopen(stand_in).await;
    assert_eq!(shown(&bench), (State::Active, Some(note)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_leaves_the_function_as_it_was() {
    for side in SIDES {
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let check: RuntimeCheck = Arc::new(move |runtime| match lost.load(Ordering::SeqCst) {
            true => Err(Error::new(Kind::Invalid, "python3.13 is gone.")),
            false => Ok(serving(runtime, None)),
        });
        let bench = Bench::with(side, |_| {}, check).await;
        bench.create_active("f").await;
        let functions = &bench.services.functions;
        let colour = Some(environment("COLOUR", "blue"));
        let patch = ConfigPatch { environment: colour.clone(), ..ConfigPatch::default() };
        functions.update_config(&key("f"), patch).await.expect("updated");
        let good = bench.settled("f").await;
        is_lost.store(true, Ordering::SeqCst);

        let tried = functions.update_code(&key("f"), code("worse")).await.expect("accepted");
        let failed = bench.settled("f").await;
        assert_eq!((failed.state, failed.last_update), (State::Active, UpdateStatus::Failed));
        assert_eq!(failed.state_reason.as_ref().expect("one").text, "python3.13 is gone.");
        assert_eq!((failed.code, &failed.config), (good.code, &good.config));
        assert!(failed.generation > tried.generation && failed.before.is_none());
        assert_eq!(bench.bytes_of("f").await, zip("f"));

        let patch = ConfigPatch {
            memory_mb: Some(512),
            environment: Some(environment("COLOUR", "red")),
            ..ConfigPatch::default()
        };
        functions.update_config(&key("f"), patch.clone()).await.expect("accepted");
        let failed = bench.settled("f").await;
        assert_eq!((failed.state, &failed.config), (State::Active, &good.config));
        assert_eq!(failed.config.environment, colour);

        is_lost.store(false, Ordering::SeqCst);
        functions.update_config(&key("f"), patch).await.expect("accepted");
        let settled = bench.settled("f").await;
        assert_eq!(
            (settled.last_update, settled.config.memory_mb),
            (UpdateStatus::Successful, 512)
        );
        assert!(settled.state_reason.is_none() && settled.before.is_none());
    }
}
