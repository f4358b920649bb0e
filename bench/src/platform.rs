//! The measured server: starts it on a data directory of its own and deploys one function for each
//! language through the public command line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lacewing_gateway::sigv4;
use lacewing_model::{Clock, Credentials, Region, Secret, SystemClock};
use tempfile::TempDir;

use crate::cpu::{Pinning, Side};
use crate::floors::EVENT;
use crate::http_client::{Target, once};

/// A Python function that answers at once.
pub(crate) const PYTHON: &str = "import json\n\ndef handler(event, context):\n    \
    return {\"statusCode\": 200, \"body\": \"hello \" + event[\"name\"]}\n";
pub(crate) const NODE: &str =
    "exports.handler = async (event) => ({ statusCode: 200, body: 'hello ' + event.name });\n";

/// Time in which a server comes to rest.
const SETTLING: Duration = Duration::from_secs(90);
/// How long it must have been at rest.
const STEADY: Duration = Duration::from_millis(1_000);
const COMPILED: &str = include_str!("../../tests/functions/static/bootstrap.rs");

/// A language that is measured.
#[derive(Clone, Debug)]
pub(crate) enum Language {
    /// CPython, by the interpreter that the platform runs too.
    Python {
        /// Path of the interpreter.
        interpreter: PathBuf,
    },
    /// Node.js.
    Node {
        /// Path of the interpreter.
        interpreter: PathBuf,
    },
    /// A static binary.
    Compiled,
}

impl Language {
    /// The languages that this machine can run.
    pub(crate) fn available() -> Vec<Self> {
        let exists = |path: &str| Path::new(path).exists().then(|| PathBuf::from(path));
        let python = exists("/usr/bin/python3").map(|interpreter| Self::Python { interpreter });
        let node = exists("/usr/bin/node").map(|interpreter| Self::Node { interpreter });
        python.into_iter().chain(node).chain([Self::Compiled]).collect()
    }

    /// What a report calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Python { .. } => "python",
            Self::Node { .. } => "node",
            Self::Compiled => "compiled",
        }
    }

    /// Whether it is Python.
    pub(crate) const fn is_python(&self) -> bool {
        matches!(self, Self::Python { .. })
    }

    /// The function that answers at once.
    const fn hello(&self) -> &'static str {
        match self {
            Self::Python { .. } => PYTHON,
            Self::Node { .. } => NODE,
            Self::Compiled => COMPILED,
        }
    }

    /// Writes the function's files and gives its runtime, if it cannot be found by looking.
    pub(crate) fn write(&self, directory: &Path, source: &str) -> Result<Option<String>> {
        match self {
            Self::Python { interpreter } => {
                std::fs::write(directory.join("app.py"), source)?;
                let code = "import sys; print('python3.%d' % sys.version_info[1])";
                let output = Command::new(interpreter).args(["-I", "-S", "-c", code]).output()?;
                Ok(Some(String::from_utf8(output.stdout)?.trim().to_owned()))
            }
            Self::Node { interpreter } => {
                std::fs::write(directory.join("index.js"), source)?;
                let output = Command::new(interpreter).arg("--version").output()?;
                let version = String::from_utf8(output.stdout)?;
                let major = version.trim_start_matches('v').split('.').next().unwrap_or_default();
                Ok(Some(format!("nodejs{major}.x")))
            }
            Self::Compiled => {
                let file = directory.with_extension("rs");
                std::fs::write(&file, source)?;
                let status = Command::new("rustc")
                    .args([
                        "--edition=2021",
                        "-O",
                        "-Ctarget-feature=+crt-static",
                        "-Cstrip=symbols",
                    ])
                    .arg(file)
                    .arg("-o")
                    .arg(directory.join("bootstrap"))
                    .status()?;
                ensure!(status.success(), "rustc could not build the compiled function");
                Ok(None)
            }
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Platform {
    binary: PathBuf,
    address: SocketAddr,
    data: TempDir,
    server: Child,
    pinning: Pinning,
}

impl Drop for Platform {
    fn drop(&mut self) {
        // SIGTERM, so that it tidies up; nothing can be done about a server that is gone already.
        drop(Command::new("kill").arg(self.server.id().to_string()).status());
        drop(self.server.wait());
    }
}

impl Platform {
    /// Starts a server where its side belongs, and leaves the caller on the load's side.
    pub(crate) fn start(binary: &Path, pinning: Pinning, configuration: &str) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("lacewing-bench-").tempdir()?;
        let file = data.path().join("lacewing.toml");
        std::fs::write(&file, configuration)?;
        pinning.apply(Side::Server)?;
        let mut server = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path().join("data"))
            .arg("--config")
            .arg(&file)
            .env("LACEWING_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        pinning.apply(Side::Load)?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("a pipe was asked for")?)
            .read_line(&mut line)?;
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| {
                rest.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next()
            })
            .with_context(|| format!("no address in the ready line {line:?}"))?
            .parse()?;
        Ok(Self { binary: binary.to_owned(), address, data, server, pinning })
    }

    /// Deploys the function of one language and makes a signed request for it.
    pub(crate) fn deploy(&self, language: &Language) -> Result<Function> {
        let mut functions = self.deploy_many(language, 1)?;
        functions.pop().context("one was asked for")
    }

    /// Deploys so many functions of the same code.
    pub(crate) fn deploy_many(&self, language: &Language, count: usize) -> Result<Vec<Function>> {
        self.deploy_code(language.name(), language, language.hello(), count)
    }

    /// Deploys so many functions of this code, whose names begin with the given one.
    pub(crate) fn deploy_code(
        &self,
        name: &str,
        language: &Language,
        source: &str,
        count: usize,
    ) -> Result<Vec<Function>> {
        self.pinning.apply(Side::Load)?;
        let directory = self.directory(name)?;
        let runtime = language.write(&directory, source)?;
        let mut functions = Vec::new();
        for number in 0..count {
            let name = format!("bench-{name}-{number}");
            let runtime = runtime.iter().flat_map(|runtime| ["--runtime", runtime]);
            self.deploy_directory(&directory, &name, runtime)?;
            functions.push(self.function(&name, None)?);
        }
        Ok(functions)
    }

    /// A new directory for the code of a function.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.data.path().join(name);
        std::fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Deploys a directory by the public command line, with more arguments.
    pub(crate) fn deploy_directory<'a>(
        &self,
        directory: &Path,
        name: &str,
        more: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let mut deploy = self.lacewing("deploy");
        let output = deploy.arg(directory).args(["--name", name]).args(more).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "deploy failed: {told}");
        Ok(())
    }

    /// The process of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// The sum of the series of this name, and with this label, in `/metrics`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let host = vec![("host".to_owned(), self.address.to_string())];
        let text = String::from_utf8(once(self.address, "GET", "/metrics", host, b"")?)?;
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        });
        let value = |line: &str| line.rsplit(' ').next().unwrap_or_default().parse::<u64>();
        Ok(series.map(value).sum::<Result<u64, _>>()?)
    }

    /// How many Instances are in a state.
    fn instances(&self, state: &str) -> Result<u64> {
        self.metric("lacewing_instances", &format!("state=\"{state}\""))
    }

    /// Waits until nothing is under way: no Instance starts, works or ends, no blank one is made,
    /// and so many are idle.
    pub(crate) fn settle(&self, is_enough: impl Fn(u64) -> bool) -> Result<()> {
        let until = Instant::now() + SETTLING;
        let (mut last, mut since) = (None, Instant::now());
        loop {
            let moving = ["starting", "busy", "retiring"].map(|state| self.instances(state));
            let moving = moving.into_iter().sum::<Result<u64>>()?;
            let (idle, blank) = (self.instances("idle")?, self.instances("blank")?);
            let now = Some((moving, idle, blank));
            if now != last || moving > 0 || !is_enough(idle) {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > STEADY {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{moving} on their way, {idle} idle, {blank} blank");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The directory that the server keeps everything in.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Begins a command of the public command line.
    pub(crate) fn lacewing(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(verb).args(["--endpoint", &format!("http://{}", self.address)]);
        command.arg("--data-dir").arg(self.data());
        command
    }

    /// A request of the Lambda API, signed and answered.
    pub(crate) fn api(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        once(self.address, method, path, self.signed(method, path, body)?, body)
    }

    /// A function, or a version of it, that can be asked.
    pub(crate) fn function(&self, name: &str, qualifier: Option<&str>) -> Result<Function> {
        let mut path = format!("/2015-03-31/functions/{name}/invocations");
        if let Some(qualifier) = qualifier {
            path.push_str(&format!("?Qualifier={qualifier}"));
        }
        // Signed once for many requests: a replay is accepted for five minutes.
        let headers = self.signed("POST", &path, EVENT.as_bytes())?;
        Ok(Function { target: Target::post(self.address, &path, &headers, EVENT.as_bytes()) })
    }

    fn signed(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<(String, String)>> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("host", self.address.to_string())
            .body(())?;
        let (mut parts, ()) = request.into_parts();
        let credentials = read_credentials(&self.data().join("credentials"))?;
        let region = Region::new("us-east-1")?;
        let signer =
            sigv4::Signer { credentials: &credentials, region: &region, service: "lambda" };
        signer.sign(&mut parts, sigv4::Payload::Bytes(body), SystemClock.now())?;
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
        let header = |(name, value): (&http::HeaderName, _)| Ok((name.to_string(), text(value)?));
        parts.headers.iter().map(header).collect()
    }
}

fn read_credentials(path: &Path) -> Result<Credentials> {
    let text = std::fs::read_to_string(path)?;
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
            .with_context(|| format!("no {key} in {}", path.display()))
    };
    Ok(Credentials {
        access_key_id: value("aws_access_key_id")?,
        secret_access_key: Secret::new(value("aws_secret_access_key")?),
        session_token: None,
        expires: None,
    })
}

/// A deployed function that can be asked.
#[derive(Debug)]
pub(crate) struct Function {
    target: Target,
}

impl Function {
    /// Where to send requests.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}
