//! Tests of `driver`.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::pool::core::Share;
use lacewing_model::usage::Ending;
use lacewing_model::{Kind, Outcome, SystemClock};
use lacewing_runtime::Traffic;

use super::*;
use crate::testing::{call, function, key, with_seats};

/// What all fake Instances of one test share.
#[derive(Debug)]
pub(crate) struct Fakes {
    pub(crate) starts: AtomicU64,
    pub(crate) retired: AtomicU64,
    pub(crate) served: AtomicU64,
    /// Invocations that are inside a handler.
    inside: AtomicUsize,
    pub(crate) start_fails: AtomicBool,
    /// A start takes a permit and gives it back.
    pub(crate) gate: Semaphore,
    /// Invocations whose payload is `"wait"` take a permit for good.
    pub(crate) finish: Semaphore,
    pub(crate) all_dead: AtomicBool,
    /// Each Instance serves several callers at a time.
    has_seats: AtomicBool,
}

impl Default for Fakes {
    fn default() -> Self {
        Self {
            starts: AtomicU64::default(),
            retired: AtomicU64::default(),
            served: AtomicU64::default(),
            inside: AtomicUsize::default(),
            start_fails: AtomicBool::default(),
            gate: Semaphore::new(1_000),
            finish: Semaphore::new(0),
            all_dead: AtomicBool::default(),
            has_seats: AtomicBool::default(),
        }
    }
}

/// Streams one piece, and for each permit one more; a permit after the third ends it.
async fn stream(outlet: &Outlet, finish: &Semaphore) {
    outlet.begin("text/plain");
    for text in ["one", "two", "three"] {
        outlet.send(Bytes::from_static(text.as_bytes())).await;
        finish.acquire().await.expect("open").forget();
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FakeSource(pub(crate) Arc<Fakes>);

/// Answers with its own number and how often it has served; what it does else, the payload says.
#[derive(Debug)]
pub(crate) struct FakeInstance {
    fakes: Arc<Fakes>,
    number: u64,
    served: u64,
    is_dead: bool,
    is_seat: bool,
}

impl Source for FakeSource {
    type Instance = FakeInstance;

    async fn start(&self, _function: Arc<Function>, _reason: ColdStart) -> Result<FakeInstance> {
        drop(self.0.gate.acquire().await.expect("open"));
        if self.0.start_fails.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Internal, "No sandbox."));
        }
        let number = self.0.starts.fetch_add(1, Ordering::SeqCst);
        Ok(FakeInstance {
            fakes: self.0.clone(),
            number,
            served: 0,
            is_dead: false,
            is_seat: false,
        })
    }
}

impl Serve for FakeInstance {
    fn seat(&mut self) -> Option<Self> {
        let has_seats = self.fakes.has_seats.load(Ordering::SeqCst);
        let (fakes, number) = (self.fakes.clone(), self.number);
        has_seats.then_some(Self { fakes, number, served: 0, is_dead: false, is_seat: true })
    }

    fn is_seat(&self) -> bool {
        self.is_seat
    }

    fn freezer(&self) -> Option<Freezer> {
        None
    }

    fn has_unread_output(&self) -> bool {
        false
    }

    async fn invoke(&mut self, call: &Invocation, outlet: Option<&Outlet>) -> Completion {
        let mut ending = Ending::Returned;
        self.fakes.inside.fetch_add(1, Ordering::SeqCst);
        match &call.payload[..] {
            b"\"wait\"" => self.fakes.finish.acquire().await.expect("open").forget(),
            b"\"stream\"" => stream(outlet.expect("an outlet"), &self.fakes.finish).await,
            b"\"nap\"" => tokio::time::sleep(Duration::from_millis(1)).await,
            b"\"die\"" => self.is_dead = true,
            b"\"fault\"" => ending = Ending::PlatformFault,
            b"\"panic\"" => panic!("as the test wants"),
            _ => tokio::task::yield_now().await,
        }
        self.fakes.inside.fetch_sub(1, Ordering::SeqCst);
        self.fakes.served.fetch_add(1, Ordering::SeqCst);
        self.served += 1;
        let answer = format!("[{},{}]", self.number, self.served);
        Completion {
            outcome: Ok(Outcome::Returned(Bytes::from(answer))),
            streamed: outlet.map_or(0, Outlet::size),
            ending,
            log_tail: None,
            duration: Duration::from_micros(900),
            billed: Duration::from_millis(1),
            init: (self.served == 1).then_some(Duration::from_millis(5)),
            max_memory: ByteSize::mebibytes(20),
            traffic: Traffic { received: 6, sent: 7 },
        }
    }

    fn start_times(&self) -> StartTimes {
        StartTimes::default()
    }

    fn is_reusable(&self) -> bool {
        !self.is_dead && !self.fakes.all_dead.load(Ordering::SeqCst)
    }

    fn last_memory(&self) -> ByteSize {
        ByteSize::mebibytes(20)
    }

    fn is_alive(&self) -> bool {
        self.is_reusable()
    }

    fn memory_used(&self) -> ByteSize {
        self.last_memory()
    }

    async fn retire(self) {
        self.fakes.retired.fetch_add(1, Ordering::SeqCst);
    }
}

fn config() -> Config {
    Config {
        memory: ByteSize::mebibytes(4_000),
        start_reserve: ByteSize::mebibytes(64),
        max_instances: 8,
        function_share: Share { instances: 8, memory: ByteSize::mebibytes(1 << 20) },
        account_share: Share { instances: 8, memory: ByteSize::mebibytes(1 << 20) },
        max_starting: 4,
        start_rate: 1_000,
        start_burst: 1_000,
        max_known: 100,
        freeze_after: None,
        max_waiting: 1_000,
        account_concurrency: 100,
        keep_alive: Duration::from_secs(60),
        max_age: Duration::from_secs(3_600),
        patience: Duration::from_secs(30),
        fair_wait: Duration::from_secs(1),
    }
}

fn pool_of(config: Config) -> (Pool<FakeSource>, Arc<Fakes>, Arc<Function>) {
    let fakes = Arc::new(Fakes::default());
    let pool = Pool::new(config, FakeSource(fakes.clone()), Arc::new(SystemClock));
    (pool, fakes, Arc::new(function(key("000000000000", "hello"), 1)))
}

fn pool() -> (Pool<FakeSource>, Arc<Fakes>, Arc<Function>) {
    pool_of(config())
}

async fn invoke(
    pool: &Pool<FakeSource>,
    function: &Arc<Function>,
    payload: &str,
) -> Result<String> {
    let mut lease = pool.acquire(function).await?;
    let call = call(function.key.clone(), payload);
    let work = async move { lease.invoke(&call, None).await };
    match pool.run_on(work).await.outcome {
        Ok(Outcome::Returned(answer)) => Ok(String::from_utf8(answer.to_vec()).expect("text")),
        failed => panic!("{failed:?}"),
    }
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it comes about");
}

#[tokio::test]
async fn a_warm_instance_is_used_again() {
    let (pool, fakes, hello) = pool();
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[0,1]");
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[0,2]");
    assert_eq!(fakes.starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_handler_runs_to_its_end_when_its_caller_goes_away() {
    let (pool, fakes, hello) = pool();
    let gone = tokio::time::timeout(Duration::from_millis(30), invoke(&pool, &hello, "\"wait\""));
    assert!(gone.await.is_err());
    assert_eq!(pool.counts().busy, 1);
    fakes.finish.add_permits(1);
    until(|| pool.counts().idle == 1).await;
    assert_eq!(fakes.served.load(Ordering::SeqCst), 1);
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[0,2]");
}

/// A pool whose Instances serve three callers at a time.
fn pool_with_seats() -> (Pool<FakeSource>, Arc<Fakes>, Arc<Function>) {
    let (pool, fakes, hello) = pool();
    fakes.has_seats.store(true, Ordering::SeqCst);
    (pool, fakes, Arc::new(with_seats(Function::clone(&hello), 3)))
}

#[tokio::test]
async fn several_callers_share_an_instance_until_it_is_full() {
    let (pool, fakes, hello) = pool_with_seats();
    let three = (0..3).map(|_| invoke(&pool, &hello, "\"wait\""));
    let mut three = std::pin::pin!(futures_util::future::join_all(three));
    let full = until(|| pool.counts().served == 3);
    tokio::select! {
        () = full => {}
        _ = &mut three => panic!("they wait"),
    }
    assert_eq!((pool.counts().busy, fakes.starts.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[1,1]", "by another");
    fakes.finish.add_permits(3);
    for answer in three.await {
        assert_eq!(answer.expect("served"), "[0,1]");
    }
    let counts = pool.counts();
    assert_eq!((counts.busy, counts.served, counts.idle), (0, 0, 2));
    assert_eq!(pool.drain(Duration::from_secs(10)).await, 0);
    assert_eq!(fakes.retired.load(Ordering::SeqCst), 2, "Instances end, seats do not");
}

#[tokio::test]
async fn a_seat_given_up_in_the_middle_ends_its_instance_after_the_others() {
    let (pool, fakes, hello) = pool_with_seats();
    let mut given_up = pool.acquire(&hello).await.expect("served");
    let other = pool.acquire(&hello).await.expect("served");
    let call = call(hello.key.clone(), "\"wait\"");
    let cut = tokio::time::timeout(Duration::from_millis(30), given_up.invoke(&call, None));
    assert!(cut.await.is_err());
    drop(given_up);
    assert_eq!((pool.counts().busy, fakes.retired.load(Ordering::SeqCst)), (1, 0));
    drop(other);
    until(|| fakes.retired.load(Ordering::SeqCst) == 1).await;
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[1,1]");
}

#[tokio::test]
async fn an_instance_given_up_in_the_middle_is_ended() {
    let (pool, fakes, hello) = pool();
    let mut lease = pool.acquire(&hello).await.expect("served");
    let call = call(hello.key.clone(), "\"wait\"");
    let given_up = tokio::time::timeout(Duration::from_millis(10), lease.invoke(&call, None));
    assert!(given_up.await.is_err());
    drop(lease);
    until(|| pool.counts() == Counts::default()).await;
    assert_eq!(fakes.retired.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_handler_that_panics_takes_its_instance_with_it() {
    let (pool, fakes, hello) = pool_of(Config { account_concurrency: 1, ..config() });
    let tasks = TaskTracker::new();
    let (their_pool, their_function) = (pool.clone(), hello.clone());
    let task = tasks.spawn(async move { invoke(&their_pool, &their_function, "\"panic\"").await });
    assert!(task.await.expect_err("panicked").is_panic());
    until(|| fakes.retired.load(Ordering::SeqCst) == 1).await;
    assert_eq!(invoke(&pool, &hello, "1").await.expect("the permit is back"), "[1,1]");
}

#[tokio::test]
async fn a_waiter_that_goes_away_gives_its_permit_back() {
    let (pool, fakes, hello) = pool_of(Config { account_concurrency: 1, ..config() });
    let held = fakes.gate.acquire_many(1_000).await.expect("open");
    let gone = tokio::time::timeout(Duration::from_millis(10), pool.acquire(&hello));
    assert!(gone.await.is_err());
    assert_eq!(pool.counts().waiting, 0);
    drop(held);
    until(|| pool.counts().idle == 1).await;
    assert_eq!(invoke(&pool, &hello, "1").await.expect("the permit is back"), "[0,1]");
}

#[tokio::test]
async fn an_instance_that_reaches_a_waiter_too_late_is_idle_again() {
    let (pool, _, hello) = pool();
    {
        let mut acquiring = std::pin::pin!(pool.acquire(&hello));
        assert!(futures_util::poll!(&mut acquiring).is_pending());
        until(|| pool.counts().busy == 1).await;
        // It was granted, and is dropped here without having been polled again.
    }
    assert_eq!((pool.counts().busy, pool.counts().idle), (0, 1));
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[0,1]");
}

#[tokio::test]
async fn an_instance_that_died_idle_is_replaced_before_anybody_notices() {
    let (pool, fakes, hello) = pool();
    invoke(&pool, &hello, "1").await.expect("served");
    fakes.all_dead.store(true, Ordering::SeqCst);
    let held = fakes.gate.acquire_many(1_000).await.expect("open");
    let mut acquiring = std::pin::pin!(pool.acquire(&hello));
    assert!(futures_util::poll!(&mut acquiring).is_pending());
    fakes.all_dead.store(false, Ordering::SeqCst);
    drop(held);
    drop(acquiring.await.expect("served"));
    assert_eq!(fakes.retired.load(Ordering::SeqCst), 1);
    assert_eq!(fakes.starts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_instance_that_is_not_reusable_is_ended_after_its_invocation() {
    let (pool, fakes, hello) = pool();
    assert_eq!(invoke(&pool, &hello, "\"die\"").await.expect("served"), "[0,1]");
    assert_eq!(invoke(&pool, &hello, "1").await.expect("served"), "[1,1]");
    until(|| fakes.retired.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_start_that_fails_is_told_to_who_waited() {
    let (pool, fakes, hello) = pool();
    fakes.start_fails.store(true, Ordering::SeqCst);
    let error = invoke(&pool, &hello, "1").await.expect_err("refused");
    assert_eq!((error.kind(), error.public()), (Kind::Internal, "No sandbox."));
    assert_eq!(pool.counts(), Counts::default());
}

#[tokio::test]
async fn a_tick_ends_idle_instances_that_are_dead() {
    let (pool, fakes, hello) = pool();
    invoke(&pool, &hello, "1").await.expect("served");
    pool.tick();
    assert_eq!(pool.counts().idle, 1);
    fakes.all_dead.store(true, Ordering::SeqCst);
    pool.tick();
    until(|| pool.counts() == Counts::default()).await;
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight_and_counts_what_is_not_over() {
    let (pool, fakes, hello) = pool();
    let mut lease = pool.acquire(&hello).await.expect("served");
    assert_eq!(pool.drain(Duration::from_millis(30)).await, 1);
    let error = invoke(&pool, &hello, "1").await.expect_err("stopping");
    assert_eq!(error.kind(), Kind::Unavailable);
    lease.invoke(&call(hello.key.clone(), "1"), None).await;
    drop(lease);
    assert_eq!(pool.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(fakes.retired.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_callers_that_come_and_go_leaves_nothing_behind() {
    let (pool, fakes, _) = pool();
    let tasks = TaskTracker::new();
    for number in 0..3_000_u64 {
        let pool = pool.clone();
        let name = format!("f{}", number % 3);
        let hello = Arc::new(function(key("000000000000", &name), 1 + number / 1_000));
        let payload = ["1", "\"nap\"", "\"die\"", "1"][usize::try_from(number % 4).expect("small")];
        let patience = Duration::from_micros(number * 7 % 3_000);
        tasks.spawn(async move {
            drop(tokio::time::timeout(patience, invoke(&pool, &hello, payload)).await);
        });
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    tasks.close();
    tasks.wait().await;
    assert_eq!(pool.drain(Duration::from_secs(10)).await, 0);
    assert_eq!(pool.counts(), Counts::default());
    assert_eq!(fakes.inside.load(Ordering::SeqCst), 0, "every handler that began has ended");
    assert_eq!(fakes.starts.load(Ordering::SeqCst), fakes.retired.load(Ordering::SeqCst));
    assert!(fakes.served.load(Ordering::SeqCst) > 100, "the storm reached the handlers");
}
