//! The other threads of a process. They stand for good where they wait, as its first one does, and each copy
//! gets the like of them: at the same place, with the same stack, mask and name, and as confined as
//! its first one is by then.
//!
//! A thread that stands in a call makes it once more. Only calls are known here to which that makes no
//! difference, and in which a thread holds no lock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::step::{Failure, Step};
use crate::sys::trace::{self, Registers, Sequences, Stop};

use super::batch::Batch;
use super::remote::{Remote, set_stack};
use super::{Argument, PATIENCE, fitness};

/// Calls in which a thread waits, and which it may as well make again.
const WAITING: [libc::c_long; 12] = [
    libc::SYS_futex,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];
/// What a call leaves in `rax` that was broken off while it waited: `EINTR`, and what the kernel has for calls
/// that it makes again, see `include/linux/errno.h`.
const BROKEN_OFF: [i64; 5] = [-4, -512, -513, -514, -516];
/// Most threads beside the first: an interpreter's own are some ten.
const MOST: usize = 64;
/// Time for a thread that does something to be done with it.
const PAUSE: Duration = Duration::from_millis(1);

/// Threads that stand.
#[derive(Debug, Default)]
pub(super) struct Others(BTreeMap<i32, Thread>);

#[derive(Clone, Debug)]
struct Thread {
    registers: Registers,
    /// Of floating-point numbers and vectors, with their modes.
    vectors: Vec<u8>,
    /// Of signals.
    mask: u64,
    name: Vec<u8>,
    sequences: Option<Sequences>,
    /// `stack_t` of its stack for signals.
    stack: [u64; 3],
}

/// Stops all threads of a program but its first one, which stands already.
pub(super) fn stop_others(program: Pid) -> Result<Others, Failure> {
    let mut others = Others::default();
    // One that runs may start another.
    loop {
        let threads = fitness::threads(program)?;
        let next = threads.into_iter().find(|it| *it != program && !others.has(*it));
        let Some(next) = next else { return Ok(others) };
        if others.0.len() == MOST {
            return Err(Failure(format!("it has more than {MOST} threads")));
        }
        // It may end just now; then it is not there any more.
        let Some(registers) = stop(next).or_else(|failure| match fitness::threads(program) {
            Ok(threads) if !threads.contains(&next) => Ok(None),
            _ => Err(failure),
        })?
        else {
            continue;
        };
        super::remote::check_mode(&registers)?;
        let mask = trace::signal_mask(next).step("read a mask of signals")?;
        let sequences = trace::sequences(next).step("ask for restartable sequences")?;
        let (name, vectors) = (fitness::name(next)?, trace::vectors(next));
        let vectors = vectors.step("read vector registers")?;
        let id = next.as_raw_nonzero().get();
        others.0.insert(id, Thread { registers, vectors, mask, name, sequences, stack: [0; 3] });
    }
}

fn stop(thread: Pid) -> Result<Option<Registers>, Failure> {
    match trace::seize(thread) {
        // It was started by one that is held, and so is held already.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        seized => seized.step("hold a thread")?,
    }
    let until = Instant::now() + PATIENCE;
    loop {
        trace::interrupt(thread).step("stop a thread")?;
        while trace::wait_for_stop(thread).step("wait for a thread")? != Stop::Told {
            trace::resume(thread).step("resume a thread")?;
        }
        let registers = trace::registers(thread).step("read registers")?;
        if is_waiting(&registers) {
            return Ok(Some(registers));
        }
        if Instant::now() > until {
            return Err(Failure("a thread does not wait".to_owned()));
        }
        trace::resume(thread).step("resume a thread")?;
        std::thread::sleep(PAUSE);
    }
}

/// Whether a thread that stands was waiting, and has got nothing yet.
pub(super) fn is_waiting(registers: &Registers) -> bool {
    WAITING.iter().any(|call| call.cast_unsigned() == registers.orig_rax)
        && BROKEN_OFF.contains(&registers.rax.cast_signed())
}

impl Others {
    fn has(&self, thread: Pid) -> bool {
        self.0.contains_key(&thread.as_raw_nonzero().get())
    }

    /// Asks for what only they themselves can say. They stand for good, as the program does.
    pub(super) fn ask(&mut self, program: &Remote) -> Result<(), Failure> {
        for (id, thread) in &mut self.0 {
            let pid = Pid::from_raw(*id).ok_or_else(|| Failure("no thread".to_owned()))?;
            if !program.keeps_id_of(pid, thread.registers.fs_base)? {
                let why = "it has threads, and keeps their ids where they are not found";
                return Err(Failure(why.to_owned()));
            }
            // It has called nothing since, and will not; the kernel shall not send it elsewhere.
            program.forget_sequence(thread.sequences).step("end a restartable sequence")?;
            thread.stack = program.stack_of(pid).step("ask a thread for its stack for signals")?;
        }
        Ok(())
    }

    /// Makes the like of them in a copy, which is confined already. They stand, and nothing is left to do
    /// but to let go of them.
    pub(super) fn remake(&self, program: &Remote) -> Result<Vec<Remote>, Failure> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let made = program.clone_threads(self.0.values().map(|it| it.registers.fs_base))?;
        let (mut calls, mut threads) = (Batch::of(program), Vec::new());
        for (thread, made) in self.0.values().zip(made) {
            thread.tell(&made, &mut calls)?;
            threads.push((made, calls.len()));
        }
        calls.run_by(&threads)?;
        let made: Vec<Remote> = threads.into_iter().map(|(made, _)| made).collect();
        for (thread, made) in self.0.values().zip(&made) {
            made.stand_before(thread.registers).step("let a thread go on")?;
        }
        Ok(made)
    }
}

impl Thread {
    /// Adds what a thread is made its like by.
    fn tell(&self, made: &Remote, calls: &mut Batch<'_>) -> Result<(), Failure> {
        trace::set_signal_mask(made.pid(), self.mask).step("set a mask of signals")?;
        trace::set_vectors(made.pid(), &self.vectors).step("set vector registers")?;
        let name = calls.data(&[self.name.as_slice(), b"\0"].concat());
        calls.call(libc::SYS_prctl, &[libc::PR_SET_NAME.arg(), name], "name a thread");
        set_stack(calls, self.stack);
        // Last of all: from here on it is the program's again what they do, and none is begun.
        made.forget_sequence(self.sequences).step("end a restartable sequence")?;
        if let Some(sequences) = self.sequences {
            let step = "register restartable sequences";
            calls.call(libc::SYS_rseq, &sequences.arguments(0), step);
        }
        Ok(())
    }
}
