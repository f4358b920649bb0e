//! The direction of dependencies between our crates, and what may be in the whole tree.
//!
//! Calls go down only: a crate may use what stands in its row here and nothing else of ours.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::process::root;

/// Which of our crates each of our crates may use (development dependencies are free).
const MAY_USE: &[(&str, &[&str])] = &[
    ("lacewing-model", &[]),
    ("lacewing-archive", &[]),
    ("lacewing-sandbox", &[]),
    ("lacewing-store", &["model"]),
    ("lacewing-runtime", &["model", "store", "archive", "sandbox"]),
    ("lacewing-services", &["model", "store", "archive"]),
    ("lacewing-invoke", &["model", "store", "services", "runtime"]),
    ("lacewing-gateway", &["model", "services", "invoke"]),
    ("lacewing-node", &["model", "store", "sandbox", "runtime", "services", "invoke", "gateway"]),
    ("lacewing", &["model", "archive", "sandbox", "gateway", "node"]),
    ("lacewing-bench", &["model", "gateway", "invoke", "sandbox"]),
    ("lacewing-simulate", &["model", "invoke"]),
    ("xtask", &[]),
];

/// The only crates in which `unsafe` may occur at all.
const MAY_BE_UNSAFE: &[&str] = &["lacewing-sandbox"];

/// Checks the whole dependency graph.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cargo metadata failed")?;
    let mut broken = directions(&metadata);
    broken.extend(unsafe_code(&metadata)?);
    let (banned, licences) = policy()?;
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        if banned.contains(package.name.as_str()) {
            broken.push(format!(
                "{} is in the dependency tree and banned by deny.toml",
                package.name
            ));
        }
        if !licence_allowed(package, &licences) {
            broken.push(format!(
                "{} has the licence {:?}, which deny.toml does not allow",
                package.name, package.license
            ));
        }
    }
    Ok(broken)
}

fn directions(metadata: &Metadata) -> Vec<String> {
    let rows: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = rows.get(package.name.as_str()) else {
            if !package.manifest_path.as_str().contains("/tests/") {
                broken.push(format!("{} has no row in tidy's table of dependencies", package.name));
            }
            continue;
        };
        for dependency in &package.dependencies {
            let Some(ours) = dependency.name.strip_prefix("lacewing-") else { continue };
            if dependency.kind == DependencyKind::Normal && !allowed.contains(&ours) {
                broken.push(format!("{} may not use lacewing-{ours}", package.name));
            }
        }
    }
    broken
}

/// Every crate forbids `unsafe` through the workspace's lints, but those that may have it.
fn unsafe_code(metadata: &Metadata) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path)?;
        let inherits = manifest.contains("[lints]\nworkspace = true");
        if !inherits && !MAY_BE_UNSAFE.contains(&package.name.as_str()) {
            broken.push(format!("{} does not take the workspace's lints", package.name));
        }
    }
    Ok(broken)
}

/// Reads the banned crates and the allowed licences out of deny.toml, line by line: the file is
/// ours, and this way xtask needs no TOML parser.
fn policy() -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let text =
        std::fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let banned =
        text.lines().filter(|line| line.contains("{ crate = ")).filter_map(quoted).collect();
    let licences = text
        .lines()
        .skip_while(|line| !line.starts_with("allow = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .filter_map(quoted)
        .collect();
    Ok((banned, licences))
}

/// Whether a licence expression can be met with allowed licences: every `AND` part needs one
/// allowed `OR` alternative.
fn licence_allowed(package: &Package, allowed: &BTreeSet<String>) -> bool {
    let Some(expression) = &package.license else { return false };
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|name| allowed.contains(name.trim())))
}
