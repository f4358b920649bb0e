//! Children of the launcher of which nobody has told it: those that were killed between their birth and
//! their first word, because the sandbox in whose namespaces they were made ended just then. That
//! sandbox cannot end before they are collected. Nothing else is collected here.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use super::State;

impl State {
    /// Ends every child that is in a process namespace below that of a sandbox and is nobody's.
    pub(super) fn collect_lost(&self) {
        let own = getpid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let Some(child) = Pid::from_raw(child).filter(|pid| !self.is_known(*pid)) else {
                continue;
            };
            if is_below(child) {
                // Mostly it is dying already; one that lives would wait for ever, and so would we.
                kill_process(child, Signal::KILL).ok();
                waitpid(Some(child), WaitOptions::empty()).ok();
            }
        }
    }

    fn is_known(&self, pid: Pid) -> bool {
        let inits = self.running.values().flat_map(|running| {
            let ahead = running.held.as_ref().and_then(|held| held.ahead());
            [Some(running.made.pid), ahead]
        });
        inits.flatten().any(|known| known == pid) || self.stock.contains(pid)
    }
}

/// Whether a process has another process namespace than this one.
fn is_below(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| depth(&status) > 1)
}

/// How many ids `/proc/<pid>/status` tells of a process: one for each namespace.
fn depth(status: &str) -> usize {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.map_or(0, |ids| ids.split_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn a_process_has_an_id_in_each_namespace() {
        assert_eq!(depth("Name:\tx\nNSpid:\t812\nThreads:\t1\n"), 1);
        assert_eq!(depth("NSpid:\t812\t3\t1\n"), 3);
        assert_eq!(depth("Name:\tx\n"), 0);
    }
}
