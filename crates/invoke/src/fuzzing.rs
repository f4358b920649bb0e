//! A door for the fuzz targets to the one thing in here that reads what a client sent.

/// Whether a payload would be taken.
pub fn is_payload(bytes: &[u8]) -> bool {
    crate::admission::check_json(bytes).is_ok()
}
