//! The gate that every change passes, the same on a laptop and in continuous integration.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cache, command, step, target};
use crate::{codegen, skips, tidy};

fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    cargo.args(arguments);
    Ok(cargo)
}

/// Runs everything, cheapest first.
pub(crate) fn run() -> Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"])?)?;
    tidy::run().context("tidy")?;
    codegen::run(&codegen::Args::check()).context("generated code is not up to date")?;
    step(
        "clippy",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])?,
    )?;
    step(
        "unit and integration tests",
        nextest(&["run", "--workspace", "--locked", "--profile", "ci"])?.arg(skips::reporting()?),
    )?;
    step(
        "documentation",
        cargo(&["doc", "--workspace", "--no-deps", "--locked"])?.env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    step("build", &mut cargo(&["build", "--workspace", "--locked"])?)?;
    pytest("bootstrap tests", &["crates/runtime/bootstraps/tests"], &[])?;
    pytest("end-to-end tests", &["tests/e2e"], &[])?;
    skips::tell()
}

const SOAKS: [(&str, &str); 4] = [
    ("crash under load", "test_crash.py"),
    ("healthy functions beside hostile ones", "test_soak.py"),
    ("what goes leaves nothing", "test_retirement.py"),
    ("what is unique", "test_uniqueness.py"),
];

/// The long forms of those tests that have one: they look for `LACEWING_SOAK`.
pub(crate) fn soak() -> Result<()> {
    step("build", &mut cargo(&["build", "--workspace", "--release", "--locked"])?)?;
    step(
        "soak: power cuts",
        cargo(&["test", "--workspace", "--locked", "--test", "contract"])?
            .args(["--", "power", "--nocapture"])
            .env("LACEWING_SOAK", "1"),
    )?;
    let binary = target()?.join("release/lacewing");
    let binary = binary.to_str().context("the target directory's name is not UTF-8")?;
    let environment = [("LACEWING_SOAK", "1"), ("LACEWING_BIN", binary)];
    for (name, file) in SOAKS {
        // What they print is their progress.
        let file = format!("tests/e2e/{file}");
        pytest(&format!("soak: {name}"), &["--capture=no", &file], &environment)?;
    }
    Ok(())
}

/// Measures what SPECIFICATION.md promises.
pub(crate) fn bench() -> Result<()> {
    step("build", &mut cargo(&["build", "--workspace", "--release", "--locked"])?)?;
    let release = target()?.join("release");
    let mut bench = command(release.join("lacewing-bench"))?;
    bench.env("LACEWING_BIN", release.join("lacewing"));
    step("bench", &mut bench)?;
    let ignored = ["--run-ignored", "only", "--no-capture", "-E", "test(/bench_/)"];
    let mut parts = nextest(&["run", "--release", "--locked", "-p", "lacewing-sandbox"])?;
    parts.args(["-p", "lacewing-runtime"]).args(ignored);
    step("bench: the way out", &mut parts)?;
    let binary = release.join("lacewing");
    let binary = binary.to_str().context("the target directory's name is not UTF-8")?;
    let felt = ["--capture=no", "-k", "test_bench", "tests/e2e/test_exhaustion.py"];
    let environment = [("LACEWING_BENCH", "1"), ("LACEWING_BIN", binary)];
    pytest("bench: what a neighbour feels", &felt, &environment)
}

/// Measures the programs that `scripts/prepare-peers` has got, and this one beside them.
pub(crate) fn bench_peers() -> Result<()> {
    step("build", &mut cargo(&["build", "--workspace", "--release", "--locked"])?)?;
    let release = target()?.join("release");
    let mut bench = command(release.join("lacewing-bench"))?;
    bench.arg("peers").env("LACEWING_BIN", release.join("lacewing"));
    step("bench: peers", &mut bench)
}

/// Plays a synthetic day through the pool under several policies.
pub(crate) fn simulate(arguments: &[String]) -> Result<()> {
    step("build", &mut cargo(&["build", "-p", "lacewing-simulate", "--release", "--locked"])?)?;
    let mut simulate = command(target()?.join("release/lacewing-simulate"))?;
    simulate.args(arguments);
    step("simulate", &mut simulate)
}

fn nextest(arguments: &[&str]) -> Result<Command> {
    let own = target()?.join("tools/bin/cargo-nextest");
    let mut nextest = match own.exists() {
        true => command(own)?,
        false => cargo(&[])?,
    };
    nextest.arg("nextest").args(arguments);
    Ok(nextest)
}

fn python() -> Result<PathBuf> {
    Ok(cache()?.join("venv/bin/python"))
}

fn pytest(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut pytest = command(python()?)?;
    pytest
        .args(["-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra"])
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LACEWING_TARGET", target()?)
        .envs(environment.iter().copied());
    step(name, &mut pytest)
}
