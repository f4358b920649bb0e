//! Instances that are kept ready.

use ColdStart::{Provisioned, Spent};

use super::*;

fn promise(core: &mut Core, function: &Arc<Function>, instances: u32) -> Vec<Command> {
    core.on(Event::Provisioned { function: function.clone(), instances }, at(0))
}

fn init_failed(core: &mut Core, instance: u64, now: Timestamp) -> Vec<Command> {
    core.on(Event::InitFailed { instance: InstanceId(instance), memory: MB(64) }, now)
}

fn ready(core: &Core, function: &Function) -> (u32, Option<Failed>) {
    let Provided { ready, failed } = core.provided(&function.version_key());
    (ready, failed)
}

#[test]
fn so_many_are_started_a_few_at_a_time_and_stay() {
    let mut core = Core::new(Config { max_starting: 4, ..config() });
    let hello = named("hello", 1);
    let two = [start(0, &hello, Provisioned), start(1, &hello, Provisioned)];
    assert_eq!(promise(&mut core, &hello, 3), two, "half of those that may start at a time");
    assert_eq!(started(&mut core, 0, at(1)), [start(2, &hello, Provisioned)]);
    assert_eq!(ready(&core, &hello), (1, None));
    started(&mut core, 1, at(1));
    started(&mut core, 2, at(1));
    assert_eq!(ready(&core, &hello), (3, None));
    assert_eq!(core.on(Event::Tick, at(200)), [], "longer than any is kept that was not promised");
    assert_eq!(promise(&mut core, &hello, 2), []);
    assert_eq!(core.on(Event::Tick, at(201)).len(), 1, "one is spare now");
    assert_eq!(core.promised(&hello.key), [hello.version_key()]);
    promise(&mut core, &hello, 0);
    assert_eq!(core.promised(&hello.key), []);
}

#[test]
fn one_that_is_spent_or_dead_is_replaced() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    promise(&mut core, &hello, 1);
    started(&mut core, 0, at(0));
    arrive(&mut core, 0, &hello, at(1));
    assert_eq!(ready(&core, &hello), (1, None), "one that serves is ready, too");
    let (instance, memory) = (InstanceId(0), MB(64));
    let waiter = WaiterId(0);
    let spent = core.on(Event::Done { instance, waiter, memory, reusable: false }, at(1));
    assert_eq!(spent, [retire(0), start(1, &hello, Provisioned)]);
    assert_eq!(ready(&core, &hello), (0, None));
    started(&mut core, 1, at(2));
    let instance = InstanceId(1);
    let dead = core.on(Event::Measured { instance, memory, reusable: false }, at(3));
    assert_eq!(dead, [retire(1), start(2, &hello, Provisioned)]);
}

#[test]
fn a_caller_does_not_wait_for_one_that_is_being_made_ready() {
    let mut core = Core::new(Config { max_starting: 1, ..config() });
    let hello = named("hello", 1);
    assert_eq!(promise(&mut core, &hello, 1), [start(0, &hello, Provisioned)]);
    assert_eq!(arrive(&mut core, 0, &hello, at(1)), [start(1, &hello, AllBusy)]);
    assert_eq!(started(&mut core, 1, at(2)), [serve(0, 1)]);
    assert_eq!(ready(&core, &hello), (0, None), "what callers made start does not count");
    // But takes it if it comes first.
    let mut core = Core::new(Config { max_starting: 1, ..config() });
    promise(&mut core, &hello, 1);
    arrive(&mut core, 0, &hello, at(1));
    assert_eq!(started(&mut core, 0, at(2)), [serve(0, 0)]);
}

#[test]
fn those_that_callers_made_start_go_first() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    started(&mut core, 0, at(0));
    done(&mut core, 0, at(0));
    assert_eq!(promise(&mut core, &hello, 1), [start(1, &hello, Provisioned)]);
    started(&mut core, 1, at(0));
    assert_eq!(core.on(Event::Tick, at(61)), [retire(0)]);
    core.config.max_instances = 1;
    core.on(Event::Retired { instance: InstanceId(0) }, at(61));
    let other = named("other", 1);
    assert_eq!(arrive(&mut core, 2, &other, at(61)), [], "what is promised makes no room");
}

#[test]
fn an_init_that_fails_is_told_and_tried_again_less_and_less_often() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    promise(&mut core, &hello, 1);
    assert_eq!(init_failed(&mut core, 0, at(0)), [retire(0)]);
    assert_eq!(ready(&core, &hello), (0, Some(Failed::Init)));
    core.on(Event::Retired { instance: InstanceId(0) }, at(0));
    assert_eq!(core.on(Event::Tick, at(4)), []);
    assert_eq!(core.on(Event::Tick, at(5)), [start(1, &hello, Provisioned)]);
    let failed = core.on(Event::StartFailed { instance: InstanceId(1) }, at(5));
    assert_eq!((failed, ready(&core, &hello)), (vec![], (0, Some(Failed::Start))));
    assert_eq!(core.on(Event::Tick, at(14)), []);
    assert_eq!(core.on(Event::Tick, at(15)), [start(2, &hello, Provisioned)]);
    started(&mut core, 2, at(15));
    assert_eq!(ready(&core, &hello), (1, None));
}

#[test]
fn an_init_that_failed_is_repeated_for_a_caller_and_else_is_worth_nothing() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    assert_eq!(init_failed(&mut core, 0, at(0)), [serve(0, 0)]);
    arrive(&mut core, 1, &hello, at(0));
    core.on(Event::Leave { waiter: WaiterId(1) }, at(0));
    assert_eq!(init_failed(&mut core, 1, at(0)), [retire(1)]);
    done(&mut core, 0, at(1));
    let dead = Event::Measured { instance: InstanceId(0), memory: MB(1), reusable: false };
    assert_eq!(core.on(dead, at(1)), [retire(0)]);
    assert_eq!(arrive(&mut core, 2, &hello, at(2)), [start(2, &hello, Spent)]);
}

#[test]
fn a_start_that_lasts_holds_up_no_other_promise() {
    let mut core = Core::new(Config { max_starting: 1, ..config() });
    let (slow, other) = (named("slow", 1), named("other", 1));
    assert_eq!(promise(&mut core, &slow, 1), [start(0, &slow, Provisioned)]);
    assert_eq!(promise(&mut core, &other, 1), []);
    assert_eq!(core.on(Event::Tick, at(9)), []);
    assert_eq!(core.next_due(), Some(at(10)));
    assert_eq!(core.on(Event::Tick, at(10)), [start(1, &other, Provisioned)]);
    started(&mut core, 0, at(60));
    started(&mut core, 1, at(61));
    assert_eq!((core.readying, core.lasting), (0, 0));
}

#[test]
fn who_comes_gets_a_promised_one_before_one_that_was_used_later() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    assert_eq!(promise(&mut core, &hello, 1), [start(0, &hello, Provisioned)]);
    started(&mut core, 0, at(1));
    assert_eq!(arrive(&mut core, 1, &hello, at(2)), [serve(1, 0)]);
    assert_eq!(arrive(&mut core, 2, &hello, at(2)), [start(1, &hello, AllBusy)]);
    started(&mut core, 1, at(3));
    done(&mut core, 0, at(4));
    done(&mut core, 1, at(5));
    assert_eq!(arrive(&mut core, 3, &hello, at(6)), [serve(3, 0)]);
    assert_eq!(arrive(&mut core, 4, &hello, at(6)), [serve(4, 1)]);
}
