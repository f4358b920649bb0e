//! What this host gives: the isolation in force and the interpreters found, as one document.
//!
//! A running node answers it under `/_lacewing/v1/doctor`; without one, [`probe`] finds it out by
//! starting a launcher for a moment. Nothing is kept, and no function runs.

use std::path::Path;

use lacewing_model::RuntimeId;
use lacewing_runtime::{Interpreter, Runtimes, origin_fitness};
use lacewing_sandbox::{Launcher, Report};
use serde::Serialize;

use crate::config::{Cpu, Isolation, Settings};
use crate::data_dir;
use crate::prepare;
use crate::start::StartError;

/// The document.
#[derive(Clone, Debug, Serialize)]
pub struct Doctor {
    /// Whether everything that full isolation needs is in force.
    pub full: bool,
    /// Names of what full isolation lacks.
    pub lacks: Vec<String>,
    /// Names of what would add depth to it and is not in force.
    pub without: Vec<String>,
    /// What the configuration asks for.
    pub isolation: Isolation,
    /// How functions share the processors.
    pub cpu: Cpu,
    /// Whether functions get out.
    pub network: Egress,
    /// Each part of the isolation.
    pub report: Report,
    /// The interpreters, one for each runtime identifier.
    pub runtimes: Vec<Interpreter>,
    /// How each of them begins.
    pub interpreters: Vec<Beginning>,
}

/// How the Instances of an interpreter begin.
#[derive(Clone, Debug, Serialize)]
pub struct Beginning {
    /// The identifier.
    pub runtime: RuntimeId,
    /// Whether they are copies of one that is warm.
    pub forked: bool,
    /// Why they are not.
    pub why: Option<String>,
}

impl Doctor {
    /// `interpreters` is what [`Beginning::of_all`] said while the server had all its rights.
    pub(crate) fn new(
        settings: &Settings,
        report: Report,
        runtimes: &Runtimes,
        interpreters: Vec<Beginning>,
    ) -> Self {
        Self {
            full: report.is_full(),
            lacks: report.missing().map(|feature| feature.name.clone()).collect(),
            without: report.without().map(|feature| feature.name.clone()).collect(),
            isolation: settings.isolation,
            cpu: settings.cpu,
            network: Egress::of(&report),
            report,
            interpreters,
            runtimes: runtimes.list(),
        }
    }
}

impl Beginning {
    /// How each interpreter begins. It takes the rights with which the launcher is told of them: who
    /// may read less than root sees another host.
    pub(crate) fn of_all(settings: &Settings, runtimes: &Runtimes) -> Vec<Self> {
        runtimes.list().iter().map(|one| Self::of(settings, one)).collect()
    }

    fn of(settings: &Settings, interpreter: &Interpreter) -> Self {
        let has_own_root = settings.sandbox_root.is_some();
        let data_dir = std::fs::canonicalize(&settings.data_dir);
        let data_dir = data_dir.unwrap_or_else(|_| settings.data_dir.clone());
        let why = origin_fitness(settings.forks, has_own_root, &data_dir, interpreter).err();
        Self { runtime: interpreter.runtime, forked: why.is_none(), why }
    }
}

/// Whether functions get out, and why not.
#[derive(Clone, Debug, Serialize)]
pub struct Egress {
    /// Whether they do.
    pub in_force: bool,
    /// By which program, where an ordinary user starts the server.
    pub by: Option<&'static str>,
    /// What is in force, or what is missing.
    pub detail: String,
    /// What the operator can do about what is missing.
    pub remedy: String,
}

impl Egress {
    pub(crate) fn of(report: &Report) -> Self {
        let found = report.features.iter().find(|feature| feature.name == "egress");
        let in_force = found.is_some_and(|feature| feature.in_force);
        let detail = found.map(|feature| feature.detail.clone()).unwrap_or_default();
        let remedy = found.and_then(|feature| feature.remedy.clone()).unwrap_or_default();
        let by = (in_force && !report.root).then_some("pasta");
        Self { in_force, by, detail, remedy }
    }

    /// The mode in one word, as functions see it.
    pub fn word(&self) -> &'static str {
        if self.in_force { "egress" } else { "none" }
    }
}

/// Finds out what this host gives, without a server.
///
/// # Errors
/// If the launcher cannot be started at all.
pub fn probe(settings: &Settings, exe: &Path) -> Result<Doctor, StartError> {
    let owner = data_dir::new_owner();
    let mut options = prepare::launcher_options(settings, owner);
    options.isolation = lacewing_sandbox::Isolation::BestEffort;
    let runtimes = prepare::discover(settings)?;
    if let Some(scratch) = &mut options.scratch {
        // The data directory may not be there yet; whatever it will be in is on the same disk.
        let found = scratch.dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_path_buf);
        scratch.dir = found.unwrap_or_default();
    }
    let launcher = Launcher::start(exe, &options).map_err(StartError::Launcher)?;
    let mut report = launcher.report().clone();
    launcher.stop();
    report.features.extend(lacewing_sandbox::surrenderable());
    let interpreters = Beginning::of_all(settings, &runtimes);
    Ok(Doctor::new(settings, report, &runtimes, interpreters))
}
