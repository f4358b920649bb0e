//! The house rules that neither the compiler nor clippy checks: file heads and sizes, the direction
//! of dependencies, what may be in the dependency tree, and paths that must not be in the repository.

mod dependencies;
mod files;

use anyhow::{Result, bail};

use crate::process::say;

/// Checks every rule and lists all that is broken.
pub(crate) fn run() -> Result<()> {
    let mut broken = files::check()?;
    broken.extend(dependencies::check()?);
    if broken.is_empty() {
        say("=== tidy: done");
        return Ok(());
    }
    for rule in &broken {
        say(&format!("tidy: {rule}"));
    }
    bail!("{} house rules are broken", broken.len())
}
