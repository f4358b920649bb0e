//! Any order of events, against a model of what a driver would know.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::pool::core::place::Purpose;
use crate::testing::with_seats;

/// How many invocations an Instance of the last two functions serves at a time.
const SEATS: usize = 3;

/// One step; numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Leave(usize),
    Started(usize, u32),
    InitFailed(usize, u32),
    StartFailed(usize),
    Done(usize, u32, bool),
    Dead(usize),
    Measured(usize, u32, bool),
    Retired(usize),
    Changed(usize),
    Deleted(usize),
    NotFrozen(usize),
    Reserved(usize, Option<u32>),
    Provisioned(usize, u32),
    Limited(usize, u32),
    Pressure(u8),
    Tick(u16),
    /// To the moment the core asked for.
    Due,
    /// An event about something that is not there.
    Stranger(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<usize>();
    prop_oneof![
        6 => which.prop_map(Step::Arrive),
        1 => which.prop_map(Step::Leave),
        4 => (which, 1..200_u32).prop_map(|(which, mb)| Step::Started(which, mb)),
        1 => (which, 1..200_u32).prop_map(|(which, mb)| Step::InitFailed(which, mb)),
        1 => which.prop_map(Step::StartFailed),
        5 => (which, 1..200_u32, prop::bool::weighted(0.8))
            .prop_map(|(which, mb, reusable)| Step::Done(which, mb, reusable)),
        1 => which.prop_map(Step::Dead),
        1 => (which, 1..200_u32, any::<bool>())
            .prop_map(|(which, mb, reusable)| Step::Measured(which, mb, reusable)),
        3 => which.prop_map(Step::Retired),
        1 => which.prop_map(Step::Changed),
        1 => which.prop_map(Step::Deleted),
        1 => which.prop_map(Step::NotFrozen),
        1 => (which, prop::option::of(0..4_u32))
            .prop_map(|(which, count)| Step::Reserved(which, count)),
        1 => (which, 0..3_u32).prop_map(|(which, count)| Step::Provisioned(which, count)),
        1 => (which, 0..9_u32).prop_map(|(which, count)| Step::Limited(which, count)),
        1 => (0..120_u8).prop_map(Step::Pressure),
        1 => (0..40_000_u16).prop_map(Step::Tick),
        2 => (0..40_u16).prop_map(Step::Tick),
        2 => Just(Step::Due),
        1 => any::<u64>().prop_map(Step::Stranger),
    ]
}

fn share() -> impl Strategy<Value = Share> {
    let bounded = (1..6_usize, 20..400_u32);
    prop_oneof![Just(ALL), bounded.prop_map(|(instances, mb)| Share { instances, memory: MB(mb) }),]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Starting,
    Idle,
    Busy,
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
    /// How many each serves at a time, and whom it serves.
    seats: BTreeMap<InstanceId, (usize, Vec<WaiterId>)>,
    frozen: BTreeSet<InstanceId>,
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
            seats: BTreeMap::new(),
            frozen: BTreeSet::new(),
        }
    }

    /// Four functions of two accounts.
    fn function(&self, index: usize) -> Arc<Function> {
        let account = ["000000000000", "111111111111"][index % 2];
        let function = function(key(account, &format!("f{index}")), self.generations[index]);
        Arc::new(if index < 2 { function } else { with_seats(function, 3) })
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
        let busy = |seen| seen == Seen::Busy;
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
            Step::Started(which, mb) | Step::InitFailed(which, mb) => {
                let Some(instance) = self.pick(which, |seen| seen == Seen::Starting) else {
                    return;
                };
                self.see(instance, Seen::Idle);
                let memory = MB(mb);
                match step {
                    Step::InitFailed(..) => self.init_failed(instance, memory),
                    _ => Event::Started { instance, memory },
                }
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
                let waiter = self.stand_up(instance, which);
                Event::Done { instance, waiter, memory: MB(mb), reusable }
            }
            Step::Dead(which) => {
                let Some(instance) = self.pick(which, busy) else { return };
                let waiter = self.stand_up(instance, which);
                self.waiting.insert(waiter, self.instances[&instance].0);
                Event::Dead { instance, waiter }
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
                Event::Deleted { function: self.function(which % 4).version_key() }
            }
            Step::NotFrozen(which) => {
                let Some(event) = self.not_frozen(which) else { return };
                event
            }
            Step::Tick(millis) => {
                self.now = self.now.plus(Duration::from_millis(millis.into()));
                Event::Tick
            }
            Step::Due => {
                let Some(due) = self.core.next_due() else { return };
                self.now = self.now.max(due);
                Event::Tick
            }
            _ => self.input(step),
        };
        self.on(event);
    }

    /// Then it serves one at a time.
    fn init_failed(&mut self, instance: InstanceId, memory: ByteSize) -> Event {
        self.seats.get_mut(&instance).expect("known").0 = 1;
        Event::InitFailed { instance, memory }
    }

    /// One of those whom an Instance serves is not served any more.
    fn stand_up(&mut self, instance: InstanceId, which: usize) -> WaiterId {
        let seated = &mut self.seats.get_mut(&instance).expect("known").1;
        let waiter = seated.swap_remove(which % seated.len());
        if seated.is_empty() {
            self.see(instance, Seen::Idle);
        }
        waiter
    }

    fn not_frozen(&mut self, which: usize) -> Option<Event> {
        let instance = *self.frozen.iter().nth(which % self.frozen.len().max(1))?;
        self.frozen.remove(&instance);
        Some(Event::NotFrozen { instance })
    }

    /// What operators and the machine say, and strangers.
    fn input(&self, step: &Step) -> Event {
        match *step {
            Step::Reserved(which, concurrency) => {
                Event::Reserved { function: self.function(which % 4).key.clone(), concurrency }
            }
            Step::Provisioned(which, instances) => {
                Event::Provisioned { function: self.function(which % 4), instances }
            }
            Step::Limited(which, concurrency) => {
                let account = self.function(which % 2).key.account.clone();
                Event::Limited { account, concurrency }
            }
            Step::Pressure(cpu) => Event::Pressure { cpu },
            Step::Stranger(id) => {
                let instance = InstanceId(id | 1 << 63);
                Event::Done { instance, waiter: WaiterId(id), memory: MB(1), reusable: true }
            }
            _ => Event::Tick,
        }
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
                assert_eq!(of, function, "its own function");
                assert!(matches!(seen, Seen::Idle | Seen::Busy), "one that is there");
                assert!(!self.frozen.contains(&instance), "a frozen Instance cannot serve");
                self.see(instance, Seen::Busy);
                let (seats, seated) = self.seats.get_mut(&instance).expect("known");
                seated.push(waiter);
                assert!(seated.len() <= *seats, "so many invocations at a time and no more");
            }
            Command::Start { instance, function, .. } => {
                let index = function.key.name.as_str()[1..].parse().expect("a number");
                self.check_start(instance, index);
                let before = self.instances.insert(instance, (index, Seen::Starting));
                assert!(before.is_none(), "an id is used once");
                let seats = if index < 2 { 1 } else { SEATS };
                self.seats.insert(instance, (seats, Vec::new()));
            }
            Command::Retire { instance } => {
                assert_eq!(self.instances[&instance].1, Seen::Idle, "only idle ones end");
                assert!(!self.frozen.contains(&instance), "a frozen Instance cannot end");
                self.see(instance, Seen::Retiring);
            }
            Command::Freeze { instance } => {
                assert_eq!(self.instances[&instance].1, Seen::Idle, "only idle ones are frozen");
                assert!(self.frozen.insert(instance), "frozen once");
            }
            Command::Thaw { instance } => {
                assert!(self.frozen.remove(&instance), "only frozen ones are thawed");
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
            busy: self.count(|seen| seen == Seen::Busy),
            served: self.seats.values().map(|(_, seated)| seated.len()).sum(),
            retiring: self.count(|seen| seen == Seen::Retiring),
            waiting: self.waiting.len(),
        };
        assert_eq!(core.counts(), counts);
        assert!(counts.starting - core.readying <= config.max_starting);
        assert!(core.readying - core.lasting <= config.max_starting.div_ceil(2));
        assert!(self.instances.len() <= config.max_instances);
        let most = config.max_waiting + SEATS * config.max_instances;
        assert!(counts.waiting <= most, "dead ones come back");
        let used = core.instances.values().map(|slot| slot.memory.as_bytes()).sum();
        assert_eq!(core.used, ByteSize::bytes(used));
        self.check_shares();
        for account in 0..2 {
            self.check_permits(account);
        }
        self.check_nobody_waits_in_vain(counts);
    }

    fn held(&self, belongs: impl Fn(usize) -> bool) -> Held {
        let mut held = Held::default();
        for (id, (function, _)) in &self.instances {
            if belongs(*function) {
                held.add(self.core.instances[id].memory);
            }
        }
        held
    }

    /// One more fits into both shares, by Instances and by memory, or is the first and only one.
    fn check_start(&self, instance: InstanceId, index: usize) {
        let (config, memory) = (&self.core.config, self.core.instances[&instance].memory);
        let of_function = (self.held(|function| function == index), config.function_share);
        let of_account = (self.held(|function| function % 2 == index % 2), config.account_share);
        for (held, share) in [of_function, of_account] {
            let fits = held.instances < share.instances
                && held.memory.as_bytes() + memory.as_bytes() <= share.memory.as_bytes();
            assert!(held.instances == 0 || fits, "{held:?} and {memory:?} in {share:?}");
        }
    }

    fn check_shares(&self) {
        let (core, config) = (&self.core, &self.core.config);
        for index in 0..4 {
            let key = self.function(index).key.clone();
            let held = self.held(|function| function == index);
            assert!(held.instances <= config.function_share.instances);
            let entry = core.names.get(&key.clone().into()).and_then(|id| core.known(*id));
            assert_eq!(entry.map(|entry| entry.held).unwrap_or_default(), held);
            let held = self.held(|function| function % 2 == index % 2);
            assert!(held.instances <= config.account_share.instances);
            let tenant = core.tenants.get(&key.account).and_then(|id| core.accounts.get(id.0));
            assert_eq!(tenant.map(|account| account.held).unwrap_or_default(), held);
        }
    }

    fn check_permits(&self, index: usize) {
        let core = &self.core;
        let served = self.instances.iter().filter(|(_, (function, _))| function % 2 == index);
        let served: usize = served.map(|(id, _)| self.seats[id].1.len()).sum();
        let waiting = self.waiting.values().filter(|function| *function % 2 == index);
        let expected = u32::try_from(served + waiting.count()).expect("few");
        let account = &self.function(index).key.account;
        let tenant = core.tenants.get(account).and_then(|tenant| core.accounts.get(tenant.0));
        let held = tenant.map_or(0, |account| account.permits.running);
        assert_eq!(held, expected, "a permit for each invocation, and no other");
        let quotas = core
            .functions
            .iter()
            .map(|(_, entry)| entry)
            .filter(|entry| &entry.function.key.account == account);
        let of_functions: u32 = quotas.map(|entry| entry.quota.running).sum();
        assert_eq!(held, of_functions, "and it is its function's");
    }

    /// A caller for whom nothing is coming: then there is no room, and none that could be made.
    fn check_nobody_waits_in_vain(&self, counts: Counts) {
        let core = &self.core;
        for (id, entry) in &core.functions {
            assert!(entry.waiting.is_empty() || entry.idle.is_empty(), "idle beside a waiter");
            assert!(entry.waiting.is_empty() || entry.open.is_empty(), "a seat beside a waiter");
            for instance in &entry.open {
                let (seats, seated) = &self.seats[instance];
                let is_open = !seated.is_empty() && seated.len() < *seats;
                assert!(is_open && core.instances[instance].ending.is_none(), "a seat is free");
            }
            if entry.waiting.len() > entry.coming() {
                let waits_for_busy = entry.queue_due.is_some() && entry.busy > 0;
                assert!(entry.queued || waits_for_busy, "in the line, or looked at again");
            }
            let is_in_line = core.line.iter().any(|other| other.0 == id);
            assert_eq!(entry.queued, is_in_line);
        }
        self.check_shares_are_made();
        // Those that lack a share stand aside, and promises while enough of them are started, behind
        // the first that only waits for room.
        let stands_aside = |id| core.lacking(id).is_some() || self.is_held_back(id);
        let Some(id) = core.line.iter().find(|id| !stands_aside(*id)) else { return };
        assert!(core.needs(id, self.now), "whoever is first needs an Instance");
        let is_full = self.instances.len() >= core.config.max_instances
            || core.used.saturating_add(core.reserve_of(id)) > core.config.memory;
        let starts_later = core.starts.wait(self.now) > Duration::ZERO;
        let is_promise = core.purpose(id, self.now) == Purpose::Promise;
        let starts_enough = core.has_starts_enough() && !is_promise;
        let is_due = core.next_due().is_some();
        assert!(starts_enough || !starts_later || is_due, "it is looked at again");
        let is_held_up = starts_enough || starts_later;
        assert!(is_held_up || (is_full && !self.instances.is_empty()), "room, and nobody started");
        let spare = core.functions.iter().any(|(id, _)| core.spare_of(FunctionId(id)).is_some());
        assert!(is_held_up || !spare || counts.retiring > 0, "an idle one holds a waiter's room");
    }

    /// Wants one kept ready, and waits for its turn among those that do.
    fn is_held_back(&self, id: FunctionId) -> bool {
        let is_promise = self.core.purpose(id, self.now) == Purpose::Promise;
        is_promise && self.core.has_promises_enough()
    }

    fn check_shares_are_made(&self) {
        let core = &self.core;
        // Who is held back makes no share either: others may have taken what was left of it.
        let lacks = |id: &FunctionId| {
            core.lacking(*id) == Some(Refusal::AccountShare) && !self.is_held_back(*id)
        };
        let stands_aside = |id: &FunctionId| core.lacking(*id).is_some() || self.is_held_back(*id);
        for id in core.line.iter().take_while(stands_aside).filter(lacks) {
            let tenant = core.known(id).map(|entry| entry.tenant);
            let own: Vec<_> =
                core.functions.iter().filter(|(_, entry)| Some(entry.tenant) == tenant).collect();
            let has_idle = own.iter().any(|(id, _)| core.spare_of(FunctionId(*id)).is_some());
            let has_retiring = own.iter().any(|(_, entry)| entry.retiring > 0);
            assert!(!has_idle || has_retiring, "an idle one holds the share of a waiter");
        }
    }

    /// Lets everything that is under way come to its end.
    fn settle(&mut self) {
        for _ in 0..300 {
            self.take(&Step::Due);
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
        (start_rate, start_burst) in (1..50_u32, 1..6_u32),
        shares in [share(), share()],
        freeze_after in prop::option::of((0..50_u64).prop_map(Duration::from_millis)),
    ) {
        let config = Config {
            memory: MB(memory),
            max_instances,
            function_share: shares[0],
            account_share: shares[1],
            account_concurrency,
            start_rate,
            start_burst,
            freeze_after,
            ..config()
        };
        let mut world = World::new(&config);
        for step in &steps {
            world.take(step);
        }
        for which in 0..4 {
            // What is promised to one function may be the room of another for ever.
            world.take(&Step::Provisioned(which, 0));
        }
        world.settle();
        prop_assert!(world.waiting.is_empty(), "{:?} wait for ever", world.waiting);
        world.on(Event::Stop);
        world.settle();
        prop_assert!(world.instances.is_empty() && world.core.waiters.is_empty());
        let known = &world.core.functions;
        prop_assert!(known.iter().all(|(_, entry)| entry.is_empty() && entry.quota.running == 0));
        prop_assert!(known.len() <= config.max_known && world.core.names.len() == known.len());
        prop_assert_eq!(world.core.leaving, ByteSize::ZERO);
    }
}
