//! The program gets exactly what the `Spec` says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lacewing_sandbox::{Error, Event, Mount};

use crate::support::{
    Passed, experiment, finish, launcher, next, probe, ready, run, shell, skip, spec, start,
};

#[test]
fn the_exit_code_is_reported() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &shell("echo hello; exit 7"));
    assert_eq!((ran.code(), ran.output.as_str()), (Some(7), "hello"));
    assert!(matches!(ran.events.first(), Some(Event::Ready { .. })));
}

#[test]
fn the_signal_is_reported() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &shell("kill -KILL $$"));
    assert_eq!((ran.code(), ran.signal()), (None, Some(9)));
}

#[test]
fn arguments_environment_and_directory_are_exactly_those_given() {
    let Some(launcher) = launcher() else { return };
    assert_eq!(experiment(&launcher, &["arguments", "a b", "", "c\nd"]), "a b||c\nd");
    let mut wanted = probe(&["environment"]);
    wanted.env = vec![("ONE".into(), "1".into()), ("TWO".into(), "a=b".into())];
    assert_eq!(run(&launcher, &wanted).output, "ONE=1|TWO=a=b");
    let mut wanted = probe(&["cwd"]);
    wanted.cwd = "/tmp".to_owned();
    assert_eq!(run(&launcher, &wanted).output, "/tmp");
}

#[test]
fn only_the_passed_descriptors_are_open() {
    let Some(launcher) = launcher() else { return };
    let (mut output, end) = std::io::pipe().unwrap();
    let (read, _write) = std::io::pipe().unwrap();
    let file = std::fs::File::open("/etc/passwd").unwrap();
    let fds: Passed = vec![
        (end.try_clone().unwrap().into(), 1),
        (end.into(), 5),
        (read.into(), 3),
        (file.into(), 4),
    ];
    let sandbox = launcher.spawn(&probe(&["descriptors"]), fds).unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    // 2 belongs to nobody: Rust's runtime opens /dev/null where it finds none of 0, 1 and 2.
    assert_eq!(text.trim(), "0=/dev/null|1=pipe|2=/dev/null|3=pipe|4=/etc/passwd|5=pipe");
    finish(&sandbox);
}

#[test]
fn listeners_are_reached_from_inside_and_not_from_the_host() {
    let Some(launcher) = launcher() else { return };
    let mut wanted = probe(&["talk", "127.0.0.1:9002"]);
    wanted.listeners = vec![9001, 9002];
    let (sandbox, mut output) = start(&launcher, &wanted);
    let listeners = ready(&sandbox);
    assert_eq!(listeners.len(), 2);
    let [_, listener] = listeners.try_into().unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    assert_eq!(address.to_string(), "127.0.0.1:9002");
    assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err());
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut ping = [0; 4];
    stream.read_exact(&mut ping).unwrap();
    stream.write_all(b"pong").unwrap();
    drop(stream);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!((&ping, text.trim()), (b"ping", "pong"));
    finish(&sandbox);
}

#[test]
fn a_program_that_cannot_be_run_fails_with_its_name_and_reason() {
    let Some(launcher) = launcher() else { return };
    let ran = run(&launcher, &spec(&["/no/such/program"]));
    let why = ran.failure().unwrap_or_default();
    assert!(why.contains("/no/such/program") && why.contains("os error 2"), "{ran:?}");
    assert_eq!((ran.code(), ran.signal()), (None, None));
}

#[test]
fn a_mount_that_cannot_be_made_fails_with_its_path() {
    let Some(launcher) = launcher() else { return };
    for (source, target, named) in
        [("/no/source", "/opt", "/no/source"), ("/usr", "/no/target", "/no/target")]
    {
        let mut wanted = shell("true");
        let (source, target) = (source.into(), target.into());
        wanted.mounts = vec![Mount::Bind { source, target, exec: false }];
        let ran = run(&launcher, &wanted);
        assert!(ran.failure().unwrap().contains(named), "{ran:?}");
        assert_eq!(ran.events.len(), 1, "{ran:?}");
    }
}

#[test]
fn a_link_in_a_mount_cannot_lead_a_later_mount_out_of_the_root() {
    let Some(launcher) = launcher() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    let mut wanted = shell("ls -A /etc");
    let bind = |source: &std::path::Path, target: &str| Mount::Bind {
        source: source.to_owned(),
        target: target.into(),
        exec: false,
    };
    let inner = tempfile::tempdir().unwrap();
    std::fs::write(inner.path().join("mark"), "").unwrap();
    wanted.mounts = vec![bind(dir.path(), "/opt"), bind(inner.path(), "/opt/link")];
    assert_eq!(run(&launcher, &wanted).output, "mark");
}

#[test]
fn terminate_reaches_the_program() {
    let Some(launcher) = launcher() else { return };
    let wanted = shell("trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    let (sandbox, mut output) = start(&launcher, &wanted);
    ready(&sandbox);
    let mut up = [0; 3];
    output.read_exact(&mut up).unwrap();
    sandbox.terminate();
    assert!(matches!(next(&sandbox), Event::Exited { code: 3 }));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "caught\n");
}

#[test]
fn a_program_that_signals_init_does_not_hit_itself() {
    let Some(launcher) = launcher() else { return };
    // Where init is another user the kernel refuses it, which is as good.
    let script = "trap 'echo caught' TERM; kill -TERM 1 2>/dev/null; sleep 0.2; echo alive";
    assert_eq!(run(&launcher, &shell(script)).output, "alive");
}

#[test]
fn a_wrong_or_too_large_request_is_refused_at_once() {
    let Some(launcher) = launcher() else { return };
    let mut wanted = shell("true");
    wanted.name = "../up".to_owned();
    assert!(matches!(launcher.spawn(&wanted, Vec::new()), Err(Error::Invalid(_))));
    let wanted = spec(&["sh"]);
    assert!(matches!(launcher.spawn(&wanted, Vec::new()), Err(Error::Invalid(_))));
    let mut wanted = shell("true");
    wanted.env = vec![("BIG".into(), "x".repeat(200_000))];
    assert!(matches!(launcher.spawn(&wanted, Vec::new()), Err(Error::TooLarge { .. })));
    assert_eq!(run(&launcher, &shell("exit 4")).code(), Some(4));
}

#[test]
fn a_name_is_unique_among_the_living() {
    let Some(launcher) = launcher() else { return };
    let wanted = shell("sleep 60");
    let (first, _output) = start(&launcher, &wanted);
    ready(&first);
    assert!(run(&launcher, &wanted).failure().unwrap().contains("exists"));
    first.kill();
    finish(&first);
}

const PYTHON: &str = r#"
import multiprocessing, os, socket, subprocess, tempfile, threading, time, uuid
lock = multiprocessing.Lock()
threads = [threading.Thread(target=lock.acquire, kwargs={"timeout": 0.01}) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
queue = multiprocessing.Queue()
child = multiprocessing.Process(target=queue.put, args=(os.getpid() > 1,))
child.start()
assert queue.get(timeout=10)
child.join()
assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
with tempfile.TemporaryDirectory() as here:
    open(os.path.join(here, "file"), "w").write(str(uuid.uuid4()))
socket.create_server(("127.0.0.1", 0)).close()
print("good", os.getuid(), time.time() > 0)
"#;

const NODE: &str = r#"
const { Worker } = require("worker_threads");
const fs = require("fs").promises;
(async () => {
  await fs.writeFile("/tmp/file", "x");
  const code = require("child_process").spawnSync("sh", ["-c", "exit 3"]).status;
  const key = await new Promise((yes, no) =>
    require("crypto").pbkdf2("a", "b", 10, 8, "sha256", (e, k) => (e ? no(e) : yes(k))));
  const said = await new Promise((yes, no) => {
    const worker = new Worker('require("worker_threads").parentPort.postMessage(5)', { eval: true });
    worker.on("message", yes).on("error", no);
  });
  const server = require("http").createServer().listen(0, "127.0.0.1", () => {
    server.close();
    console.log("good", code, key.length, said);
  });
})();
"#;

#[test]
fn interpreters_work_with_threads_processes_files_and_sockets() {
    let Some(launcher) = launcher() else { return };
    for (program, flag, script, expected) in [
        ("/usr/bin/python3", "-c", PYTHON, "good 993 True"),
        ("/usr/bin/node", "-e", NODE, "good 3 8 5"),
    ] {
        if !std::fs::exists(program).unwrap() {
            skip(&format!("no {program} on this host"));
            continue;
        }
        let mut wanted = spec(&[program, flag, script]);
        wanted.limits.memory_bytes = 256 << 20;
        wanted.limits.pids = 64;
        wanted.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        let ran = run(&launcher, &wanted);
        assert_eq!((ran.output.as_str(), ran.code()), (expected, Some(0)), "{ran:?}");
    }
}
