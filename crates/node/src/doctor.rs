//! What this host gives: the isolation in force and the interpreters found, as one document.
//!
//! A running node answers it under `/_lacewing/v1/doctor`; without one, [`probe`] finds it out by
//! starting a launcher for a moment. Nothing is kept, and no function runs.

use std::path::Path;

use lacewing_runtime::{Interpreter, Runtimes};
use lacewing_sandbox::{Launcher, Report};
use serde::Serialize;

use crate::config::{Cpu, Isolation, Settings};
use crate::data_dir;
use crate::start::StartError;

/// The document.
#[derive(Clone, Debug, Serialize)]
pub struct Doctor {
    /// Whether everything that full isolation needs is in force.
    pub full: bool,
    /// Names of what full isolation lacks.
    pub lacks: Vec<String>,
    /// What the configuration asks for.
    pub isolation: Isolation,
    /// How functions share the processors.
    pub cpu: Cpu,
    /// Each part of the isolation.
    pub report: Report,
    /// The interpreters, one for each runtime identifier.
    pub runtimes: Vec<Interpreter>,
}

impl Doctor {
    pub(crate) fn new(settings: &Settings, report: &Report, runtimes: &Runtimes) -> Self {
        Self {
            full: report.is_full(),
            lacks: report.missing().map(|feature| feature.name.clone()).collect(),
            isolation: settings.isolation,
            cpu: settings.cpu,
            report: report.clone(),
            runtimes: runtimes.list(),
        }
    }
}

/// Finds out what this host gives, without a server.
///
/// # Errors
/// If the launcher cannot be started at all.
pub fn probe(settings: &Settings, exe: &Path) -> Result<Doctor, StartError> {
    let owner = data_dir::new_owner();
    let mut options = crate::start::launcher_options(settings, owner);
    options.isolation = lacewing_sandbox::Isolation::BestEffort;
    let runtimes = crate::start::discover(settings)?;
    let launcher = Launcher::start(exe, &options).map_err(StartError::Launcher)?;
    let doctor = Doctor::new(settings, launcher.report(), &runtimes);
    launcher.stop();
    Ok(doctor)
}
