//! System calls that a process makes one after the other, while its keeper waits once: each stop would
//! cost two switches of tasks.
//!
//! A few instructions of ours lie in the process beside a table of calls, which they go through. They
//! were written while it stood, and it has not run since.

use std::io;

use rustix::process::Pid;

use crate::step::{Failure, Step};

use super::remote::Remote;

/// For each entry of the table, up to the end in `r12`: loads a number and six arguments from where
/// `rbx` points, calls, and stores the result; then `int3`.
pub(super) const LOOP: [u8; 42] = [
    0x48, 0x8b, 0x03, // mov rax, [rbx]
    0x48, 0x8b, 0x7b, 0x08, // mov rdi, [rbx + 8]
    0x48, 0x8b, 0x73, 0x10, // mov rsi, [rbx + 16]
    0x48, 0x8b, 0x53, 0x18, // mov rdx, [rbx + 24]
    0x4c, 0x8b, 0x53, 0x20, // mov r10, [rbx + 32]
    0x4c, 0x8b, 0x43, 0x28, // mov r8, [rbx + 40]
    0x4c, 0x8b, 0x4b, 0x30, // mov r9, [rbx + 48]
    0x0f, 0x05, // syscall
    0x48, 0x89, 0x03, // mov [rbx], rax
    0x48, 0x83, 0xc3, 0x38, // add rbx, 56
    0x4c, 0x39, 0xe3, // cmp rbx, r12
    0x75, 0xd7, // jne to the first
    0xcc, // int3
];
/// Bytes of an entry.
pub(super) const ENTRY: usize = 56;

/// Calls that the room for the table holds.
const MOST: usize = 200;

/// Calls to be made, with what they point to.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    remote: &'a Remote,
    calls: Vec<Call>,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Call {
    number: u64,
    arguments: [u64; 6],
    /// What it is for; nothing if it may fail.
    step: Option<String>,
}

impl<'a> Batch<'a> {
    pub(super) fn of(remote: &'a Remote) -> Self {
        Self { remote, calls: Vec::new(), data: Vec::new() }
    }

    /// Adds a call, which must succeed.
    pub(super) fn call(
        &mut self,
        number: libc::c_long,
        arguments: &[u64],
        step: impl Into<String>,
    ) {
        self.add(number, arguments, Some(step.into()));
    }

    /// Adds a call that may fail.
    pub(super) fn attempt(&mut self, number: libc::c_long, arguments: &[u64]) {
        self.add(number, arguments, None);
    }

    fn add(&mut self, number: libc::c_long, given: &[u64], step: Option<String>) {
        let mut arguments = [0; 6];
        for (argument, given) in arguments.iter_mut().zip(given) {
            *argument = *given;
        }
        self.calls.push(Call { number: number.cast_unsigned(), arguments, step });
    }

    /// Puts bytes where the calls find them.
    pub(super) fn data(&mut self, bytes: &[u8]) -> u64 {
        // Structures lie where the kernel may want them.
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = self.remote.data_at(self.data.len());
        self.data.extend_from_slice(bytes);
        at
    }

    /// The same with words.
    pub(super) fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.data(&bytes)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Has all of them made. The first that fails is told, but some after it were made as well.
    pub(super) fn run(self) -> Result<(), Failure> {
        for calls in self.calls.chunks(MOST) {
            let results = self.remote.go_through(&self.data, &table(calls));
            judge(calls, results.step("make system calls")?.0)?;
        }
        Ok(())
    }

    /// The same of a few, one at least, that make threads; tells which, in their order.
    pub(super) fn make(self) -> Result<Vec<Pid>, Failure> {
        let results = self.remote.go_through(&self.data, &table(&self.calls));
        let (results, made) = results.step("make system calls")?;
        judge(&self.calls, results)?;
        Ok(made)
    }

    /// Has a few made by several threads of one process at the same time, each from where the one before it
    /// ends to its own end, one at least.
    pub(super) fn run_by(self, threads: &[(Remote, usize)]) -> Result<(), Failure> {
        let step = "make system calls";
        let table = table(&self.calls);
        self.remote.lay_out(&self.data, &table).step(step)?;
        let mut from = 0;
        for (thread, to) in threads {
            thread.start(from * ENTRY..to * ENTRY).step(step)?;
            from = *to;
        }
        for (thread, _) in threads {
            thread.finish().step(step)?;
        }
        judge(&self.calls, self.remote.results(table.len()).step(step)?)
    }
}

fn table(calls: &[Call]) -> Vec<u8> {
    let words = calls.iter().flat_map(|call| std::iter::once(call.number).chain(call.arguments));
    words.flat_map(u64::to_ne_bytes).collect()
}

fn judge(calls: &[Call], results: Vec<u64>) -> Result<(), Failure> {
    for (call, result) in calls.iter().zip(results) {
        if let Some(step) = &call.step {
            outcome(result).step(step)?;
        }
    }
    Ok(())
}

/// What a call has answered, from what it left in `rax`.
pub(super) fn outcome(result: u64) -> io::Result<u64> {
    let signed = result.cast_signed();
    match i32::try_from(signed.wrapping_neg()) {
        Ok(errno @ 1..=4095) => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_negative_results_are_errors() {
        assert_eq!(outcome(7).unwrap(), 7);
        assert_eq!(outcome(0x7fff_ffff_f000).unwrap(), 0x7fff_ffff_f000);
        assert_eq!(outcome((-4096_i64).cast_unsigned()).unwrap(), (-4096_i64).cast_unsigned());
        assert_eq!(outcome((-1_i64).cast_unsigned()).unwrap_err().raw_os_error(), Some(1));
        assert_eq!(outcome((-4095_i64).cast_unsigned()).unwrap_err().raw_os_error(), Some(4095));
    }

    #[test]
    fn the_loop_jumps_back_to_its_first_instruction() {
        let (at, jump) = (LOOP.len() - 1, LOOP[LOOP.len() - 2].cast_signed());
        assert_eq!(at.cast_signed() + isize::from(jump), 0);
        assert_eq!(LOOP[at], 0xcc);
        assert_eq!(LOOP[33 + 2], u8::try_from(ENTRY).unwrap());
    }
}
