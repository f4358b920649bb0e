//! Instances that serve several callers at a time.

use super::*;
use crate::testing::with_seats;

fn shared(seats: u32, generation: u64) -> Arc<Function> {
    Arc::new(with_seats(function(key("000000000000", "hello"), generation), seats))
}

fn left(core: &mut Core, waiter: u64, reusable: bool, now: Timestamp) -> Vec<Command> {
    let (instance, waiter, memory) = (InstanceId(0), WaiterId(waiter), MB(64));
    core.on(Event::Done { instance, waiter, memory, reusable }, now)
}

/// A core with an Instance of two seats that serves callers 0 and 1.
fn with_two_seated(config: Config) -> (Core, Arc<Function>) {
    let mut core = Core::new(config);
    let hello = shared(2, 1);
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello, First)]);
    assert_eq!(arrive(&mut core, 1, &hello, at(0)), [], "the start is for two");
    assert_eq!(started(&mut core, 0, at(0)), [serve(0, 0), serve(1, 0)]);
    (core, hello)
}

#[test]
fn another_is_started_when_all_seats_are_taken() {
    let (mut core, hello) = with_two_seated(config());
    assert_eq!(arrive(&mut core, 2, &hello, at(0)), [start(1, &hello, AllBusy)]);
    assert_eq!(left(&mut core, 0, true, at(0)), [serve(2, 0)], "a free seat is for who waits");
    assert_eq!(left(&mut core, 1, true, at(0)), []);
    assert_eq!(arrive(&mut core, 3, &hello, at(0)), [serve(3, 0)], "beside the other");
    let counts = core.counts();
    assert_eq!((counts.busy, counts.served, counts.idle, counts.starting), (1, 2, 0, 1));
}

#[test]
fn one_that_is_spent_ends_with_its_last_invocation() {
    let (mut core, hello) = with_two_seated(config());
    assert_eq!(left(&mut core, 0, false, at(0)), []);
    assert_eq!(arrive(&mut core, 2, &hello, at(0)), [start(1, &hello, AllBusy)]);
    assert_eq!(left(&mut core, 1, true, at(0)), [retire(0)]);
}

#[test]
fn one_that_is_dead_ends_with_its_last_invocation_and_the_caller_keeps_its_turn() {
    let (mut core, hello) = with_two_seated(config());
    let dead = Event::Dead { instance: InstanceId(0), waiter: WaiterId(1) };
    assert_eq!(core.on(dead, at(0)), [start(1, &hello, AllBusy)]);
    assert_eq!(left(&mut core, 0, false, at(0)), [retire(0)]);
    assert_eq!(started(&mut core, 1, at(0)), [serve(1, 1)]);
}

#[test]
fn one_of_a_former_state_gives_out_no_seat() {
    let (mut core, _) = with_two_seated(config());
    assert_eq!(left(&mut core, 0, true, at(0)), []);
    let newer = shared(2, 2);
    assert_eq!(core.on(Event::Changed { function: newer.clone() }, at(0)), []);
    assert_eq!(arrive(&mut core, 2, &newer, at(0)), [start(1, &newer, Changed)]);
    assert_eq!(left(&mut core, 1, true, at(0)), [retire(0)]);
}

#[test]
fn one_that_is_too_old_gives_out_no_seat() {
    let (mut core, hello) = with_two_seated(config());
    assert_eq!(left(&mut core, 0, true, at(0)), []);
    assert_eq!(arrive(&mut core, 2, &hello, at(400)), [start(1, &hello, AllBusy)]);
    assert_eq!(left(&mut core, 1, true, at(400)), [retire(0)]);
}

#[test]
fn one_whose_init_failed_has_one_seat() {
    let mut core = Core::new(config());
    let hello = shared(2, 1);
    arrive(&mut core, 0, &hello, at(0));
    arrive(&mut core, 1, &hello, at(0));
    let (instance, memory) = (InstanceId(0), MB(64));
    let failed = core.on(Event::InitFailed { instance, memory }, at(0));
    assert_eq!(failed, [serve(0, 0), start(1, &hello, AllBusy)]);
}

#[test]
fn it_is_frozen_only_when_all_seats_are_free() {
    let (mut core, hello) =
        with_two_seated(Config { freeze_after: Some(Duration::ZERO), ..config() });
    assert_eq!(left(&mut core, 0, true, at(1)), []);
    assert_eq!(core.on(Event::Tick, at(2)), [], "one is served still");
    assert_eq!(left(&mut core, 1, true, at(3)), []);
    let instance = InstanceId(0);
    assert_eq!(core.on(Event::Tick, at(4)), [Command::Freeze { instance }]);
    assert_eq!(arrive(&mut core, 2, &hello, at(5)), [Command::Thaw { instance }, serve(2, 0)]);
    assert_eq!(arrive(&mut core, 3, &hello, at(5)), [serve(3, 0)]);
}
