//! A real server on a free port: ready line, health, a second server, the verbs against it, the end.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as its test does")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

struct Server {
    child: Child,
    ready: Value,
    dir: TempDir,
}

impl Server {
    /// Starts a server; `None` with a word why when this is not root.
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a server with full isolation needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut child = lacewing(dir.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--isolation", "best-effort"])
            .args(["--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).expect("a ready line in JSON");
        Some(Self { child, ready, dir })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        lacewing(self.dir.path()).args(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn stop(&mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn lacewing(dir: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lacewing"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("LACEWING_DATA_DIR", dir).env("HOME", dir);
    command
}

fn http_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_says_that_it_is_ready_answers_and_ends_on_sigterm() {
    let Some(mut server) = Server::start() else { return };
    let address = server.ready["address"].as_str().unwrap().to_owned();
    assert_eq!(server.ready["functions"], 0);
    assert!(http_get(&address, "/health").starts_with("HTTP/1.1 200"));
    assert!(http_get(&address, "/2015-03-31/functions/").starts_with("HTTP/1.1 403"));

    let second = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{words}");
    assert!(words.contains("another server is running"), "{words}");

    assert_eq!(server.stop(), 0);
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn the_verbs_work_together_from_deploy_to_delete() {
    if !Path::new("/usr/bin/curl").exists() {
        eprintln!("skipped: the function of this test needs /usr/bin/curl");
        return;
    }
    let Some(server) = Server::start() else { return };
    let project = tempfile::tempdir().unwrap();
    let bootstrap = project.path().join("bootstrap");
    std::fs::write(&bootstrap, BOOTSTRAP).unwrap();
    std::fs::set_permissions(&bootstrap, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = project.path().to_str().unwrap();

    let made = server.json(&["deploy", path, "--name", "echo", "--memory", "256"]);
    assert_eq!(
        (made["Runtime"].as_str(), made["MemorySize"].as_u64()),
        (Some("provided.al2023"), Some(256))
    );
    let again = server.json(&["deploy", path, "--name", "echo", "--timeout", "7"]);
    assert_eq!((again["MemorySize"].as_u64(), again["Timeout"].as_u64()), (Some(256), Some(7)));

    let refused = |arguments: &[&str]| {
        let output = server.run(&[&["deploy", path, "--name", "echo"], arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let too_little = refused(&["--memory", "1", "--timeout", "9"]);
    assert!(too_little.contains("hint: nothing was changed"), "{too_little}");
    std::fs::set_permissions(&bootstrap, std::fs::Permissions::from_mode(0o644)).unwrap();
    let unclear = refused(&[]);
    assert!(unclear.contains("not executable") && unclear.contains("give --handler"), "{unclear}");
    assert_eq!(server.json(&["functions"])[0]["Timeout"], 7);

    assert_eq!(server.json(&["functions"])[0]["FunctionName"], "echo");

    let invoked = server.run(&["invoke", "echo", "--payload", "{\"a\":1}", "--log"]);
    let log = String::from_utf8_lossy(&invoked.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&invoked.stdout), "{\"a\":1}\n", "{log}");
    assert!(log.contains("REPORT RequestId"), "{log}");

    let failed = server.run(&["invoke", "echo", "--payload", "\"fail\""]);
    assert_eq!(failed.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("Asked.To"));

    assert_eq!(server.json(&["delete", "echo"])["deleted"], "echo");
    let gone = server.run(&["invoke", "echo"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("ResourceNotFoundException"));
}

/// Echoes its event, and fails when the event is `"fail"`.
const BOOTSTRAP: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  event=$(curl -sS -D /tmp/headers "$api/next")
  id=$(sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *\([^ \r]*\).*/\1/p' /tmp/headers)
  if [ "$event" = '"fail"' ]; then
    curl -sS "$api/$id/error" -d '{"errorType":"Asked.To","errorMessage":"as asked"}' >/dev/null
  else
    curl -sS "$api/$id/response" -d "$event" >/dev/null
  fi
done
"#;
