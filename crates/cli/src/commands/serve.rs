//! `lacewing serve`

use std::path::PathBuf;

use lacewing_model::Kind;
use lacewing_node::config::{Cpu, Isolation};
use lacewing_node::telemetry::{self, LogFormat};
use lacewing_node::{Config, Keep, Node, Prepared, Ready, Settings, StartError};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::commands::on_all_cores;
use crate::error::{Error, Result};
use crate::output::Output;

/// Where to look when a setting is refused.
const CONFIGURATION: &str =
    "docs/configuration.md has every setting of the file; `lacewing serve --help` has the flags";

/// Run the server
///
/// Prints one line when it answers. SIGTERM and SIGINT stop it: no new requests, those in flight get
/// the grace period; a second signal ends it at once. Flags win over the configuration file. What it
/// says of itself goes to stderr; LACEWING_LOG or RUST_LOG choose how much.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory that holds everything the server keeps [else: LACEWING_DATA_DIR,
    /// $XDG_DATA_HOME/lacewing, for root /var/lib/lacewing, for others ~/.local/share/lacewing]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The region the server says it is [default: us-east-1]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Configuration file in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Refuse to start without full isolation, or say what is lacking [default: required for root,
    /// else best-effort]
    #[arg(long, value_enum, value_name = "HOW")]
    isolation: Option<IsolationArg>,
    /// How functions share the processors [default: fair]
    #[arg(long, value_enum, value_name = "HOW")]
    cpu: Option<CpuArg>,
    /// Take any role ARN as the account's role `lambda`
    #[arg(long)]
    lenient_roles: bool,
    /// Run the nearest version of the same language when a runtime is not there
    #[arg(long)]
    substitute_runtimes: bool,
    /// How events are written to stderr
    #[arg(long, value_enum, default_value_t = LogFormatArg::Text, value_name = "FORMAT")]
    log_format: LogFormatArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum IsolationArg {
    /// Refuse to start without full isolation
    Required,
    /// Start, and say what is lacking
    BestEffort,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CpuArg {
    /// By weight, in proportion to memory
    Fair,
    /// By weight and by a quota, as on Lambda
    Hard,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

pub(crate) fn run(args: Args, output: Output) -> Result<()> {
    let format = match args.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    telemetry::install(format, "info").map_err(|error| Error::usage(error.to_string()))?;
    let settings =
        Settings::check(&config(args)?).map_err(|error| misconfigured(&error.to_string()))?;
    let prepared = Prepared::new(settings, &this_program()?, Keep::default());
    let prepared = prepared.map_err(|error| start_failed(&error))?;
    on_all_cores(serve(prepared, output))
}

async fn serve(prepared: Prepared, output: Output) -> Result<()> {
    let signals = Caught::now()?.listen();
    let node = Node::start(prepared).await.map_err(|error| start_failed(&error))?;
    output.row(&ready_document(node.ready()), |_| ready_line(node.ready()))?;
    let ran = node.run(&signals.stop).await;
    tokio::select! {
        () = node.shutdown() => {}
        () = signals.hurry.cancelled() => {
            return Err(Error::server("ended by a second signal, before everything was stopped"));
        }
    }
    match ran {
        Ok(()) => Ok(()),
        Err(fault) => Err(Error::server("the server stopped").caused_by(&fault)),
    }
}

/// The program that is running, to be run again as the launcher.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe()
        .map_err(|error| Error::server("cannot find this program's own file").caused_by(&error))
}

/// SIGTERM and SIGINT, which end the process no more, before anybody listens.
#[derive(Debug)]
pub(crate) struct Caught {
    terminate: Signal,
    interrupt: Signal,
}

impl Caught {
    /// Takes both from now on, for the rest of the process's life. It takes a runtime, which need not
    /// be the one that listens: what comes in between is kept.
    pub(crate) fn now() -> Result<Self> {
        let failed =
            |error: std::io::Error| Error::server("cannot listen to signals").caused_by(&error);
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(Self { terminate, interrupt })
    }

    /// Begins to listen.
    pub(crate) fn listen(self) -> Signals {
        let Self { mut terminate, mut interrupt } = self;
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let tokens = [stop.clone(), hurry.clone()];
        TaskTracker::new().spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Signals { stop, hurry }
    }
}

/// SIGTERM and SIGINT, counted.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Cancelled at the first signal.
    pub(crate) stop: CancellationToken,
    /// Cancelled at the second.
    pub(crate) hurry: CancellationToken,
}

fn config(args: Args) -> Result<Config> {
    let file = match &args.config {
        None => Config::default(),
        Some(path) => Config::load(path)
            .map_err(|error| Error::usage("cannot start").caused_by(&error).hint(CONFIGURATION))?,
    };
    let isolation = args.isolation.map(|isolation| match isolation {
        IsolationArg::Required => Isolation::Required,
        IsolationArg::BestEffort => Isolation::BestEffort,
    });
    let cpu = args.cpu.map(|cpu| match cpu {
        CpuArg::Fair => Cpu::Fair,
        CpuArg::Hard => Cpu::Hard,
    });
    Ok(Config {
        listen: args.listen.or(file.listen),
        data_dir: args.data_dir.or(file.data_dir),
        region: args.region.or(file.region),
        isolation: isolation.or(file.isolation),
        cpu: cpu.or(file.cpu),
        lenient_roles: args.lenient_roles.then_some(true).or(file.lenient_roles),
        substitute_runtimes: args.substitute_runtimes.then_some(true).or(file.substitute_runtimes),
        ..file
    })
}

/// Sorts why a node did not start.
pub(crate) fn start_failed(error: &StartError) -> Error {
    match error {
        StartError::Locked { .. } => Error::server(error.to_string())
            .hint("stop the other server, or give this one its own --data-dir"),
        StartError::Copied { path } => Error::server(error.to_string()).hint(format!(
            "stop the other server; to run both, remove {}, so that this directory gets an id of \
             its own",
            path.join("owner").display()
        )),
        StartError::Listen { .. } => Error::server("cannot start")
            .caused_by(error)
            .hint("--listen chooses another address; port 0 takes a free port"),
        StartError::Launcher(_) => Error::server("cannot start").caused_by(error).hint(
            "`lacewing doctor` says what this host lacks; --isolation best-effort starts \
             nevertheless",
        ),
        StartError::MasterKey(_) => Error::server("cannot start").caused_by(error).hint(
            "put back the file that this data directory was made with; without it a server can \
             start on a new --data-dir only",
        ),
        StartError::Part { source, .. } if source.kind() == Kind::Invalid => {
            misconfigured(source.public())
        }
        StartError::Network { .. } => Error::server(error.to_string()),
        StartError::DataDir { .. } => Error::server("cannot start")
            .caused_by(error)
            .hint("--data-dir names a directory that this user may write, or make"),
        StartError::Store(_) | StartError::Part { .. } => Error::server("cannot start")
            .caused_by(error)
            .hint("the data directory may be full or damaged; a new --data-dir starts afresh"),
        StartError::Surrender(_) => Error::server("cannot start")
            .caused_by(error)
            .hint("`lacewing doctor` says what this host lacks"),
    }
}

fn misconfigured(why: &str) -> Error {
    Error::usage(format!("the configuration is wrong: {why}")).hint(CONFIGURATION)
}

/// The ready line as JSON.
#[derive(Debug, Serialize)]
struct ReadyDocument<'a> {
    ready: bool,
    endpoint: String,
    #[serde(flatten)]
    node: &'a Ready,
}

fn ready_document(node: &Ready) -> ReadyDocument<'_> {
    ReadyDocument { ready: true, endpoint: format!("http://{}", node.address), node }
}

fn ready_line(ready: &Ready) -> String {
    let isolation = isolation(ready);
    let functions = match ready.functions {
        1 => "1 function".to_owned(),
        count => format!("{count} functions"),
    };
    let runtimes = match ready.runtimes.as_slice() {
        [] => "no interpreters found".to_owned(),
        runtimes => format!("runtimes {}", runtimes.join(" ")),
    };
    let (address, dir) = (ready.address, ready.data_dir.display());
    let network = network(ready);
    format!(
        "ready: http://{address}, data {dir}, isolation {isolation}, network {network}, {functions}, \
         {runtimes}"
    )
}

/// Whether functions get out, in a few words.
fn network(ready: &Ready) -> String {
    match (ready.network.in_force, ready.network.by) {
        (true, None) => "egress".to_owned(),
        (true, Some(program)) => format!("egress by {program}"),
        (false, _) => format!("none ({})", ready.network.detail),
    }
}

/// The isolation in force, in a few words.
pub(crate) fn isolation(ready: &Ready) -> String {
    let (word, lacks) = match ready.lacks.as_slice() {
        [] if ready.isolation_is_full => ("full", None),
        [] => ("partial", Some("not root".to_owned())),
        lacks => ("partial", Some(format!("lacks {}", lacks.join(", ")))),
    };
    let beside =
        (!ready.without.is_empty()).then(|| format!("without {}", ready.without.join(", ")));
    let said: Vec<String> = lacks.into_iter().chain(beside).collect();
    if said.is_empty() { word.to_owned() } else { format!("{word} ({})", said.join("; ")) }
}

#[cfg(test)]
mod tests {
    use lacewing_node::Egress;

    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listen = '127.0.0.1:1'\ncpu = 'hard'\nregion = 'a'").unwrap();
        let args = Args {
            listen: Some("127.0.0.1:2".into()),
            data_dir: Some("/d".into()),
            region: Some("b".into()),
            config: Some(file.path().into()),
            isolation: Some(IsolationArg::BestEffort),
            cpu: None,
            lenient_roles: true,
            substitute_runtimes: false,
            log_format: LogFormatArg::Text,
        };
        let config = config(args).unwrap();
        assert_eq!(config.listen.as_deref(), Some("127.0.0.1:2"));
        assert_eq!(config.cpu, Some(Cpu::Hard));
        assert_eq!(config.isolation, Some(Isolation::BestEffort));
        assert_eq!((config.lenient_roles, config.substitute_runtimes), (Some(true), None));
        assert_eq!(config.data_dir, Some("/d".into()));
        assert_eq!(config.region.as_deref(), Some("b"));
    }

    #[test]
    fn the_ready_line_names_everything() {
        let mut ready = Ready {
            address: "127.0.0.1:9000".parse().unwrap(),
            data_dir: "/d".into(),
            isolation_is_full: true,
            lacks: Vec::new(),
            without: Vec::new(),
            network: Egress {
                in_force: true,
                by: None,
                detail: "IPv4 and IPv6".into(),
                remedy: String::new(),
            },
            functions: 1,
            runtimes: vec!["python3.11".into(), "nodejs20.x".into()],
        };
        insta::assert_snapshot!(ready_line(&ready), @"ready: http://127.0.0.1:9000, data /d, isolation full, network egress, 1 function, runtimes python3.11 nodejs20.x");
        ready.without = vec!["landlock".into(), "tmp-disk".into()];
        assert!(ready_line(&ready).contains(", isolation full (without landlock, tmp-disk), "));
        ready.network.by = Some("pasta");
        assert!(ready_line(&ready).contains(", network egress by pasta, "));
        ready.isolation_is_full = false;
        ready.lacks = vec!["cgroup".into()];
        ready.network.in_force = false;
        ready.network.detail = "an ordinary user needs pasta".into();
        ready.runtimes.clear();
        insta::assert_snapshot!(ready_line(&ready), @"ready: http://127.0.0.1:9000, data /d, isolation partial (lacks cgroup; without landlock, tmp-disk), network none (an ordinary user needs pasta), 1 function, no interpreters found");
    }
}
