//! Tests of `core`.

use std::time::Duration;

use super::*;
use crate::testing::{function, key};
use ColdStart::{Aged, AllBusy, Changed, First};

mod any_order;
mod promises;
mod reasons;
mod seats;

const MB: fn(u32) -> ByteSize = ByteSize::mebibytes;

const ALL: Share = Share { instances: 100, memory: ByteSize::mebibytes(100_000) };

fn config() -> Config {
    Config {
        memory: MB(400),
        start_reserve: MB(64),
        max_instances: 5,
        function_share: ALL,
        account_share: ALL,
        max_starting: 2,
        start_rate: 1_000,
        start_burst: 1_000,
        max_waiting: 12,
        account_concurrency: 6,
        max_known: 3,
        freeze_after: None,
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
    let (instance, waiter) = (InstanceId(instance), served_by(core, instance));
    core.on(Event::Done { instance, waiter, memory: MB(64), reusable: true }, now)
}

/// The caller whom an Instance with one seat serves.
fn served_by(core: &Core, instance: u64) -> WaiterId {
    match core.instances[&InstanceId(instance)].phase {
        Phase::Busy { waiter, .. } => waiter.id,
        other => panic!("it serves nobody: {other:?}"),
    }
}

fn serve(waiter: u64, instance: u64) -> Command {
    Command::Serve { waiter: WaiterId(waiter), instance: InstanceId(instance) }
}

fn retire(instance: u64) -> Command {
    Command::Retire { instance: InstanceId(instance) }
}

fn refuse(waiter: u64, reason: Refusal) -> Command {
    Command::Refuse { waiter: WaiterId(waiter), reason, retry_after: Duration::from_secs(1) }
}

fn start(instance: u64, function: &Arc<Function>, reason: ColdStart) -> Command {
    Command::Start { instance: InstanceId(instance), function: function.clone(), reason }
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
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello, First)]);
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
    assert_eq!(arrive(&mut core, 2, &stranger, at(0)), [start(1, &stranger, First)]);
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
    assert_eq!(arrive(&mut core, 3, &newer, at(3)), [retire(0), start(2, &newer, Changed)]);
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
    assert_eq!(commands, [retire(0), retire(1), start(2, &anew, Changed)]);
}

#[test]
fn a_start_that_is_out_of_date_is_repeated_for_its_waiter() {
    let mut core = Core::new(config());
    let (hello, newer) = (named("hello", 1), named("hello", 2));
    arrive(&mut core, 0, &hello, at(0));
    assert_eq!(core.on(Event::Changed { function: newer.clone() }, at(0)), []);
    assert_eq!(started(&mut core, 0, at(0)), [retire(0), start(1, &newer, Changed)]);
    assert_eq!(started(&mut core, 1, at(0)), [serve(0, 1)]);
}

#[test]
fn a_deleted_functions_callers_are_refused_and_its_instances_end() {
    let (mut core, hello) = with_two_idle();
    arrive(&mut core, 2, &hello, at(3));
    let deleted = Event::Deleted { function: hello.version_key() };
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
    assert_eq!(core.on(gone, at(3)), [start(2, &other, First)]);
}

#[test]
fn admission_counts_what_is_measured_not_what_is_configured() {
    let mut core = Core::new(Config { memory: MB(300), max_starting: 5, ..config() });
    let hello = named("hello", 1);
    for waiter in 0..4 {
        let (instance, why) = (waiter, if waiter == 0 { First } else { AllBusy });
        assert_eq!(arrive(&mut core, waiter, &hello, at(0)), [start(instance, &hello, why)]);
        core.on(Event::Started { instance: InstanceId(instance), memory: MB(30) }, at(0));
    }
    assert_eq!(core.used, MB(120), "four limits of 128 MB would not fit into 300 MB");
}

#[test]
fn one_instance_may_be_larger_than_the_bound() {
    let mut core = Core::new(Config { memory: MB(10), ..config() });
    let hello = named("hello", 1);
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello, First)]);
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
    assert_eq!(arrive(&mut core, 5, &hello, at(301)), [retire(1), start(2, &hello, Aged)]);
}

#[test]
fn a_failed_start_refuses_one_caller_and_tries_again_for_the_next() {
    let mut core = Core::new(Config { max_starting: 1, ..config() });
    let hello = named("hello", 1);
    arrive(&mut core, 0, &hello, at(0));
    arrive(&mut core, 1, &hello, at(0));
    let failed = core.on(Event::StartFailed { instance: InstanceId(0) }, at(0));
    assert_eq!(failed, [refuse(0, Refusal::StartFailed), start(1, &hello, First)]);
}

#[test]
fn a_caller_whose_instance_is_dead_gets_another_and_keeps_its_turn() {
    let (mut core, hello) = with_two_idle();
    arrive(&mut core, 2, &hello, at(3));
    let dead = Event::Dead { instance: InstanceId(1), waiter: WaiterId(2) };
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
    assert_eq!(core.on(gone, at(2)), [start(1, &other, First)]);
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

#[test]
fn a_function_with_all_of_its_share_waits_for_its_own_and_holds_up_nobody() {
    let function_share = Share { instances: 1, ..ALL };
    let mut core = Core::new(Config { function_share, ..config() });
    let (greedy, other) = (named("greedy", 1), named("other", 1));
    assert_eq!(arrive(&mut core, 0, &greedy, at(0)), [start(0, &greedy, First)]);
    started(&mut core, 0, at(0));
    assert_eq!(arrive(&mut core, 1, &greedy, at(0)), []);
    assert_eq!(arrive(&mut core, 2, &other, at(0)), [start(1, &other, First)]);
    assert_eq!(started(&mut core, 1, at(0)), [serve(2, 1)]);
    assert_eq!(done(&mut core, 1, at(9)), [], "nothing that ends would help");
    // The one before ran 9 seconds, and two are counted in the account.
    let (waiter, retry_after) = (WaiterId(1), Duration::from_secs(5));
    let refused = Command::Refuse { waiter, reason: Refusal::FunctionShare, retry_after };
    assert_eq!(core.on(Event::Tick, at(30)), [refused]);
    arrive(&mut core, 3, &greedy, at(31));
    assert_eq!(done(&mut core, 0, at(31)), [serve(3, 0)]);
}

#[test]
fn a_function_gets_as_many_as_its_memory_allows_and_always_one() {
    let function_share = Share { memory: MB(150), ..ALL };
    let mut core = Core::new(Config { function_share, ..config() });
    let hello = named("hello", 1);
    assert_eq!(arrive(&mut core, 0, &hello, at(0)), [start(0, &hello, First)]);
    core.on(Event::Started { instance: InstanceId(0), memory: MB(160) }, at(0));
    assert_eq!(arrive(&mut core, 1, &hello, at(0)), []);
    let (instance, waiter) = (InstanceId(0), WaiterId(0));
    let freed = Event::Done { instance, waiter, memory: MB(70), reusable: true };
    assert_eq!(core.on(freed, at(1)), [serve(1, 0)]);
    assert_eq!(arrive(&mut core, 2, &hello, at(1)), [start(1, &hello, AllBusy)], "70 and 70 fit");
}

#[test]
fn an_account_makes_room_among_its_own_and_leaves_others_alone() {
    let account_share = Share { instances: 2, ..ALL };
    let (mut core, hello) = with_two_idle();
    core.config.account_share = account_share;
    let stranger = Arc::new(function(key("111111111111", "hello"), 1));
    assert_eq!(arrive(&mut core, 2, &stranger, at(0)), [start(2, &stranger, First)]);
    started(&mut core, 2, at(0));
    done(&mut core, 2, at(0));
    let other = named("other", 1);
    assert_eq!(arrive(&mut core, 3, &other, at(3)), [retire(0)], "not the stranger's, idle longer");
    let gone = Event::Retired { instance: InstanceId(0) };
    assert_eq!(core.on(gone, at(3)), [start(3, &other, First)]);
    assert_eq!(arrive(&mut core, 4, &hello, at(3)), [serve(4, 1)]);
    assert_eq!(started(&mut core, 3, at(3)), [serve(3, 3)]);
    let third = named("third", 1);
    assert_eq!(arrive(&mut core, 5, &third, at(3)), []);
    assert_eq!(arrive(&mut core, 6, &stranger, at(3)), [serve(6, 2)]);
    assert_eq!(done(&mut core, 2, at(20)), [], "another account's would not help");
    assert_eq!(core.on(Event::Tick, at(33)), [refuse(5, Refusal::AccountShare)]);
}

#[test]
fn a_function_yields_to_another_of_its_account_that_has_all_of_its_share() {
    let account_share = Share { instances: 1, ..ALL };
    let mut core = Core::new(Config { account_share, ..config() });
    let (greedy, other) = (named("greedy", 1), named("other", 1));
    arrive(&mut core, 0, &greedy, at(0));
    started(&mut core, 0, at(0));
    arrive(&mut core, 1, &other, at(0));
    arrive(&mut core, 2, &greedy, at(0));
    assert_eq!(done(&mut core, 0, at(2)), [retire(0)]);
    let gone = Event::Retired { instance: InstanceId(0) };
    assert_eq!(core.on(gone, at(2)), [start(1, &other, First)]);
}

#[test]
fn waiting_for_busy_instances_ends_when_it_has_cost_as_much_as_a_start() {
    let mut core = Core::new(config());
    let hello = named("hello", 1);
    let ms = |millis: u64| at(0).plus(Duration::from_millis(millis));
    assert_eq!(arrive(&mut core, 0, &hello, ms(0)), [start(0, &hello, First)]);
    assert_eq!(started(&mut core, 0, ms(100)), [serve(0, 0)]);
    done(&mut core, 0, ms(101));
    // Two callers at a time, one of which waits for a millisecond.
    let starts_one = |round: &u64| {
        let (now, first, second) = (200 + 2 * round, 2 * round + 1, 2 * round + 2);
        assert_eq!(arrive(&mut core, first, &hello, ms(now)), [serve(first, 0)]);
        let begun = arrive(&mut core, second, &hello, ms(now)) == [start(1, &hello, AllBusy)];
        assert_eq!(done(&mut core, 0, ms(now + 1)), [serve(second, 0)]);
        assert_eq!(done(&mut core, 0, ms(now + 2)), []);
        begun
    };
    assert_eq!((0..200).find(starts_one), Some(100), "a start takes 100 ms");
}
