//! Which interpreters this machine has, and which of them serves a runtime identifier.
//!
//! Candidates come from the configuration, the system's directories, version managers and `PATH`,
//! in that order of precedence. A candidate may be a shim, a link or broken: each is run once and
//! asked what it is and where it lives, so that no path is trusted for its name. What was looked
//! for and is of no use is passed over; what the operator configured must be of use. The result is
//! kept for the life of the server.

mod ask;
mod candidates;
mod compile;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use lacewing_model::{Error, Family, Kind, Result, RuntimeId};

use self::ask::{Answer, AskError};
use self::candidates::Candidate;

/// Candidates that are asked at the same time.
const WORKERS: usize = 4;
/// Least version of Python that the bootstrap supports.
const LEAST_PYTHON: (u16, u16) = (3, 9);
/// Least version of Node that the bootstrap supports.
const LEAST_NODE: (u16, u16) = (18, 0);

/// An interpreter of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interpreter {
    /// The identifier under which it is offered.
    pub runtime: RuntimeId,
    /// The executable itself, no shim.
    pub path: PathBuf,
    /// The directory that contains it and its standard library.
    pub prefix: PathBuf,
    /// The whole version, for example `3.11.7`.
    pub version: String,
    /// Where it was found: `configuration`, `/usr`, `pyenv` and so on.
    pub origin: String,
}

/// The interpreters of this machine, the best for each runtime identifier.
#[derive(Clone, Debug, Default)]
pub struct Runtimes {
    found: BTreeMap<RuntimeId, Interpreter>,
}

/// What serves a runtime identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The interpreter; none for `provided.*`, where the function brings its own.
    pub interpreter: Option<Interpreter>,
    /// Whether another version than the wanted one serves.
    pub substituted: bool,
}

// === Runtimes ===

impl Runtimes {
    /// Looks for interpreters; `path` is the value of `PATH`. Runs each candidate once, several
    /// at a time, each with a time limit.
    ///
    /// # Errors
    /// `Kind::Invalid` if a configured interpreter cannot be used.
    pub fn discover(
        configured: &BTreeMap<RuntimeId, PathBuf>,
        path: Option<&OsStr>,
    ) -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = variable("HOME");
        let mut runtimes = Self::default();
        runtimes.adopt_configured(configured, home.as_deref())?;
        runtimes.adopt(candidates::of_machine(home.as_deref(), &variable), home.as_deref());
        let from_path = candidates::of_path(path).into_iter();
        let unknown: Vec<_> = from_path.filter(|found| !runtimes.covers(found)).collect();
        runtimes.adopt(unknown, home.as_deref());
        Ok(runtimes)
    }

    /// Every interpreter that is offered, one for each identifier, in order.
    pub fn list(&self) -> Vec<Interpreter> {
        self.found.values().cloned().collect()
    }

    /// What serves `wanted`; with `substitute` that may be the nearest version of its language.
    ///
    /// # Errors
    /// `Kind::Invalid` with what there is.
    pub fn resolve(&self, wanted: RuntimeId, substitute: bool) -> Result<Resolved> {
        if wanted.family == Family::Provided {
            return Ok(Resolved { interpreter: None, substituted: false });
        }
        if let Some(exact) = self.found.get(&wanted) {
            return Ok(Resolved { interpreter: Some(exact.clone()), substituted: false });
        }
        let nearest = self.nearest(wanted).filter(|_| substitute);
        let interpreter = nearest.ok_or_else(|| self.unavailable(wanted))?;
        Ok(Resolved { interpreter: Some(interpreter.clone()), substituted: true })
    }

    /// The version of the same language with the least distance, the newer of two equally near.
    fn nearest(&self, wanted: RuntimeId) -> Option<&Interpreter> {
        let distance = |runtime: RuntimeId| {
            let (major, minor) = (runtime.version.0, runtime.version.1);
            (major.abs_diff(wanted.version.0), minor.abs_diff(wanted.version.1))
        };
        let same = self.found.values().filter(|found| found.runtime.family == wanted.family);
        same.min_by_key(|found| (distance(found.runtime), Reverse(found.runtime.version)))
    }

    fn unavailable(&self, wanted: RuntimeId) -> Error {
        let mut names: Vec<String> = self.found.keys().map(ToString::to_string).collect();
        names.extend(["provided.al2023".to_owned(), "provided.al2".to_owned()]);
        let message = format!(
            "The runtime {wanted} is not available on this machine. Available runtimes: {}.",
            names.join(", ")
        );
        Error::new(Kind::Invalid, message)
    }

    /// Whether a candidate's name promises nothing new.
    fn covers(&self, candidate: &Candidate) -> bool {
        candidate.promises.is_some_and(|runtime| self.found.contains_key(&runtime))
    }

    /// Asks what the operator named, all of which must be what it is said to be.
    fn adopt_configured(
        &mut self,
        configured: &BTreeMap<RuntimeId, PathBuf>,
        home: Option<&Path>,
    ) -> Result<()> {
        let candidates: Vec<_> = configured
            .iter()
            .map(|(runtime, path)| Candidate::configured(*runtime, path.clone()))
            .collect();
        let answers = ask_all(&candidates);
        for ((runtime, path), (candidate, answer)) in
            configured.iter().zip(candidates.iter().zip(answers))
        {
            let interpreter = check(candidate, answer, home).map_err(|reason| {
                let path = path.display();
                let message = format!("runtimes.{runtime} = {path} cannot be used: {reason}");
                Error::new(Kind::Invalid, message)
            })?;
            self.found.insert(*runtime, interpreter);
        }
        Ok(())
    }

    /// Asks the candidates and keeps, for each identifier that is new, the first that is usable.
    fn adopt(&mut self, candidates: Vec<Candidate>, home: Option<&Path>) {
        let fresh = distinct(candidates);
        let answers = ask_all(&fresh);
        for (candidate, answer) in fresh.into_iter().zip(answers) {
            match check(&candidate, answer, home) {
                Ok(interpreter) => {
                    self.found.entry(interpreter.runtime).or_insert(interpreter);
                }
                Err(error) => {
                    let path = candidate.path.display().to_string();
                    tracing::debug!(path, error, "An interpreter was passed over.");
                }
            }
        }
    }
}

/// Leaves out what is there twice. One file may stand for both languages, as the shims of a
/// version manager do, and then answers by the name it is called by.
fn distinct(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    candidates.retain(|candidate| {
        let real = candidate.path.canonicalize();
        real.is_ok_and(|real| seen.insert((real, candidate.family)))
    });
    candidates
}

/// Decides whether an interpreter can be offered.
fn check(
    candidate: &Candidate,
    answer: Result<Answer, AskError>,
    home: Option<&Path>,
) -> Result<Interpreter, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    let runtime = answer.runtime();
    let least = match runtime.family {
        Family::Python => LEAST_PYTHON,
        Family::Node | Family::Provided => LEAST_NODE,
    };
    if runtime.version < least {
        return Err(format!("version {} is too old", answer.version));
    }
    if candidate.is_configured() && candidate.promises != Some(runtime) {
        return Err(format!("it is {runtime}, version {}", answer.version));
    }
    if !answer.executable.starts_with(&answer.prefix) {
        return Err(format!("it is not below its prefix {}", answer.prefix.display()));
    }
    if is_too_wide(&answer.prefix, home) {
        return Err(format!("its prefix {} holds other things", answer.prefix.display()));
    }
    Ok(Interpreter {
        runtime,
        path: answer.executable,
        prefix: answer.prefix,
        version: answer.version,
        origin: candidate.origin.to_owned(),
    })
}

/// Whether mounting `prefix` into a sandbox would show more than an interpreter.
fn is_too_wide(prefix: &Path, home: Option<&Path>) -> bool {
    let shallow = prefix.components().count() <= 2 && prefix != Path::new("/usr");
    let of_home =
        home.is_some_and(|home| home.starts_with(prefix) || prefix == home.join(".local"));
    shallow || of_home
}

/// Asks all candidates, a few at a time; answers in their order.
fn ask_all(candidates: &[Candidate]) -> Vec<Result<Answer, AskError>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = candidates.get(index) else { return answers };
            answers.push((index, ask::ask(&candidate.path, candidate.family)));
        }
    };
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS.min(candidates.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests;
