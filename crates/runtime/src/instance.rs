//! One running sandbox of one version of one function.
//!
//! An Instance is made with its init phase done. If that failed, it is repeated inside the first
//! invocation, under the function's own timeout, as Lambda does; the same happens when the process
//! was found dead between two invocations. A restore that failed is not repeated: the first invocation
//! is told. After that, a timeout, a crash or the end of memory an Instance is spent; after an error of
//! the handler's own it goes on.
//!
//! See "Understanding the Lambda execution environment lifecycle",
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use lacewing_model::usage::Ending;
use lacewing_model::{ByteSize, Error, FunctionError, Invocation, Kind, Outcome, Result};

use lacewing_sandbox::{Freezer, Traffic};

use crate::channel::{Answer, Call, Readiness};
use crate::crowd::Crowd;
use crate::failure::Failure;
use crate::log::LogWriter;
use crate::platform_log::{self, Event, Phase, Report, Status};
use crate::process::{End, First, Process, StartError};
use crate::starter::Blueprint;
use crate::stream::Outlet;

/// One running sandbox of one version, or a seat in one; serves one invocation at a time.
#[derive(Debug)]
pub struct Instance {
    blueprint: Arc<Blueprint>,
    log: LogWriter,
    body: Body,
    /// Time of the init phase, until an invocation has told it.
    init: Option<Duration>,
    /// What its start took.
    start: StartTimes,
    /// What it used when it was last measured.
    memory: ByteSize,
    /// Bytes of its present process that a record has told, or is about to.
    told: Traffic,
    /// Bytes that no record has told.
    untold: Traffic,
}

/// What there is to serve an invocation.
#[derive(Debug)]
enum Body {
    /// A process that waits for an invocation.
    Ready(Box<Process>),
    /// One that serves several at a time, each in a seat.
    Crowd(Arc<Crowd>),
    /// A seat there.
    Seat(Arc<Crowd>),
    /// Nothing yet: the next invocation repeats the init phase.
    Cold,
    /// Nothing: the next invocation is told why.
    NotRestored(Failure),
    /// Nothing any more.
    Spent,
}

/// What the start of an Instance took, also if its init phase failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartTimes {
    /// Building the sandbox, until its program starts.
    pub sandbox: Duration,
    /// The init phase.
    pub init: Duration,
}

/// How one invocation went.
#[derive(Debug)]
pub struct Completion {
    /// What the caller gets; what went to an outlet is not in it. An error if the handler was not
    /// called, as the function could not be restored from its snapshot.
    pub outcome: Result<Outcome>,
    /// Bytes that went to an outlet.
    pub streamed: u64,
    /// The same for metering.
    pub ending: Ending,
    /// The last 4 KB of the invocation's log, when they were wanted.
    pub log_tail: Option<Bytes>,
    /// Time in the handler.
    pub duration: Duration,
    /// Billed time, in whole milliseconds.
    pub billed: Duration,
    /// Time of the init phase, when this invocation was the Instance's first.
    pub init: Option<Duration>,
    /// Most memory that the Instance has used so far.
    pub max_memory: ByteSize,
    /// Bytes of the network since the Instance's last completion.
    pub traffic: Traffic,
}

/// What is known at the end of an invocation.
struct Verdict {
    result: Result<Bytes, Failure>,
    peak: ByteSize,
}

// === Instance ===

impl Instance {
    /// Runs the init phase.
    ///
    /// # Errors
    /// Only for a fault of the platform.
    pub(crate) async fn start(blueprint: Blueprint, log: LogWriter) -> Result<Self> {
        let (told, untold) = (Traffic::default(), Traffic::default());
        let mut instance = Self {
            blueprint: Arc::new(blueprint),
            log,
            body: Body::Cold,
            init: None,
            start: StartTimes::default(),
            memory: ByteSize::ZERO,
            told,
            untold,
        };
        let start = instance.blueprint.init_start();
        let is_restored = instance.blueprint.is_restored();
        let begun = if is_restored { Event::RestoreStart(start) } else { Event::InitStart(start) };
        instance.log.platform(&begun);
        let asked = Instant::now();
        let (began, result) = instance.initialise(asked + instance.blueprint.init_limit()).await;
        let took = began.elapsed();
        instance.start = StartTimes { sandbox: began - asked, init: took };
        match result {
            Ok(process) => {
                instance.init = Some(took);
                instance.log_init(took, Phase::Init, Status::Success);
                instance.body = instance.settled(process);
            }
            Err(Failure::Platform(error)) => return Err(error),
            Err(failure) => {
                instance.log_init(took, Phase::Init, failure.status());
                if let Failure::NotRestored(_) = failure {
                    instance.body = Body::NotRestored(failure);
                }
            }
        }
        instance.log.flush();
        Ok(instance)
    }

    /// Serves one invocation; a response that is streamed becomes a whole one.
    pub async fn invoke(&mut self, call: &Invocation) -> Completion {
        self.invoke_to(call, None).await
    }

    /// The same for a caller who wants a response that is streamed as it comes: it goes to the outlet,
    /// if there is one.
    pub async fn invoke_to(&mut self, call: &Invocation, outlet: Option<&Outlet>) -> Completion {
        let began = Instant::now();
        let limit = self.blueprint.timeout();
        let deadline = self.blueprint.now().plus(limit);
        let invocation = Call { invocation: call, deadline, outlet };
        self.log.begin(call.request_id, call.wants_log_tail);
        let verdict = if let Body::Seat(crowd) = &self.body {
            let crowd = Arc::clone(crowd);
            // Boxed, so that all others need no room for it.
            Box::pin(self.serve_beside(&crowd, &invocation, began + limit)).await
        } else {
            match self.ready_process(began + limit).await {
                Ok(process) => self.serve(process, &invocation, began + limit).await,
                Err(failure) => {
                    self.log_start(call);
                    Verdict { result: Err(failure), peak: self.memory }
                }
            }
        };
        let streamed = outlet.map_or(0, Outlet::size);
        self.complete(call, verdict, began.elapsed().min(limit), streamed)
    }

    /// What its start took.
    pub fn start_times(&self) -> StartTimes {
        self.start
    }

    /// A seat in it, if it serves several invocations at a time: it is to be dropped after one.
    pub fn seat(&mut self) -> Option<Self> {
        let Body::Crowd(crowd) = &self.body else { return None };
        Some(Self {
            blueprint: Arc::clone(&self.blueprint),
            log: self.log.another(),
            body: Body::Seat(Arc::clone(crowd)),
            init: self.init.take(),
            start: self.start,
            memory: self.memory,
            told: Traffic::default(),
            untold: Traffic::default(),
        })
    }

    /// Whether it is only a seat.
    pub fn is_seat(&self) -> bool {
        matches!(self.body, Body::Seat(_))
    }

    /// Whether it can serve another invocation, as far as its last one told; asks nobody.
    pub fn is_reusable(&self) -> bool {
        match &self.body {
            Body::Ready(_) => true,
            Body::Crowd(crowd) | Body::Seat(crowd) => crowd.is_usable(),
            Body::Cold | Body::NotRestored(_) | Body::Spent => false,
        }
    }

    /// The most memory it had used at the end of its last invocation; asks nobody.
    pub fn last_memory(&self) -> ByteSize {
        self.memory
    }

    /// Whether its process is there.
    pub fn is_alive(&self) -> bool {
        match &self.body {
            Body::Ready(process) => process.is_alive(),
            Body::Crowd(crowd) | Body::Seat(crowd) => crowd.is_alive(),
            Body::Cold | Body::NotRestored(_) | Body::Spent => false,
        }
    }

    /// Memory it uses now.
    pub fn memory_used(&self) -> ByteSize {
        match &self.body {
            Body::Ready(process) => ByteSize::bytes(process.memory().current),
            Body::Crowd(crowd) | Body::Seat(crowd) => crowd.memory(),
            Body::Cold | Body::NotRestored(_) | Body::Spent => ByteSize::ZERO,
        }
    }

    /// What stops and continues its processes, where that can be done.
    pub fn freezer(&self) -> Option<Freezer> {
        match &self.body {
            Body::Ready(process) => process.freezer(),
            Body::Crowd(crowd) | Body::Seat(crowd) => crowd.freezer(),
            Body::Cold | Body::NotRestored(_) | Body::Spent => None,
        }
    }

    /// Whether something was written since its last invocation.
    pub fn has_unread_output(&self) -> bool {
        matches!(&self.body, Body::Ready(process) if process.has_unread_output())
    }

    /// The generation of the function it runs.
    pub fn generation(&self) -> u64 {
        self.blueprint.function().generation
    }

    /// Ends it. Without extensions Lambda gives a runtime no warning, and neither do we.
    pub async fn retire(mut self) {
        match std::mem::replace(&mut self.body, Body::Spent) {
            Body::Ready(process) => process.kill(&mut self.log).await,
            Body::Crowd(crowd) => crowd.finish().await,
            Body::Seat(_) | Body::Cold | Body::NotRestored(_) | Body::Spent => {}
        }
        self.log.finish();
    }

    /// The process that serves; made now if there is none, or if it died since it last served.
    async fn ready_process(&mut self, deadline: Instant) -> Result<Box<Process>, Failure> {
        match std::mem::replace(&mut self.body, Body::Spent) {
            Body::Ready(process) if process.is_alive() => return Ok(process),
            Body::Ready(process) => {
                self.count(&process, true);
                process.kill(&mut self.log).await;
                self.init = None;
            }
            Body::NotRestored(failure) => return Err(failure),
            Body::Crowd(_) | Body::Seat(_) | Body::Cold | Body::Spent => {}
        }
        let (began, result) = self.initialise(deadline).await;
        let status = result.as_ref().err().map_or(Status::Success, Failure::status);
        self.log_init(began.elapsed(), Phase::Invoke, status);
        result
    }

    /// Makes a process and waits for the end of its init phase; also says when that began.
    async fn initialise(&mut self, deadline: Instant) -> (Instant, Result<Box<Process>, Failure>) {
        let asked = Instant::now();
        if let Err(failure) = self.blueprint.check_entrypoint() {
            return (asked, Err(failure));
        }
        let started = Arc::make_mut(&mut self.blueprint).start_process(deadline).await;
        let mut process = match started {
            Ok(process) => Box::new(process),
            Err(StartError::Deadline) => return (asked, Err(self.not_begun(Failure::Timeout))),
            Err(StartError::Platform(error)) => return (asked, Err(Failure::Platform(error))),
        };
        // To restore is the platform's work, and a part of what is reported.
        let began = if self.blueprint.is_restored() { asked } else { Instant::now() };
        let failure = match process.initialise(deadline, &mut self.log).await {
            First::Came(Readiness::Ready) => return (began, Ok(process)),
            First::Came(Readiness::Failed(error)) => Failure::Reported(error),
            First::Ended(End::NotRun(why)) if self.blueprint.is_restored() => {
                Arc::make_mut(&mut self.blueprint).give_up_snapshot(&why);
                process.kill(&mut self.log).await;
                return Box::pin(self.initialise(deadline)).await;
            }
            First::Ended(end) => Failure::Ended(end),
            First::Deadline => Failure::Timeout,
        };
        self.memory = self.peak(&process, Some(&failure));
        self.count(&process, true);
        process.kill(&mut self.log).await;
        (began, Err(self.not_begun(failure)))
    }

    /// What a failure before the first invocation is.
    fn not_begun(&self, failure: Failure) -> Failure {
        if self.blueprint.is_restored() { Failure::NotRestored(failure.into()) } else { failure }
    }

    /// The most memory that a process used; asked before it is killed.
    fn peak(&self, process: &Process, failure: Option<&Failure>) -> ByteSize {
        let limit = self.blueprint.memory();
        match failure {
            Some(Failure::Ended(End::OutOfMemory)) => limit,
            _ => process.peak(limit),
        }
    }

    /// Notes what a process sent and received; it is the `last` time before the process ends.
    fn count(&mut self, process: &Process, last: bool) {
        let now = process.traffic();
        self.untold.received += now.received.saturating_sub(self.told.received);
        self.untold.sent += now.sent.saturating_sub(self.told.sent);
        self.told = if last { Traffic::default() } else { now };
    }

    /// Runs one invocation in a process; keeps the process if it can serve again.
    async fn serve(
        &mut self,
        mut process: Box<Process>,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Verdict {
        self.log_start(call.invocation);
        let (result, is_spent) = judge(process.run(call, deadline, &mut self.log).await);
        let peak = self.peak(&process, result.as_ref().err());
        self.count(&process, is_spent);
        if is_spent {
            process.kill(&mut self.log).await;
        } else {
            self.body = Body::Ready(process);
        }
        Verdict { result, peak }
    }

    /// Runs one invocation in a process that serves others, too.
    async fn serve_beside(&mut self, crowd: &Crowd, call: &Call<'_>, deadline: Instant) -> Verdict {
        self.log_start(call.invocation);
        let (result, is_spent) = judge(crowd.run(call, deadline).await);
        let limit = self.blueprint.memory();
        let peak = match &result {
            Err(Failure::Ended(End::OutOfMemory)) => limit,
            _ => crowd.peak(limit),
        };
        self.untold = crowd.untold();
        if is_spent {
            crowd.spend();
        }
        Verdict { result, peak }
    }

    /// A process that waits for an invocation, or for several if its function is to have them.
    fn settled(&self, process: Box<Process>) -> Body {
        if self.blueprint.seats() == 1 {
            return Body::Ready(process);
        }
        match Crowd::open(process, self.log.another(), self.blueprint.tasks()) {
            Ok(crowd) => Body::Crowd(Arc::new(crowd)),
            Err(process) => Body::Ready(process),
        }
    }

    /// Writes the closing lines and sums up.
    fn complete(
        &mut self,
        call: &Invocation,
        verdict: Verdict,
        spent: Duration,
        streamed: u64,
    ) -> Completion {
        let Verdict { result, peak } = verdict;
        self.memory = peak;
        let limit = self.blueprint.timeout();
        let init = self.init.take();
        let duration = if matches!(result, Err(Failure::Timeout)) { limit } else { spent };
        let billed = platform_log::billed(duration, init);
        let request_id = call.request_id;
        if let Err(Failure::Timeout) = result {
            self.log.platform(&Event::TimedOut { request_id, timeout: limit });
        }
        let status = match &result {
            // The handler's own errors are no failure of the platform's.
            Ok(_) | Err(Failure::Reported(_)) => Status::Success,
            Err(failure) => failure.status(),
        };
        let produced = streamed + result.as_ref().map_or(0, |payload| payload.len() as u64);
        self.log.platform(&Event::End { request_id, duration, produced, status });
        self.log.platform(&Event::Report(Report {
            request_id,
            duration,
            billed,
            memory_mb: self.blueprint.function().config.memory_mb,
            max_memory_mb: peak.as_mebibytes_rounded_up(),
            init,
            is_restored: self.blueprint.is_restored(),
            status,
        }));
        let (outcome, ending) = match result {
            Ok(payload) => (Ok(Outcome::Returned(payload)), Ending::Returned),
            Err(Failure::NotRestored(why)) => (Err(not_restored(&why)), why.ending()),
            Err(failure) => {
                if let Failure::Platform(error) = &failure {
                    let error = error.chain();
                    tracing::error!(error, "An Instance could not be started.");
                }
                let error = failure.to_error(call.request_id, limit);
                (Ok(Outcome::Failed(error)), failure.ending())
            }
        };
        let log_tail = self.log.finish();
        let traffic = std::mem::take(&mut self.untold);
        Completion {
            outcome,
            streamed,
            ending,
            log_tail,
            duration,
            billed,
            init,
            max_memory: peak,
            traffic,
        }
    }

    fn log_start(&mut self, call: &Invocation) {
        let version = self.blueprint.function().version;
        self.log.platform(&Event::Start { request_id: call.request_id, version });
    }

    fn log_init(&mut self, took: Duration, phase: Phase, status: Status<'_>) {
        if self.blueprint.is_restored() {
            self.log.platform(&Event::RestoreReport { took, status });
            return;
        }
        let initialization = self.blueprint.initialization();
        self.log.platform(&Event::InitDone { initialization, phase, status });
        self.log.platform(&Event::InitReport { initialization, took, phase, status });
    }
}

/// What became of an invocation, and whether its process can serve no other.
fn judge(first: First<Answer>) -> (Result<Bytes, Failure>, bool) {
    match first {
        First::Came(Answer::Returned(payload)) => (Ok(payload), false),
        First::Came(Answer::Streamed) => (Ok(Bytes::new()), false),
        First::Came(Answer::StreamTooLarge) => (Err(Failure::StreamTooLarge), true),
        First::Came(Answer::Failed(error)) => (Err(Failure::Reported(error)), false),
        First::Came(Answer::Truncated) => (Err(Failure::Reported(truncated())), false),
        First::Came(Answer::TooLarge) => (Err(Failure::TooLarge), false),
        First::Came(Answer::Broken) => (Err(Failure::Broken), true),
        First::Ended(end) => (Err(Failure::Ended(end)), true),
        First::Deadline => (Err(Failure::Timeout), true),
    }
}

/// The words are those of Lambda's API reference; the log says more.
fn not_restored(why: &Failure) -> Error {
    match why {
        Failure::Timeout => {
            let message = "Lambda couldn't restore the snapshot within the timeout limit.";
            Error::new(Kind::RestoreTimedOut, message)
        }
        _ => {
            let message = "The afterRestore() runtime hook encountered an error. For more \
                           information, check the Amazon CloudWatch logs.";
            Error::new(Kind::RestoreFailed, message)
        }
    }
}

fn truncated() -> FunctionError {
    let message = "The runtime ended its response early.";
    FunctionError::of_platform("Runtime.TruncatedResponse", message)
}
