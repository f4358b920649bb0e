//! Reading a version's record as the version stands on this machine, and in this life of the server.
//!
//! Which interpreters there are is found out at each start, so that what the store says of it may be
//! of another time: it is said anew for every version that is read. Nothing of that is stored.

use std::fmt;
use std::sync::Arc;

use lacewing_model::function::{State, StateReason, UpdateStatus};
use lacewing_model::{Function, Result};
use lacewing_store::Record;
use lacewing_store::seal::Sealer;

use crate::{RuntimeCheck, record};

/// The code of a version's state when nothing here can run it.
pub(crate) const INVALID_RUNTIME: &str = "InvalidRuntime";

/// What it takes to read a version.
pub(crate) struct Reader {
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) runtime_check: RuntimeCheck,
}

impl Reader {
    /// The version in a record.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub(super) fn version(&self, found: &Record) -> Result<Function> {
        let mut function = record::decode(&self.sealer, found)?;
        // Whatever else there is to say of its state comes first.
        if function.state == State::Active && function.last_update == UpdateStatus::Successful {
            match (self.runtime_check)(function.config.runtime) {
                Ok(serving) => function.state_reason = serving.note,
                Err(error) => {
                    let text = error.public().to_owned();
                    function.state = State::Failed;
                    let code = INVALID_RUNTIME.to_owned();
                    function.state_reason = Some(StateReason { text, code });
                }
            }
        }
        Ok(function)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}
