//! Runs the fuzzers of `fuzz/` for a bounded time: `cargo xtask fuzz [--seconds N] [TARGET...]`.
//!
//! What they find goes to `fuzz/artifacts`, what they learn to the development cache; only what shall
//! be replayed for ever is committed, by hand, to `fuzz/corpus`.

use std::fs;

use anyhow::{Context, Result};
use clap::Parser;

use crate::process::{cache, command, root, step, target};

/// The version that runs them.
const CARGO_FUZZ: &str = "0.13.2";
/// The largest input: every bound of the parsers that matters is met below it.
const LARGEST: &str = "-max_len=8192";
/// SQLite names one of its own constants twice, which the address sanitizer takes for a fault.
const SANITIZER: (&str, &str) = ("ASAN_OPTIONS", "detect_odr_violation=0");
/// The flags that instrument a program are not stable; this lets the stable compiler take them.
const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// The targets; all of them when none is named.
    targets: Vec<String>,
}

/// Builds and runs one fuzzer after the other; stops at the first that finds something.
///
/// # Errors
/// If a fuzzer cannot be built, or found an input for which what must hold does not.
pub(crate) fn run(args: &Args) -> Result<()> {
    install()?;
    let targets = if args.targets.is_empty() { all()? } else { args.targets.clone() };
    for name in &targets {
        let learnt = cache()?.join("fuzz").join(name);
        fs::create_dir_all(&learnt).with_context(|| learnt.display().to_string())?;
        let seeds = root().join("fuzz/corpus").join(name);
        let time = format!("-max_total_time={}", args.seconds);
        let mut fuzzer = command(target()?.join("tools/bin/cargo-fuzz"))?;
        fuzzer.args(["fuzz", "run", "--fuzz-dir", "fuzz", "--target-dir"]);
        fuzzer.arg(target()?.join("fuzz")).arg(name).args([&learnt, &seeds]).args([
            "--",
            LARGEST,
            &time,
            "-timeout=10",
            "-verbosity=0",
        ]);
        fuzzer.args(["-print_funcs=0", "-print_final_stats=1"]).env(SANITIZER.0, SANITIZER.1);
        step(&format!("fuzz {name}"), fuzzer.env(UNSTABLE.0, UNSTABLE.1))?;
    }
    Ok(())
}

/// The targets, by the files that hold them.
fn all() -> Result<Vec<String>> {
    let entries = fs::read_dir(root().join("fuzz/fuzz_targets")).context("fuzz/fuzz_targets")?;
    let stem = |entry: std::io::Result<fs::DirEntry>| {
        entry.ok()?.path().file_stem()?.to_str().map(str::to_owned)
    };
    let mut names: Vec<String> = entries.filter_map(stem).collect();
    names.sort();
    Ok(names)
}

fn install() -> Result<()> {
    let tools = target()?.join("tools");
    if tools.join("bin/cargo-fuzz").exists() {
        return Ok(());
    }
    let package = format!("cargo-fuzz@{CARGO_FUZZ}");
    let mut cargo = command("cargo")?;
    cargo.args(["install", "--quiet", "--locked", &package, "--root"]).arg(&tools);
    step("install cargo-fuzz", cargo.arg("--target-dir").arg(tools.join("build")))
}
