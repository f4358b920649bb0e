//! System calls that the keeper makes in a process that it holds, by setting its registers and letting
//! it make one step. See ptrace(2), `PTRACE_SINGLESTEP`.
//!
//! The instruction and the memory for arguments lie in the process. They are checked, or written, each
//! time: whatever hostile code has left there is not relied on, and cannot change while it stands.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use rustix::net::SendFlags;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open,
};

use crate::step::{Failure, Step};
use crate::sys::trace::{self, Registers, Stop};
use crate::wire::send_bytes;

use super::Argument;

/// `syscall`.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];
/// Bytes for arguments: the first half for what is pointed to from the second.
const SCRATCH: u64 = 8192;
/// Steps after which a call must be done, where each signal that waits takes one.
const STEPS: usize = 256;

/// What all that was forked from one snapshot has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// As they were when the snapshot was stopped, while it read.
    registers: Registers,
    /// Where the instruction is.
    instruction: u64,
    /// Where there is room for arguments.
    scratch: u64,
    /// Where libc keeps the id of the only thread.
    thread_id: u64,
}

/// A process that stands.
#[derive(Debug)]
pub(super) struct Remote {
    pid: Pid,
    memory: File,
    base: Base,
}

/// Whether a process stands while it reads from the socket of frames.
pub(super) fn is_reading(registers: &Registers) -> bool {
    const FRAMES: u64 = 3;
    registers.orig_rax == libc::SYS_read.cast_unsigned() && registers.rdi == FRAMES
}

impl Remote {
    /// The snapshot itself, with room for arguments made in it.
    pub(super) fn of_snapshot(pid: Pid, registers: Registers) -> Result<Self, Failure> {
        let memory = open_memory(pid).step("open its memory")?;
        let instruction = find_instruction(pid, &memory).step("find an instruction")?;
        let base = Base { registers, instruction, scratch: 0, thread_id: 0 };
        let mut snapshot = Self { pid, memory, base };
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let arguments = [0, SCRATCH, access.arg(), kind.arg(), (-1).arg(), 0];
        snapshot.base.scratch =
            snapshot.call(libc::SYS_mmap, &arguments).step("make room in it")?;
        let arguments = [libc::PR_GET_TID_ADDRESS.arg(), snapshot.base.scratch];
        snapshot.call(libc::SYS_prctl, &arguments).step("ask where its id is")?;
        let mut address = [0; 8];
        snapshot.memory.read_exact_at(&mut address, snapshot.base.scratch).step("read its id")?;
        snapshot.base.thread_id = u64::from_ne_bytes(address);
        Ok(snapshot)
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Makes one system call with this process as the caller.
    pub(super) fn call(&self, number: libc::c_long, arguments: &[u64]) -> io::Result<u64> {
        self.stepped(number, arguments).map(|(result, _)| result)
    }

    /// Lets it fork; the child stands before its first instruction. It becomes a brother, or a child
    /// that knows its own id as libc's fork has it.
    pub(super) fn clone_child(&self, brother: bool, is_last: bool) -> io::Result<Self> {
        let mut flags = libc::SIGCHLD;
        if brother {
            flags |= libc::CLONE_PARENT;
        }
        if is_last {
            flags |= libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        }
        let arguments = [flags.arg(), 0, 0, self.base.thread_id, 0];
        let (_, child) = self.stepped(libc::SYS_clone, &arguments)?;
        let pid = child.ok_or(io::ErrorKind::InvalidData)?;
        let made = trace::wait_for_stop(pid)
            .and_then(|_| Ok(Self { pid, memory: open_memory(pid)?, base: self.base }));
        made.inspect_err(|_| end(pid))
    }

    /// Closes all of its descriptors and passes others; returns their numbers in it.
    pub(super) fn receive(&self, fds: &[OwnedFd]) -> io::Result<Vec<RawFd>> {
        self.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0])?;
        let pair = self.base.scratch;
        let kind = [libc::AF_UNIX.arg(), libc::SOCK_SEQPACKET.arg(), 0, pair];
        self.call(libc::SYS_socketpair, &kind)?;
        let pidfd = pidfd_open(self.pid, PidfdFlags::empty())?;
        // Nothing else is open there, so they are the first two.
        let ours = pidfd_getfd(&pidfd, 1, PidfdGetfdFlags::empty())?;
        let rights: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send_bytes(ours.as_fd(), b"x", &rights, SendFlags::DONTWAIT)?;
        drop(ours);
        self.receive_message(fds.len())?;
        self.call(libc::SYS_close, &[0])?;
        self.call(libc::SYS_close, &[1])?;
        let first: RawFd = 2;
        (0..fds.len()).map(|at| Ok(first + i32::try_from(at).map_err(io::Error::other)?)).collect()
    }

    /// `recvmsg` of one byte with `count` descriptors.
    fn receive_message(&self, count: usize) -> io::Result<()> {
        let (scratch, control) = (self.base.scratch, self.base.scratch + 1024);
        let room = 16 + 4 * count as u64;
        // `struct iovec` and `struct msghdr`.
        let words = [scratch + 512, 1];
        self.put(scratch + 256, &words)?;
        self.put(scratch, &[0, 0, scratch + 256, 1, control, room, 0])?;
        self.call(libc::SYS_recvmsg, &[0, scratch, libc::MSG_DONTWAIT.arg()])?;
        let mut head = [0; 8];
        self.memory.read_exact_at(&mut head, control)?;
        if u64::from_ne_bytes(head) == room {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Writes to one of its descriptors.
    pub(super) fn write(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        let at = self.text(bytes)?;
        self.call(libc::SYS_write, &[fd.arg(), at, bytes.len() as u64]).map(drop)
    }

    /// Puts bytes where a call finds them.
    pub(super) fn text(&self, bytes: &[u8]) -> io::Result<u64> {
        self.memory.write_all_at(bytes, self.base.scratch)?;
        Ok(self.base.scratch)
    }

    fn put(&self, at: u64, words: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.memory.write_all_at(&bytes, at)
    }

    /// Lets it go on from where the snapshot was stopped: it reads.
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.call(libc::SYS_munmap, &[self.base.scratch, SCRATCH])?;
        let mut registers = self.base.registers;
        registers.rip = registers.rip.wrapping_sub(INSTRUCTION.len() as u64);
        registers.rax = registers.orig_rax;
        // Nothing for the kernel to begin again.
        registers.orig_rax = u64::MAX;
        trace::set_registers(self.pid, &registers)?;
        trace::release(self.pid)
    }

    /// Ends it; whoever is its parent collects it.
    pub(super) fn end(&self) {
        end(self.pid);
    }

    fn stepped(&self, number: libc::c_long, arguments: &[u64]) -> io::Result<(u64, Option<Pid>)> {
        let Base { mut registers, instruction, .. } = self.base;
        let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
        registers.rip = instruction;
        registers.rax = number.cast_unsigned();
        registers.orig_rax = u64::MAX;
        registers.rdi = argument(0);
        registers.rsi = argument(1);
        registers.rdx = argument(2);
        registers.r10 = argument(3);
        registers.r8 = argument(4);
        registers.r9 = argument(5);
        let mut there = [0; 2];
        self.memory.read_exact_at(&mut there, instruction)?;
        if there != INSTRUCTION {
            return Err(io::Error::other("its instruction has changed"));
        }
        trace::set_registers(self.pid, &registers)?;
        let mut child = None;
        for _ in 0..STEPS {
            trace::step(self.pid)?;
            match trace::wait_for_stop(self.pid)? {
                Stop::Stepped => return self.result(child),
                Stop::Forked => child = Some(trace::child(self.pid)?),
                Stop::Told | Stop::Signal => {}
            }
        }
        Err(io::Error::other("it does not come to an end"))
    }

    fn result(&self, child: Option<Pid>) -> io::Result<(u64, Option<Pid>)> {
        let registers = trace::registers(self.pid)?;
        if registers.rip != self.base.instruction + INSTRUCTION.len() as u64 {
            return Err(io::Error::other("it did something else"));
        }
        let result = registers.rax.cast_signed();
        if (-4095..0).contains(&result) {
            let error = i32::try_from(-result).unwrap_or(libc::EIO);
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok((registers.rax, child))
    }
}

fn end(pid: Pid) {
    kill_process(pid, Signal::KILL).ok();
    // Until it has ended, of which its parent hears only then.
    while trace::wait_for_stop(pid).is_ok() {}
}

fn open_memory(pid: Pid) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{}/mem", pid.as_raw_nonzero()))
}

/// Looks for the instruction in what the kernel has mapped into every process.
fn find_instruction(pid: Pid, memory: &File) -> io::Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()))?;
    let none = || io::Error::other("there is none");
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).ok_or_else(none)?;
    let (from, rest) = line.split_once('-').ok_or_else(none)?;
    let (to, _) = rest.split_once(' ').ok_or_else(none)?;
    let address = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
    let (from, to) = (address(from)?, address(to)?);
    let mut code =
        vec![0; usize::try_from(to.saturating_sub(from).min(1 << 16)).map_err(io::Error::other)?];
    memory.read_exact_at(&mut code, from)?;
    let at = code.windows(2).position(|bytes| bytes == INSTRUCTION).ok_or_else(none)?;
    Ok(from + at as u64)
}
