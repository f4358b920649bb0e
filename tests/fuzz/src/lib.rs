//! Every parser that hostile bytes reach, each as one function of a byte string that panics if what
//! must hold does not.
//!
//! `fuzz/` runs them under libFuzzer; `tests/replay.rs` runs them over the committed corpora on a
//! stable compiler. A target is one file here, one in `fuzz/fuzz_targets`, one folder in
//! `fuzz/corpus`.

pub mod archive;
pub mod arn;
pub mod document;
pub mod eventstream;
pub mod frames;
pub mod log_lines;
pub mod names;
mod pieces;
pub mod request;
pub mod runtime_api;
pub mod signature;
pub mod telemetry;
pub mod token;
pub mod wire;

/// What is done with the bytes of one input.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("archive", archive::run),
    ("arn", arn::run),
    ("document", document::run),
    ("eventstream", eventstream::run),
    ("frames", frames::run),
    ("log_lines", log_lines::run),
    ("names", names::run),
    ("request", request::run),
    ("runtime_api", runtime_api::run),
    ("signature", signature::run),
    ("telemetry", telemetry::run),
    ("token", token::run),
    ("wire", wire::run),
];
