//! AWS Signature Version 4: signing, presigning and checking, over one canonical form.
//!
//! ```text
//! request -> canonical request -> string to sign -> HMAC chain of (date, region, service) -> hex
//! ```
//!
//! A client calls [`Signer`]; the server reads a [`Claim`] from the headers or the query, decides
//! from it alone whether the request may cost anything, and then compares signatures in constant
//! time. Paths are encoded twice, as every service but S3 expects. Nothing here reads a body, asks a
//! clock or knows which keys exist.
//!
//! Source: "Create a signed AWS API request",
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

mod canonical;
mod claim;
mod key;
mod refusal;
mod sign;
#[cfg(test)]
mod tests;

pub use claim::{Claim, Declared};
pub use key::KeyCache;
pub use refusal::Refusal;
pub use sign::{Payload, SignError, Signer};

/// The only algorithm: SHA-256 for hashes, HMAC-SHA-256 for signatures.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What stands for the body's hash when the body is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// The last part of every credential scope.
const TERMINATOR: &str = "aws4_request";
