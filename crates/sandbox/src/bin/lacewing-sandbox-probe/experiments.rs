//! What the probe tries inside a sandbox: each experiment returns one text.

#![expect(unsafe_code, reason = "forbidden system calls are made with raw numbers")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Runs an experiment by name.
pub(crate) fn run(name: &str, arguments: &[String]) -> String {
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    match name {
        "arguments" => arguments.join("|"),
        "environment" => {
            let mut all: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
            all.sort();
            all.join("|")
        }
        "cwd" => {
            std::env::current_dir().map_or_else(|e| e.to_string(), |p| p.display().to_string())
        }
        "descriptors" => descriptors(),
        "talk" => result(talk(first)),
        "eat-memory" => eat_memory(first.parse().unwrap_or(0)),
        "fork-bomb" => fork_bomb(),
        "fill" => result(fill(first)),
        "create" => result(create_many(first)),
        "write" => result(fs::write(first, b"x").map(|()| "written".to_owned())),
        "read" => result(fs::read(first).map(|bytes| format!("read {}", bytes.len()))),
        "list" => list(first),
        "syscall" => syscall(arguments),
        "status" => status(first),
        "daemon" => result(daemon()),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "sleep" => loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        other => format!("no experiment named {other}"),
    }
}

fn result(result: io::Result<String>) -> String {
    result.unwrap_or_else(|error| match error.raw_os_error() {
        Some(number) => format!("errno {number}"),
        None => format!("error {error}"),
    })
}

fn descriptors() -> String {
    // Each with what it leads to, read before the directory's own descriptor is closed.
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return "unreadable".to_owned() };
    let mut all: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            let kind = target.split([':', '[']).next().unwrap_or_default().to_owned();
            (!kind.ends_with("/fd")).then(|| format!("{}={kind}", entry.file_name().display()))
        })
        .collect();
    all.sort();
    all.join("|")
}

fn talk(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"ping")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn eat_memory(mebibytes: usize) -> String {
    let mut kept = Vec::new();
    for _ in 0..mebibytes {
        let mut block = vec![1_u8; 1 << 20];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 2);
        kept.push(block);
    }
    format!("ate {}", kept.len())
}

fn fork_bomb() -> String {
    let mut children = Vec::new();
    let stopped = loop {
        match Command::new("/bin/sleep").arg("60").spawn() {
            Ok(child) => children.push(child),
            Err(error) => break error.raw_os_error().unwrap_or(0),
        }
        if children.len() > 500 {
            break 0;
        }
    };
    format!("{} children, errno {stopped}", children.len())
}

fn fill(path: &str) -> io::Result<String> {
    let mut file = fs::File::create(path)?;
    let block = vec![7_u8; 1 << 16];
    let mut written = 0_u64;
    loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => {
                return Ok(format!("{written} then errno {}", error.raw_os_error().unwrap_or(0)));
            }
        }
    }
}

fn create_many(dir: &str) -> io::Result<String> {
    for number in 0..100_000 {
        if let Err(error) = fs::File::create(Path::new(dir).join(number.to_string())) {
            return Ok(format!("{number} then errno {}", error.raw_os_error().unwrap_or(0)));
        }
    }
    Ok("no end".to_owned())
}

fn list(dir: &str) -> String {
    let mut names: Vec<String> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|it| it.file_name().display().to_string()).collect(),
        Err(error) => return result(Err(error)),
    };
    names.sort();
    names.join("|")
}

/// Makes each system call given as `number,argument,argument...`; tells each errno (0: it worked).
fn syscall(calls: &[String]) -> String {
    let one = |call: &String| {
        let numbers: Vec<i64> = call.split(',').filter_map(|it| it.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        // JUSTIFICATION: the experiment is the raw call itself.
        // SAFETY: the tests give only numbers and null pointers, so the call reads no memory of ours.
        let done = unsafe { libc::syscall(at(0), at(1), at(2), at(3), at(4), at(5), at(6)) };
        if done >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    };
    calls.iter().map(one).map(|errno| errno.to_string()).collect::<Vec<_>>().join("|")
}

/// Prints chosen lines of `/proc/self/status`.
fn status(names: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted: Vec<&str> = names.split(',').collect();
    let lines = text
        .lines()
        .filter(|line| line.split(':').next().is_some_and(|name| wanted.contains(&name)));
    lines.map(|line| line.replace('\t', " ")).collect::<Vec<_>>().join("|")
}

/// Leaves a process behind that has nothing to do with this one any more.
fn daemon() -> io::Result<String> {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "(setsid sleep 4242 </dev/null >/dev/null 2>&1 &) ; exit 0"])
        .process_group(0);
    shell.status().map(|status| format!("{status}"))
}
