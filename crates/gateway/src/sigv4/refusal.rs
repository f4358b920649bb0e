//! Why a signature is not accepted.
//!
//! Messages are those of AWS where its clients show them to people; none of them repeats a
//! credential, a signature or a canonical request.

/// Why a request's proof of identity is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request carries no proof at all.
    #[error("Missing Authentication Token")]
    Missing,
    /// A part of the proof is missing or malformed.
    #[error("{0}")]
    Incomplete(String),
    /// The proof is for another region, service, day or time, or leaves out what it must cover.
    #[error("{0}")]
    Invalid(String),
    /// The signature is not the one that the key gives.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check \
         your AWS Secret Access Key and signing method. Consult the service documentation for \
         details."
    )]
    Mismatch,
    /// No such key, or no such session.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The session has ended.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
}
