//! Restores from a snapshot: first requests to a published version with SnapStart of which there is
//! no Instance, because there is room for one and another function had it and crashed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lacewing_model::usage::UsageRecord;
use serde_json::{Value, json};

use crate::cold::pair;
use crate::cpu::Pinning;
use crate::platform::{Language, NODE, PYTHON, Platform};
use crate::report::say;

/// The first Python 3 that has snapshots.
const SNAPSHOTS_FROM: u32 = 12;
/// What the tests put into functions, and which version of it.
const WORKLOADS: &str = include_str!("../../tests/workloads.txt");
/// Restores before those that are counted.
const WARM_UP: usize = 5;
/// Restores and a crash take turns; usage records are there a second later.
const RECORDED: Duration = Duration::from_millis(2_500);
/// Ends the Instance that was there, and its own.
const CRASH: &str = "import os\n\ndef handler(event, context):\n    os._exit(1)\n";
/// Imports `numpy` and computes for a second.
const HEAVY: &str = "import time\nimport numpy\n\nuntil = time.monotonic() + 1\n\
                     table = numpy.ones((100, 100))\nwhile time.monotonic() < until:\n    \
                     table = table @ table / 100\n\ndef handler(event, context):\n    \
                     return float(table.sum())\n";
const CONFIGURATION: &str =
    "isolation = 'required'\nsubstitute_runtimes = true\n[limits]\ninstances = 1\n";

/// How it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Restores of each function.
    #[arg(long, default_value_t = 100)]
    restores: usize,
    /// Milliseconds between a crash and a restore.
    #[arg(long, default_value_t = 200)]
    pause: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { restores: 100, pause: 200 }
    }
}

/// Builds 200,000 objects.
const OBJECTS: &str = "const objects = Array.from({ length: 200000 }, (_, i) => ({ i, text: 'x' + i }));\n\
                       exports.handler = async (event) => objects[event.n ?? 7].text;\n";

/// A function whose restore is measured.
struct Case {
    name: &'static str,
    source: &'static str,
    runtime: String,
    file: &'static str,
    handler: &'static str,
    /// A bundle of packages that it imports.
    bundle: Option<PathBuf>,
}

/// Measures and prints a table.
pub(crate) fn measure(binary: &Path, arguments: &Arguments) -> Result<()> {
    let Some(python) = Language::available().into_iter().find(Language::is_python) else {
        say("\nno restores are measured: there is no Python");
        return Ok(());
    };
    say(&format!(
        "\nfirst requests that a snapshot is restored for, {} of each, {} ms after a crash (ms, p50 / p99)",
        arguments.restores, arguments.pause
    ));
    let parts = ["whole", "placed", "sandbox", "init", "handler"];
    let [whole, placed, sandbox, init, handler] = parts;
    say(&format!(
        "{:<14} {whole:>15} {placed:>15} {sandbox:>15} {init:>15} {handler:>15}",
        "function"
    ));
    let platform = Platform::start(binary, Pinning::Free, CONFIGURATION)?;
    platform.deploy_code("crash", &python, CRASH, 1)?;
    for case in cases(&platform)? {
        publish(&platform, &case)?;
        let whole = restore(&platform, case.name, arguments)?;
        std::thread::sleep(RECORDED);
        let records = records(&platform, case.name, whole.len())?;
        let part = |of: fn(&lacewing_model::usage::Timeline) -> u64| {
            let timelines = records.iter().filter_map(|record| record.timeline.as_ref());
            let mut all: Vec<_> = timelines.map(|one| Duration::from_micros(of(one))).collect();
            all.sort_unstable();
            pair(&all)
        };
        say(&format!(
            "{:<14} {:>15} {:>15} {:>15} {:>15} {:>15}",
            case.name,
            pair(&whole),
            part(|timeline| timeline.placed_us),
            part(|timeline| timeline.sandbox_us),
            part(|timeline| timeline.init_us),
            part(|timeline| timeline.handler_us),
        ));
    }
    Ok(())
}

fn cases(platform: &Platform) -> Result<Vec<Case>> {
    let of_python = |name, source, bundle| -> Result<Case> {
        let runtime = format!("python3.{}", serving(platform)?.max(SNAPSHOTS_FROM));
        Ok(Case { name, source, runtime, file: "app.py", handler: "app.handler", bundle })
    };
    let mut cases = vec![of_python("python", PYTHON, None)?];
    let node = runtimes(platform)?.into_iter().filter(|one| one.starts_with("nodejs")).max();
    if let Some(runtime) = node {
        for (name, source) in [("node", NODE), ("node-objects", OBJECTS)] {
            let (runtime, bundle) = (runtime.clone(), None);
            let (file, handler) = ("index.js", "index.handler");
            cases.push(Case { name, source, runtime, file, handler, bundle });
        }
    }
    match numpy(serving(platform)?) {
        Ok(bundle) => cases.push(of_python("python-numpy", HEAVY, Some(bundle))?),
        Err(error) => say(&format!("python-numpy is skipped: {error:#}")),
    }
    Ok(cases)
}

/// Which Python 3 serves the runtime: the first with snapshots, or the nearest in its place.
fn serving(platform: &Platform) -> Result<u32> {
    let minor = |one: &String| one.strip_prefix("python3.")?.parse().ok();
    let minors: Vec<u32> = runtimes(platform)?.iter().filter_map(minor).collect();
    let with_snapshots = minors.iter().filter(|minor| **minor >= SNAPSHOTS_FROM).min();
    with_snapshots.or_else(|| minors.iter().max()).copied().context("the server has no Python")
}

/// The identifiers of what the server has.
fn runtimes(platform: &Platform) -> Result<Vec<String>> {
    let output = platform.lacewing("runtimes").args(["--output", "json"]).output()?;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    Ok(found.iter().filter_map(|one| one["runtime"].as_str().map(str::to_owned)).collect())
}

/// The directory of the package for this Python 3, which is fetched once unless the tests have it.
fn numpy(minor: u32) -> Result<PathBuf> {
    let cache = crate::cache()?;
    let venv = cache.join("venv/bin");
    if venv.join(format!("python3.{minor}")).exists() {
        return Ok(cache.join("workloads/numpy"));
    }
    let line = WORKLOADS.lines().find_map(|line| line.strip_prefix("numpy pip "));
    let package = line.context("the tests' list has no numpy")?;
    let (place, ready) = (cache.join(format!("bench/python3.{minor}")), "numpy/__init__.py");
    if !place.join(ready).exists() {
        let pip = Command::new(venv.join("python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary=:all:", "--python-version", &format!("3.{minor}"), package])
            .arg("--target")
            .arg(&place)
            .output()?;
        let told = String::from_utf8_lossy(&pip.stderr);
        ensure!(pip.status.success(), "cannot get {package} for Python 3.{minor}: {told}");
    }
    Ok(place)
}

/// Deploys a function, publishes its first version and waits for the snapshot.
fn publish(platform: &Platform, case: &Case) -> Result<()> {
    let directory = platform.directory(case.name)?;
    std::fs::write(directory.join(case.file), case.source)?;
    if let Some(bundle) = &case.bundle {
        let copied = Command::new("cp").arg("-R").arg(bundle.join(".")).arg(&directory).status()?;
        ensure!(copied.success(), "cannot copy {}", bundle.display());
    }
    // With threads of its own numpy could not be forked.
    let options = ["--env", "OPENBLAS_NUM_THREADS=1", "--memory", "512", "--timeout", "30"];
    let options =
        ["--runtime", &case.runtime, "--handler", case.handler].into_iter().chain(options);
    platform.deploy_directory(&directory, case.name, options)?;
    let path = format!("/2015-03-31/functions/{}", case.name);
    let configuration = json!({"SnapStart": {"ApplyOn": "PublishedVersions"}}).to_string();
    platform.api("PUT", &format!("{path}/configuration"), configuration.as_bytes())?;
    let read = |qualifier: &str| -> Result<Value> {
        let path = format!("{path}/configuration?Qualifier={qualifier}");
        Ok(serde_json::from_slice(&platform.api("GET", &path, b"")?)?)
    };
    wait(|| Ok(read("$LATEST")?["LastUpdateStatus"] == "Successful"))?;
    platform.api("POST", &format!("{path}/versions"), b"{}")?;
    wait(|| Ok(read("1")?["State"] == "Active"))?;
    let status = read("1")?["SnapStart"]["OptimizationStatus"].clone();
    ensure!(status == "On", "{}: SnapStart is {status}", case.name);
    Ok(())
}

fn wait(is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    while !is_so()? {
        ensure!(Instant::now() < until, "a function did not become ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How long each first request took, sorted.
fn restore(platform: &Platform, name: &str, arguments: &Arguments) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    for _ in 0..WARM_UP + arguments.restores {
        // That this one fails is what it is for.
        platform.api("POST", "/2015-03-31/functions/bench-crash-0/invocations", b"{}")?;
        std::thread::sleep(Duration::from_millis(arguments.pause));
        let function = platform.function(name, Some("1"))?;
        let mut connection = function.target().connect()?;
        let before = Instant::now();
        connection.request()?;
        all.push(before.elapsed());
    }
    all.drain(..WARM_UP);
    all.sort_unstable();
    Ok(all)
}

/// The records of the last so many calls, each of which was the first of its Instance.
fn records(platform: &Platform, name: &str, count: usize) -> Result<Vec<UsageRecord>> {
    let output = platform.lacewing("usage").args(["--records", "--output", "json"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut records =
        text.lines().map(serde_json::from_str::<UsageRecord>).collect::<Result<Vec<_>, _>>()?;
    records.retain(|record| record.function.as_str() == name);
    records.drain(..records.len().saturating_sub(count));
    let cold = |record: &&UsageRecord| record.timeline.is_some_and(|one| one.cold_start.is_some());
    let first = records.iter().filter(cold).count();
    ensure!(first == count, "of {count} calls {first} were the first of their Instance");
    Ok(records)
}
