//! Which file of a leaf says what, on v1 and on v2: tables only, no IO.

use crate::wire::Gauge;
use crate::{CpuQuota, Limits};

use super::Controller;

/// A file of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    /// Whether kernels without it are fine.
    pub(super) optional: bool,
}

const DEFAULT_PERIOD_US: u64 = 100_000;

/// Lists what to write for the limits, in the order in which it must be written.
pub(super) fn limits(
    v2: bool,
    controllers: &[Controller],
    limits: &Limits,
) -> Vec<(Setting, String)> {
    let memory = limits.memory_bytes.to_string();
    // v1 counts what sockets hold apart from the rest, and only once it has a limit of its own.
    let sockets = (limits.memory_bytes / 4).to_string();
    // Our init is one process more.
    let pids = limits.pids.saturating_add(1).to_string();
    controllers
        .iter()
        .flat_map(|controller| match (controller, v2) {
            (Controller::Memory, false) => vec![
                (need("memory.limit_in_bytes"), memory.clone()),
                (maybe("memory.memsw.limit_in_bytes"), memory.clone()),
                (maybe("memory.kmem.tcp.limit_in_bytes"), sockets.clone()),
                (maybe("memory.swappiness"), "0".to_owned()),
            ],
            // Not `memory.oom.group`: it would kill our init, too, who reports the end.
            (Controller::Memory, true) => vec![
                (need("memory.max"), memory.clone()),
                (maybe("memory.swap.max"), "0".to_owned()),
            ],
            (Controller::Pids, _) => vec![(need("pids.max"), pids.clone())],
            (Controller::Cpu | Controller::CpuAcct | Controller::Freezer, _) => vec![],
        })
        .collect()
}

/// Says what to write for the share of the processors, where it can be given.
pub(super) fn weight(
    v2: bool,
    controllers: &[Controller],
    limits: &Limits,
) -> Option<(Setting, String)> {
    let weight = u64::from(limits.cpu_weight.clamp(1, 10_000));
    controllers.contains(&Controller::Cpu).then(|| match v2 {
        true => (need("cpu.weight"), weight.to_string()),
        // v1 counts from 1,024 where v2 counts from 100, and has 2 as its least.
        false => (need("cpu.shares"), (weight * 1024 / 100).max(2).to_string()),
    })
}

/// Lists what to write where other limits are in force already.
pub(super) fn change(
    v2: bool,
    controllers: &[Controller],
    from: &Limits,
    to: &Limits,
) -> Vec<(Setting, String)> {
    let old = limits(v2, controllers, from);
    let mut changes = limits(v2, controllers, to);
    changes.retain(|change| !old.contains(change));
    if !v2 && to.memory_bytes > from.memory_bytes && controllers.contains(&Controller::Memory) {
        // v1 lets memory grow only below what memory and swap may be together.
        changes.insert(0, (maybe("memory.memsw.limit_in_bytes"), "-1".to_owned()));
    }
    changes
}

/// Lists what to write for a hard bound on processor time, or for none.
pub(super) fn quota(
    v2: bool,
    controllers: &[Controller],
    quota: Option<CpuQuota>,
) -> Vec<(Setting, String)> {
    if !controllers.contains(&Controller::Cpu) {
        return Vec::new();
    }
    match (quota, v2) {
        (Some(CpuQuota { quota_us, period_us }), true) => {
            vec![(need("cpu.max"), format!("{quota_us} {period_us}"))]
        }
        (None, true) => vec![(maybe("cpu.max"), format!("max {DEFAULT_PERIOD_US}"))],
        (Some(CpuQuota { quota_us, period_us }), false) => vec![
            (need("cpu.cfs_period_us"), period_us.to_string()),
            (need("cpu.cfs_quota_us"), quota_us.to_string()),
        ],
        (None, false) => vec![(maybe("cpu.cfs_quota_us"), "-1".to_owned())],
    }
}

/// Lists what tells how much is used.
pub(super) fn gauges(v2: bool, controllers: &[Controller]) -> Vec<(Gauge, Setting)> {
    let has = |controller| controllers.contains(&controller);
    let mut gauges = Vec::new();
    match (has(Controller::Memory), v2) {
        (true, true) => gauges.extend([
            (Gauge::MemoryCurrent, need("memory.current")),
            // Since Linux 5.19.
            (Gauge::MemoryPeak, maybe("memory.peak")),
            (Gauge::MemoryEvents, need("memory.events")),
        ]),
        (true, false) => gauges.extend([
            (Gauge::MemoryCurrent, need("memory.usage_in_bytes")),
            (Gauge::MemoryPeak, need("memory.max_usage_in_bytes")),
            (Gauge::MemoryEvents, need("memory.oom_control")),
        ]),
        (false, _) => {}
    }
    if v2 && has(Controller::Cpu) {
        gauges.push((Gauge::CpuStat, need("cpu.stat")));
    }
    if !v2 && has(Controller::CpuAcct) {
        gauges.push((Gauge::CpuNanos, need("cpuacct.usage")));
    }
    if v2 {
        // Since Linux 5.2, and without any controller.
        gauges.push((Gauge::Freeze, maybe("cgroup.freeze")));
    } else if has(Controller::Freezer) {
        gauges.push((Gauge::FreezerState, need("freezer.state")));
    }
    gauges
}

fn need(name: &'static str) -> Setting {
    Setting { name, optional: false }
}

fn maybe(name: &'static str) -> Setting {
    Setting { name, optional: true }
}
