//! Empty sandboxes: made ahead, down to their user and their `/tmp`, and without anything to run.
//!
//! Each becomes somebody's once. The stock says what to make and what to give up; it does neither.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::Limits;
use crate::cgroup::LeafName;
use crate::spec::Kind;

/// Kinds that are remembered.
const KINDS: usize = 3;

/// A sandbox: while it waits, and as long as it lives.
#[derive(Debug)]
pub(super) struct Empty {
    pub(super) kind: Kind,
    /// What its cgroup has; a blank sandbox's differ from those that it was made with.
    pub(super) limits: Limits,
    pub(super) leaf: LeafName,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Its other end tells init whose it is, and that this process lives.
    pub(super) go: OwnedFd,
    /// Its other end keeps the private `/tmp`.
    pub(super) _scratch: Option<OwnedFd>,
    pub(super) slot: u32,
}

/// Those that wait, the kinds that were asked for last first.
#[derive(Debug)]
pub(super) struct Stock {
    most: usize,
    shelves: Vec<Shelf>,
    next: u64,
    /// Whether making one failed, and shall rest until somebody asks.
    resting: bool,
}

#[derive(Debug)]
struct Shelf {
    kind: Kind,
    /// Those that were wanted last.
    limits: Limits,
    ready: VecDeque<Empty>,
}

impl Stock {
    /// For `most` of the kind that was asked for last, half as many of the one before, and so on.
    pub(super) fn new(most: usize) -> Self {
        Self { most, shelves: Vec::new(), next: 0, resting: false }
    }

    /// Notes that a kind is in use.
    pub(super) fn note(&mut self, kind: Kind, limits: Limits) {
        self.resting = false;
        let place = self.shelves.iter().position(|shelf| shelf.kind == kind);
        let place = place.unwrap_or_else(|| {
            self.shelves.push(Shelf { kind, limits, ready: VecDeque::new() });
            self.shelves.len() - 1
        });
        if let Some(above) = self.shelves.get_mut(..=place) {
            above.rotate_right(1);
        }
        if let Some(first) = self.shelves.first_mut() {
            first.limits = limits;
        }
    }

    /// Takes the oldest of a kind: a new one is still building itself.
    pub(super) fn take(&mut self, kind: Kind) -> Option<Empty> {
        self.shelves.iter_mut().find(|shelf| shelf.kind == kind)?.ready.pop_front()
    }

    /// What should be made next, and with which limits.
    pub(super) fn wanted(&self) -> Option<(Kind, Limits)> {
        let mut shelves = self.shelves.iter().take(KINDS).enumerate().filter(|_| !self.resting);
        shelves
            .find(|(place, shelf)| shelf.ready.len() < self.most >> place)
            .map(|(_, shelf)| (shelf.kind, shelf.limits))
    }

    /// Whether less than half of what is used most waits.
    pub(super) fn is_low(&self) -> bool {
        let first = self.shelves.first().filter(|_| !self.resting);
        first.is_some_and(|shelf| shelf.ready.len() < self.most.div_ceil(2))
    }

    /// The name of the next one's leaves, which no name in a [`Spec`](crate::Spec) can be, nor that of
    /// a leaf that an earlier launcher left.
    pub(super) fn name(&mut self) -> String {
        self.next += 1;
        format!("empty+{}+{}", std::process::id(), self.next)
    }

    /// Puts a new one to the others of its kind.
    pub(super) fn put(&mut self, empty: Empty) {
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.kind == empty.kind) {
            shelf.ready.push_back(empty);
        }
    }

    /// Makes no more until somebody asks.
    pub(super) fn rest(&mut self) {
        self.resting = true;
    }

    /// Gives back one of a kind that is out of use: there are too many.
    pub(super) fn surplus(&mut self) -> Option<Empty> {
        let mut shelves = self.shelves.iter_mut().enumerate().rev();
        shelves.find_map(|(place, shelf)| {
            let share = if place < KINDS { self.most >> place } else { 0 };
            (shelf.ready.len() > share).then(|| shelf.ready.pop_back()).flatten()
        })
    }

    /// Whether a process is the init of one that waits.
    pub(super) fn contains(&self, init: Pid) -> bool {
        self.shelves.iter().flat_map(|shelf| &shelf.ready).any(|empty| empty.pid == init)
    }

    /// Gives back any one, first of those used longest ago.
    pub(super) fn give_up(&mut self) -> Option<Empty> {
        self.shelves.iter_mut().rev().find_map(|shelf| shelf.ready.pop_back())
    }
}
