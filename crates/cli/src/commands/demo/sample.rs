//! The three functions of the demo: what to upload, made of files that are part of this program.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::elf;
use crate::error::{Error, Result};
use crate::scratch::Scratch;

const PYTHON: &str = include_str!("hello.py");
const NODE: &str = include_str!("hello.mjs");

/// A function of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    Python,
    Node,
    Compiled,
}

impl Sample {
    pub(super) const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Compiled];

    /// Name of the function.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Python => "hello-python",
            Self::Node => "hello-node",
            Self::Compiled => "hello-compiled",
        }
    }

    /// Where its handler is.
    pub(super) const fn handler(self) -> &'static str {
        match self {
            Self::Python => "hello.lambda_handler",
            Self::Node => "hello.handler",
            Self::Compiled => "bootstrap",
        }
    }

    /// The newest of the offered runtimes that runs it; without one it is skipped.
    pub(super) fn runtime(self, offered: &[String]) -> Option<String> {
        let newest = |language: &str| offered.iter().rfind(|id| id.starts_with(language)).cloned();
        match self {
            Self::Python => newest("python"),
            Self::Node => newest("nodejs"),
            Self::Compiled => Some("provided.al2023".to_owned()),
        }
    }

    /// What is missing when there is no runtime for it.
    pub(super) const fn missing(self) -> &'static str {
        match self {
            Self::Python => "no Python 3.9 or newer was found",
            Self::Node => "no Node 18 or newer was found",
            Self::Compiled => "",
        }
    }

    /// Its archive; the compiled function is `program`, this very program.
    pub(super) fn zip(self, program: &Path) -> Result<Vec<u8>> {
        match self {
            Self::Python => pack("hello.py", PYTHON.as_bytes(), 0o644),
            Self::Node => pack("hello.mjs", NODE.as_bytes(), 0o644),
            Self::Compiled => {
                let mut bytes = fs::read(program)
                    .map_err(|error| Error::server("cannot read this program").caused_by(&error))?;
                elf::strip(&mut bytes);
                pack("bootstrap", &bytes, 0o755)
            }
        }
    }
}

fn pack(name: &str, content: &[u8], mode: u32) -> Result<Vec<u8>> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::server("cannot pack a function of the demo").caused_by(error)
    };
    let dir = Scratch::new("pack").map_err(|error| failed(&error))?;
    let path = dir.path().join(name);
    fs::write(&path, content)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
        .map_err(|error| failed(&error))?;
    let mut zip = Cursor::new(Vec::new());
    lacewing_archive::pack(dir.path(), &[name.into()], &mut zip, &mut |_| {})
        .map_err(|error| failed(&error))?;
    Ok(zip.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_interpreter_is_taken_and_a_missing_one_is_noticed() {
        let offered = ["python3.9", "python3.13", "nodejs20.x"].map(str::to_owned);
        assert_eq!(Sample::Python.runtime(&offered).as_deref(), Some("python3.13"));
        assert_eq!(Sample::Node.runtime(&offered[..2]), None);
        assert_eq!(Sample::Compiled.runtime(&[]).as_deref(), Some("provided.al2023"));
    }
}
