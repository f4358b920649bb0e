//! Which files of a directory are deployed: all but what no function needs, and but what
//! `.lacewingignore` names in the syntax of `.gitignore`.
//!
//! `.gitignore` itself is not obeyed: it usually names the very dependencies that must go along.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::manifest;
use crate::error::{Error, Result};

/// Name of the file with patterns of the function's author.
const IGNORE_FILE: &str = ".lacewingignore";
/// What no function needs; `.lacewingignore` may take a file back with `!name`.
const DEFAULTS: &[&str] = &[
    ".git/",
    ".hg/",
    ".svn/",
    ".idea/",
    ".vscode/",
    ".DS_Store",
    "__pycache__/",
    "*.pyc",
    ".venv/",
    "venv/",
    ".tox/",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".npm/",
    ".aws/",
    ".env",
    ".gitignore",
    ".lacewingignore",
    "/*.zip",
];

/// Files and links below `dir`, relative to it, sorted.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let patterns = patterns(dir)?;
    let root = dir.to_path_buf();
    let wanted = move |path: &Path, is_dir: bool| {
        path == root || !patterns.matched_path_or_any_parents(path, is_dir).is_ignore()
    };
    let walk = WalkBuilder::new(dir)
        .standard_filters(false)
        .follow_links(false)
        .filter_entry(move |entry| {
            wanted(entry.path(), entry.file_type().is_some_and(|kind| kind.is_dir()))
        })
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| {
            Error::user(format!("cannot list {}", dir.display())).caused_by(&error)
        })?;
        if entry.file_type().is_some_and(|kind| !kind.is_dir()) {
            let relative = entry.path().strip_prefix(dir).map_err(|error| {
                Error::bug("a file outside the listed directory").caused_by(&error)
            })?;
            files.push(relative.to_path_buf());
        }
    }
    files.sort();
    Ok(files)
}

fn patterns(dir: &Path) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(dir);
    let invalid = |error: &ignore::Error| {
        Error::user(format!("{} is not valid", dir.join(IGNORE_FILE).display())).caused_by(error)
    };
    for pattern in DEFAULTS.iter().copied().chain([concat_root(manifest::FILE).as_str()]) {
        builder.add_line(None, pattern).map_err(|error| invalid(&error))?;
    }
    let file = dir.join(IGNORE_FILE);
    if file.is_file()
        && let Some(error) = builder.add(&file)
    {
        return Err(invalid(&error));
    }
    builder.build().map_err(|error| invalid(&error))
}

fn concat_root(name: &str) -> String {
    format!("/{name}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_help_names_everything_that_stays_behind() {
        let mut cli = Cli::command();
        let deploy = cli.find_subcommand_mut("deploy").unwrap();
        let help = deploy.render_long_help().to_string();
        for pattern in DEFAULTS.iter().chain([&manifest::FILE]) {
            assert!(help.contains(pattern.trim_matches('/')), "{pattern} is not in the help");
        }
    }
}
