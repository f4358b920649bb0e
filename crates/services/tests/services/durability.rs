//! What survives, and what is never written in the clear.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lacewing_model::function::State;
use lacewing_model::{Kind, SystemClock};
use lacewing_services::{ConfigPatch, Options, RuntimeCheck, Services};
use lacewing_store::seal::{Sealer, TokenSealer};

use super::bench::{Bench, Side, account, any_runtime, environment, key, new, region, serving};

const SECRET: &str = "correct-horse-battery-staple";

/// Answers the first call and panics in every later one: the reconciler dies before it finishes.
fn dies_while_reconciling() -> RuntimeCheck {
    let calls = AtomicUsize::new(0);
    Arc::new(move |runtime| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(serving(runtime, None)),
        _ => panic!("the process dies here"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_function_is_there_after_a_crash_and_becomes_active() {
    let bench = Bench::with(Side::Embedded, |_| {}, dies_while_reconciling()).await;
    let mut new = new("f");
    new.config.environment = Some(environment("PASSWORD", SECRET));
    let created = bench.services.functions.create(&key("f"), new).await.expect("created");
    let bench = bench.crashed(any_runtime()).await;
    let active = bench.active("f").await;
    assert_eq!(active.config, created.config, "the environment is opened again");
    assert_eq!(active.code, created.code);
    assert_eq!(active.revision_id, created.revision_id);
    assert_eq!(active.last_modified, created.last_modified);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_what_was_acknowledged_pending() {
    let bench = Bench::with(Side::Embedded, |_| {}, dies_while_reconciling()).await;
    bench.create("f").await;
    let bench = bench.crashed(dies_while_reconciling_at_once()).await;
    let found = bench.services.functions.get(&key("f")).expect("acknowledged");
    assert_eq!(found.state, State::Pending);
}

fn dies_while_reconciling_at_once() -> RuntimeCheck {
    Arc::new(|_| panic!("the process dies here"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_under_load() {
    let bench = Bench::new(Side::Embedded).await;
    let names: Vec<String> = (0..24).map(|number| format!("f{number}")).collect();
    futures_util::future::join_all(names.iter().map(|name| bench.create(name))).await;
    let bench = bench.crashed(any_runtime()).await;
    for name in &names {
        bench.active(name).await;
        assert_eq!(bench.bytes_of(name).await, new(name).zip);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_deletions_survive() {
    let bench = Bench::new(Side::Embedded).await;
    for name in ["changed", "deleted", "kept"] {
        bench.create_active(name).await;
    }
    let patch = ConfigPatch { memory_mb: Some(1_024), ..ConfigPatch::default() };
    bench.services.functions.update_config(&key("changed"), patch).await.expect("changed");
    bench.services.functions.delete(&key("deleted")).await.expect("deleted");
    let root = bench.services.identity.root();
    let bench = bench.reopen(any_runtime()).await;
    assert_eq!(bench.settled("changed").await.config.memory_mb, 1_024);
    assert!(bench.services.functions.get(&key("deleted")).is_err());
    assert!(bench.services.functions.get(&key("kept")).is_ok());
    assert_eq!(bench.services.identity.root().access_key_id, root.access_key_id);
    let secrets = [bench.services.identity.root(), root].map(|key| key.secret_access_key);
    assert_eq!(secrets[0], secrets[1]);
}

/// Files under `dir` that contain `wanted`.
fn files_with(dir: &Path, wanted: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if fs::read(&path)
            .expect("readable")
            .windows(wanted.len())
            .any(|part| part == wanted)
        {
            found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_in_the_clear() {
    let bench = Bench::new(Side::Embedded).await;
    let mut new = new("f");
    new.config.environment = Some(environment("PASSWORD", SECRET));
    new.config.description = "a-description-to-find".to_owned();
    bench.services.functions.create(&key("f"), new).await.expect("created");
    let function = bench.active("f").await;
    let patch = ConfigPatch {
        environment: Some(environment("PASSWORD", &format!("{SECRET}-2"))),
        ..ConfigPatch::default()
    };
    bench.services.functions.update_config(&key("f"), patch).await.expect("changed");
    bench.settled("f").await;
    let session = bench.services.identity.session(&function).expect("a session");
    let root = bench.services.identity.root();
    let look = |wanted: &str| files_with(bench.dir.path(), wanted.as_bytes());
    assert!(!look("a-description-to-find").is_empty(), "this search finds what is there");
    assert_eq!(look(SECRET), Vec::<String>::new());
    assert_eq!(look("PASSWORD"), Vec::<String>::new(), "names are sealed too");
    assert_eq!(look(session.secret_access_key.expose()), Vec::<String>::new());
    assert_eq!(look(root.secret_access_key.expose()), ["credentials"]);
    let shown = format!("{:?} {function:?} {root:?} {session:?}", bench.services);
    assert!(!shown.contains(SECRET) && !shown.contains(root.secret_access_key.expose()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciler_that_panicked_begins_again() {
    let calls = AtomicUsize::new(0);
    let check: RuntimeCheck = Arc::new(move |runtime| match calls.fetch_add(1, Ordering::SeqCst) {
        1 => panic!("once"),
        _ => Ok(serving(runtime, None)),
    });
    let bench = Bench::with(Side::Memory, |_| {}, check).await;
    bench.create_active("f").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_is_refused_at_the_start() {
    let bench = Bench::new(Side::Memory).await;
    let options = Options::new(region(), account(), bench.dir.path().to_owned());
    let (sealer, tokens) = (Sealer::new([8; 32]), TokenSealer::new(&[8; 32]));
    let (sealer, tokens) = (Arc::new(sealer), Arc::new(tokens));
    let clock = Arc::new(SystemClock);
    let store = bench.store.clone();
    let opened = Services::open(options, store, sealer, tokens, clock, any_runtime()).await;
    let error = opened.expect_err("another key");
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.chain().contains("master.key is unusable: it is not the key"), "{error:?}");
}
