//! Tests of `core`.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::testing::{function, key};

const MB: fn(u32) -> ByteSize = ByteSize::mebibytes;

fn config() -> Config {
    Config {
        memory: MB(400),
        start_reserve: MB(64),
        max_instances: 5,
        max_starting: 2,
        max_waiting: 12,
        account_concurrency: 6,
        keep_alive: Duration::from_secs(60),
        max_age: Duration::from_secs(300),
        patience: Duration::from_secs(30),
        fair_wait: Duration::from_secs(1),
    }
}

fn named(name: &str, generation: u64) -> Arc<Function> {
    Arc::new(function(key("000000000000", name), generation))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_000 + seconds)
}

fn arrive(core: &mut Core, waiter: u64, function: &Arc<Function>, now: Timestamp) -> Vec<Command> {
    core.on(Event::Arrive { waiter: WaiterId(waiter), function: function.clone() }, now)
}

fn started(core: &mut Core, instance: u64, now: Timestamp) -> Vec<Command> {
    core.on(Event::Started { instance: InstanceId(instance), memory: MB(64) }, now)
}

fn done(core: &mut Core, instance: u64, now: Timestamp) -> Vec<Command> {
    let instance = InstanceId(instance);
    core.on(Event::Done { instance, memory: MB(64), reusable: true }, now)
}

fn serve(waiter: u64, instance: u64) -> Command {
    Command::Serve { waiter: WaiterId(waiter), instance: InstanceId(instance) }
}

fn retire(instance: u64) -> Command {
    Command::Retire { instance: InstanceId(instance) }
}

fn refuse(waiter: u64, reason: Refusal) -> Command {
    Command::Refuse { waiter: WaiterId(waiter), reason }
}

fn start(instance: u64, function: &Arc<Function>) -> Command {
    Command::Start { instance: InstanceId(instance), function: function.clone() }
}

/// A core with idle Instances 0 and 1 of `hello`, 1 used last.
fn with_two_idle() -> (Core, Arc<Function>) {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    arrive(&mut core, 1, &hello, at(0));
    started(&mut core, 0, at(0));
    started(&mut core, 1, at(0));
    done(&mut core, 0, at(1));
    done(&mut core, 1, at(2));
    (core, hello)
}

#[test]
fn the_instance_used_last_is_used_next() {
    let (mut core, hello) = with_two_idle();
    assert_eq!(arrive(&mut core, 2, &hello, at(3)), [serve(2, 1)]);
    assert_eq!(arrive(&mut core, 3, &hello, at(3)), [serve(3, 0)]);
}

#[test]
fn a_freed_instance_serves_the_longest_waiter() {
    let mut core = Core::new(Config { max_instances: 1, ..config() });
    let hello = named("hello", 1);
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello)]);
    assert_eq!(arrive(&mut core, 1, &hello, at(0)), []);
    assert_eq!(arrive(&mut core, 2, &hello, at(0)), []);
    assert_eq!(started(&mut core, 0, at(0)), [serve(0, 0)]);
    assert_eq!(done(&mut core, 0, at(0)), [serve(1, 0)]);
    assert_eq!(done(&mut core, 0, at(0)), [serve(2, 0)]);
}

#[test]
fn the_accounts_concurrency_is_a_bound_and_comes_back() {
    let mut core = Core::new(Config { account_concurrency: 1, ..config() });
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    let other = named("other", 1);
    let refused = [refuse(1, Refusal::AccountConcurrency)];
    assert_eq!(arrive(&mut core, 1, &other, at(0)), refused);
    let stranger = Arc::new(function(key("111111111111", "hello"), 1));
    assert_eq!(arrive(&mut core, 2, &stranger, at(0)), [start(1, &stranger)]);
    core.on(Event::Leave { waiter: WaiterId(0) }, at(0));
    assert_eq!(core.counts().waiting, 1);
    assert_eq!(arrive(&mut core, 3, &hello, at(0)), []);
    assert_eq!(started(&mut core, 0, at(0)), [serve(3, 0)]);
}

#[test]
fn a_new_generation_retires_the_old_ones() {
    let (mut core, hello) = with_two_idle();
    assert_eq!(arrive(&mut core, 2, &hello, at(3)), [serve(2, 1)]);
    let newer = named("hello", 2);
    assert_eq!(arrive(&mut core, 3, &newer, at(3)), [retire(0), start(2, &newer)]);
    assert_eq!(done(&mut core, 1, at(3)), [retire(1)]);
    assert_eq!(started(&mut core, 2, at(4)), [serve(3, 2)]);
    // A caller that read the catalog before the update is served by the new code.
    done(&mut core, 2, at(4));
    assert_eq!(arrive(&mut core, 4, &hello, at(4)), [serve(4, 2)]);
}

#[test]
fn a_function_made_anew_does_not_run_its_former_code() {
    let (mut core, hello) = with_two_idle();
    let mut anew = Function::clone(&hello);
    anew.last_modified = at(3);
    let anew = Arc::new(anew);
    let commands = arrive(&mut core, 2, &anew, at(3));
    assert_eq!(commands, [retire(0), retire(1), start(2, &anew)]);
}

#[test]
fn a_start_that_is_out_of_date_is_repeated_for_its_waiter() {
    let mut core = Core::new(config());
    let (hello, newer) = (named("hello", 1), named("hello", 2));
    arrive(&mut core, 0, &hello, at(0));
    assert_eq!(core.on(Event::Changed { function: newer.clone() }, at(0)), []);
    assert_eq!(started(&mut core, 0, at(0)), [retire(0), start(1, &newer)]);
    assert_eq!(started(&mut core, 1, at(0)), [serve(0, 1)]);
}

#[test]
fn a_deleted_functions_callers_are_refused_and_its_instances_end() {
    let (mut core, hello) = with_two_idle();
    arrive(&mut core, 2, &hello, at(3));
    let deleted = Event::Deleted { function: hello.key.clone() };
    assert_eq!(core.on(deleted, at(3)), [retire(0)]);
    assert_eq!(done(&mut core, 1, at(3)), [retire(1)]);
}

#[test]
fn the_longest_idle_is_evicted_for_memory_and_its_room_used_when_it_is_gone() {
    let (mut core, _) = with_two_idle();
    core.config.memory = MB(140);
    let other = named("other", 1);
    assert_eq!(arrive(&mut core, 2, &other, at(3)), [retire(0)]);
    let gone = Event::Retired { instance: InstanceId(0) };
    assert_eq!(core.on(gone, at(3)), [start(2, &other)]);
}

#[test]
fn admission_counts_what_is_measured_not_what_is_configured() {
    let mut core = Core::new(Config { memory: MB(300), max_starting: 5, ..config() });
    let hello = named("hello", 1);
    for waiter in 0..4 {
        let instance = waiter;
        assert_eq!(arrive(&mut core, waiter, &hello, at(0)), [start(instance, &hello)]);
        core.on(Event::Started { instance: InstanceId(instance), memory: MB(30) }, at(0));
    }
    assert_eq!(core.used, MB(120), "four limits of 128 MB would not fit into 300 MB");
}

#[test]
fn one_instance_may_be_larger_than_the_bound() {
    let mut core = Core::new(Config { memory: MB(10), ..config() });
    let hello = named("hello", 1);
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello)]);
    assert_eq!(arrive(&mut core, 1, &hello, at(0)), []);
}

#[test]
fn idle_and_old_instances_end_with_time() {
    let (mut core, hello) = with_two_idle();
    assert_eq!(core.on(Event::Tick, at(61)), [retire(0)]);
    for second in 62..=299 {
        arrive(&mut core, 10 + second, &hello, at(second.cast_signed()));
        done(&mut core, 1, at(second.cast_signed()));
    }
    assert_eq!(arrive(&mut core, 5, &hello, at(301)), [retire(1), start(2, &hello)]);
}

#[test]
fn a_failed_start_refuses_one_caller_and_tries_again_for_the_next() {
    let mut core = Core::new(Config { max_starting: 1, ..config() });
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    arrive(&mut core, 1, &hello, at(0));
    let failed = core.on(Event::StartFailed { instance: InstanceId(0) }, at(0));
    assert_eq!(failed, [refuse(0, Refusal::StartFailed), start(1, &hello)]);
}

#[test]
fn a_caller_whose_instance_is_dead_gets_another_and_keeps_its_turn() {
    let (mut core, hello) = with_two_idle();
    arrive(&mut core, 2, &hello, at(3));
    let dead = Event::Dead { instance: InstanceId(1) };
    assert_eq!(core.on(dead, at(3)), [retire(1), serve(2, 0)]);
}

#[test]
fn a_busy_function_yields_its_room_to_one_that_waited_too_long() {
    let mut core = Core::new(Config { max_instances: 1, ..config() });
    let (greedy, other) = (named("greedy", 1), named("other", 1));
    arrive(&mut core, 0, &greedy, at(0));
    started(&mut core, 0, at(0));
    arrive(&mut core, 1, &other, at(0));
    arrive(&mut core, 2, &greedy, at(0));
    assert_eq!(done(&mut core, 0, at(2)), [retire(0)]);
    let gone = Event::Retired { instance: InstanceId(0) };
    assert_eq!(core.on(gone, at(2)), [start(1, &other)]);
}

#[test]
fn nobody_is_taken_after_stop_but_who_waits_is_served() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    assert_eq!(core.on(Event::Stop, at(0)), []);
    assert_eq!(arrive(&mut core, 1, &hello, at(0)), [refuse(1, Refusal::Stopping)]);
    assert_eq!(started(&mut core, 0, at(0)), [serve(0, 0)]);
    assert_eq!(done(&mut core, 0, at(1)), [retire(0)]);
}

#[test]
fn a_caller_waits_no_longer_than_patience() {
    let mut core = Core::new(Config { max_instances: 1, ..config() });
    let (hello, other) = (named("hello", 1), named("other", 1));
    arrive(&mut core, 0, &hello, at(0));
    started(&mut core, 0, at(0));
    arrive(&mut core, 1, &other, at(0));
    assert_eq!(core.on(Event::Tick, at(29)), []);
    assert_eq!(core.on(Event::Tick, at(30)), [refuse(1, Refusal::WaitedTooLong)]);
}

// === Any order of events ===

/// One step; numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Leave(usize),
    Started(usize, u32),
    StartFailed(usize),
    Done(usize, u32, bool),
    Dead(usize),
    Measured(usize, u32, bool),
    Retired(usize),
    Changed(usize),
    Deleted(usize),
    Tick(u16),
    /// An event about something that is not there.
    Stranger(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    prop_oneof![
        6 => which.prop_map(Step::Arrive),
        1 => which.prop_map(Step::Leave),
        4 => (which, 1..200_u32).prop_map(|(which, mb)| Step::Started(which, mb)),
        1 => which.prop_map(Step::StartFailed),
        5 => (which, 1..200_u32, prop::bool::weighted(0.8))
            .prop_map(|(which, mb, reusable)| Step::Done(which, mb, reusable)),
        1 => which.prop_map(Step::Dead),
        1 => (which, 1..200_u32, any::<bool>())
            .prop_map(|(which, mb, reusable)| Step::Measured(which, mb, reusable)),
        3 => which.prop_map(Step::Retired),
        1 => which.prop_map(Step::Changed),
        1 => which.prop_map(Step::Deleted),
        2 => (0..40_000_u16).prop_map(Step::Tick),
        1 => any::<u64>().prop_map(Step::Stranger),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Starting,
    Idle,
    Busy(WaiterId),
    Retiring,
}

/// What a driver would know.
struct World {
    core: Core,
    /// Gets the same events and must give the same commands.
    twin: Core,
    now: Timestamp,
    generations: [u64; 4],
    next_waiter: u64,
    waiting: BTreeMap<WaiterId, usize>,
    instances: BTreeMap<InstanceId, (usize, Seen)>,
}

impl World {
    fn new(config: &Config) -> Self {
        Self {
            core: Core::new(config.clone()),
            twin: Core::new(config.clone()),
            now: at(0),
            generations: [1; 4],
            next_waiter: 0,
            waiting: BTreeMap::new(),
            instances: BTreeMap::new(),
        }
    }

    /// Four functions of two accounts.
    fn function(&self, index: usize) -> Arc<Function> {
        let account = ["000000000000", "111111111111"][index % 2];
        Arc::new(function(key(account, &format!("f{index}")), self.generations[index]))
    }

    fn pick(&self, which: usize, wanted: impl Fn(Seen) -> bool) -> Option<InstanceId> {
        let fitting = self.instances.iter().filter(|(_, (_, seen))| wanted(*seen));
        let fitting: Vec<_> = fitting.map(|(id, _)| *id).collect();
        (!fitting.is_empty()).then(|| fitting[which % fitting.len()])
    }

    fn see(&mut self, instance: InstanceId, seen: Seen) {
        self.instances.get_mut(&instance).expect("known").1 = seen;
    }

    fn take(&mut self, step: &Step) {
        let busy = |seen| matches!(seen, Seen::Busy(_));
        let event = match *step {
            Step::Arrive(which) => {
                let waiter = WaiterId(self.next_waiter);
                self.next_waiter += 1;
                self.waiting.insert(waiter, which % 4);
                Event::Arrive { waiter, function: self.function(which % 4) }
            }
            Step::Leave(which) => {
                let Some(&waiter) = self.waiting.keys().nth(which % self.waiting.len().max(1))
                else {
                    return;
                };
                self.waiting.remove(&waiter);
                Event::Leave { waiter }
            }
            Step::Started(which, mb) => {
                let Some(instance) = self.pick(which, |seen| seen == Seen::Starting) else {
                    return;
                };
                self.see(instance, Seen::Idle);
                Event::Started { instance, memory: MB(mb) }
            }
            Step::StartFailed(which) => {
                let Some(instance) = self.pick(which, |seen| seen == Seen::Starting) else {
                    return;
                };
                self.instances.remove(&instance);
                Event::StartFailed { instance }
            }
            Step::Done(which, mb, reusable) => {
                let Some(instance) = self.pick(which, busy) else { return };
                self.see(instance, Seen::Idle);
                Event::Done { instance, memory: MB(mb), reusable }
            }
            Step::Dead(which) => {
                let Some(instance) = self.pick(which, busy) else { return };
                let (function, Seen::Busy(waiter)) = self.instances[&instance] else { return };
                self.waiting.insert(waiter, function);
                self.see(instance, Seen::Idle);
                Event::Dead { instance }
            }
            Step::Measured(which, mb, reusable) => {
                let Some(instance) = self.pick(which, |seen| seen == Seen::Idle) else { return };
                Event::Measured { instance, memory: MB(mb), reusable }
            }
            Step::Retired(which) => {
                let Some(instance) = self.pick(which, |seen| seen == Seen::Retiring) else {
                    return;
                };
                self.instances.remove(&instance);
                Event::Retired { instance }
            }
            Step::Changed(which) => {
                self.generations[which % 4] += 1;
                Event::Changed { function: self.function(which % 4) }
            }
            Step::Deleted(which) => {
                Event::Deleted { function: self.function(which % 4).key.clone() }
            }
            Step::Tick(millis) => {
                self.now = self.now.plus(Duration::from_millis(millis.into()));
                Event::Tick
            }
            Step::Stranger(id) => {
                let instance = InstanceId(id | 1 << 63);
                Event::Done { instance, memory: MB(1), reusable: true }
            }
        };
        self.on(event);
    }

    fn on(&mut self, event: Event) {
        let commands = self.core.on(event.clone(), self.now);
        assert_eq!(commands, self.twin.on(event, self.now), "the same events, other commands");
        for command in commands {
            self.obey(command);
        }
        self.check();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Serve { waiter, instance } => {
                let function = self.waiting.remove(&waiter).expect("served once, and still there");
                let (of, seen) = self.instances[&instance];
                assert_eq!((of, seen), (function, Seen::Idle), "one invocation at a time");
                self.see(instance, Seen::Busy(waiter));
            }
            Command::Start { instance, function } => {
                let index = function.key.name.as_str()[1..].parse().expect("a number");
                let before = self.instances.insert(instance, (index, Seen::Starting));
                assert!(before.is_none(), "an id is used once");
            }
            Command::Retire { instance } => {
                assert_eq!(self.instances[&instance].1, Seen::Idle, "only idle ones end");
                self.see(instance, Seen::Retiring);
            }
            Command::Refuse { waiter, .. } => {
                self.waiting.remove(&waiter).expect("refused once, and still there");
            }
        }
    }

    fn count(&self, wanted: impl Fn(Seen) -> bool) -> usize {
        self.instances.values().filter(|(_, seen)| wanted(*seen)).count()
    }

    fn check(&self) {
        let (core, config) = (&self.core, &self.core.config);
        let counts = Counts {
            starting: self.count(|seen| seen == Seen::Starting),
            idle: self.count(|seen| seen == Seen::Idle),
            busy: self.count(|seen| matches!(seen, Seen::Busy(_))),
            retiring: self.count(|seen| seen == Seen::Retiring),
            waiting: self.waiting.len(),
        };
        assert_eq!(core.counts(), counts);
        assert!(counts.starting <= config.max_starting);
        assert!(self.instances.len() <= config.max_instances);
        assert!(counts.waiting <= config.max_waiting + config.max_instances, "dead ones come back");
        let used = core.instances.values().map(|slot| slot.memory.as_bytes()).sum();
        assert_eq!(core.used, ByteSize::bytes(used));
        for account in 0..2 {
            let busy = self.instances.values().filter(|(function, seen)| {
                matches!(seen, Seen::Busy(_)) && function % 2 == account
            });
            let waiting = self.waiting.values().filter(|function| *function % 2 == account);
            let expected = u32::try_from(busy.count() + waiting.count()).expect("few");
            let account = &self.function(account).key.account;
            let held = core.permits.get(account).copied().unwrap_or(0);
            assert_eq!(held, expected, "a permit for each invocation, and no other");
            assert!(held <= config.account_concurrency);
        }
        self.check_nobody_waits_in_vain(counts);
    }

    /// A caller for whom nothing is coming: then there is no room, and none that could be made.
    fn check_nobody_waits_in_vain(&self, counts: Counts) {
        let core = &self.core;
        let is_hungry = |entry: &&Entry| entry.waiting.len() > entry.starting;
        let hungry: BTreeSet<_> =
            core.functions.values().filter(is_hungry).map(|e| &e.function.key).collect();
        let in_line = core.hungry.iter().filter_map(|id| core.functions.get(id));
        let in_line: BTreeSet<_> = in_line.filter(is_hungry).map(|e| &e.function.key).collect();
        assert_eq!(hungry, in_line, "whoever is in want is in the line");
        for entry in core.functions.values() {
            assert!(entry.waiting.is_empty() || entry.idle.is_empty(), "idle beside a waiter");
        }
        if let Some(first) = core.hungry.front().and_then(|id| core.functions.get(id)) {
            let reserve = first.typical.unwrap_or(core.config.start_reserve).min(MB(128));
            let is_full = self.instances.len() >= core.config.max_instances
                || core.used.saturating_add(reserve) > core.config.memory;
            assert!(
                counts.starting >= core.config.max_starting
                    || (is_full && !self.instances.is_empty()),
                "room, and nobody started"
            );
            assert!(
                counts.starting >= core.config.max_starting
                    || counts.idle == 0
                    || counts.retiring > 0,
                "an idle Instance holds the room of a waiter"
            );
        }
    }

    /// Lets everything that is under way come to its end.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.take(&Step::Retired(0));
            self.take(&Step::Started(0, 50));
            self.take(&Step::Done(0, 50, true));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rules_hold_in_any_order_of_events(
        steps in prop::collection::vec(step(), 1..250),
        memory in 40..600_u32,
        max_instances in 1..8_usize,
        account_concurrency in 0..9_u32,
    ) {
        let config = Config { memory: MB(memory), max_instances, account_concurrency, ..config() };
        let mut world = World::new(&config);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        prop_assert!(world.waiting.is_empty(), "{:?} wait for ever", world.waiting);
        world.on(Event::Stop);
        world.settle();
        prop_assert!(world.instances.is_empty());
        prop_assert!(world.core.functions.is_empty() && world.core.names.is_empty());
        prop_assert!(world.core.permits.is_empty() && world.core.waiters.is_empty());
    }
}
