//! Descriptors that a process has made for itself alone: pipes, counters of events, what waits for them, as
//! event loops have, and sockets that lead nowhere else. A fork would share them with the snapshot, so each copy makes the like
//! of them anew, under the same numbers and with what was in them. What leads to anything else is no
//! such descriptor. See pipe(7), eventfd(2), epoll(7), and proc_pid_fdinfo(5).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::stat;
use rustix::io::{ioctl_fionread, read};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::step::{Failure, Step};
use crate::sys::trace;

use super::batch::Batch;
use super::sockets::{self, Connection, Settings};
use super::{Argument, Given, TRANSIT};

/// Where ends of pipes are on their way to their numbers.
const STAGE: [RawFd; 2] = [TRANSIT - 2, TRANSIT - 1];
/// Most bytes in one pipe.
const MOST_IN_A_PIPE: u64 = 1024;
/// What can be waited for, but for what always is.
const WAITS: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP).cast_unsigned();
/// Most of these descriptors.
const MOST: usize = 32;
/// Most bytes in all pipes and for all that is waited for, of 8 KB that there are for what calls point to.
const MOST_BYTES: usize = 4096;
/// Most bytes that are read about a descriptor: more than so much is told of that.
const MOST_INFORMATION: u64 = 64 << 10;

/// All of a process.
#[derive(Debug, Default)]
pub(super) struct Own {
    made: Vec<One>,
    /// Those that are the same as the one of this number, which may be one that was given.
    same: Vec<(End, RawFd)>,
}

#[derive(Debug, PartialEq, Eq)]
struct One {
    end: End,
    what: What,
}

/// A descriptor's number and flags, see open(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    number: RawFd,
    flags: i32,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// `/dev/null`.
    Null,
    /// A counter.
    Event { count: u32, is_semaphore: bool },
    /// What waits for others.
    Poll(Vec<Watched>),
    /// To a server in its sandbox.
    Connection(Connection, Settings),
    /// The end to be read; both are of this process.
    Pipe { writer: End, content: Vec<u8> },
    /// One end of a pair of sockets; both are of this process.
    Sockets { other: End, kind: i32 },
}

/// What one of them waits for: `tfd`, `events` and `data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    number: RawFd,
    events: u32,
    data: u64,
    /// Of the file that is meant: its number may be another's by now.
    inode: u64,
}

impl Watched {
    /// Whether its number still leads to that file, and it waits for anything: what has been told of once
    /// (`EPOLLONESHOT`) waits for nothing, which cannot be asked for.
    fn is_meant(&self, path: &str) -> bool {
        let is_asleep =
            self.events & libc::EPOLLONESHOT.cast_unsigned() != 0 && self.events & WAITS == 0;
        !is_asleep && stat(path).is_ok_and(|found| found.st_ino == self.inode)
    }
}

impl End {
    fn of(number: RawFd, information: &str) -> Option<Self> {
        let flags = i32::from_str_radix(field(information, "flags:")?, 8).ok()?;
        Some(Self { number, flags })
    }

    fn status(self) -> i32 {
        self.flags & (libc::O_NONBLOCK | libc::O_DIRECT | libc::O_APPEND)
    }

    fn is_writer(self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_WRONLY
    }

    fn close_on_exec(self) -> i32 {
        self.flags & libc::O_CLOEXEC
    }
}

impl Own {
    /// Finds them among those that a process was not given; the others are told by what they lead to.
    pub(super) fn of(program: Pid, given: &Given) -> Result<(Self, Vec<String>), Failure> {
        let connections = sockets::of(program, &given.ports)?;
        let of = |what: &str| format!("/proc/{}/{what}", program.as_raw_nonzero());
        let (mut own, mut others) = (Self::default(), Vec::new());
        let (mut pipes, mut rest) = (Vec::new(), Vec::new());
        let mut known: Vec<RawFd> = given.fds.iter().copied().chain([0]).collect();
        let target = |number: RawFd| {
            let target = fs::read_link(of(&format!("fd/{number}"))).unwrap_or_default();
            target.to_string_lossy().into_owned()
        };
        let all = super::fitness::descriptors(program)?;
        // Before anything is read of them: it can be much.
        let surplus = all.len().saturating_sub(known.len() + MOST);
        let high: Vec<_> = all.iter().filter(|number| **number >= STAGE[0]).collect();
        if surplus > 0 || !high.is_empty() {
            let named = high.into_iter().take(1).map(|number| target(*number));
            return Ok((own, named.chain([format!("{} in all", all.len())]).collect()));
        }
        check_given(program, given, &target(0))?;
        for number in all {
            if number == 0 || given.fds.contains(&number) {
                continue;
            }
            let target = target(number);
            let information = information(&of(&format!("fdinfo/{number}")))?;
            let Some(end) = End::of(number, &information) else {
                others.push(target);
                continue;
            };
            if let Some(first) = same(program, number, &known).step("compare descriptors")? {
                own.same.push((end, first));
                continue;
            }
            known.push(number);
            let what = match connections.iter().find(|it| it.is(&target)) {
                Some(it) => Settings::of(program, number)?.map(|set| What::Connection(*it, set)),
                None => what(&target, &information),
            };
            match what {
                Some(what) => own.made.push(One { end, what }),
                None if target.starts_with("pipe:") => pipes.push((target, end)),
                None => rest.push((target, end)),
            }
        }
        own.made.extend(both_ends(program, &mut pipes)?);
        own.made.extend(pairs(program, &mut rest)?);
        others.extend(pipes.into_iter().chain(rest).map(|(target, _)| target));
        let numbers: BTreeSet<RawFd> = own.numbers().collect();
        let is_known = |fd: &RawFd| *fd == 0 || numbers.contains(fd) || given.fds.contains(fd);
        let can_watch = |(_, watched): (RawFd, &Watched)| {
            is_known(&watched.number) && watched.is_meant(&of(&format!("fd/{}", watched.number)))
        };
        if own.bytes() > MOST_BYTES || !own.watched().all(can_watch) {
            others.push("more than can be made anew".to_owned());
        }
        Ok((own, others))
    }

    /// Bytes that making them takes.
    fn bytes(&self) -> usize {
        let content = |one: &One| match &one.what {
            What::Pipe { content, .. } => content.len(),
            _ => 0,
        };
        self.made.iter().map(content).sum::<usize>() + self.watched().count() * 16
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let made = self.made.iter().flat_map(|one| {
            let other = match &one.what {
                What::Pipe { writer: other, .. } | What::Sockets { other, .. } => {
                    Some(other.number)
                }
                _ => None,
            };
            [Some(one.end.number), other].into_iter().flatten()
        });
        made.chain(self.same.iter().map(|(end, _)| end.number))
    }

    fn watched(&self) -> impl Iterator<Item = (RawFd, &Watched)> {
        self.made.iter().flat_map(|one| {
            let watched = match &one.what {
                What::Poll(watched) => watched.as_slice(),
                _ => &[],
            };
            watched.iter().map(|it| (one.end.number, it))
        })
    }

    /// Makes all of them in a copy, in which nothing below [`TRANSIT`] is open but 0 and what it was given.
    pub(super) fn remake(&self, calls: &mut Batch<'_>, given: &[RawFd]) {
        let step = "make descriptors anew";
        let mut taken: BTreeSet<RawFd> = given.iter().copied().chain([0]).collect();
        for One { end, what } in &self.made {
            // The kernel gives the lowest number that is free.
            let mut free = (0..).filter(|number| !taken.contains(number));
            let (first, second) = (free.next().unwrap_or(0), free.next().unwrap_or(0));
            let status = end.status().arg();
            match what {
                What::Null => {
                    let null = calls.data(b"/dev/null\0");
                    let flags = end.flags & (libc::O_ACCMODE | libc::O_NONBLOCK);
                    calls.call(
                        libc::SYS_openat,
                        &[libc::AT_FDCWD.arg(), null, flags.arg(), 0],
                        step,
                    );
                }
                What::Event { count, is_semaphore } => {
                    let kind = if *is_semaphore { libc::EFD_SEMAPHORE } else { 0 };
                    calls.call(libc::SYS_eventfd2, &[u64::from(*count), status | kind.arg()], step);
                }
                What::Poll(_) => calls.call(libc::SYS_epoll_create1, &[0], step),
                What::Connection(connection, settings) => {
                    connection.make(calls, first, *settings);
                    let arguments = [first.arg(), libc::F_SETFL.arg(), status];
                    calls.call(libc::SYS_fcntl, &arguments, step);
                }
                What::Pipe { writer, content } => {
                    let pair = calls.words(&[0]);
                    calls.call(libc::SYS_pipe2, &[pair, 0], step);
                    if !content.is_empty() {
                        let (at, length) = (calls.data(content), content.len() as u64);
                        calls.call(libc::SYS_write, &[second.arg(), at, length], step);
                    }
                    place_both(calls, [first, second], [*end, *writer]);
                    taken.extend([end.number, writer.number]);
                    continue;
                }
                What::Sockets { other, kind } => {
                    let pair = calls.words(&[0]);
                    let arguments = [libc::AF_UNIX.arg(), kind.arg(), 0, pair];
                    calls.call(libc::SYS_socketpair, &arguments, step);
                    place_both(calls, [first, second], [*end, *other]);
                    taken.extend([end.number, other.number]);
                    continue;
                }
            }
            move_to(calls, first, end.number, end.close_on_exec());
            taken.insert(end.number);
        }
        for (end, first) in &self.same {
            let arguments = [first.arg(), end.number.arg(), end.close_on_exec().arg()];
            calls.call(libc::SYS_dup3, &arguments, step);
        }
        for (poll, Watched { number, events, data, .. }) in self.watched() {
            // `struct epoll_event` has no gap on x86-64.
            let event = [&events.to_ne_bytes()[..], &data.to_ne_bytes()].concat();
            let arguments =
                [poll.arg(), libc::EPOLL_CTL_ADD.arg(), number.arg(), calls.data(&event)];
            calls.call(libc::SYS_epoll_ctl, &arguments, step);
        }
    }
}

/// Which of them is the same as another descriptor of a process, if one is.
fn same(program: Pid, number: RawFd, among: &[RawFd]) -> io::Result<Option<RawFd>> {
    for first in among {
        if trace::is_same_file(program, *first, number)? {
            return Ok(Some(*first));
        }
    }
    Ok(None)
}

/// Takes the pipes of which both ends are there.
fn both_ends(program: Pid, pipes: &mut Vec<(String, End)>) -> Result<Vec<One>, Failure> {
    let mut found = Vec::new();
    for (name, end) in pipes.iter().filter(|(_, end)| !end.is_writer()) {
        let of_it: Vec<_> = pipes.iter().filter(|(other, _)| other == name).collect();
        let writer = of_it.iter().map(|(_, end)| *end).find(|end| end.is_writer());
        if let (Some(writer), 2) = (writer, of_it.len()) {
            let content = content(program, end.number).step("look into a pipe")?;
            found.push(One { end: *end, what: What::Pipe { writer, content } });
        }
    }
    let taken = |end: &End| {
        let is_it = |one: &One| match &one.what {
            What::Pipe { writer, .. } => one.end == *end || writer == end,
            _ => false,
        };
        found.iter().any(is_it)
    };
    pipes.retain(|(_, end)| !taken(end));
    Ok(found)
}

/// Takes the pairs of sockets.
fn pairs(program: Pid, sockets: &mut Vec<(String, End)>) -> Result<Vec<One>, Failure> {
    let is_socket = |(target, _): &&(String, End)| target.starts_with("socket:");
    let numbers: Vec<RawFd> = sockets.iter().filter(is_socket).map(|(_, end)| end.number).collect();
    let mut found = Vec::new();
    for (one, other, kind) in sockets::pairs(program, &numbers)? {
        let mut take = |number: RawFd| {
            let at = sockets.iter().position(|(_, end)| end.number == number)?;
            Some(sockets.swap_remove(at).1)
        };
        if let (Some(end), Some(other)) = (take(one), take(other)) {
            found.push(One { end, what: What::Sockets { other, kind } });
        }
    }
    Ok(found)
}

/// Gives both ends of what was made their numbers and flags.
fn place_both(calls: &mut Batch<'_>, made: [RawFd; 2], ends: [End; 2]) {
    for (from, stage) in made.into_iter().zip(STAGE) {
        move_to(calls, from, stage, 0);
    }
    for (stage, end) in STAGE.into_iter().zip(ends) {
        move_to(calls, stage, end.number, end.close_on_exec());
        let arguments = [end.number.arg(), libc::F_SETFL.arg(), end.status().arg()];
        calls.call(libc::SYS_fcntl, &arguments, "make descriptors anew");
    }
}

fn move_to(calls: &mut Batch<'_>, from: RawFd, to: RawFd, flags: i32) {
    let step = "place descriptors";
    if from == to {
        let flag = if flags == 0 { 0 } else { libc::FD_CLOEXEC };
        calls.call(libc::SYS_fcntl, &[from.arg(), libc::F_SETFD.arg(), flag.arg()], step);
        return;
    }
    calls.call(libc::SYS_dup3, &[from.arg(), to.arg(), flags.arg()], step);
    calls.call(libc::SYS_close, &[from.arg()], step);
}

/// What a descriptor is, if it is not an end of a pipe.
fn what(target: &str, information: &str) -> Option<What> {
    match target {
        "/dev/null" => Some(What::Null),
        "anon_inode:[eventfd]" => {
            let count = u64::from_str_radix(field(information, "eventfd-count:")?, 16).ok()?;
            let is_semaphore = field(information, "eventfd-semaphore:") == Some("1");
            Some(What::Event { count: u32::try_from(count).ok()?, is_semaphore })
        }
        "anon_inode:[eventpoll]" => {
            let lines = information.lines().filter(|line| line.starts_with("tfd:"));
            lines.map(watched).collect::<Option<_>>().map(What::Poll)
        }
        _ => None,
    }
}

/// `tfd:        5 events:       1d data: ffffffffffffffff  pos:0 ino:61af sdev:7`
fn watched(line: &str) -> Option<Watched> {
    let mut words = line.split_whitespace();
    let number = words.nth(1)?.parse().ok()?;
    let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
    let data = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
    let inode = u64::from_str_radix(inode, 16).ok()?;
    Some(Watched { number, events, data, inode })
}

/// What is told about a descriptor.
fn information(path: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let file = File::open(path).step("read about a descriptor")?;
    file.take(MOST_INFORMATION).read_to_string(&mut text).step("read about a descriptor")?;
    if text.len() as u64 == MOST_INFORMATION {
        return Err(Failure("a descriptor waits for more than can be made anew".to_owned()));
    }
    Ok(text)
}

/// Sees that what a program was given is where it was: a copy gets its own there.
fn check_given(program: Pid, given: &Given, at_zero: &str) -> Result<(), Failure> {
    if at_zero != "/dev/null" && !given.fds.contains(&0) {
        return Err(Failure("its descriptor 0 is not /dev/null any more".to_owned()));
    }
    for (number, file) in given.fds.iter().zip(&given.files) {
        let path = format!("/proc/{}/fd/{number}", program.as_raw_nonzero());
        if stat(path).is_ok_and(|found| (found.st_dev, found.st_ino) == *file) {
            continue;
        }
        return Err(Failure(format!("its descriptor {number} is not what it was given")));
    }
    Ok(())
}

fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    information.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What is in a pipe, which stays there.
fn content(program: Pid, number: RawFd) -> io::Result<Vec<u8>> {
    let process = pidfd_open(program, PidfdFlags::empty())?;
    let reader: OwnedFd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
    let waits = ioctl_fionread(&reader)?;
    if waits > MOST_IN_A_PIPE {
        return Err(io::Error::other("there is too much in it"));
    }
    let mut content = vec![0; usize::try_from(waits).unwrap_or(0)];
    if !content.is_empty() {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let copied = tee(&reader, &to, content.len(), SpliceFlags::NONBLOCK)?;
        let have = read(&from, &mut content)?;
        if copied != content.len() || have != copied {
            return Err(io::Error::other("not all of it was there"));
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_as_the_kernel_tells_them() {
        let poll = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1038\n\
            tfd:       14 events:       19 data:                e  pos:0 ino:40e sdev:10\n\
            tfd:       12 events: 80000001 data: ffffffffffffffff  pos:0 ino:105453e sdev:f\n";
        let watched = |number, events, data, inode| Watched { number, events, data, inode };
        let wanted =
            vec![watched(14, 0x19, 14, 0x40e), watched(12, 0x8000_0001, u64::MAX, 0x0105_453e)];
        assert_eq!(what("anon_inode:[eventpoll]", poll), Some(What::Poll(wanted)));
        assert_eq!(what("anon_inode:[eventpoll]", &poll.replace("events: ", "")), None);
        let event = "pos:\t0\nflags:\t02004002\nmnt_id:\t17\nino:\t1038\n\
            eventfd-count:               1f\neventfd-id: 32\neventfd-semaphore: 1\n";
        let counter = What::Event { count: 31, is_semaphore: true };
        assert_eq!(what("anon_inode:[eventfd]", event), Some(counter));
        let large = event.replace("              1f", "100000000");
        assert_eq!(what("anon_inode:[eventfd]", &large), None);
        for other in ["socket:[1]", "/dev/zero", "anon_inode:[timerfd]", "/memfd:x (deleted)"] {
            assert_eq!(what(other, event), None);
        }
    }

    #[test]
    fn flags_are_octal() {
        let end = End::of(7, "pos:\t0\nflags:\t02004001\n").unwrap();
        assert!(end.is_writer() && end.close_on_exec() != 0);
        assert_eq!(end.status(), libc::O_NONBLOCK);
        assert!(!End::of(8, "flags:\t0100000\n").unwrap().is_writer());
        assert_eq!(End::of(9, "pos:\t0\n"), None);
    }
}
