//! The Runtime API: whatever comes over the connection, the server gets to its end, and only who was
//! told the id of an event can answer it.

use lacewing_runtime::fuzzing::{Spoken, runtime_api};

/// The id of the event that waits.
const ID: &str = "8476a536";

/// Sends the bytes over one connection: to a caller who waits for a whole answer, and to one who takes
/// it as it comes.
pub fn run(data: &[u8]) {
    let whole = runtime_api(ID, data, false);
    check(data, &whole);
    let streamed = runtime_api(ID, data, true);
    check(data, &streamed);
    assert!(whole.streamed.is_empty());
    assert!(streamed.streamed.len() <= data.len(), "more was streamed than was sent");
}

fn check(data: &[u8], spoken: &Spoken) {
    let has = |needle: &[u8]| data.windows(needle.len()).any(|part| part == needle);
    if spoken.is_answered {
        assert!(has(ID.as_bytes()), "an event was answered under another id");
        assert!(has(b"/next"), "an event was answered before it was taken");
    }
    let reply = &spoken.reply;
    assert!(reply.is_empty() || reply.starts_with(b"HTTP/1."), "not an answer: {reply:?}");
}
