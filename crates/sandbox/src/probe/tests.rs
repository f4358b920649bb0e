//! Tests of `probe`.

use super::*;
use crate::cgroup::Layout;

fn found(trial: Result<(), String>, tree: &Tree) -> Findings<'_> {
    let kind = Kind::None;
    Findings {
        kind,
        root: true,
        uid_range: true,
        landlock: 0,
        trial,
        in_memory: Some(InMemory::NotRoot),
        cgroup_lacks: Vec::new(),
        tree,
        egress: Err(Lack::new("untried", "Try it.")),
    }
}

fn no_tree() -> Tree {
    Tree::open(&Layout::read(Path::new("/nonexistent"), None), "owner001").0
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let tree = no_tree();
    let report = report(&found(Err("clone: Operation not permitted".to_owned()), &tree));
    assert!(!report.is_full());
    for feature in report.features.iter().filter(|feature| !feature.in_force) {
        let remedy = feature.remedy.as_deref().unwrap();
        assert!(remedy.ends_with('.') && !feature.detail.is_empty(), "{feature:?}");
    }
    let text = refusal(&report);
    for name in ["namespaces", "clone: Operation not permitted", "cgroup-memory", "cgroup-pids"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("landlock"), "{text}");
}

#[test]
fn landlock_is_reported_but_not_required() {
    let tree = no_tree();
    let report = report(&found(Ok(()), &tree));
    let landlock = report.features.iter().find(|feature| feature.name == "landlock").unwrap();
    assert!(!landlock.in_force && !landlock.required);
    assert!(report.missing().all(|feature| feature.name.starts_with("cgroup-")));
    let without: Vec<_> = report.without().map(|feature| feature.name.as_str()).collect();
    assert_eq!(without, ["landlock", "tmp-disk"]);
}

#[test]
fn an_ordinary_user_is_never_full() {
    let tree = no_tree();
    let mut found = found(Ok(()), &tree);
    found.root = false;
    let report = report(&found);
    assert!(!report.is_full());
    assert!(refusal(&report).contains("ordinary user"));
}

#[test]
fn a_tmp_in_memory_is_reported_with_the_way_out_and_does_not_hinder() {
    let tree = no_tree();
    for (why, remedy) in [
        (InMemory::Chosen, "disk"),
        (InMemory::NotRoot, "root"),
        (InMemory::Lacks("Install it."), "Install it."),
        (InMemory::Failed("no room".to_owned()), "data directory"),
    ] {
        let mut found = found(Ok(()), &tree);
        found.in_memory = Some(why);
        let report = report(&found);
        let tmp = report.features.iter().find(|feature| feature.name == "tmp-disk").unwrap();
        assert!(!tmp.in_force && !tmp.required && tmp.detail.contains("in memory"), "{tmp:?}");
        assert!(tmp.remedy.as_deref().unwrap().contains(remedy), "{tmp:?}");
    }
    let mut found = found(Ok(()), &tree);
    found.in_memory = None;
    assert!(report(&found).features.iter().any(|it| it.name == "tmp-disk" && it.in_force));
}
