//! Asks an interpreter what it is and where it lives, by running it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use thiserror::Error;

use lacewing_model::{Family, RuntimeId};

/// An interpreter that does not answer in this time is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a running interpreter is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// More output than this is no answer.
const LONGEST: u64 = 16 * 1024;

/// `-I -S` keeps the user's environment and site directories out of it.
const PYTHON: &[&str] = &[
    "-I",
    "-S",
    "-c",
    "import os, sys
print(sys.implementation.name)
print('.'.join(map(str, sys.version_info[:3])))
print(os.path.realpath(sys.base_prefix))
print(os.path.realpath(sys.executable))",
];
const NODE: &[&str] = &[
    "-p",
    "const real = require('fs').realpathSync(process.execPath);
['node', process.versions.node, require('path').dirname(require('path').dirname(real)), real]
    .join('\\n')",
];

/// What an interpreter says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) family: Family,
    pub(super) numbers: (u16, u16),
    pub(super) version: String,
    pub(super) prefix: PathBuf,
    pub(super) executable: PathBuf,
}

/// Why there is no usable answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// It could not be run.
    #[error("cannot run it: {0}")]
    Run(io::Error),
    /// It took too long.
    #[error("it did not answer in {PATIENCE:?}")]
    Silent,
    /// It said something else.
    #[error("it is no interpreter that can be used")]
    Nonsense,
}

impl Answer {
    /// The identifier under which Lambda knows it.
    pub(super) const fn runtime(&self) -> RuntimeId {
        match self.family {
            Family::Node => RuntimeId::node(self.numbers.0),
            _ => RuntimeId::python(self.numbers.0, self.numbers.1),
        }
    }
}

/// Runs the interpreter at `path` and reads what it says.
pub(super) fn ask(path: &Path, family: Family) -> Result<Answer, AskError> {
    let question = if family == Family::Node { NODE } else { PYTHON };
    let mut child = Command::new(path)
        .args(question)
        .env_clear()
        .envs(["HOME", "PATH"].into_iter().filter_map(|key| Some((key, std::env::var_os(key)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .map_err(AskError::Run)?;
    let ended_well = wait(&mut child)?;
    let mut text = String::new();
    let output = child.stdout.take().ok_or(AskError::Nonsense)?;
    output.take(LONGEST).read_to_string(&mut text).map_err(AskError::Run)?;
    if !ended_well {
        return Err(AskError::Nonsense);
    }
    parse(&text, family).ok_or(AskError::Nonsense)
}

/// Waits for the end; the answer is far smaller than a pipe, so that nothing can block on it.
fn wait(child: &mut Child) -> Result<bool, AskError> {
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if let Some(status) = child.try_wait().map_err(AskError::Run)? {
            return Ok(status.success());
        }
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
    child.kill().map_err(AskError::Run)?;
    child.wait().map_err(AskError::Run)?;
    Err(AskError::Silent)
}

fn parse(text: &str, family: Family) -> Option<Answer> {
    let mut lines = text.lines();
    let name = lines.next()?;
    let expected = if family == Family::Node { "node" } else { "cpython" };
    let version = lines.next()?;
    let mut parts = version.split('.').map(|part| part.parse::<u16>().ok());
    let numbers = (parts.next()??, parts.next()??);
    let prefix = PathBuf::from(lines.next()?);
    let executable = PathBuf::from(lines.next()?);
    let usable = name == expected && prefix.is_absolute() && executable.is_absolute();
    usable.then(|| Answer { family, numbers, version: version.to_owned(), prefix, executable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_languages_are_read() {
        let python = parse("cpython\n3.11.7\n/opt/py\n/opt/py/bin/python3.11\n", Family::Python);
        let python = python.expect("an answer");
        assert_eq!(python.runtime(), RuntimeId::python(3, 11));
        assert_eq!(python.prefix, Path::new("/opt/py"));
        let node = parse("node\n20.20.1\n/usr\n/usr/bin/node\n", Family::Node).expect("an answer");
        assert_eq!(node.runtime(), RuntimeId::node(20));
        assert_eq!(node.version, "20.20.1");
    }

    #[test]
    fn other_answers_are_refused() {
        for text in [
            "",
            "pypy\n3.10.1\n/opt\n/opt/bin/pypy\n",
            "cpython\nthree\n/opt\n/opt/bin/python\n",
            "cpython\n3.11.7\nopt\nbin/python\n",
            "cpython\n3.11.7\n/opt\n",
        ] {
            assert_eq!(parse(text, Family::Python), None, "{text}");
        }
    }

    #[test]
    fn a_program_that_is_no_interpreter_is_refused() {
        assert!(ask(Path::new("/bin/true"), Family::Python).is_err());
        assert!(ask(Path::new("/nonexistent"), Family::Python).is_err());
    }
}
