//! The server's handle of the launcher.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, shutdown, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::wire::{Greeting, MESSAGE_LIMIT, Request, receive, send, send_bytes};
use crate::{CpuQuota, Error, Furnishing, LauncherOptions, Report, Sandbox, Spec, Stance, scope};

/// How long the launcher may take to clean up after a dead one and to try the host.
const START_TIME: Duration = Duration::from_secs(20);
/// How long a request may wait for the launcher to take earlier ones.
const SEND_TIME: Duration = Duration::from_secs(5);
/// How long the launcher may take to end everything.
const STOP_TIME: Duration = Duration::from_secs(10);

/// The server's handle of its launcher; clones share it, and the last one to go ends it.
#[derive(Clone, Debug)]
pub struct Launcher {
    shared: Arc<Control>,
}

/// The open socket to a running launcher.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    pidfd: OwnedFd,
    pid: u32,
    report: Report,
    names: Option<NameServer>,
    next: AtomicU64,
}

/// Sockets of the address that sandboxes ask for names: whoever has them answers.
#[derive(Debug)]
pub struct NameServer {
    /// Non-blocking.
    pub udp: UdpSocket,
    /// Listens; non-blocking.
    pub tcp: TcpListener,
}

impl Launcher {
    /// Starts `exe __launcher`, which cleans what a dead one of this owner left, and waits until it
    /// is ready.
    pub fn start(exe: &Path, options: &LauncherOptions) -> Result<Self, Error> {
        check_options(options)?;
        if let Some(mut scope) = scope::command(options) {
            scope.arg(exe);
            match Self::run(scope, options) {
                // systemd said no, and why on stderr: the report names what is lacking then.
                Err(Error::Gone | Error::Start(_) | Error::Protocol(_) | Error::Silent(_)) => {}
                started => return started,
            }
        }
        let mut command = Command::new(exe);
        command.arg0("lacewing").env_clear();
        Self::run(command, options)
    }

    fn run(mut command: Command, options: &LauncherOptions) -> Result<Self, Error> {
        let (socket, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| Error::Start(error.into()))?;
        let child = command
            .arg("__launcher")
            .current_dir("/")
            .stdin(Stdio::from(there))
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::Start)?;
        // It would keep the launcher's end open.
        drop(command);
        let pid = child.id();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Error::Gone)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| Error::Start(e.into()))?;
        let report = Report::default();
        let mut control =
            Control { socket, pidfd, pid, report, names: None, next: AtomicU64::new(0) };
        let (report, names) = control.greet(options)?;
        control.report = report;
        control.names = names;
        Ok(Self { shared: Arc::new(control) })
    }

    /// Returns what the launcher found about this host.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.shared.report
    }

    /// Returns the sockets of the name server, where sandboxes have a way out.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn name_server(&self) -> io::Result<Option<NameServer>> {
        let copy = |names: &NameServer| {
            Ok(NameServer { udp: names.udp.try_clone()?, tcp: names.tcp.try_clone()? })
        };
        self.shared.names.as_ref().map(copy).transpose()
    }

    /// Returns the launcher's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// Asks for a sandbox with these descriptors inside; everything later comes as its events.
    ///
    /// Waits only while the launcher has too many earlier requests to take another.
    pub fn spawn(&self, spec: &Spec, fds: Vec<(OwnedFd, RawFd)>) -> Result<Sandbox, Error> {
        self.ask(spec, fds, |id, spec, fds| Request::Spawn { id, spec, fds })
    }

    /// Makes an origin of one of [`LauncherOptions::origins`], with a number for its arguments. It is to be
    /// held ([`Sandbox::hold`]) and then restored.
    pub fn origin(&self, program: usize, number: u32) -> Result<Sandbox, Error> {
        let name = format!("origin of program {program}");
        self.send(name, &[], |id| Request::Origin { id, program, number })
    }

    /// The same, but instead of running a program the snapshot is forked, which got descriptors of the
    /// same numbers. It lies within the snapshot's sandbox and ends with that.
    pub fn restore(
        &self,
        snapshot: &Sandbox,
        spec: &Spec,
        fds: Vec<(OwnedFd, RawFd)>,
    ) -> Result<Sandbox, Error> {
        let snapshot = snapshot.id();
        self.ask(spec, fds, |id, spec, fds| Request::Restore { id, snapshot, spec, fds })
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the descriptors are given away: a copy kept here would hide the end of a pipe"
    )]
    fn ask(
        &self,
        spec: &Spec,
        fds: Vec<(OwnedFd, RawFd)>,
        request: impl FnOnce(u64, Box<Spec>, Vec<RawFd>) -> Request,
    ) -> Result<Sandbox, Error> {
        let numbers: Vec<RawFd> = fds.iter().map(|(_, number)| *number).collect();
        spec.check(&numbers).map_err(Error::Invalid)?;
        let rights: Vec<BorrowedFd<'_>> = fds.iter().map(|(fd, _)| fd.as_fd()).collect();
        let spec = Box::new(spec.clone());
        self.send(spec.name.clone(), &rights, |id| request(id, spec, numbers))
    }

    fn send(
        &self,
        name: String,
        fds: &[BorrowedFd<'_>],
        request: impl FnOnce(u64) -> Request,
    ) -> Result<Sandbox, Error> {
        let flags = SocketFlags::CLOEXEC;
        let (status, inside) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| Error::Send(error.into()))?;
        rustix::io::ioctl_fionbio(&status, true).map_err(|error| Error::Send(error.into()))?;
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut rights: Vec<BorrowedFd<'_>> = vec![inside.as_fd()];
        rights.extend(fds);
        let bytes = serde_json::to_vec(&request(id)).map_err(|error| Error::Send(error.into()))?;
        if bytes.len() > MESSAGE_LIMIT {
            return Err(Error::TooLarge { size: bytes.len(), limit: MESSAGE_LIMIT });
        }
        let sent = send_bytes(self.shared.socket.as_fd(), &bytes, &rights, SendFlags::empty());
        sent.map_err(refused)?;
        Ok(Sandbox::new(status, name, id, Arc::clone(&self.shared)))
    }

    /// Ends every sandbox and the launcher, and waits until they are gone.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

// === Control ===

impl Control {
    fn greet(&self, options: &LauncherOptions) -> Result<(Report, Option<NameServer>), Error> {
        set_socket_timeout(&self.socket, Timeout::Send, Some(SEND_TIME))
            .and_then(|()| set_socket_timeout(&self.socket, Timeout::Recv, Some(START_TIME)))
            .map_err(|error| Error::Start(error.into()))?;
        send(
            self.socket.as_fd(),
            &Request::Options(Box::new(options.clone())),
            &[],
            SendFlags::empty(),
        )
        .map_err(Error::Start)?;
        let mut buffer = vec![0; MESSAGE_LIMIT];
        match receive(self.socket.as_fd(), &mut buffer, RecvFlags::empty()) {
            Ok(Some((Greeting::Serving(report), fds))) => {
                let mut fds = fds.into_iter();
                let names = fds.next().zip(fds.next());
                Ok((
                    report,
                    names.map(|(udp, tcp)| NameServer { udp: udp.into(), tcp: tcp.into() }),
                ))
            }
            Ok(Some((Greeting::Refused(reason), _))) => Err(Error::Refused(reason)),
            Ok(Some((Greeting::Taken, _))) => Err(Error::Taken),
            Ok(None) => Err(Error::Gone),
            Err(error) => Err(unanswered(&error)),
        }
    }

    pub(crate) fn furnish(&self, id: u64, furnishing: Furnishing) -> Result<(), Error> {
        let request = Request::Furnish { id, furnishing: Box::new(furnishing) };
        send(self.socket.as_fd(), &request, &[], SendFlags::empty()).map_err(refused)
    }

    pub(crate) fn hold(
        &self,
        id: u64,
        stance: Stance,
        ports: &[u16],
        answer: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let request = Request::Hold { id, stance, ports: ports.to_vec() };
        send(self.socket.as_fd(), &request, &[answer], SendFlags::empty()).map_err(refused)
    }

    pub(crate) fn kill(&self, id: u64, flags: SendFlags) -> io::Result<()> {
        send(self.socket.as_fd(), &Request::Kill { id }, &[], flags)
    }

    pub(crate) fn terminate(&self, id: u64) -> io::Result<()> {
        send(self.socket.as_fd(), &Request::Terminate { id }, &[], SendFlags::empty())
    }

    pub(crate) fn quota(&self, id: u64, quota: Option<CpuQuota>) -> io::Result<()> {
        send(self.socket.as_fd(), &Request::Quota { id, quota }, &[], SendFlags::empty())
    }

    fn stop(&self) {
        // The end of the socket is the launcher's sign to end; it may be gone already.
        shutdown(&self.socket, Shutdown::Both).ok();
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let most = Timespec::try_from(STOP_TIME).ok();
        if !matches!(poll(&mut ended, most.as_ref()), Ok(1)) {
            // Its sandboxes end with it; what stays of their cgroups the next start removes.
            if pidfd_send_signal(&self.pidfd, Signal::KILL).is_err() {
                // A server that has given up its privileges may not; the launcher ends by itself,
                // as it does after a server that died.
                return;
            }
        }
        // Reaped by an earlier call otherwise.
        waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED).ok();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => Error::Busy,
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Error::Gone,
        Some(libc::EMSGSIZE) => Error::TooLarge { size: 0, limit: MESSAGE_LIMIT },
        _ => Error::Send(error),
    }
}

/// Why there is no greeting.
fn unanswered(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => Error::Silent(START_TIME.as_secs()),
        _ => Error::Protocol(error.to_string()),
    }
}

fn check_options(options: &LauncherOptions) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !(8..=40).contains(&options.owner.len()) || !options.owner.chars().all(good) {
        return Err(Error::Invalid("the owner must match [a-z0-9]{8,40}".to_owned()));
    }
    if options.uid_count == 0 || options.uid_base.checked_add(options.uid_count).is_none() {
        return Err(Error::Invalid("the range of uids is empty or too long".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_says_nothing_is_told_from_one_that_talks_nonsense() {
        // What a socket's receive timeout gives.
        let silent = unanswered(&rustix::io::Errno::AGAIN.into());
        assert!(silent.to_string().contains("did not answer within 20 s"), "{silent}");
        let nonsense = unanswered(&io::Error::other("expected value at line 1"));
        assert!(matches!(nonsense, Error::Protocol(_)), "{nonsense}");
    }
}
