//! How blank Instances and origins are made, and how a blank one becomes that of a function.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use lacewing_model::limits;
use lacewing_sandbox::{Role, Spec};

use crate::blanks::Kind;
use crate::environment;
use crate::layout::{self, Layout, Parts};
use crate::origins::{self, Key};
use crate::process::{Origin, Process, StartError};
use crate::runtimes::Interpreter;

use super::{Blueprint, Shared};

/// Time for a fork; a few milliseconds are usual.
const FORK: Duration = Duration::from_secs(2);

impl Shared {
    /// The environment of a blank Instance.
    fn blank_environment(&self, interpreter: &Interpreter) -> Vec<(String, String)> {
        environment::blank(interpreter.runtime, self.endpoint_port)
    }

    /// What a blank Instance is made of, with the share of the processors that so much memory has.
    fn blank_spec(&self, kind: &Kind, memory_mb: u32) -> Spec {
        let Kind { interpreter, network, ephemeral_mb, .. } = kind;
        self.layout.spec(Parts {
            name: Uuid::new_v4().simple().to_string(),
            memory_mb,
            ephemeral_mb: *ephemeral_mb,
            interpreter: Some(interpreter),
            code: None,
            environment: self.blank_environment(interpreter),
            network: *network,
            role: Role::Blank,
            is_framed: true,
        })
    }

    /// Has what a kind can be forked from stand ready, whether blank ones wait or not. Of a new one a copy is
    /// made that nobody waits for: who is forked for a function could not tell its own failure from the
    /// origin's.
    pub(super) async fn prepare(&self, kind: Kind) {
        if !self.provide_origin(&kind).await {
            return;
        }
        let memory_mb = kind.memory_mb.unwrap_or(limits::MEMORY_MB.0);
        for _ in 0..origins::MOST_FAILURES {
            if self.fork(&kind, self.blank_spec(&kind, memory_mb), None).await.is_some() {
                return;
            }
        }
    }

    /// Makes a blank Instance while nobody waits for it: of an origin if there can be one.
    pub(super) async fn blank(&self, kind: Kind) -> Option<Process> {
        self.provide_origin(&kind).await;
        let memory_mb = kind.memory_mb.unwrap_or(limits::MEMORY_MB.0);
        if let Some(forked) = self.fork(&kind, self.blank_spec(&kind, memory_mb), None).await {
            return Some(forked);
        }
        let (runtime, spec) = (kind.interpreter.runtime, self.blank_spec(&kind, memory_mb));
        let deadline = Instant::now() + limits::INIT_TIMEOUT;
        match Process::start(spec, self.means(true), deadline).await {
            Ok(mut process) => {
                if process.warmed(deadline).await {
                    return Some(process);
                }
                tracing::warn!(%runtime, "A blank Instance did not get ready.");
            }
            Err(error) => tracing::warn!(%runtime, ?error, "A blank Instance was not made."),
        }
        None
    }

    /// Makes the origin of a kind, if it lacks one and nothing is known against it; whether it has.
    async fn provide_origin(&self, kind: &Kind) -> bool {
        let key = Key::of(kind);
        if !self.origins.wants(&key, Origin::is_alive, Instant::now().into_std()) {
            return false;
        }
        let made = match origins::program_of(kind, &self.programs) {
            Ok(program) => {
                let heap = layout::old_space_mb(kind.memory_mb.unwrap_or_default());
                let deadline = Instant::now() + limits::INIT_TIMEOUT;
                Origin::make(&self.launcher, program, heap, deadline).await
            }
            Err(why) => Err(why),
        };
        if let Err(why) = &made {
            let runtime = kind.interpreter.runtime;
            tracing::info!(%runtime, why, "Instances are not forked from a warm interpreter.");
        }
        let is_made = made.is_ok();
        self.origins.put(key, made, Instant::now().into_std());
        is_made
    }

    /// Forks an Instance, if its kind has an origin: that of a function, which it learns with its
    /// environment, or a blank one, which is waited for. Who waits loses no more than a moment by one that
    /// does not answer.
    async fn fork(
        &self,
        kind: &Kind,
        spec: Spec,
        environment: Option<&[(String, String)]>,
    ) -> Option<Process> {
        let (key, now) = (Key::of(kind), Instant::now().into_std());
        let origin = self.origins.take(&key, Origin::is_alive, now)?;
        let mut means = self.means(true);
        means.snapshot = Some(origin.sandbox());
        let deadline = Instant::now() + FORK;
        let why = match Process::start(spec, means, deadline).await {
            Ok(mut process) => {
                process.wake(environment.unwrap_or_default()).await;
                if environment.is_some() {
                    return Some(process);
                }
                if process.warmed(deadline).await {
                    self.origins.note_success(&key);
                    return Some(process);
                }
                "it did not get ready in time".to_owned()
            }
            Err(StartError::Platform(error)) => error.chain(),
            Err(StartError::Deadline) => "it was not there in time".to_owned(),
        };
        let runtime = kind.interpreter.runtime;
        tracing::warn!(%runtime, why, "An Instance was not forked.");
        if origin.is_alive() {
            self.origins.note_failure(&key, &origin, why, now);
        }
        None
    }
}

impl Blueprint {
    /// A process made of a blank one that suits, or forked for it where none waits.
    pub(super) async fn furnish_blank(
        &self,
        environment: &[(String, String)],
        deadline: Instant,
    ) -> Option<Process> {
        // A blank one speaks in frames.
        let interpreter = self.interpreter.as_ref().filter(|_| self.is_framed())?;
        let shared: &Arc<Shared> = &self.shared;
        if !environment::suits(environment, &shared.blank_environment(interpreter)) {
            return None;
        }
        let kind = shared.kind(interpreter.clone(), self.function());
        let Some(mut process) = shared.blanks.take(&kind) else {
            return shared.fork(&kind, self.spec(Vec::new()), Some(environment)).await;
        };
        let memory_mb = self.function().config.memory_mb;
        let furnishing = Layout::furnishing(self.package.directory(), memory_mb);
        match process.furnish(furnishing, environment, deadline).await {
            Ok(()) => {
                shared.blanks.count_used();
                Some(process)
            }
            Err(error) => {
                // One that is made from nothing will say more.
                tracing::warn!(?error, "A blank Instance could not be used.");
                None
            }
        }
    }
}
