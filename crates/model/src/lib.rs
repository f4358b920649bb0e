//! The nouns of Lacewing: identifiers, ARNs, limits, configuration, errors and time.
//!
//! Everything above speaks in these types. Nothing here does IO, waits, or knows a wire format; a
//! type that only one crate needs does not belong here.

pub mod alias;
pub mod arn;
pub mod error;
pub mod function;
pub mod id;
pub mod invocation;
pub mod limits;
pub mod logging;
pub mod network;
pub mod principal;
pub mod runtime_id;
pub mod runtime_version;
pub mod secret;
pub mod size;
pub mod time;
pub mod usage;

pub use alias::Alias;
pub use arn::{FunctionArn, FunctionKey, FunctionRef, VersionKey};
pub use error::{Error, Kind, Result};
pub use function::{Function, FunctionConfig};
pub use id::{AccountId, Digest, FunctionName, Qualifier, Region, RequestId, Version, hex};
pub use invocation::{FunctionError, Invocation, Outcome, Reply};
pub use logging::{LogFormat, LogLevel, Logging, LoggingPatch};
pub use network::{Network, NetworkBounds};
pub use principal::{Credentials, Principal};
pub use runtime_id::{Family, RuntimeId};
pub use runtime_version::RuntimeVersion;
pub use secret::Secret;
pub use size::ByteSize;
pub use time::{Clock, SystemClock, Timestamp};
