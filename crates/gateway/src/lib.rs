//! The wires: everything that a client sends or receives passes here, and nothing else knows how it
//! looks.
//!
//! ```text
//! connection -> claim (SigV4) -> route -> bounded body -> signature -> handler -> answer
//! ```
//!
//! A request is refused at the first step it fails: nothing of a body is read before the claim is
//! plausible, and nothing of it is parsed before the signature is right. Handlers translate once,
//! from AWS's words to ours and back; they decide nothing that another wire format would also need.

mod admin;
mod auth;
mod body;
mod error;
pub mod eventstream;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod health;
mod lambda;
mod lanes;
mod listener;
mod metrics;
mod patience;
mod query;
pub mod sigv4;
mod sts;

pub use admin::{AdminInfo, JsonSource};
pub use gateway::{Gateway, Options};
pub use lanes::Lanes;
