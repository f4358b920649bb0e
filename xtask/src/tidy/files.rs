//! Rules about single files: a head that says what the file is for, a bounded size, no stray paths.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::root;

/// A Rust file longer than this, without its tests, is more than one idea.
const MOST_LINES: usize = 600;

/// Words that would tie the repository to one machine or one workplace. Written in halves, so that
/// this list does not find itself.
const STRAY: &[(&str, &str)] =
    &[("../sha", "red"), ("/wor", "k/"), ("/ro", "ot/"), ("before", "-stop")];

/// Files in which a path such as root's home is the subject and not a slip.
const MAY_NAME_PATHS: &[&str] = &["tests/e2e/probe_table.py"];

/// Checks all files that git knows or would take.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in tracked()? {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        if !MAY_NAME_PATHS.contains(&path.as_str()) {
            broken.extend(stray_paths(&path, &text));
        }
        match Path::new(&path).extension().and_then(|extension| extension.to_str()) {
            Some("rs") => broken.extend(rust_rules(&path, &text)),
            Some("py" | "mjs" | "js" | "cjs") => broken.extend(script_rules(&path, &text)),
            Some("md") => broken.extend(unfilled(&path, &text)),
            _ => {}
        }
    }
    Ok(broken)
}

fn tracked() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files failed");
    let list = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn stray_paths(path: &str, text: &str) -> Vec<String> {
    let words = STRAY.iter().map(|(head, tail)| format!("{head}{tail}"));
    words
        .filter(|word| text.contains(word.as_str()))
        .map(|word| format!("{path}: contains '{word}'"))
        .collect()
}

fn rust_rules(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("// Generated") {
        broken.push(format!("{path}: does not open with `//!` that says what it is for"));
    }
    if path.ends_with("/mod.rs") && !path.contains("/tests/") {
        broken.push(format!("{path}: use foo.rs beside foo/ instead of mod.rs"));
    }
    let generated = text.starts_with("// Generated") || path.ends_with("generated.rs");
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = code.lines().count();
    if !generated && !is_test && lines > MOST_LINES {
        broken.push(format!("{path}: {lines} lines, at most {MOST_LINES}"));
    }
    broken
}

/// A number that was still to be measured when the text was written: `@NAME@`.
fn unfilled(path: &str, text: &str) -> Option<String> {
    let is_name = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let name = text.split('@').skip(1).find(|word| is_name(word))?;
    Some(format!("{path}: @{name}@ is not filled in"))
}

fn script_rules(path: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.starts_with("#!") && !line.trim().is_empty())?;
    let has_head =
        ["\"\"\"", "#", "//", "/*", "'use strict'"].iter().any(|head| first.starts_with(head));
    (!has_head).then(|| format!("{path}: does not open with a comment that says what it is for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_is_named() {
        assert!(!rust_rules("a.rs", "fn main() {}\n").is_empty());
        assert!(rust_rules("a.rs", "//! For tests.\n").is_empty());
    }

    #[test]
    fn a_file_that_is_too_long_is_named_but_its_tests_do_not_count() {
        let long = format!("//! Long.\n{}", "fn f() {}\n".repeat(MOST_LINES + 1));
        assert!(rust_rules("a.rs", &long)[0].contains("at most"));
        let tested = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(700));
        assert!(rust_rules("a.rs", &tested).is_empty());
    }

    #[test]
    fn a_number_that_was_not_filled_in_is_named() {
        assert!(unfilled("a.md", concat!("takes @", "MINUTES", "@ minutes")).is_some());
        assert!(unfilled("a.md", "me@example.org and @file").is_none());
    }

    #[test]
    fn a_stray_path_is_named() {
        assert_eq!(stray_paths("a.md", concat!("see ../sha", "red/x")).len(), 1);
    }
}
