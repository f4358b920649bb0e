//! Why Instances are started: each reason, where it comes about.

use ColdStart::{Expected, MadeRoom, Provisioned, Spent, WasIdle};

use super::*;

#[test]
fn after_a_crash_its_place_is_taken() {
    let (mut core, hello) = with_two_idle();
    for (waiter, instance) in [(2, 1), (3, 0)] {
        arrive(&mut core, waiter, &hello, at(3));
        let (instance, waiter, memory) = (InstanceId(instance), WaiterId(waiter), MB(64));
        core.on(Event::Done { instance, waiter, memory, reusable: false }, at(4));
    }
    assert_eq!(arrive(&mut core, 4, &hello, at(5)), [start(2, &hello, Spent)]);
}

#[test]
fn a_dead_one_that_was_the_last_is_replaced() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    started(&mut core, 0, at(0));
    let dead = Event::Dead { instance: InstanceId(0), waiter: WaiterId(0) };
    assert_eq!(core.on(dead, at(1)), [retire(0), start(1, &hello, Spent)]);
}

#[test]
fn others_need_its_room_or_nobody_called() {
    let (mut core, hello) = with_two_idle();
    core.config.memory = MB(64);
    let (other, gone) = (named("other", 1), |instance| Event::Retired { instance });
    assert_eq!(arrive(&mut core, 2, &other, at(3)), [retire(0), retire(1)]);
    core.on(gone(InstanceId(0)), at(3));
    assert_eq!(core.on(gone(InstanceId(1)), at(3)), [start(2, &other, First)]);
    core.config.memory = MB(400);
    assert_eq!(arrive(&mut core, 3, &hello, at(3)), [start(3, &hello, MadeRoom)]);
    core.on(Event::Leave { waiter: WaiterId(3) }, at(3));
    assert_eq!(started(&mut core, 2, at(3)), [serve(2, 2)]);
    assert_eq!(done(&mut core, 2, at(4)), []);
    assert_eq!(core.on(Event::Tick, at(65)), [retire(2)]);
    assert_eq!(arrive(&mut core, 4, &other, at(66)), [start(4, &other, WasIdle)]);
}

#[test]
fn one_of_the_new_code_is_started_although_old_ones_are_busy() {
    let (mut core, hello) = with_two_idle();
    arrive(&mut core, 2, &hello, at(3));
    arrive(&mut core, 3, &hello, at(3));
    let newer = named("hello", 2);
    assert_eq!(core.on(Event::Changed { function: newer.clone() }, at(3)), []);
    assert_eq!(arrive(&mut core, 4, &newer, at(3)), [start(2, &newer, Changed)]);
    assert_eq!(arrive(&mut core, 5, &newer, at(3)), [start(3, &newer, AllBusy)]);
}

#[test]
fn those_that_nobody_called_for_say_so() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    let ready = Event::Provisioned { function: hello.clone(), instances: 1 };
    assert_eq!(core.on(ready, at(0)), [start(0, &hello, Provisioned)]);
    let other = named("other", 1);
    let id = core.entry_of(other.clone(), at(0), &mut Vec::new());
    let mut todo = Vec::new();
    core.start_ahead(id, at(9), at(0), &mut todo);
    assert_eq!(todo, [start(1, &other, Expected)]);
}
