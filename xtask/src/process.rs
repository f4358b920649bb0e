//! Running other programs, and saying what runs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Prints a line for the person who watches.
#[expect(clippy::print_stderr, reason = "a development tool talks to its terminal")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// The root of the repository: of the clone that runs, which need not be the one that was compiled
/// when several share a target directory.
pub(crate) fn root() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = running.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest.parent().expect("xtask lies one level below the root").to_owned()
}

/// The directory for everything that is installed or built for development.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("LACEWING_CACHE") {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME").context("neither LACEWING_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/lacewing"))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => Ok(target.into()),
        None => Ok(cache()?.join("target")),
    }
}

/// A command in the root of the repository, with the shared target directory.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root()).env("CARGO_TARGET_DIR", target()?).env("LACEWING_CACHE", cache()?);
    Ok(command)
}

/// Runs one step and fails if it fails.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    say(&format!("=== {name}"));
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{name} failed ({status}): {command:?}");
    }
    say(&format!("=== {name}: done in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}
