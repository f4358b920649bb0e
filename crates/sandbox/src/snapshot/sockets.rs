//! Sockets that can be made anew: connections of a process to servers of its own sandbox, and pairs of which it
//! has both ends. A fork would share them. A copy's connections come from the same ports of its own
//! sandbox, by which the server there knows them. Only such sockets are taken as have nothing on its way.
//! See tcp(7), unix(7), proc_pid_net(5).

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{OwnedFd, RawFd};

use rustix::io::ioctl_fionread;
use rustix::net::sockopt::{
    Timeout, socket_domain, socket_keepalive, socket_timeout, socket_type, tcp_nodelay,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::step::{Failure, Step};

use super::Argument;
use super::batch::Batch;

/// A connection over loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// The kernel's number of the socket.
    inode: u64,
    local: u16,
    remote: u16,
}

/// What is set for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    has_no_delay: bool,
    keeps_alive: bool,
}

/// Two descriptors of which what is written to one is read from the other, and the type of these sockets.
pub(super) type Pair = (RawFd, RawFd, i32);

/// Finds the pairs among sockets of a process, which stands: something is sent from each that nobody else gets.
pub(super) fn pairs(program: Pid, numbers: &[RawFd]) -> Result<Vec<Pair>, Failure> {
    let process = pidfd_open(program, PidfdFlags::empty()).step("open the process")?;
    let (mut left, mut pairs) = (Vec::new(), Vec::new());
    for number in numbers {
        let socket = pidfd_getfd(&process, *number, PidfdGetfdFlags::empty());
        let socket = socket.step("take its socket")?;
        let is_local = socket_domain(&socket).is_ok_and(|domain| domain == AddressFamily::UNIX);
        let is_at_rest = ioctl_fionread(&socket).is_ok_and(|waiting| waiting == 0);
        if is_local && is_at_rest && waits_for_ever(&socket) {
            left.push((*number, socket));
        }
    }
    let gets =
        |socket: &OwnedFd| recv(socket, &mut [0; 2], RecvFlags::DONTWAIT).map(|(_, read)| read);
    let sends =
        |socket: &OwnedFd| send(socket, b"x", SendFlags::DONTWAIT | SendFlags::NOSIGNAL) == Ok(1);
    let nothing = Err(rustix::io::Errno::AGAIN);
    while let Some((number, socket)) = left.pop() {
        let found = if gets(&socket) == nothing && sends(&socket) {
            left.iter().position(|(_, other)| gets(other) == Ok(1))
        } else {
            None
        };
        // Both ways, and nothing else: neither is half closed, and no empty message waits.
        let is_whole = |at: &usize| {
            let other = left.get(*at).map(|(_, other)| other);
            other.is_some_and(|other| gets(other) == nothing && sends(other))
                && gets(&socket) == Ok(1)
        };
        if let Some(at) = found.filter(is_whole) {
            let kind = socket_type(&socket).step("look at a socket")?;
            pairs.push((number, left.swap_remove(at).0, kind.as_raw().cast_signed()));
        }
    }
    Ok(pairs)
}

/// The connections in the network of a process to these ports.
pub(super) fn of(program: Pid, ports: &[u16]) -> Result<Vec<Connection>, Failure> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let path = format!("/proc/{}/net/tcp", program.as_raw_nonzero());
    let text = fs::read_to_string(path).step("list connections")?;
    let all = text.lines().filter_map(Connection::parse);
    Ok(all.filter(|it| ports.contains(&it.remote)).collect())
}

impl Connection {
    /// `0: 0100007F:C350 0100007F:2329 01 00000000:00000000 00:00000000 00000000 1000 0 4711 1 ...`, of one
    /// that is established, over loopback, and has nothing waiting in either direction.
    fn parse(line: &str) -> Option<Self> {
        const ESTABLISHED: &str = "01";
        const NOTHING: &str = "00000000:00000000";
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, local, remote, ESTABLISHED, NOTHING, _, _, _, _, inode, ..] = words.as_slice()
        else {
            return None;
        };
        let loopback = format!("{:08X}", u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()));
        let port = |end: &str| {
            let (address, port) = end.split_once(':')?;
            if address == loopback { u16::from_str_radix(port, 16).ok() } else { None }
        };
        let (local, remote, inode) = (port(local)?, port(remote)?, inode.parse().ok()?);
        Some(Self { inode, local, remote })
    }

    /// Whether a descriptor leads to it, from what `/proc/<pid>/fd` says.
    pub(super) fn is(&self, target: &str) -> bool {
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()) == Some(self.inode)
    }

    /// Has the like of it made, at a number that is free.
    pub(super) fn make(&self, calls: &mut Batch<'_>, number: i32, settings: Settings) {
        let step = "make a connection anew";
        let address = |port: u16| {
            let family = libc::AF_INET.to_ne_bytes();
            [&family[..2], &port.to_be_bytes(), &Ipv4Addr::LOCALHOST.octets(), &[0; 8]].concat()
        };
        let (local, remote) = (calls.data(&address(self.local)), calls.data(&address(self.remote)));
        let (on, size) = (calls.data(&1_i32.to_ne_bytes()), 4);
        let (family, kind) = (libc::AF_INET.arg(), libc::SOCK_STREAM.arg());
        calls.call(libc::SYS_socket, &[family, kind, 0], step);
        let mut set = |level: i32, option: i32| {
            let arguments = [number.arg(), level.arg(), option.arg(), on, size];
            calls.call(libc::SYS_setsockopt, &arguments, step);
        };
        // Others may come from the same port to elsewhere.
        set(libc::SOL_SOCKET, libc::SO_REUSEADDR);
        if settings.has_no_delay {
            set(libc::IPPROTO_TCP, libc::TCP_NODELAY);
        }
        if settings.keeps_alive {
            set(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        }
        calls.call(libc::SYS_bind, &[number.arg(), local, 16], step);
        calls.call(libc::SYS_connect, &[number.arg(), remote, 16], step);
    }
}

/// Whether a socket has no time after which a call is given up.
fn waits_for_ever(socket: &OwnedFd) -> bool {
    let times = [Timeout::Recv, Timeout::Send].map(|kind| socket_timeout(socket, kind));
    times.iter().all(|time| matches!(time, Ok(None)))
}

impl Settings {
    /// Those of a socket of a process; none if there is something that would not be carried over.
    pub(super) fn of(program: Pid, number: i32) -> Result<Option<Self>, Failure> {
        let step = "look at a connection";
        let process = pidfd_open(program, PidfdFlags::empty()).step(step)?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).step(step)?;
        if !waits_for_ever(&socket) {
            return Ok(None);
        }
        let has_no_delay = tcp_nodelay(&socket).step(step)?;
        let keeps_alive = socket_keepalive(&socket).step(step)?;
        Ok(Some(Self { has_no_delay, keeps_alive }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_at_rest_over_loopback_is_a_connection() {
        let line = "   1: 0100007F:C350 0100007F:2329 01 00000000:00000000 00:00000000 00000000  1000        \
                    0 4711 1 ffff8f 20 4 30 10 -1";
        let found = Connection::parse(line).unwrap();
        assert_eq!(found, Connection { inode: 4711, local: 50_000, remote: 9001 });
        assert!(found.is("socket:[4711]") && !found.is("socket:[471]") && !found.is("/dev/null"));
        for (from, to) in [
            (" 01 ", " 0A "),
            (" 01 ", " 08 "),
            ("00000000:00000000", "00000000:00000005"),
            ("00000000:00000000", "00000001:00000000"),
            ("0100007F:C350", "0200007F:C350"),
            ("0100007F:2329", "0100000A:2329"),
        ] {
            assert_eq!(Connection::parse(&line.replacen(from, to, 1)), None, "{to}");
        }
        assert_eq!(Connection::parse("  sl  local_address rem_address   st tx_queue"), None);
    }
}
