//! How blank Instances and origins are made, and how a blank one becomes that of a function.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use lacewing_model::limits;
use lacewing_sandbox::{Role, Spec};

use crate::blanks::Kind;
use crate::environment;
use crate::layout::{Layout, Parts};
use crate::origins::{self, Key};
use crate::process::{Process, StartError};
use crate::runtimes::Interpreter;

use super::{Blueprint, Shared};

impl Shared {
    /// The environment of a blank Instance.
    fn blank_environment(&self, interpreter: &Interpreter) -> Vec<(String, String)> {
        environment::blank(interpreter.runtime, self.endpoint_port)
    }

    fn blank_spec(&self, kind: &Kind, role: Role) -> Spec {
        let Kind { interpreter, network, ephemeral_mb, memory_mb, .. } = kind;
        self.layout.spec(Parts {
            name: Uuid::new_v4().simple().to_string(),
            memory_mb: memory_mb.unwrap_or(limits::MEMORY_MB.0),
            ephemeral_mb: *ephemeral_mb,
            interpreter: Some(interpreter),
            code: None,
            environment: self.blank_environment(interpreter),
            network: *network,
            role,
            is_framed: true,
        })
    }

    /// Makes a blank Instance while nobody waits for it: of an origin if there can be one.
    pub(super) async fn blank(&self, kind: Kind) -> Option<Process> {
        let deadline = Instant::now() + limits::INIT_TIMEOUT;
        self.provide_origin(&kind, deadline).await;
        if let Some(forked) = self.fork_blank(&kind, deadline).await {
            return Some(forked);
        }
        let runtime = kind.interpreter.runtime;
        match Process::start(self.blank_spec(&kind, Role::Blank), self.means(true), deadline).await
        {
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

    /// Makes the origin of a kind, if it lacks one and nothing is known against it.
    async fn provide_origin(&self, kind: &Kind, deadline: Instant) {
        let key = Key::of(kind);
        if !self.forks || !self.origins.wants(&key, Instant::now().into_std()) {
            return;
        }
        let made = match origins::fitness(&kind.interpreter) {
            Ok(()) => self.origin(kind, deadline).await,
            Err(why) => Err(why),
        };
        if let Err(why) = &made {
            let runtime = kind.interpreter.runtime;
            tracing::info!(%runtime, why, "Instances are not forked from a warm interpreter.");
        }
        self.origins.put(key, made, Instant::now().into_std());
    }

    async fn origin(&self, kind: &Kind, deadline: Instant) -> Result<Process, String> {
        let spec = self.blank_spec(kind, Role::Origin);
        let started = Process::start(spec, self.means(true), deadline).await;
        let mut process = started.map_err(|error| match error {
            StartError::Platform(error) => error.chain(),
            StartError::Deadline => "it was not there in time".to_owned(),
        })?;
        if !process.warmed(deadline).await {
            return Err("it did not get ready".to_owned());
        }
        process.hold(deadline).await.map(|()| process)
    }

    /// Forks a blank Instance, if its kind has an origin.
    async fn fork_blank(&self, kind: &Kind, deadline: Instant) -> Option<Process> {
        let (key, now) = (Key::of(kind), Instant::now().into_std());
        let origin = self.origins.take(&key, now)?;
        let mut means = self.means(true);
        means.snapshot = Some(&origin);
        let spec = self.blank_spec(kind, Role::Blank);
        let why = match Process::start(spec, means, deadline).await {
            Ok(mut process) => {
                process.wake(&self.blank_environment(&kind.interpreter)).await;
                if process.warmed(deadline).await {
                    self.origins.note_success(&key);
                    return Some(process);
                }
                "it did not get ready".to_owned()
            }
            Err(StartError::Platform(error)) => error.chain(),
            Err(StartError::Deadline) => "it was not there in time".to_owned(),
        };
        let runtime = kind.interpreter.runtime;
        tracing::warn!(%runtime, why, "An Instance was not forked.");
        self.origins.note_failure(&key, &origin, why, now);
        None
    }
}

impl Blueprint {
    /// A process made of a blank one that suits; of one that is forked for it where none waits.
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
        let waited = shared.blanks.take(&kind);
        let has_waited = waited.is_some();
        let mut process = match waited {
            Some(process) => process,
            None => shared.fork_blank(&kind, deadline).await?,
        };
        let memory_mb = self.function().config.memory_mb;
        let furnishing = Layout::furnishing(self.package.directory(), memory_mb);
        match process.furnish(furnishing, environment, deadline).await {
            Ok(()) => {
                if has_waited {
                    shared.blanks.count_used();
                }
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
