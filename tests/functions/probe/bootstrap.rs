//! A hostile function in one static program, compiled by the tests with `rustc` alone.
//!
//! Without arguments it is a custom runtime whose events are JSON texts of one command (`COMMANDS`);
//! with `run PROGRAMS` it prints what became of these, so that functions in other languages can use
//! it. A program is system calls joined by `;`, programs are joined by `|`, each in a process of its
//! own. A call is its number and its arguments:
//!
//! ```text
//! 12 or -100    a number           'text     a text, percent-encoded, ended by NUL
//! =00ff         these bytes        #16       so many zero bytes
//! $0            what call 0 gave   x39       (as the call's number) call 39 of the 32-bit interface
//! ```
//!
//! The result of a program is that of each call, joined by `,`: what it gave, or minus the errno; or
//! `signal N`, if that ended it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, exit};

const CLONE: [i64; 3] = [56, 57, 435];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["one", program] => print!("{}", run(program)),
        ["run", programs] => print!("{}", run_all(programs)),
        _ => serve(),
    }
}

// === The runtime ===

fn serve() {
    let api = std::env::var("AWS_LAMBDA_RUNTIME_API").expect("set by Lambda");
    let mut stream = BufReader::new(TcpStream::connect(&api).expect("the Runtime API listens"));
    loop {
        let next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\n\r\n";
        stream.get_mut().write_all(next.as_bytes()).expect("request");
        let (id, event) = read_answer(&mut stream);
        let event = String::from_utf8(event).expect("UTF-8");
        let event = event.trim_matches('"');
        let (command, rest) = event.split_once(' ').unwrap_or((event, ""));
        let (answer, stays) = obey(command, rest);
        let answer = format!("\"{answer}\"");
        let head = format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.get_mut().write_all(&[head.as_bytes(), answer.as_bytes()].concat()).expect("answer");
        read_answer(&mut stream);
        if !stays {
            exit(0);
        }
    }
}

/// Does what an event says; answers, and whether the runtime stays for another.
fn obey(command: &str, rest: &str) -> (String, bool) {
    match command {
        "echo" => (rest.to_owned(), true),
        "probe" => (run_all(rest), true),
        "descriptors" => (descriptors(), true),
        // Leaves the sandbox by itself, with what it began still running.
        "leave" => (String::new(), false),
        "daemons" => (daemons(rest.parse().expect("a number")).to_string(), false),
        "litter" => (litter(rest.parse().expect("a number")).to_string(), false),
        "hang" => {
            daemons(2);
            loop {
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
        }
        "exhaust" => (exhaust(rest), true),
        "exit" => exit(3),
        "crash" => std::process::abort(),
        other => (format!("no command named {other}"), true),
    }
}

/// Every open descriptor with what it leads to.
fn descriptors() -> String {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let one = |path: std::path::PathBuf| {
        let target = std::fs::read_link(&path).ok()?.display().to_string();
        Some(format!("{}={}", path.file_name()?.display(), target.split(':').next()?))
    };
    entries.filter_map(|entry| one(entry.ok()?.path())).collect::<Vec<_>>().join(" ")
}

/// Starts processes that have nothing to do with this one any more and that no SIGTERM ends.
fn daemons(count: usize) -> usize {
    let script = "trap '' TERM HUP INT; (setsid sh -c \"trap '' TERM; sleep 3600\" >/dev/null 2>&1 &)";
    (0..count).filter(|_| Command::new("/bin/sh").args(["-c", script]).status().is_ok()).count()
}

/// Leaves files, sockets with names, shared memory and open descriptors behind.
fn litter(count: usize) -> usize {
    let mut left = 0;
    for number in 0..count {
        let (dir, file) = (format!("/tmp/d{number}"), format!("/tmp/d{number}/f"));
        left += usize::from(std::fs::create_dir(&dir).is_ok());
        left += usize::from(std::fs::write(&file, vec![7; 65536]).is_ok());
        let socket = std::os::unix::net::UnixListener::bind(format!("{dir}/s"));
        left += usize::from(socket.map(std::mem::forget).is_ok());
        // SAFETY: the call takes numbers only.
        left += usize::from(unsafe { call(29, [0, 1 << 20, 0o1600, 0, 0, 0]) } >= 0);
    }
    left
}

/// Does one thing until the kernel refuses it; tells how often it worked, and the errno.
fn exhaust(what: &str) -> String {
    let minute = std::time::Duration::from_secs(60);
    let act: &mut dyn FnMut() -> std::io::Result<()> = match what {
        // SAFETY: the calls take numbers, and the new process only waits.
        "processes" => &mut || match unsafe { call(57, [0; 6]) } {
            0 => loop {
                std::thread::sleep(minute);
            },
            pid => checked(pid),
        },
        "threads" => &mut || {
            let thread = std::thread::Builder::new().stack_size(1 << 16);
            thread.spawn(move || std::thread::sleep(minute)).map(drop)
        },
        "processor" => {
            (0..8).for_each(|_| drop(std::thread::spawn(|| -> () { spin() })));
            spin()
        }
        "memory" => &mut || {
            std::mem::forget(std::hint::black_box(vec![7_u8; 1 << 24]));
            Ok(())
        },
        "files" => &mut || std::fs::File::open("/dev/null").map(std::mem::forget),
        "pipes" => &mut || std::io::pipe().map(std::mem::forget),
        // SAFETY: the call takes numbers only.
        "sockets" => &mut || checked(unsafe { call(41, [2, 1, 0, 0, 0, 0]) }),
        "tmp" => &mut || {
            let mut file = std::fs::File::options().create(true).append(true).open("/tmp/x")?;
            file.write_all(&[7; 1 << 20])
        },
        "output" => &mut || std::io::stdout().write_all(&b"a line of the log\n".repeat(4096)),
        other => return format!("nothing named {other}"),
    };
    let mut done = 0;
    loop {
        match act() {
            Ok(()) => done += 1,
            Err(error) => return format!("{done} {}", error.raw_os_error().unwrap_or_default()),
        }
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// What the kernel gave, or its errno.
fn checked(result: i64) -> std::io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(std::io::Error::from_raw_os_error(-result as i32)),
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a header line");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "lambda-runtime-aws-request-id" => id = value.to_owned(),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    (id, body)
}

// === The probe ===

fn run_all(programs: &str) -> String {
    let one = |program: &str| {
        let output = Command::new("/proc/self/exe").args(["one", program]).output();
        match output {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(output) => format!("signal {}", output.status.signal().unwrap_or_default()),
            Err(error) => format!("not run: {error}"),
        }
    };
    programs.split('|').map(one).collect::<Vec<_>>().join("|")
}

fn run(program: &str) -> String {
    let mut results: Vec<i64> = Vec::new();
    for step in program.split(';') {
        let mut words = step.split(' ');
        let name = words.next().expect("a call");
        let mut kept: Vec<Vec<u8>> = Vec::new();
        let mut arguments = [0_i64; 6];
        for (place, word) in arguments.iter_mut().zip(words) {
            *place = argument(word, &results, &mut kept);
        }
        // SAFETY: pointers are those of `kept`, which lives on; what the call does is the experiment.
        let result = unsafe {
            match name.strip_prefix('x') {
                Some(number) => call32(number.parse().expect("a number"), arguments),
                None => call(name.parse().expect("a number"), arguments),
            }
        };
        let is_clone = name.parse().is_ok_and(|number| CLONE.contains(&number));
        if is_clone && result == 0 {
            // The new process has nothing to report.
            // SAFETY: exit_group takes a number.
            unsafe { call(231, [0; 6]) };
        }
        results.push(result);
        // What the kernel was told to keep an eye on stays where it is.
        std::mem::forget(kept);
    }
    results.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn argument(word: &str, results: &[i64], kept: &mut Vec<Vec<u8>>) -> i64 {
    let bytes = match word.split_at_checked(1) {
        Some(("'", text)) => [decode(text), vec![0]].concat(),
        Some(("=", hex)) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect(),
        Some(("#", length)) => vec![0; length.parse().expect("a number")],
        Some(("$", index)) => return results[index.parse::<usize>().expect("an index")],
        _ => return word.parse().expect("a number"),
    };
    kept.push(bytes);
    kept.last().expect("just added").as_ptr() as i64
}

fn decode(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("hex"));
        bytes.extend_from_slice(part[2..].as_bytes());
    }
    bytes
}

/// Makes a system call; the result is the kernel's own.
unsafe fn call(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    let result: i64;
    // SAFETY: see the caller.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") d, in("r8") e, in("r9") f, out("rcx") _, out("r11") _);
    }
    result
}

/// Makes a call of the 32-bit interface with its first argument only.
unsafe fn call32(number: i64, [a, ..]: [i64; 6]) -> i64 {
    let result: i32;
    let (number, a) = (number as i32, a as i32);
    // SAFETY: see the caller; rbx is put back.
    unsafe {
        std::arch::asm!("xchg rbx, rsi", "int 0x80", "xchg rbx, rsi",
            inlateout("eax") number => result, inlateout("rsi") i64::from(a) => _);
    }
    i64::from(result)
}
