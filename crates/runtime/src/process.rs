//! One sandbox with something running in it, from its start to its end.
//!
//! Everything that may happen to it is awaited in one place, [`Process::run`]: its answer, its
//! output, its end and the deadline. Dropping a `Process` kills the sandbox.

use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use lacewing_model::{ByteSize, Credentials};
use lacewing_sandbox::{
    CpuQuota, Event, Freezer, Furnishing, Launcher, MemoryUse, Sandbox, Spec, Stance, Traffic,
};

use crate::channel::{Answer, Call, Channel, Custom, Readiness, Stock};
use crate::endpoint::EndpointListener;
use crate::environment::RUNTIME_API_PORT;
use crate::log::LogWriter;
use crate::output::Output;
use crate::runtime_api::SnapStart;
use crate::snapshots::{Lack, Snapshot};

/// Descriptor of the framed log records inside.
pub(crate) const TELEMETRY_FD: i32 = 4;
/// Descriptor of the frames to and from our bootstraps inside.
const FRAMES_FD: i32 = 3;
/// Time for whoever serves the platform's API to take a listener.
const ENDPOINT_PATIENCE: Duration = Duration::from_secs(5);
/// What is printed during an invocation is handed over after this time, if that is not over before.
const LOG_DELAY: Duration = Duration::from_secs(1);
/// Time for the end of a process to be heard of when its connection has ended: a busy machine needs it.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(1);
/// How often who has no deadline looks whether it is time.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for a killed sandbox to be gone.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

/// A sandbox with something running in it.
#[derive(Debug)]
pub(crate) struct Process {
    sandbox: Arc<AsyncFd<Sandbox>>,
    channel: Channel,
    output: Output,
    /// Rings at the deadline. One for all invocations: to put off an alarm that is set costs nothing,
    /// but to set one that is the next to ring wakes the event loop.
    alarm: Pin<Box<Sleep>>,
    /// The hard bound on processor time once the init phase is over.
    quota: Option<CpuQuota>,
    closed: DropGuard,
    /// Its sandbox ends with that of the snapshot.
    snapshot: Option<Snapshot>,
}

/// What starting needs beside the [`Spec`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) endpoints: &'a mpsc::Sender<EndpointListener>,
    pub(crate) tasks: &'a TaskTracker,
    /// Whether one of our bootstraps runs that speaks in frames.
    pub(crate) is_framed: bool,
    /// How many invocations a runtime that speaks the Runtime API serves at a time.
    pub(crate) seats: usize,
    /// From what it is restored, instead of being run.
    pub(crate) snapshot: Option<&'a Sandbox>,
    /// The terms of somebody else's runtime with SnapStart.
    pub(crate) snap_start: Option<&'a SnapStart>,
}

/// What came first.
#[derive(Debug)]
pub(crate) enum First<T> {
    /// What was waited for.
    Came(T),
    /// The end of the process.
    Ended(End),
    /// The deadline.
    Deadline,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// The kernel killed it for lack of memory.
    OutOfMemory,
    /// Its program could not be run.
    NotRun(String),
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The sandbox could not be built, or was not ready in time.
    Platform(lacewing_model::Error),
    /// The deadline passed.
    Deadline,
}

// === Process ===

impl Process {
    /// Builds the sandbox, waits until its program starts.
    pub(crate) async fn start(
        mut spec: Spec,
        means: Means<'_>,
        deadline: Instant,
    ) -> Result<Self, StartError> {
        let (output, writers) = Output::open().map_err(|error| fault("open pipes", error))?;
        let errors = writers.text.try_clone().map_err(|error| fault("open pipes", error))?;
        let mut fds = vec![(writers.text, 1), (errors, 2), (writers.records, TELEMETRY_FD)];
        let ours = if means.is_framed { Some(frames(&mut fds)?) } else { None };
        // The init phase has the whole processor, as on Lambda.
        let quota = spec.limits.cpu_quota.take();
        let asked = match means.snapshot {
            Some(snapshot) => means.launcher.restore(snapshot, &spec, fds),
            None => means.launcher.spawn(&spec, fds),
        };
        let sandbox = asked.map_err(|error| fault("ask for a sandbox", error))?;
        let sandbox = watch(sandbox).map_err(|error| fault("watch a sandbox", error))?;
        let sandbox = Arc::new(sandbox);
        let token = CancellationToken::new();
        let closed = token.clone().drop_guard();
        let listeners = tokio::select! {
            listeners = ready(&sandbox) => listeners?,
            () = sleep_until(deadline) => return Err(StartError::Deadline),
        };
        let mut listeners = listeners.into_iter();
        if let Some(listener) = listeners.next() {
            let handed = means.endpoints.send(EndpointListener { listener, closed: token.clone() });
            if !matches!(timeout(ENDPOINT_PATIENCE, handed).await, Ok(Ok(()))) {
                tracing::warn!("Nobody serves the platform's API to a new sandbox.");
            }
        }
        let channel = match (ours, listeners.next()) {
            (Some(stream), _) => Stock::open(stream).map(|stock| Channel::Stock(Box::new(stock))),
            (None, Some(listener)) => {
                let snap_start = means.snap_start.cloned();
                Custom::open(listener, means.seats, snap_start, means.tasks, token)
                    .map(Channel::Custom)
            }
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        };
        let channel = channel.map_err(|error| fault("open a channel", error))?;
        let alarm = Box::pin(sleep_until(deadline));
        Ok(Self { sandbox, channel, output, alarm, quota, closed, snapshot: None })
    }

    /// Waits until a blank runtime has loaded what it can; says whether it has.
    pub(crate) async fn warmed(&mut self, deadline: Instant) -> bool {
        let readiness = tokio::time::timeout_at(deadline, self.channel.readiness()).await;
        matches!(readiness, Ok(Readiness::Ready)) && self.is_alive()
    }

    /// Makes a blank one that of a function, whose init phase it begins.
    pub(crate) async fn furnish(
        &mut self,
        mut furnishing: Furnishing,
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Result<(), StartError> {
        self.quota = furnishing.limits.cpu_quota.take();
        let asked = self.sandbox.get_ref().furnish(furnishing);
        asked.map_err(|error| fault("ask for a furnishing", error))?;
        let event = tokio::time::timeout_at(deadline, next_event(&self.sandbox)).await;
        match event {
            Ok(Event::Furnished) => {
                self.channel.r#become(environment).await;
                Ok(())
            }
            Ok(Event::Failed { message }) => Err(fault("furnish a sandbox", message)),
            Ok(other) => Err(fault("furnish a sandbox", format!("it ended before: {other:?}"))),
            Err(_) => Err(StartError::Deadline),
        }
    }

    /// Tells a restored one what has changed, and that it is one.
    pub(crate) async fn restored(&mut self, environment: &[(String, String)], snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
        self.channel.restore(environment).await;
    }

    /// Tells one that was forked from an origin that it was, and whose it is if that is known.
    pub(crate) async fn wake(&mut self, environment: &[(String, String)]) {
        self.channel.restore(environment).await;
    }

    /// Has an initialised one held, for good; otherwise tells why it is not. Nothing that it has asked for may
    /// be answered meanwhile: the answer would be nobody's.
    pub(crate) async fn hold(&self, stance: Stance, deadline: Instant) -> Result<(), Lack> {
        let calls = || self.channel.custom().map(Custom::counts).unwrap_or_default();
        let before = calls();
        hold(self.sandbox.get_ref(), stance, deadline).await?;
        if before.are_at_rest() && calls() == before {
            return Ok(());
        }
        Err(Lack::Failed("a call of its runtime was under way".to_owned()))
    }

    /// The terms of a copy of it, if it is somebody else's runtime with SnapStart.
    pub(crate) fn of_copy(&self, credentials: &Credentials) -> Option<SnapStart> {
        self.channel.custom()?.of_copy(credentials.clone())
    }

    /// What is restored from it, if it is held.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.sandbox.get_ref()
    }

    /// Waits for the end of the init phase.
    pub(crate) async fn initialise(
        &mut self,
        deadline: Instant,
        log: &mut LogWriter,
    ) -> First<Readiness> {
        let Self { sandbox, channel, output, alarm, .. } = self;
        alarm.as_mut().reset(deadline);
        let first = run(sandbox, channel.readiness(), output, alarm.as_mut(), log).await;
        if let (First::Came(Readiness::Ready), Some(quota)) = (&first, self.quota)
            && let Err(error) = self.sandbox.get_ref().limit_cpu(Some(quota))
        {
            tracing::error!(%error, "The quota of a sandbox could not be set.");
        }
        first
    }

    /// Hands an invocation over and waits for what comes of it.
    pub(crate) async fn run(
        &mut self,
        call: &Call<'_>,
        deadline: Instant,
        log: &mut LogWriter,
    ) -> First<Answer> {
        let Self { sandbox, channel, output, alarm, .. } = self;
        alarm.as_mut().reset(deadline);
        channel.begin(call);
        let first = run(sandbox, channel.answer(call), output, alarm.as_mut(), log).await;
        // An answer ends early, too, when its process does: then that is what happened.
        if matches!(first, First::Came(Answer::Truncated))
            && let Ok(end) = timeout(LAST_WORD, end(sandbox)).await
        {
            output.drain(log);
            return First::Ended(end);
        }
        first
    }

    /// Logs what is printed until the process ends.
    pub(crate) async fn attend(&mut self, log: &mut LogWriter) -> End {
        let Self { sandbox, output, alarm, .. } = self;
        loop {
            alarm.as_mut().reset(Instant::now() + LONG);
            let first: First<()> = run(sandbox, pending(), output, alarm.as_mut(), log).await;
            if let First::Ended(end) = first {
                return end;
            }
        }
    }

    /// What is shared with those who wait for answers: its sandbox, and the way to its runtime if that
    /// is somebody else's.
    pub(crate) fn shared(&self) -> Option<(Arc<AsyncFd<Sandbox>>, Custom)> {
        Some((Arc::clone(&self.sandbox), self.channel.custom()?.clone()))
    }

    /// Whether nothing has been heard of its end.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.sandbox.get_ref().try_event(), Ok(None))
    }

    /// What stops and continues its processes.
    pub(crate) fn freezer(&self) -> Option<Freezer> {
        self.sandbox.get_ref().freezer()
    }

    /// Whether something was written that nobody has read.
    pub(crate) fn has_unread_output(&self) -> bool {
        self.output.has_unread()
    }

    /// What its memory gauges say.
    pub(crate) fn memory(&self) -> MemoryUse {
        self.sandbox.get_ref().memory().unwrap_or_default()
    }

    /// The most memory it has used, as a part of what it may use.
    pub(crate) fn peak(&self, limit: ByteSize) -> ByteSize {
        let sandbox = self.sandbox.get_ref();
        let peak = sandbox.memory_peak().or_else(|error| {
            // Its cgroup went with its end, of which nobody has heard yet, and which says the same.
            let last = std::iter::from_fn(|| sandbox.try_event().ok().flatten());
            let ended =
                |event: Event| matches!(event, Event::Exited { .. } | Event::Signaled { .. });
            if last.take(2).any(ended) { sandbox.memory_peak() } else { Err(error) }
        });
        ByteSize::bytes(peak.unwrap_or_default()).min(limit)
    }

    /// Bytes that went in and out of it so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.sandbox.get_ref().traffic().unwrap_or_default()
    }

    /// Kills it, logs the last of its output, and waits until nothing is left of it.
    pub(crate) async fn kill(mut self, log: &mut LogWriter) {
        self.sandbox.get_ref().kill();
        drop(self.closed);
        let gone = async { while !matches!(next_event(&self.sandbox).await, Event::Gone) {} };
        if timeout(DEATH_PATIENCE, gone).await.is_err() {
            let name = self.sandbox.get_ref().name();
            tracing::warn!(name, "A killed sandbox is not gone yet.");
        }
        self.output.drain(log);
    }
}

/// Has the program of a sandbox held, for good; otherwise tells why it is not.
async fn hold(sandbox: &Sandbox, stance: Stance, deadline: Instant) -> Result<(), Lack> {
    let failed = |error: &dyn std::fmt::Display| Lack::Failed(error.to_string());
    let holding = sandbox.hold(stance, &[RUNTIME_API_PORT]).map_err(|error| failed(&error))?;
    let verdict = async {
        let holding = watch(holding)?;
        loop {
            let mut guard = holding.readable().await?;
            if let Some(verdict) = guard.get_inner().try_verdict()? {
                return io::Result::Ok(verdict);
            }
            guard.clear_ready();
        }
    };
    match tokio::time::timeout_at(deadline, verdict).await {
        Ok(Ok(verdict)) => verdict.map_err(Lack::Unfit),
        Ok(Err(error)) => Err(failed(&error)),
        // A busy machine is no reason to give it up.
        Err(_) => Err(failed(&"it could not be held in time")),
    }
}

// === Origin ===

/// An interpreter that stands, to be forked.
#[derive(Debug)]
pub(crate) struct Origin(AsyncFd<Sandbox>);

impl Origin {
    /// Starts one of the programs that the launcher knows, and has it held when it is warm; otherwise
    /// tells why it cannot be.
    pub(crate) async fn make(
        launcher: &Launcher,
        program: usize,
        number: u32,
        deadline: Instant,
    ) -> Result<Self, String> {
        let sandbox = launcher.origin(program, number).map_err(|error| error.to_string())?;
        let sandbox = watch(sandbox).map_err(|error| error.to_string())?;
        match tokio::time::timeout_at(deadline, ready(&sandbox)).await {
            Ok(Ok(_)) => {
                let held = hold(sandbox.get_ref(), Stance::Framed, deadline).await;
                held.map(|()| Self(sandbox)).map_err(|lack| lack.why().to_owned())
            }
            Ok(Err(StartError::Platform(error))) => Err(error.chain()),
            Ok(Err(StartError::Deadline)) | Err(_) => Err("it was not there in time".to_owned()),
        }
    }

    /// What is forked.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.0.get_ref()
    }

    /// Whether nothing has been heard of its end.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.0.get_ref().try_event(), Ok(None))
    }
}

/// Waits for whatever comes first, and logs output all the while.
async fn run<T>(
    sandbox: &AsyncFd<Sandbox>,
    wanted: impl Future<Output = T>,
    output: &mut Output,
    mut alarm: Pin<&mut Sleep>,
    log: &mut LogWriter,
) -> First<T> {
    let mut wanted = std::pin::pin!(wanted);
    let mut flush = None;
    let first = loop {
        tokio::select! {
            biased;
            value = &mut wanted => break First::Came(value),
            end = end(sandbox) => break First::Ended(end),
            () = &mut alarm => break First::Deadline,
            () = at(flush) => {
                log.flush();
                flush = None;
            }
            () = output.pump(log) => {
                flush = flush.or_else(|| Some(Instant::now() + LOG_DELAY));
                // A pipe that is never empty must not keep the thread from everybody else.
                tokio::task::yield_now().await;
            }
        }
    };
    output.drain(log);
    first
}

/// Waits for a moment; for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; what is watched keeps one descriptor for life"
)]
fn watch<T: AsRawFd>(what: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(what, Interest::READABLE)
}

/// Waits for the program's start.
async fn ready(sandbox: &AsyncFd<Sandbox>) -> Result<Vec<std::net::TcpListener>, StartError> {
    match next_event(sandbox).await {
        Event::Ready { listeners } => Ok(listeners),
        Event::Failed { message } => Err(fault("build a sandbox", message)),
        event
        @ (Event::Furnished | Event::Exited { .. } | Event::Signaled { .. } | Event::Gone) => {
            Err(fault("build a sandbox", format!("it ended at once: {event:?}")))
        }
    }
}

/// Waits for the program's end.
async fn end(sandbox: &AsyncFd<Sandbox>) -> End {
    loop {
        let out_of_memory = || sandbox.get_ref().memory().is_ok_and(|memory| memory.oom_kills > 0);
        match next_event(sandbox).await {
            Event::Ready { .. } | Event::Furnished => {}
            Event::Exited { code } => return End::Exited(code),
            Event::Signaled { signal: 9 } | Event::Gone if out_of_memory() => {
                return End::OutOfMemory;
            }
            Event::Signaled { signal } => return End::Signaled(signal),
            Event::Gone => return End::Signaled(9),
            Event::Failed { message } => return End::NotRun(message),
        }
    }
}

async fn next_event(sandbox: &AsyncFd<Sandbox>) -> Event {
    loop {
        let Ok(mut guard) = sandbox.readable().await else { return pending().await };
        match guard.get_inner().try_event() {
            Ok(Some(event)) => {
                guard.retain_ready();
                return event;
            }
            Ok(None) => guard.clear_ready(),
            Err(error) => {
                tracing::error!(%error, "A sandbox cannot be watched any more.");
                return Event::Gone;
            }
        }
    }
}

/// Makes the socket of the frames; the sandbox's end joins `fds`.
fn frames(fds: &mut Vec<(OwnedFd, i32)>) -> Result<UnixStream, StartError> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| fault("open a socket", error))?;
    fds.push((theirs.into(), FRAMES_FD));
    Ok(ours)
}

fn fault(
    operation: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StartError {
    StartError::Platform(lacewing_model::Error::internal(operation, source))
}
