//! Tests of `cgroup`.

use super::layout::Place;
use super::settings::{gauges, limits, quota};
use super::*;

const LIMITS: Limits = Limits {
    memory_bytes: 128 << 20,
    pids: 1024,
    cpu_weight: 50,
    cpu_quota: None,
    open_files: 0,
    memlock: 0,
    stack: 0,
    core: 0,
    nproc: None,
};
const ALL: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

fn lines(settings: Vec<(settings::Setting, String)>) -> Vec<String> {
    settings.into_iter().map(|(file, value)| format!("{}={value}", file.name)).collect()
}

#[test]
fn v1_limits_are_written_to_its_files() {
    let expected = [
        "memory.limit_in_bytes=134217728",
        "memory.memsw.limit_in_bytes=134217728",
        "memory.kmem.tcp.limit_in_bytes=33554432",
        "memory.swappiness=0",
        "pids.max=1025",
        "cpu.shares=512",
    ];
    assert_eq!(lines(limits(false, &ALL, &LIMITS)), expected);
    let hard = Some(CpuQuota { quota_us: 7_000, period_us: 100_000 });
    let expected = ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=7000"];
    assert_eq!(lines(quota(false, &ALL, hard)), expected);
    assert_eq!(lines(quota(false, &ALL, None)), ["cpu.cfs_quota_us=-1"]);
}

#[test]
fn v2_limits_are_written_to_its_files() {
    let expected = ["memory.max=134217728", "memory.swap.max=0", "pids.max=1025", "cpu.weight=50"];
    assert_eq!(lines(limits(true, &ALL, &LIMITS)), expected);
    let hard = Some(CpuQuota { quota_us: 7_000, period_us: 100_000 });
    assert_eq!(lines(quota(true, &ALL, hard)), ["cpu.max=7000 100000"]);
    assert_eq!(lines(quota(true, &ALL, None)), ["cpu.max=max 100000"]);
}

#[test]
fn nothing_is_written_for_an_absent_controller() {
    let hard = Some(CpuQuota { quota_us: 1, period_us: 2 });
    for v2 in [false, true] {
        assert!(limits(v2, &[], &LIMITS).is_empty());
        assert!(quota(v2, &[Controller::Memory], hard).is_empty());
        assert!(gauges(v2, &[Controller::Pids]).is_empty());
    }
}

#[test]
fn a_v2_tree_shares_out_its_controllers_to_our_group() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_owned();
    let group = dir.join("lacewing-owner001");
    fs::create_dir(&group).unwrap();
    for parent in [&dir, &group] {
        fs::write(parent.join(SUBTREE), "").unwrap();
    }
    let places = vec![Place { v2: true, controllers: ALL.to_vec(), dir: dir.clone() }];
    let (tree, lacks) = Tree::open(&Layout { kind: Kind::V2, places }, "owner001");
    assert!(lacks.is_empty(), "{lacks:?}");
    assert!(ALL.into_iter().all(|controller| tree.has(controller)));
    // In a plain file a later write covers the start of an earlier one; the kernel adds them up.
    assert!(fs::read_to_string(group.join(SUBTREE)).unwrap().starts_with("+cpu"));
}

#[test]
fn a_place_that_cannot_be_used_is_told_and_left_out() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("missing");
    let places = vec![Place { v2: false, controllers: vec![Controller::Memory], dir: dir.clone() }];
    let (tree, lacks) = Tree::open(&Layout { kind: Kind::V1, places }, "owner001");
    assert!(!tree.has(Controller::Memory));
    assert!(lacks[0].to_string().contains(dir.to_str().unwrap()));
}

#[test]
fn a_sweep_removes_the_owners_leaves_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let ours = root.path().join("lacewing-owner001");
    fs::create_dir_all(ours.join("left")).unwrap();
    fs::create_dir_all(root.path().join("lacewing-owner002/kept")).unwrap();
    let dir = root.path().to_owned();
    let places = vec![Place { v2: false, controllers: vec![Controller::Pids], dir }];
    let (tree, _) = Tree::open(&Layout { kind: Kind::V1, places }, "owner001");
    assert!(tree.sweep().is_empty());
    assert!(!ours.join("left").exists());
    tree.dismantle();
    assert!(!ours.exists());
    assert!(root.path().join("lacewing-owner002/kept").exists());
}
