//! What the probe tries inside a sandbox: each experiment returns one text.

#![expect(unsafe_code, reason = "forbidden system calls are made with raw numbers")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(3);

use lacewing_sandbox::{Keep, surrender};

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
        "talk-shortly" => result(TcpStream::connect(first).map(|_| "connected".to_owned())),
        "dial" => arguments.iter().map(|it| dial(it)).collect::<Vec<_>>().join("|"),
        "datagram" => arguments.iter().map(|it| datagram(it)).collect::<Vec<_>>().join("|"),
        "flood" => flood(arguments),
        "echo" => result(echo(first)),
        "read-text" => fs::read_to_string(first).unwrap_or_default(),
        "pour" => result(pour(first)),
        "drink" => result(drink(arguments)),
        "eat-memory" => eat_memory(first.parse().unwrap_or(0)),
        "fork-bomb" => fork_bomb(),
        "fill" => result(fill(first)),
        "fill-and-read" => result(fill_and_read(first)),
        "create" => result(create_many(first)),
        "write" => result(fs::write(first, b"x").map(|()| "written".to_owned())),
        "read" => result(fs::read(first).map(|bytes| format!("read {}", bytes.len()))),
        "list" => list(first),
        "remove" => result(remove(first)),
        "link" => result(link(arguments)),
        "surrender" => surrendered(arguments),
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

/// Connects, says something and tells the answer; waits for nothing longer than three seconds.
fn dial(address: &str) -> String {
    result(address.parse().map_err(io::Error::other).and_then(|address| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"ping")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }))
}

/// The same with one datagram, which may get lost without a word.
fn datagram(address: &str) -> String {
    result(address.parse().map_err(io::Error::other).and_then(|address: SocketAddr| {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE / 3))?;
        socket.connect(address)?;
        socket.send(b"ping")?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
    }))
}

/// Opens so many connections and keeps them; tells how many there were, then tries another address.
fn flood(arguments: &[String]) -> String {
    let (Some(Ok(address)), Some(Ok(count)), other) = (
        arguments.first().map(|it| it.parse()),
        arguments.get(1).map(|it| it.parse::<usize>()),
        arguments.get(2),
    ) else {
        return "an address and a number are needed".to_owned();
    };
    let mut kept = Vec::new();
    while kept.len() < count {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => kept.push(stream),
            Err(error) => return format!("{} then {}", kept.len(), result(Err(error))),
        }
    }
    format!("{} and {}", kept.len(), other.map(|it| dial(it)).unwrap_or_default())
}

/// Sends until the other end says it is enough; tells how many bytes there were.
fn pour(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let block = vec![7_u8; 1 << 18];
    let mut sent = 0;
    loop {
        match stream.write(&block) {
            Ok(bytes) => sent += bytes,
            Err(_) => return Ok(sent.to_string()),
        }
    }
}

/// Reads so many bytes from a server that has enough; tells how many milliseconds that took.
fn drink(arguments: &[String]) -> io::Result<String> {
    let [address, count] = arguments else { return Err(io::ErrorKind::InvalidInput.into()) };
    let count: u64 = count.parse().map_err(io::Error::other)?;
    let began = Instant::now();
    let read = io::copy(&mut TcpStream::connect(address)?.take(count), &mut io::sink())?;
    match read == count {
        true => Ok(began.elapsed().as_millis().to_string()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Listens on all addresses until it is killed, and says which it has on its way out.
fn echo(port: &str) -> io::Result<String> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let own = |any: &str, outside: &str| {
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent: the kernel only chooses the address to send from.
        socket.connect((outside, 9))?;
        Ok::<_, io::Error>(socket.local_addr()?.ip())
    };
    let listener = TcpListener::bind(("::", port))?;
    println!("{} {}", own("0.0.0.0", "203.0.113.10")?, own("::", "2001:db8:2::10")?);
    for stream in listener.incoming() {
        stream?.write_all(b"here")?;
    }
    Ok(String::new())
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

/// Fills with blocks that differ from each other, then reads all of them again.
fn fill_and_read(path: &str) -> io::Result<String> {
    let mut file = fs::File::create_new(path)?;
    let block = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(512);
    let mut blocks = 0;
    let errno = loop {
        match file.write_all(&block(blocks)) {
            Ok(()) => blocks += 1,
            Err(error) => break error.raw_os_error().unwrap_or(0),
        }
    };
    file.sync_all()?;
    let (mut file, mut read) = (fs::File::open(path)?, vec![0; 4096]);
    for number in 0..blocks {
        file.read_exact(&mut read)?;
        if read != block(number) {
            return Ok(format!("block {number} differs"));
        }
    }
    Ok(format!("{} then errno {errno}", blocks * 4096))
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

fn remove(path: &str) -> io::Result<String> {
    let is_dir = fs::symlink_metadata(path)?.is_dir();
    let removed = if is_dir { fs::remove_dir(path) } else { fs::remove_file(path) };
    removed.map(|()| "removed".to_owned())
}

fn link(paths: &[String]) -> io::Result<String> {
    let [from, to] = paths else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::hard_link(from, to).map(|()| "linked".to_owned())
}

/// Keeps a directory and a port, then runs another experiment.
fn surrendered(arguments: &[String]) -> String {
    let [dir, port, experiment, rest @ ..] = arguments else { return "too little".to_owned() };
    let keep = Keep {
        writable: vec![dir.into()],
        ports: port.parse().into_iter().collect(),
        ..Keep::default()
    };
    if experiment == "with-a-thread" {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    }
    match surrender(&keep) {
        Ok(_) => run(experiment, rest),
        Err(error) => error.to_string(),
    }
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
