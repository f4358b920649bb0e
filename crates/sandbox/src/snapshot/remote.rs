//! System calls that the keeper makes in a process that it holds, by setting its registers and letting
//! it make one step, or go through a table of calls. See ptrace(2), `PTRACE_SINGLESTEP`.
//!
//! The instructions and the memory for arguments lie in the process. They are checked, or written, each
//! time: whatever hostile code has left there is not relied on, and cannot change while it stands.

use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use rustix::net::SendFlags;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open,
    pidfd_send_signal,
};

use crate::step::{Failure, Step};
use crate::sys::trace::{self, Registers, Sequences, Stop};
use crate::wire::send_bytes;

use super::batch::{Batch, ENTRY, LOOP, outcome};
use super::{Argument, FRAMES, fitness};

/// `syscall`.
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];
/// Bytes of the room that is made in a process: instructions, what calls point to, and their table.
const ROOM: u64 = 6 * PAGE;
const PAGE: u64 = 4096;
/// Where what calls point to begins, and the table.
const DATA: u64 = PAGE;
const TABLE: u64 = 3 * PAGE;
/// See clone(2); libc has it as a number of another type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
/// set_tid_size, cgroup.
const CLONE_ARGUMENTS: usize = 11;
/// What makes a thread of a clone, see pthread_create(3).
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID;
/// `sigaltstack` of a process without another stack for signals.
const NO_STACK: u32 = 2;
/// `cs` of a process that runs 64-bit code, see `arch/x86/include/asm/segment.h`.
const CODE_SEGMENT: u64 = 0x33;
/// `eflags` of a process that nothing special is done to, for calls of ours.
const FLAGS: u64 = 0x202;
/// Below this the kernel maps nothing, see `vm.mmap_min_addr`.
const LOWEST: u64 = 1 << 16;
/// See rseq(2).
const RSEQ_FLAG_UNREGISTER: u64 = 1;
/// Steps after which a call must be done, where each signal that waits takes one.
const STEPS: usize = 256;

/// What all that was forked from one snapshot has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// As they were when the snapshot was stopped, while it read.
    registers: Registers,
    /// Where the instruction is.
    instruction: u64,
    /// Where there is room for instructions and arguments.
    room: u64,
    /// Where the kernel writes 0 when the first thread ends, if anywhere.
    thread_id: u64,
    /// Whether libc keeps the id of that thread there.
    keeps_id: bool,
    /// Where restartable sequences were registered, see `rseq(2)`.
    sequences: Option<Sequences>,
    /// `stack_t` of the stack for signals: address, flags, size. The kernel forgets it where memory is
    /// shared.
    stack: [u64; 3],
}

/// A process that stands.
#[derive(Debug)]
pub(super) struct Remote {
    pid: Pid,
    process: OwnedFd,
    memory: File,
    base: Base,
}

/// Whether a process stands while it reads from the socket of frames.
pub(super) fn is_reading(registers: &Registers) -> bool {
    registers.orig_rax == libc::SYS_read.cast_unsigned() && registers.rdi == FRAMES.arg()
}

/// Sees that it runs as what is made here.
pub(super) fn check_mode(registers: &Registers) -> Result<(), Failure> {
    if registers.cs != CODE_SEGMENT {
        return Err(Failure("it does not run as 64-bit code".to_owned()));
    }
    Ok(())
}

impl Remote {
    /// A process that stands while it reads, under its filter still.
    ///
    /// Its restartable sequences are given up: when it goes on, the kernel would have it go on wherever
    /// they say, if they say so of the place where the keeper put it.
    pub(super) fn of_stopped(pid: Pid, registers: Registers) -> Result<Self, Failure> {
        check_mode(&registers)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).step("open the process")?;
        let memory = open_memory(pid).step("open its memory")?;
        let sequences = trace::sequences(pid).step("ask for restartable sequences")?;
        let instruction = find_instruction(pid, &memory).step("find an instruction")?;
        let base = Base {
            registers,
            instruction,
            room: 0,
            thread_id: 0,
            keeps_id: false,
            sequences,
            stack: [0; 3],
        };
        let stopped = Self { pid, process, memory, base };
        stopped.forget_sequence(sequences).step("end a restartable sequence")?;
        if let Some(sequences) = sequences {
            let arguments = sequences.arguments(RSEQ_FLAG_UNREGISTER);
            stopped.call(libc::SYS_rseq, &arguments).step("give up restartable sequences")?;
        }
        Ok(stopped)
    }

    /// Makes it a snapshot, with room for instructions and arguments in it.
    pub(super) fn into_snapshot(mut self) -> Result<Self, Failure> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let arguments = [0, ROOM, access.arg(), kind.arg(), (-1).arg(), 0];
        let room = self.call(libc::SYS_mmap, &arguments).step("make room in it")?;
        if room < LOWEST || !room.is_multiple_of(PAGE) {
            return Err(Failure("make room in it: it did something else".to_owned()));
        }
        self.base.room = room;
        self.memory.write_all_at(&LOOP, room).step("write instructions")?;
        let access = libc::PROT_READ | libc::PROT_EXEC;
        self.call(libc::SYS_mprotect, &[room, PAGE, access.arg()]).step("make them run")?;
        let mut asked = Batch::of(&self);
        let (address, stack) = (asked.words(&[0]), asked.words(&[0; 3]));
        let arguments = [libc::PR_GET_TID_ADDRESS.arg(), address];
        asked.call(libc::SYS_prctl, &arguments, "ask where its id is");
        asked.call(libc::SYS_sigaltstack, &[0, stack], "ask for its stack for signals");
        // `struct itimerval` of each kind: interval and time left.
        let timers = [0; 3].map(|_| asked.words(&[0; 4]));
        for (kind, at) in (0..).zip(timers) {
            asked.call(libc::SYS_getitimer, &[kind, at], "ask for its timers");
        }
        asked.run()?;
        for at in timers {
            if self.words::<4>(at).step("read its timers")? != [0; 4] {
                return Err(Failure("it has timers".to_owned()));
            }
        }
        let [thread_id] = self.words(address).step("read where its id is")?;
        self.base.thread_id = thread_id;
        self.base.keeps_id = self.keeps_id_of(self.pid, self.base.registers.fs_base)?;
        self.base.stack = self.words(stack).step("read its stack for signals")?;
        Ok(self)
    }

    /// Sees that no sequence is begun where they are registered: `rseq_cs` and `flags`.
    pub(super) fn forget_sequence(&self, sequences: Option<Sequences>) -> io::Result<()> {
        match sequences {
            Some(Sequences { address, .. }) => self.memory.write_all_at(&[0; 12], address + 8),
            None => Ok(()),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Makes one system call with this process as the caller.
    pub(super) fn call(&self, number: libc::c_long, arguments: &[u64]) -> io::Result<u64> {
        self.stepped(number, arguments).map(|(result, _)| result)
    }

    /// Lets it fork a brother, which stands.
    pub(super) fn fork_brother(&self) -> io::Result<Self> {
        self.clone_with(libc::CLONE_PARENT, None)
    }

    /// Lets it make a child that stands and shares its memory, in a cgroup that it has open.
    pub(super) fn clone_into(&self, cgroup: Option<RawFd>) -> io::Result<Self> {
        self.clone_with(libc::CLONE_VM, cgroup)
    }

    /// Lets it make a child that stands, shares its memory until it is alone, and knows its own id as
    /// libc's fork has it.
    pub(super) fn clone_last(&self) -> io::Result<Self> {
        let Base { thread_id, keeps_id, .. } = self.base;
        let told = if thread_id == 0 { 0 } else { libc::CLONE_CHILD_CLEARTID };
        let id = if keeps_id { libc::CLONE_CHILD_SETTID } else { 0 };
        self.clone_with(libc::CLONE_VM | told | id, None)
    }

    /// Lets it make threads that stand, whose memory of themselves is where each `FS` says; libc keeps their ids
    /// as far from there as that of the first.
    pub(super) fn clone_threads(
        &self,
        fs_bases: impl Iterator<Item = u64>,
    ) -> Result<Vec<Self>, Failure> {
        let step = "make a thread";
        let Base { thread_id, registers, .. } = self.base;
        let mut calls = Batch::of(self);
        for fs_base in fs_bases {
            let id = fs_base.wrapping_add(thread_id.wrapping_sub(registers.fs_base));
            let mut arguments = [0; CLONE_ARGUMENTS];
            arguments[0] = THREAD.arg();
            (arguments[2], arguments[3], arguments[7]) = (id, id, fs_base);
            let at = calls.words(&arguments);
            calls.call(libc::SYS_clone3, &[at, size_of_val(&arguments) as u64], step);
        }
        let wanted = calls.len();
        let made: io::Result<Vec<_>> =
            calls.make()?.into_iter().map(|it| self.thread(it)).collect();
        let made = made.step(step)?;
        if made.len() != wanted {
            return Err(Failure("make a thread: it did something else".to_owned()));
        }
        Ok(made)
    }

    fn thread(&self, pid: Pid) -> io::Result<Self> {
        trace::wait_for_stop(pid)?;
        let (process, memory) = (self.process.try_clone()?, self.memory.try_clone()?);
        Ok(Self { pid, process, memory, base: self.base })
    }

    fn clone_with(&self, flags: i32, cgroup: Option<RawFd>) -> io::Result<Self> {
        let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        let mut arguments = [0; CLONE_ARGUMENTS];
        arguments[0] = flags.arg() | into;
        arguments[2] = self.base.thread_id;
        // A brother ends as the one whose brother it is.
        let is_brother = flags & libc::CLONE_PARENT != 0;
        arguments[4] = if is_brother { 0 } else { libc::SIGCHLD.arg() };
        arguments[10] = cgroup.map_or(0, Argument::arg);
        let bytes: Vec<u8> = arguments.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.memory.write_all_at(&bytes, self.data_at(0))?;
        let (_, child) = self.stepped(libc::SYS_clone3, &[self.data_at(0), bytes.len() as u64])?;
        let pid = child.ok_or(io::ErrorKind::InvalidData)?;
        let made = trace::wait_for_stop(pid).and_then(|_| {
            let process = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Self { pid, process, memory: open_memory(pid)?, base: self.base })
        });
        made.inspect_err(|_| end(pid))
    }

    /// Closes all of its descriptors and passes others; returns their numbers in it.
    pub(super) fn receive(&self, fds: &[OwnedFd]) -> Result<Vec<RawFd>, Failure> {
        let mut before = Batch::of(self);
        before.call(libc::SYS_close_range, &[0, u64::from(u32::MAX), 0], "close descriptors");
        let pair = before.words(&[0]);
        let kind = [libc::AF_UNIX.arg(), libc::SOCK_SEQPACKET.arg(), 0, pair];
        before.call(libc::SYS_socketpair, &kind, "socketpair");
        before.run()?;
        // Nothing else is open there, so they are the first two.
        let ours =
            pidfd_getfd(&self.process, 1, PidfdGetfdFlags::empty()).step("take its socket")?;
        let rights: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send_bytes(ours.as_fd(), b"x", &rights, SendFlags::DONTWAIT).step("pass descriptors")?;
        drop(ours);
        self.receive_message(fds.len())?;
        (2..).take(fds.len()).map(Ok).collect()
    }

    /// `recvmsg` of one byte with `count` descriptors, and the end of the socket.
    fn receive_message(&self, count: usize) -> Result<(), Failure> {
        let room = 16 + 4 * count;
        let mut message = Batch::of(self);
        let (byte, control) = (message.words(&[0]), message.data(&vec![0; room]));
        // `struct iovec` and `struct msghdr`.
        let vector = message.words(&[byte, 1]);
        let header = message.words(&[0, 0, vector, 1, control, room as u64, 0]);
        let arguments = [0, header, libc::MSG_DONTWAIT.arg()];
        message.call(libc::SYS_recvmsg, &arguments, "receive descriptors");
        message.call(libc::SYS_close, &[0], "close a socket");
        message.call(libc::SYS_close, &[1], "close a socket");
        message.run()?;
        match self.words(control).step("count descriptors")? {
            [length] if length == room as u64 => Ok(()),
            _ => Err(super::few()),
        }
    }

    /// Adds what makes the kernel know again what it has forgotten.
    pub(super) fn remind(&self, calls: &mut Batch<'_>) {
        set_stack(calls, self.base.stack);
    }

    /// Whether the id of a thread, which stands, is where libc would keep it: as far from its `FS` as that of the
    /// first thread.
    pub(super) fn keeps_id_of(&self, thread: Pid, fs_base: u64) -> Result<bool, Failure> {
        let Base { thread_id, registers, .. } = self.base;
        let at = fs_base.wrapping_add(thread_id.wrapping_sub(registers.fs_base));
        let mut bytes = [0; 4];
        let is_there = thread_id != 0 && self.memory.read_exact_at(&mut bytes, at).is_ok();
        Ok(is_there && i32::from_ne_bytes(bytes) == fitness::inner_id(thread)?)
    }

    /// The stack for signals of another thread, which stands.
    pub(super) fn stack_of(&self, thread: Pid) -> io::Result<[u64; 3]> {
        let at = self.data_at(0);
        let (process, memory) = (self.process.try_clone()?, self.memory.try_clone()?);
        let other = Self { pid: thread, process, memory, base: self.base };
        other.call(libc::SYS_sigaltstack, &[0, at])?;
        self.words(at)
    }

    /// Where something lies that is put before the calls of a batch.
    pub(super) fn data_at(&self, offset: usize) -> u64 {
        self.base.room + DATA + offset as u64
    }

    fn words<const N: usize>(&self, at: u64) -> io::Result<[u64; N]> {
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip((at..).step_by(8)) {
            let mut bytes = [0; 8];
            self.memory.read_exact_at(&mut bytes, at)?;
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(words)
    }

    /// Makes all calls of a table; returns what each has left in `rax`, and whom they have made.
    pub(super) fn go_through(&self, data: &[u8], table: &[u8]) -> io::Result<(Vec<u64>, Vec<Pid>)> {
        self.lay_out(data, table)?;
        self.start(0..table.len())?;
        let made = self.finish()?;
        Ok((self.results(table.len())?, made))
    }

    /// Puts a table, and what its calls point to, where they are looked for.
    pub(super) fn lay_out(&self, data: &[u8], table: &[u8]) -> io::Result<()> {
        let room = self.base.room;
        if data.len() as u64 > TABLE - DATA || table.len() as u64 > ROOM - TABLE {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        let mut there = [0; LOOP.len()];
        self.memory.read_exact_at(&mut there, room)?;
        if there != LOOP {
            return Err(io::Error::other("its instructions have changed"));
        }
        self.memory.write_all_at(data, room + DATA)?;
        self.memory.write_all_at(table, room + TABLE)
    }

    /// Has it begin with a part of the table.
    pub(super) fn start(&self, part: Range<usize>) -> io::Result<()> {
        let Base { mut registers, room, .. } = self.base;
        registers.rip = room;
        registers.eflags = FLAGS;
        registers.orig_rax = u64::MAX;
        registers.rbx = room + TABLE + part.start as u64;
        registers.r12 = room + TABLE + part.end as u64;
        trace::set_registers(self.pid, &registers)?;
        trace::resume(self.pid)
    }

    /// Waits until it is through; tells whom it has made.
    pub(super) fn finish(&self) -> io::Result<Vec<Pid>> {
        let (begin, end) = (self.base.room, self.base.room + LOOP.len() as u64);
        let mut made = Vec::new();
        for _ in 0..STEPS {
            let stop = trace::wait_for_stop(self.pid)?;
            if stop == Stop::Stepped {
                return self.stands_in(end..=end).map(|()| made);
            }
            self.stands_in(begin..=end)?;
            if stop == Stop::Forked {
                made.push(trace::child(self.pid)?);
            }
            trace::resume(self.pid)?;
        }
        Err(io::Error::other("it does not come to an end"))
    }

    /// What the calls of a table have left.
    pub(super) fn results(&self, length: usize) -> io::Result<Vec<u64>> {
        let mut results = vec![0; length];
        self.memory.read_exact_at(&mut results, self.base.room + TABLE)?;
        let (words, _) = results.as_chunks::<8>();
        Ok(words.iter().step_by(ENTRY / 8).map(|word| u64::from_ne_bytes(*word)).collect())
    }

    /// Sees that it is where it was put.
    fn stands_in(&self, places: RangeInclusive<u64>) -> io::Result<()> {
        if places.contains(&trace::registers(self.pid)?.rip) {
            return Ok(());
        }
        Err(io::Error::other("it did something else"))
    }

    /// Has it stand where the snapshot was stopped: it reads.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.call(libc::SYS_munmap, &[self.base.room, ROOM])?;
        self.stand_ready(self.base.registers, self.base.sequences)
    }

    /// Lets it go on.
    pub(super) fn release(&self) -> io::Result<()> {
        trace::release(self.pid)
    }

    /// Has it stand before the call in which it stood. No step can be made in it from here on.
    fn stand_ready(&self, registers: Registers, sequences: Option<Sequences>) -> io::Result<()> {
        // Last of all: from here on it is the program's again what they do.
        self.forget_sequence(sequences)?;
        if let Some(sequences) = sequences {
            self.call(libc::SYS_rseq, &sequences.arguments(0))?;
        }
        self.stand_before(registers)
    }

    /// The same of one that has nothing to be told any more.
    pub(super) fn stand_before(&self, mut registers: Registers) -> io::Result<()> {
        registers.rip = registers.rip.wrapping_sub(INSTRUCTION.len() as u64);
        registers.rax = registers.orig_rax;
        // Nothing for the kernel to begin again.
        registers.orig_rax = u64::MAX;
        trace::set_registers(self.pid, &registers)
    }

    /// Ends it; whoever is its parent collects it.
    pub(super) fn end(&self) {
        // It may have ended already, and its number may be another's.
        pidfd_send_signal(&self.process, Signal::KILL).ok();
        trace::wait_for_end(self.pid);
    }

    fn stepped(&self, number: libc::c_long, arguments: &[u64]) -> io::Result<(u64, Option<Pid>)> {
        let mut child = None;
        let made = self.step(number, arguments, &mut child);
        made.map(|result| (result, child)).inspect_err(|_| {
            // Whatever went wrong, nobody would ever hear of it again.
            if let Some(child) = child {
                end(child);
            }
        })
    }

    fn step(
        &self,
        number: libc::c_long,
        arguments: &[u64],
        child: &mut Option<Pid>,
    ) -> io::Result<u64> {
        let Base { mut registers, instruction, .. } = self.base;
        let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
        registers.rip = instruction;
        registers.eflags = FLAGS;
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
        let after = instruction + INSTRUCTION.len() as u64;
        for _ in 0..STEPS {
            trace::step(self.pid)?;
            match trace::wait_for_stop(self.pid)? {
                Stop::Stepped => {
                    self.stands_in(after..=after)?;
                    return outcome(trace::registers(self.pid)?.rax);
                }
                Stop::Forked => *child = Some(trace::child(self.pid)?),
                Stop::Told | Stop::Signal => self.stands_in(instruction..=after)?,
            }
        }
        Err(io::Error::other("it does not come to an end"))
    }
}

/// Adds what gives a thread its stack for signals.
pub(super) fn set_stack(calls: &mut Batch<'_>, stack: [u64; 3]) {
    // The flags of a `stack_t` are an `int` before four bytes of nothing.
    if stack[1] & u64::from(u32::MAX) != u64::from(NO_STACK) {
        let at = calls.words(&stack);
        calls.call(libc::SYS_sigaltstack, &[at, 0], "set the stack for signals");
    }
}

fn end(pid: Pid) {
    kill_process(pid, Signal::KILL).ok();
    // Its parent hears of its end only then.
    trace::wait_for_end(pid);
}

fn open_memory(pid: Pid) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{}/mem", pid.as_raw_nonzero()))
}

/// Looks for the instruction in what the kernel has mapped into every process.
fn find_instruction(pid: Pid, memory: &File) -> io::Result<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()))?;
    let none = || io::Error::other("there is none");
    // Whole, as the name of a file may end so.
    let is_it = |line: &&str| line.split_whitespace().nth(5) == Some("[vdso]");
    let line = maps.lines().find(is_it).ok_or_else(none)?;
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
