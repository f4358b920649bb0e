//! How the platform talks to what runs inside a sandbox: frames with our own bootstraps, the
//! Lambda Runtime API with all others.
//!
//! Every waiting function may be dropped and called again: nothing that was read or written is
//! lost, so that the caller waits for several things at once. Only who drops an answer that is being
//! streamed must end the sandbox, too.

mod custom;
mod homed;
mod stock;

use lacewing_model::{Invocation, Timestamp};

pub(crate) use self::custom::Custom;
pub(crate) use self::stock::Stock;
pub(crate) use crate::runtime_api::{Answer, Readiness};
use crate::stream::Outlet;

/// The way to what runs inside.
#[derive(Debug)]
pub(crate) enum Channel {
    /// One of our bootstraps.
    Stock(Box<Stock>),
    /// Anybody else's runtime.
    Custom(Custom),
}

/// One invocation on its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) invocation: &'a Invocation,
    pub(crate) deadline: Timestamp,
    /// Where a streamed response goes as it comes.
    pub(crate) outlet: Option<&'a Outlet>,
}

impl Call<'_> {
    /// The ARN that the handler sees: with a qualifier only if the caller gave one.
    fn arn(&self) -> String {
        let Invocation { function, qualifier, .. } = self.invocation;
        function.qualified_arn(qualifier.clone()).to_string()
    }
}

impl Channel {
    /// The way to somebody else's runtime.
    pub(crate) fn custom(&self) -> Option<&Custom> {
        match self {
            Self::Custom(custom) => Some(custom),
            Self::Stock(_) => None,
        }
    }

    /// Waits for the end of the init phase.
    pub(crate) async fn readiness(&mut self) -> Readiness {
        match self {
            Self::Stock(stock) => stock.readiness().await,
            Self::Custom(custom) => custom.readiness().await,
        }
    }

    /// Gives a blank runtime its function; only ours can be blank.
    pub(crate) async fn r#become(&mut self, environment: &[(String, String)]) {
        if let Self::Stock(stock) = self {
            stock.r#become(environment).await;
        }
    }

    /// Tells a restored runtime that it is one; only ours can be restored.
    pub(crate) async fn restore(&mut self, environment: &[(String, String)]) {
        if let Self::Stock(stock) = self {
            stock.restore(environment).await;
        }
    }

    /// Hands an invocation over.
    pub(crate) fn begin(&mut self, call: &Call<'_>) {
        match self {
            Self::Stock(stock) => stock.begin(call),
            Self::Custom(custom) => custom.begin(call),
        }
    }

    /// Waits for the answer; for ever if what runs inside is gone. A streamed one goes to the call's
    /// outlet, if it has one.
    pub(crate) async fn answer(&mut self, call: &Call<'_>) -> Answer {
        match self {
            Self::Stock(stock) => stock.answer(call.outlet).await,
            Self::Custom(custom) => custom.answer(call).await,
        }
    }
}
