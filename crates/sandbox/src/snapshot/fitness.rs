//! Whether a snapshot can be forked, and whether what was forked is as it must be: both as seen from
//! outside, in `/proc`. See proc(5).

use std::fs;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::{fstat, stat};
use rustix::process::Pid;

use crate::step::{Failure, Step};

use super::descriptors::Own;
use super::{Given, NAMESPACES, Order};

/// Directories that every sandbox has for itself, which a snapshot must have left as they were.
const OWN: [&str; 2] = ["tmp", "dev/shm"];
/// What a new file system has by itself.
const OF_FILE_SYSTEM: &str = "lost+found";
/// As many names are told at most.
const TOLD: usize = 3;

fn of(pid: Pid, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{what}", pid.as_raw_nonzero()))
}

/// The program that init has started, if it is alone.
pub(super) fn only_program(init: Pid) -> Result<Pid, Failure> {
    let children = children(init)?;
    let [program] = children[..] else {
        return Err(Failure(format!("it left {} processes", children.len().saturating_sub(1))));
    };
    Ok(program)
}

fn children(pid: Pid) -> Result<Vec<Pid>, Failure> {
    children_of(pid, pid)
}

fn children_of(pid: Pid, thread: Pid) -> Result<Vec<Pid>, Failure> {
    let file = of(pid, &format!("task/{}/children", thread.as_raw_nonzero()));
    let text = fs::read_to_string(file).step("look for processes")?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect())
}

/// Sees that a snapshot has nothing that a fork would break or share; it stands. Tells what it has for
/// itself.
pub(super) fn check(
    init: Pid,
    program: Pid,
    given: &Given,
    may_have_threads: bool,
) -> Result<Own, Failure> {
    let threads = is_alone(init, program)?;
    if threads != 1 && !may_have_threads {
        return Err(Failure(format!("it has started threads: {}", threads - 1)));
    }
    let timers = fs::read_to_string(of(program, "timers")).step("look for timers")?;
    let all = status(program)?;
    if !timers.is_empty() {
        return Err(Failure("it has timers".to_owned()));
    }
    for pending in ["SigPnd", "ShdPnd"] {
        if field(&all, pending)?.bytes().any(|digit| digit != b'0') {
            return Err(Failure("signals wait for it".to_owned()));
        }
    }
    let (own, others) = Own::of(program, given)?;
    none_of("it has open files or connections", others)?;
    let maps = fs::read_to_string(of(program, "smaps")).step("read its mappings")?;
    let shared = shared_mappings(&maps);
    none_of("it has shared memory", shared)?;
    for directory in OWN {
        let entries = fs::read_dir(of(program, "root").join(directory));
        let names = entries.step_of("list", directory)?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // There may be millions.
        let left = names.filter(|name| name != OF_FILE_SYSTEM).take(TOLD).collect();
        none_of(&format!("it has left files in /{directory}"), left)?;
    }
    Ok(own)
}

/// Sees that a program has started no other process; tells how many threads it has.
pub(super) fn is_alone(init: Pid, program: Pid) -> Result<usize, Failure> {
    let all = threads(program)?;
    let threads = all.len();
    // A process is a child of the thread that has started it.
    let mut started = all.into_iter().map(|thread| children_of(program, thread));
    if only_program(init)? != program || started.any(|it| it.map_or(true, |it| !it.is_empty())) {
        return Err(Failure("it has started other processes".to_owned()));
    }
    Ok(threads)
}

/// The threads of a program.
pub(super) fn threads(program: Pid) -> Result<Vec<Pid>, Failure> {
    let entries = fs::read_dir(of(program, "task")).step("list threads")?;
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(ids.filter_map(Pid::from_raw).collect())
}

/// The name of a thread.
pub(super) fn name(thread: Pid) -> Result<Vec<u8>, Failure> {
    let name = fs::read(of(thread, "comm")).step("read the name of a thread")?;
    Ok(name.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(name))
}

/// The id of a thread in its innermost process namespace.
pub(super) fn inner_id(thread: Pid) -> Result<i32, Failure> {
    inner_id_in(&status(thread)?)
}

/// What `/proc` says of a thread; its name may be anything.
fn status(thread: Pid) -> Result<String, Failure> {
    let status = fs::read(of(thread, "status")).step("read its status")?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

/// A line of `/proc/<pid>/status`.
fn field<'a>(status: &'a str, name: &str) -> Result<&'a str, Failure> {
    let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim());
    value.ok_or_else(|| Failure(format!("its status lacks {name}")))
}

fn inner_id_in(status: &str) -> Result<i32, Failure> {
    let innermost = field(status, "NSpid")?.split_whitespace().next_back();
    let id = innermost.and_then(|id| id.parse().ok());
    id.ok_or_else(|| Failure("it has no id".to_owned()))
}

/// The private mappings that a program keeps from its forks (`MADV_DONTFORK`).
pub(super) fn left_out(program: Pid) -> Result<Vec<Range<u64>>, Failure> {
    let maps = fs::read_to_string(of(program, "smaps")).step("read its mappings")?;
    Ok(left_out_in(&maps))
}

fn left_out_in(maps: &str) -> Vec<Range<u64>> {
    let (mut range, mut found) = (None, Vec::new());
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "VmFlags:" {
            // Not those of devices, and what the kernel maps itself.
            let has = |wanted: &str| line.split_whitespace().any(|flag| flag == wanted);
            if has("dc") && !has("io") && !has("pf") {
                found.extend(range.take());
            }
        } else if !first.ends_with(':') {
            let address = |text| u64::from_str_radix(text, 16).ok();
            let ends = first.split_once('-');
            range = ends.and_then(|(from, to)| Some(address(from)?..address(to)?));
        }
    }
    found
}

fn none_of(what: &str, found: Vec<String>) -> Result<(), Failure> {
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found.into_iter().take(TOLD).collect();
    Err(Failure(format!("{what}: {}", named.join(", "))))
}

/// Names of the mappings in `/proc/<pid>/smaps` through which a process could write what others see:
/// one of a file that cannot be written is not among them, whatever it was asked for.
fn shared_mappings(maps: &str) -> Vec<String> {
    let (mut name, mut found) = ("anonymous", Vec::new());
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "VmFlags:" {
            if words.any(|flag| flag == "sh") {
                found.push(name.to_owned());
            }
        } else if !first.ends_with(':') {
            // `7f0000000000-7f0000001000 rw-s 00000000 00:01 42 /path`
            name = words.nth(4).unwrap_or("anonymous");
        }
    }
    found
}

pub(super) fn descriptors(pid: Pid) -> Result<Vec<RawFd>, Failure> {
    let entries = fs::read_dir(of(pid, "fd")).step("list descriptors")?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<RawFd> = names.collect();
    found.sort_unstable();
    Ok(found)
}

/// Sees that a new program is where it should be, as whom, with nothing more; returns its id in its
/// innermost process namespace.
pub(super) fn verify(
    pid: Pid,
    order: &Order,
    namespaces: &[OwnedFd],
    own: &Own,
) -> Result<i32, Failure> {
    for (kind, wanted) in NAMESPACES.iter().zip(namespaces) {
        let is = stat(of(pid, &format!("ns/{kind}"))).step("look at its namespaces")?;
        let wanted = fstat(wanted).step("look at a namespace")?;
        if (is.st_dev, is.st_ino) != (wanted.st_dev, wanted.st_ino) {
            return Err(Failure(format!("it is in another {kind} namespace")));
        }
    }
    let mut wanted = order.fds.clone();
    wanted.push(0);
    wanted.extend(own.numbers());
    wanted.sort_unstable();
    wanted.dedup();
    if descriptors(pid)? != wanted {
        return Err(Failure("it has other descriptors than it should".to_owned()));
    }
    as_wanted(&status(pid)?, order.host)
}

/// Compares `/proc/<pid>/status` with what it must say.
fn as_wanted(status: &str, host: u32) -> Result<i32, Failure> {
    let (user, nothing) = ([host.to_string().as_str(); 4].join("\t"), "0000000000000000");
    for (name, wanted) in [
        ("Uid", user.as_str()),
        ("Gid", &user),
        ("Groups", ""),
        ("Threads", "1"),
        ("CapInh", nothing),
        ("CapPrm", nothing),
        ("CapEff", nothing),
        ("CapBnd", nothing),
        ("CapAmb", nothing),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = field(status, name)?;
        if found != wanted {
            return Err(Failure(format!("its {name} is {found}")));
        }
    }
    inner_id_in(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpython3\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \n\
        NSpid:\t812\t9\t3\nThreads:\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn a_program_must_be_confined_in_every_respect() {
        assert_eq!(as_wanted(STATUS, 7).unwrap(), 3);
        assert!(as_wanted(STATUS, 8).is_err());
        for (from, to) in [
            ("Uid:\t7\t7", "Uid:\t7\t0"),
            ("Groups:\t ", "Groups:\t0 "),
            ("Threads:\t1", "Threads:\t2"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001"),
            ("CapEff:\t0", "CapEff:\t1"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("Seccomp", "Other"),
        ] {
            assert!(as_wanted(&STATUS.replace(from, to), 7).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_kept_from_forks_is_found() {
        let kept = "17c9e040000-17c9e082000 rw-p 00000000 00:00 0\nRss:  4 kB\n\
            VmFlags: rd wr mr mw me dc ac sd \n";
        let device = "7f00-7f01 rw-p 00000000 00:01 42\nVmFlags: rd wr pf io dc dd \n";
        let usual = "7f02-7f03 rw-p 00000000 00:00 0\nVmFlags: rd wr mr mw me ac sd \n";
        let found = left_out_in(&format!("{usual}{kept}{device}"));
        assert_eq!((found.len(), found[0].clone()), (1, 0x17c_9e04_0000..0x17c_9e08_2000));
    }

    #[test]
    fn shared_memory_is_seen() {
        let read_only = "7f00-7f01 r--s 00000000 00:01 42  /usr/lib/cache\nRss:  4 kB\n\
            VmFlags: rd mr me ms sd \n";
        let private = "7f01-7f02 rw-p 00000000 00:00 0\nVmFlags: rd wr mr mw me ac sd \n";
        let shared = "7f02-7f03 rw-s 00000000 00:01 42  /dev/zero (deleted)\nRss:  4 kB\n\
            VmFlags: rd wr sh mr mw me ms sd \n";
        assert_eq!(shared_mappings(&format!("{read_only}{private}")), Vec::<String>::new());
        assert_eq!(shared_mappings(&format!("{private}{shared}{read_only}")), ["/dev/zero"]);
    }
}
