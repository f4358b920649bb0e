//! Asks an interpreter what it is and where it lives, by running it.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use thiserror::Error;

use lacewing_model::{Family, RuntimeId};

use super::candidates;

/// An interpreter that does not answer in this time is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a running interpreter is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// More output than this is no answer.
const LONGEST: u64 = 16 * 1024;
/// So much of what it complains of is passed on.
const COMPLAINT: usize = 512;

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
    #[error("it did not answer in {PATIENCE:?}{0}")]
    Silent(Complaint),
    /// It said something else.
    #[error("it does not answer as an interpreter does{0}")]
    Nonsense(Complaint),
}

/// The beginning of what it wrote to standard error, which may be nothing.
#[derive(Debug)]
pub(super) struct Complaint(String);

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
        .envs(variables())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .spawn()
        .map_err(AskError::Run)?;
    let ended_well = wait(&mut child).map_err(AskError::Run)?;
    let text = read(child.stdout.take()).map_err(AskError::Run)?;
    let complaint = Complaint::of(&read(child.stderr.take()).map_err(AskError::Run)?);
    match ended_well {
        None => Err(AskError::Silent(complaint)),
        Some(false) => Err(AskError::Nonsense(complaint)),
        Some(true) => parse(&text, family).ok_or(AskError::Nonsense(complaint)),
    }
}

/// What a shim needs to find the interpreter behind it.
fn variables() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    let names = ["HOME", "PATH"].into_iter().chain(candidates::variables());
    names.filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Waits for the end and says whether it was a good one; `None` if it had to be killed. The answer
/// is far smaller than a pipe, so that nothing can block on it.
pub(super) fn wait(child: &mut Child) -> io::Result<Option<bool>> {
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Reads what is in a pipe. Does not wait for its end: a process that was left behind may hold it.
fn read(pipe: Option<impl Read + AsFd>) -> io::Result<String> {
    let Some(pipe) = pipe else { return Ok(String::new()) };
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut bytes = Vec::new();
    match pipe.take(LONGEST).read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

impl Complaint {
    fn of(text: &str) -> Self {
        Self(text.trim().chars().take(COMPLAINT).collect())
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it says: {}", self.0) }
    }
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

    #[test]
    fn a_complaint_is_passed_on_and_bounded() {
        let error = ask(Path::new("/bin/cat"), Family::Python).expect_err("no interpreter");
        assert!(error.to_string().contains("; it says: /bin/cat: "), "{error}");
        assert_eq!(Complaint::of(&"x".repeat(9_000)).to_string().len(), 11 + COMPLAINT);
        assert_eq!(Complaint::of(" \n").to_string(), "");
    }
}
