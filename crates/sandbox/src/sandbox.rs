//! The server's handle of one sandbox: its events, its gauges, its end.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, socketpair};
use serde::{Deserialize, Serialize};

use crate::client::Control;
use crate::wire::{Ended, Gauge, Status, Verdict, receive};
use crate::{CpuQuota, Error, Freezer, Furnishing, Part, Stance, Traffic, gauges};

/// Longest status message: a failure in words.
pub(crate) const STATUS_LIMIT: usize = 16 * 1024;

/// What happened to a sandbox.
#[derive(Debug)]
pub enum Event {
    /// Everything is in place and the program starts.
    Ready {
        /// One listening (non-blocking) socket for each port of the `Spec`, in its order.
        listeners: Vec<TcpListener>,
    },
    /// A blank sandbox is furnished: hostile code may run in it.
    Furnished,
    /// It could not be built, or its program could not be run.
    Failed {
        /// The step that failed and why.
        message: String,
    },
    /// The program ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The program was ended by a signal.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// Nothing is left of it.
    Gone,
}

/// Memory of all processes of one sandbox.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Bytes now.
    pub current: u64,
    /// Most bytes ever.
    pub peak: u64,
    /// How many processes the kernel killed for lack of memory.
    pub oom_kills: u64,
}

/// One sandbox; dropping it kills everything inside.
///
/// Its descriptor is readable when there is an event.
#[derive(Debug)]
pub struct Sandbox {
    status: OwnedFd,
    name: String,
    id: u64,
    control: Arc<Control>,
    gauges: OnceLock<Vec<(Gauge, OwnedFd)>>,
    /// What init read when the program had ended, before the cgroup went away.
    last: OnceLock<MemoryUse>,
    freezer: OnceLock<Freezer>,
    took: OnceLock<Vec<(Part, Duration)>>,
    /// The same of its traffic.
    sent: OnceLock<Traffic>,
}

impl Sandbox {
    pub(crate) fn new(status: OwnedFd, name: String, id: u64, control: Arc<Control>) -> Self {
        let (gauges, last, took) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (freezer, sent) = (OnceLock::new(), OnceLock::new());
        Self { status, name, id, control, gauges, last, freezer, took, sent }
    }

    /// Returns the next event if there is one.
    ///
    /// `Ready` comes first, or `Failed`; then `Furnished`, if that was asked for, or `Failed`; then once `Exited`, `Signaled` or `Failed` (the program could
    /// not be run); then `Gone`, for ever. After a kill `Gone` comes alone.
    pub fn try_event(&self) -> io::Result<Option<Event>> {
        // Asked before every invocation, and nearly always there is nothing: then no room is made.
        let peeked = recv(&self.status, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        if matches!(peeked, Err(Errno::AGAIN)) {
            return Ok(None);
        }
        let mut buffer = vec![0; STATUS_LIMIT];
        match receive(self.status.as_fd(), &mut buffer, RecvFlags::DONTWAIT) {
            Ok(Some((status, fds))) => Ok(Some(self.event(status, fds))),
            Ok(None) => Ok(Some(Event::Gone)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the name from the `Spec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kills everything inside, also when it is frozen.
    pub fn kill(&self) {
        // Without a launcher nothing of it lives.
        self.control.kill(self.id, SendFlags::empty()).ok();
    }

    /// Sends SIGTERM to the program.
    pub fn terminate(&self) {
        // Without a launcher nothing of it lives.
        self.control.terminate(self.id).ok();
    }

    /// Furnishes a blank sandbox, once; [`Event::Furnished`] tells that it is done.
    ///
    /// # Errors
    /// If the furnishing is refused or cannot be sent.
    pub fn furnish(&self, furnishing: Furnishing) -> Result<(), Error> {
        furnishing.check().map_err(Error::Invalid)?;
        self.control.furnish(self.id, furnishing)
    }

    /// Has the program held, for good, as soon as it waits as it must: it becomes a snapshot. Each copy has
    /// the like of its threads, and of its connections to those of its own listeners that have these ports: they
    /// come from the same ports there, by which who listens knows them.
    ///
    /// # Errors
    /// If that cannot be asked for.
    pub fn hold(&self, stance: Stance, ports: &[u16]) -> Result<Holding, Error> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, there) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|error| Error::Send(error.into()))?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| Error::Send(error.into()))?;
        self.control.hold(self.id, stance, ports, there.as_fd())?;
        Ok(Holding(socket))
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Changes the hard bound on processor time; without effect where [`Cpu::Fair`] is chosen.
    ///
    /// [`Cpu::Fair`]: crate::Cpu::Fair
    pub fn limit_cpu(&self, quota: Option<CpuQuota>) -> io::Result<()> {
        self.control.quota(self.id, quota)
    }

    /// What stops and continues its processes; none before `Ready`, and where the host has none.
    #[must_use]
    pub fn freezer(&self) -> Option<Freezer> {
        self.freezer.get().cloned()
    }

    /// Reads the most memory that was used so far; like [`Sandbox::memory`], but one read only.
    pub fn memory_peak(&self) -> io::Result<u64> {
        match self.last.get() {
            Some(last) => Ok(last.peak),
            None => gauges::memory_peak(self.gauges()),
        }
    }

    /// Reads the memory gauges; after the end of the program what init read last.
    ///
    /// `Unsupported` before `Ready` and where there is no memory cgroup. After a kill there is nothing
    /// left to read: whoever wants to know asks before.
    pub fn memory(&self) -> io::Result<MemoryUse> {
        match self.last.get() {
            Some(last) => Ok(*last),
            None => gauges::memory(self.gauges()),
        }
    }

    /// Reads the processor time used so far, while the sandbox lives.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        gauges::cpu_time(self.gauges())
    }

    /// Tells how long each part of building it took, in their order; nothing before `Ready`.
    ///
    /// From the launcher's first step to the last before `Ready`. A part may come more than once.
    #[must_use]
    pub fn build_times(&self) -> &[(Part, Duration)] {
        self.took.get().map_or(&[], Vec::as_slice)
    }

    /// Reads the bytes that went in and out so far: two short reads.
    ///
    /// `Unsupported` before `Ready` and for a sandbox without a way out; after a kill there is
    /// nothing left to read.
    pub fn traffic(&self) -> io::Result<Traffic> {
        match self.sent.get() {
            Some(last) => Ok(*last),
            None => gauges::traffic(self.gauges()),
        }
    }

    fn gauges(&self) -> &[(Gauge, OwnedFd)] {
        self.gauges.get().map_or(&[], Vec::as_slice)
    }

    fn event(&self, status: Status, mut fds: Vec<OwnedFd>) -> Event {
        match status {
            Status::Ready { listeners, gauges, took } => {
                let rest = fds.split_off(listeners.min(fds.len()));
                // Init says it once.
                self.took.set(took).ok();
                let mut read = Vec::new();
                for (gauge, fd) in gauges.into_iter().zip(rest) {
                    match Freezer::of(gauge, fd) {
                        Ok(freezer) => drop(self.freezer.set(freezer)),
                        Err(fd) => read.push((gauge, fd)),
                    }
                }
                self.gauges.set(read).ok();
                Event::Ready { listeners: fds.into_iter().map(TcpListener::from).collect() }
            }
            Status::Furnished => Event::Furnished,
            Status::Failed { message } => Event::Failed { message },
            Status::Ended { how, memory, traffic } => {
                if let Some(traffic) = traffic {
                    self.sent.set(traffic).ok();
                }
                if let Some(memory) = memory {
                    // The program ends once.
                    self.last.set(memory).ok();
                }
                match how {
                    Ended::Exited(code) => Event::Exited { code },
                    Ended::Signaled(signal) => Event::Signaled { signal },
                }
            }
        }
    }
}

/// What comes of holding a program. Its descriptor is readable when that is known.
#[derive(Debug)]
pub struct Holding(OwnedFd);

impl Holding {
    /// Tells whether it is held, or why it cannot be; nothing as long as that is not known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn try_verdict(&self) -> io::Result<Option<Result<(), String>>> {
        match receive(self.0.as_fd(), &mut vec![0; STATUS_LIMIT], RecvFlags::DONTWAIT) {
            Ok(Some((Verdict::Held, _))) => Ok(Some(Ok(()))),
            Ok(Some((Verdict::Unfit { why }, _))) => Ok(Some(Err(why))),
            Ok(None) => Ok(Some(Err("its keeper is gone".to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Holding {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Holding {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Never waits: if the request cannot be sent, init sees that this end of its socket is gone.
        self.control.kill(self.id, SendFlags::DONTWAIT).ok();
    }
}

impl AsFd for Sandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}

impl AsRawFd for Sandbox {
    fn as_raw_fd(&self) -> RawFd {
        self.status.as_raw_fd()
    }
}
