//! A server with one sandbox, for a test to kill: it does nothing but hold its handle.

use std::process::ExitCode;
use std::time::Duration;

use lacewing_sandbox::{Launcher, LauncherOptions, Spec};

/// Starts a launcher and a sandbox, both described as JSON, and waits to be killed.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (Some(options), Some(spec)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    let options: Result<LauncherOptions, _> = serde_json::from_str(&options);
    let spec: Result<Spec, _> = serde_json::from_str(&spec);
    let (Ok(exe), Ok(options), Ok(spec)) = (std::env::current_exe(), options, spec) else {
        return ExitCode::FAILURE;
    };
    let started = Launcher::start(&exe, &options).and_then(|launcher| {
        let sandbox = launcher.spawn(&spec, Vec::new())?;
        Ok((launcher, sandbox))
    });
    match started {
        Ok(_held) => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        Err(_) => ExitCode::FAILURE,
    }
}
