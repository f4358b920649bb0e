//! The filter on system calls: a policy in JSON, compiled once to a balanced tree of BPF.
//!
//! The tree keeps a call cheap and, above all, keeps the kernel's check of the program at install
//! cheap: it is paid by every sandbox. See seccomp(2) for the rules that a program must keep.
//!
//! It never allows what the policy does not name.

mod numbers;
mod tree;

use std::collections::BTreeMap;

use serde::Deserialize;

use tree::{Action, Rule, Test};

const DEFAULT: &str = include_str!("../policy/default.json");
const SERVER: &str = include_str!("../policy/server.json");

/// A compiled filter.
pub(crate) type Program = Vec<libc::sock_filter>;

/// Compiles the policy that the crate ships.
pub(crate) fn default_program() -> Result<Program, String> {
    Ok(tree::program(&rules(DEFAULT)?))
}

/// Compiles the policy for the server: what a sandbox may do, but for what its own file replaces.
pub(crate) fn server_program() -> Result<Program, String> {
    let mut rules = rules(DEFAULT)?;
    for (number, rule) in self::rules(SERVER)? {
        rules.insert(number, rule);
    }
    Ok(tree::program(&rules))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    allow: BTreeMap<String, Vec<String>>,
    refuse: BTreeMap<String, String>,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    call: String,
    argument: u32,
    #[serde(flatten)]
    test: Test,
    r#else: String,
}

/// Reads a policy.
fn rules(policy: &str) -> Result<BTreeMap<u32, Rule>, String> {
    let policy: Policy = serde_json::from_str(policy).map_err(|error| error.to_string())?;
    let mut rules = BTreeMap::new();
    let mut add = |name: &str, rule: Rule| match numbers::number(name) {
        Some(number) if rules.insert(number, rule).is_some() => {
            Err(format!("{name} is named twice"))
        }
        Some(_) => Ok(()),
        // Other processors lack the older calls of x86-64.
        None if cfg!(not(target_arch = "x86_64")) => Ok(()),
        None => Err(format!("{name} is not a known system call")),
    };
    for name in policy.allow.values().flatten() {
        add(name, Rule::Plain(Action::Allow))?;
    }
    for (name, error) in &policy.refuse {
        add(name, Rule::Plain(Action::Errno(errno(error)?)))?;
    }
    for condition in policy.conditions {
        let refused = Action::Errno(errno(&condition.r#else)?);
        let Condition { call, argument, test, .. } = condition;
        add(&call, Rule::Argument { argument, test, refused })?;
    }
    Ok(rules)
}

fn errno(name: &str) -> Result<u16, String> {
    let number = match name {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        "EAFNOSUPPORT" => libc::EAFNOSUPPORT,
        other => return Err(format!("{other} is not a known error name")),
    };
    u16::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
