//! The same function beside ours on other programs that run such functions, one after the other on
//! this machine: what `scripts/prepare-peers` could get of them.
//!
//! They confine nothing, or something else; what each does for its time is said in
//! `bench/peers/README.md`. Their figures are no promise of ours.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cpu::Pinning;
use crate::floors::EVENT;
use crate::http_client::Target;
use crate::platform::{Language, Platform};
use crate::report::say;
use crate::samples::{CONNECTIONS, Latency, sequence, throng};

/// How long a peer may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
const RIE_PATH: &str = "/2015-03-31/functions/function/invocations";

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Starts of each; the median is printed.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measure only those whose names have this in them.
    #[arg(long)]
    only: Option<String>,
}

/// Where things are.
struct Place {
    /// The directory of the peers.
    peers: PathBuf,
    /// The packages of the tests.
    workloads: PathBuf,
    /// Our own files.
    own: PathBuf,
    python: PathBuf,
}

/// Another program that runs functions.
struct Peer {
    name: &'static str,
    /// What `scripts/prepare-peers` calls it.
    bundle: &'static str,
    path: &'static str,
    /// Whether it answers several requests at a time.
    is_parallel: bool,
    /// Its command line on this port, and on the next for itself.
    command: fn(&Place, u16) -> Result<Command>,
}

/// All of them.
const PEERS: [Peer; 8] = [
    Peer {
        name: "AWS RIE, Python",
        bundle: "rie",
        path: RIE_PATH,
        is_parallel: false,
        command: |place, port| {
            let mut command = rie(place, port);
            command.arg(&place.python).args(["-m", "awslambdaric", "app.handler"]);
            command.env("PYTHONPATH", place.workloads.join("awslambdaric"));
            Ok(command)
        },
    },
    Peer {
        name: "AWS RIE, Node.js",
        bundle: "rie",
        path: RIE_PATH,
        is_parallel: false,
        command: |place, port| {
            let client = "aws-lambda-ric/node_modules/aws-lambda-ric/bin/index.mjs";
            let mut command = rie(place, port);
            command.arg("node").arg(place.workloads.join(client)).arg("index.handler");
            Ok(command)
        },
    },
    Peer {
        name: "functions-framework, Python",
        bundle: "functions-framework-python",
        path: "/",
        is_parallel: true,
        command: |place, port| {
            let program = "functions-framework-python/venv/bin/functions-framework";
            let mut command = Command::new(place.peers.join(program));
            command.args(["--source", "web.py", "--target", "hello", "--host", "127.0.0.1"]);
            command.args(["--port", &port.to_string()]);
            Ok(command)
        },
    },
    Peer {
        name: "functions-framework, Node.js",
        bundle: "functions-framework-node",
        path: "/",
        is_parallel: true,
        command: |place, port| {
            let program = "@google-cloud/functions-framework/build/src/main.js";
            let mut command = on_loopback(place, "functions-framework-node", program);
            command.args(["--target=hello", "--source=web.js", &format!("--port={port}")]);
            Ok(command)
        },
    },
    Peer {
        name: "serverless-offline, Node.js",
        bundle: "serverless-offline",
        path: "/2015-03-31/functions/peers-dev-hello/invocations",
        is_parallel: true,
        command: |place, port| {
            let mut command = Command::new("node");
            command.current_dir(place.peers.join("serverless-offline"));
            command.args(["node_modules/serverless/bin/serverless.js", "offline", "start"]);
            command.args(["--host", "127.0.0.1", "--lambdaPort", &port.to_string()]);
            command.args(["--httpPort", &(port + 1).to_string()]);
            command.env("SLS_TELEMETRY_DISABLED", "1").env("SLS_NOTIFICATIONS_MODE", "off");
            Ok(command)
        },
    },
    Peer {
        name: "lambda-local, Node.js",
        bundle: "lambda-local",
        path: "/",
        is_parallel: true,
        command: |place, port| {
            let mut command = on_loopback(place, "lambda-local", "lambda-local/build/cli.js");
            command.args(["-l", "index.js", "-h", "handler", "-v", "0", "-t", "30", "--watch"]);
            command.arg(port.to_string());
            Ok(command)
        },
    },
    Peer {
        name: "workerd, JavaScript",
        bundle: "workerd",
        path: "/",
        is_parallel: true,
        command: |place, port| {
            let place = place.peers.join("workerd");
            let modules = place.join("node_modules/@cloudflare");
            let mut command = Command::new(found(&modules, "workerd-")?.join("bin/workerd"));
            command.current_dir(&place).args(["serve", "workerd.capnp"]);
            command.arg(format!("--socket-addr=http=127.0.0.1:{port}"));
            Ok(command)
        },
    },
    Peer {
        name: "wasmtime serve, JavaScript",
        bundle: "wasmtime",
        path: "/",
        is_parallel: true,
        command: |place, port| {
            let place = place.peers.join("wasmtime");
            let mut command = Command::new(place.join("wasmtime_cli/wasmtime"));
            command.args(["serve", "-S", "cli", "--allow-precompiled"]);
            command.args(["--addr", &format!("127.0.0.1:{port}")]).arg(place.join("hello.cwasm"));
            Ok(command)
        },
    },
];

/// Measures and prints a table.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    let cache = crate::cache()?;
    let place = Place {
        peers: cache.join("peers"),
        workloads: cache.join("workloads"),
        own: Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"),
        python: std::fs::canonicalize(cache.join("venv/bin/python"))?,
    };
    let [name, start, p50, p99, rate] = ["", "cold ms", "p50 us", "p99 us", "requests/s"];
    let [p50_crowd, rate_crowd] = ["p50 us, 16", "requests/s, 16"];
    say(&format!(
        "\n{name:<30} {start:>9} {p50:>9} {p99:>9} {rate:>11} {p50_crowd:>11} {rate_crowd:>15}"
    ));
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only));
    ours(binary, arguments, is_wanted)?;
    for peer in PEERS.iter().filter(|peer| is_wanted(peer.name)) {
        if !place.peers.join(format!("{}.complete", peer.bundle)).exists() {
            say(&format!("{:<30} is skipped: it could not be installed", peer.name));
            continue;
        }
        if let Err(error) = peer.measure(&place, arguments) {
            say(&format!("{:<30} is skipped: {error:#}", peer.name));
        }
    }
    say(
        "cold: ours, the first request to a function on a server that runs; theirs, from the start \
         of the program to its first answer.",
    );
    Ok(())
}

/// Our own rows.
fn ours(binary: &Path, arguments: &Arguments, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let platform = Platform::start(binary, Pinning::Free, "")?;
    for language in Language::available() {
        let name = format!("lacewing, {}", language.name());
        if !is_wanted(&name) {
            continue;
        }
        let mut cold = Vec::new();
        let functions = platform.deploy_many(&language, arguments.starts.max(1))?;
        for function in &functions {
            platform.settle(|_| true)?;
            let mut connection = function.target().connect()?;
            let before = Instant::now();
            connection.request()?;
            cold.push(before.elapsed());
        }
        let function = functions.last().context("at least one")?;
        row(&name, cold, function.target(), true, arguments)?;
    }
    Ok(())
}

impl Peer {
    fn measure(&self, place: &Place, arguments: &Arguments) -> Result<()> {
        let mut cold = Vec::new();
        for _ in 1..arguments.starts {
            cold.push(Running::start(self, place)?.took);
        }
        let running = Running::start(self, place)?;
        cold.push(running.took);
        row(self.name, cold, &running.target, self.is_parallel, arguments)
    }
}

/// A peer that answers; it ends with its owner.
struct Running {
    process: Child,
    target: Target,
    /// From its start to its first answer.
    took: Duration,
}

impl Running {
    fn start(peer: &Peer, place: &Place) -> Result<Self> {
        let address = free_ports()?;
        let mut command = (peer.command)(place, address.port())?;
        if command.get_current_dir().is_none() {
            command.current_dir(&place.own);
        }
        let log = File::create(place.peers.join(format!("{}.run.log", peer.bundle)))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let body = match peer.bundle {
            "lambda-local" => format!("{{\"event\": {EVENT}}}"),
            _ => EVENT.to_owned(),
        };
        let headers = [("host", address.to_string()), ("content-type", "application/json".into())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        let target = Target::post(address, peer.path, &headers, body.as_bytes());
        let began = Instant::now();
        let process = command.process_group(0).spawn().context("it cannot be started")?;
        let mut running = Self { process, target, took: Duration::ZERO };
        loop {
            match running.target.connect().and_then(|mut connection| connection.request()) {
                Ok(()) => break,
                Err(error) => ensure!(began.elapsed() < PATIENCE, "it does not answer: {error:#}"),
            }
            if let Some(status) = running.process.try_wait()? {
                bail!("it ended with {status}, see {}.run.log", peer.bundle);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        running.took = began.elapsed();
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing can be done about a program that is gone already.
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(self.process.wait());
    }
}

fn row(
    name: &str,
    mut cold: Vec<Duration>,
    target: &Target,
    is_parallel: bool,
    arguments: &Arguments,
) -> Result<()> {
    let length = Duration::from_secs_f64(arguments.seconds);
    sequence(target, length / 2)?;
    let one = sequence(target, length)?;
    let crowd = is_parallel.then(|| throng(target, CONNECTIONS, length)).transpose();
    let micros = |latency: Duration| latency.as_secs_f64() * 1e6;
    let (p50, rate) = match &crowd {
        Ok(Some(Latency { p50, rate, .. })) => {
            (format!("{:.0}", micros(*p50)), format!("{rate:.0}"))
        }
        Ok(None) => ("-".to_owned(), "one at a time".to_owned()),
        Err(_) => ("-".to_owned(), "failed".to_owned()),
    };
    cold.sort_unstable();
    say(&format!(
        "{name:<30} {:>9.1} {:>9.0} {:>9.0} {:>11.0} {p50:>11} {rate:>15}",
        cold.get(cold.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3,
        micros(one.p50),
        micros(one.p99),
        one.rate,
    ));
    crowd.map(drop).with_context(|| format!("{CONNECTIONS} connections"))
}

/// AWS's emulator, ready for the command line of a runtime's client.
fn rie(place: &Place, port: u16) -> Command {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let program = format!("rie/aws-lambda-rie-{architecture}");
    let mut command = Command::new(place.peers.join(program));
    command.args(["--log-level", "error"]);
    command.args(["--runtime-interface-emulator-address", &format!("127.0.0.1:{port}")]);
    command.args(["--runtime-api-address", &format!("127.0.0.1:{}", port + 1)]);
    command
}

/// A program of Node.js that would listen on every address.
fn on_loopback(place: &Place, bundle: &str, program: &str) -> Command {
    let mut command = Command::new("node");
    command.arg("-r").arg(place.own.join("loopback.cjs"));
    command.arg(place.peers.join(bundle).join("node_modules").join(program));
    command
}

/// What begins with this name in a directory.
fn found(directory: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory)?.flatten();
    let mut named =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning));
    let entry = named.next().with_context(|| format!("there is no {beginning} of it"))?;
    Ok(entry.path())
}

/// A port of the loopback that is free, as the one after it is.
fn free_ports() -> Result<SocketAddr> {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let next = address.port().checked_add(1);
        if next.is_some_and(|next| TcpListener::bind(("127.0.0.1", next)).is_ok()) {
            return Ok(address);
        }
    }
    bail!("no two ports beside each other are free")
}
