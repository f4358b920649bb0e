//! Doors for the fuzz targets to what is no part of this crate's API: each does with hostile bytes
//! what an Instance does with them, and nothing that an Instance cannot do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use lacewing_model::{AccountId, FunctionKey, FunctionName, Region, Result, SystemClock};

use lacewing_sandbox::Policy;

use crate::log::{self, LogLine, LogWriter};
use crate::names::{Query, Verdict};
use crate::runtime_api::server::serve_connection;
use crate::runtime_api::{Event, Shared};
use crate::stream;

/// Bytes that wait in one direction between client and server.
const PIPE: usize = 16 * 1024;

/// What came of a client's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// What the server sent.
    pub reply: Vec<u8>,
    /// Whether the invocation was answered.
    pub is_answered: bool,
    /// What was streamed to the caller.
    pub streamed: Vec<u8>,
}

/// What the relay of names sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// To the resolver, in place of what the sandbox asked.
    pub asked: Vec<u8>,
    /// To the sandbox, if the resolver's message is an answer: with what it says, or emptied.
    pub answered: Option<Result<Vec<u8>, Vec<u8>>>,
    /// To the sandbox, if no resolver answers.
    pub failed: Vec<u8>,
}

/// Relays a message of a sandbox, if it is a query, and what came from a resolver to that number.
pub fn names(query: &[u8], number: u16, answer: &[u8], policy: &Policy) -> Option<Relayed> {
    let query = Query::parse(query)?;
    let answered = match query.judge(number, answer, policy) {
        Verdict::Pass(message) => Some(Ok(message)),
        Verdict::Strip(message) => Some(Err(message)),
        Verdict::Ignore => None,
    };
    Some(Relayed { asked: query.numbered(number), answered, failed: query.failure() })
}

/// Speaks to the Runtime API while it has one event of this id to hand out, for a caller who takes a
/// streamed answer as it comes or waits for all of it.
pub fn runtime_api(request_id: &str, sent: &[u8], streams: bool) -> Spoken {
    let shared = Arc::new(Shared::new(1, None));
    let payload = Bytes::from_static(b"{}");
    let event = Event { request_id: request_id.to_owned(), payload, ..Event::default() };
    let (outlet, mut pieces) = stream::channel();
    shared.offer(event, streams.then_some(outlet));
    let mut streamed = Vec::new();
    let (client, server) = tokio::io::duplex(PIPE);
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut reply = Vec::new();
    let served = serve_connection(server, 0, Arc::clone(&shared));
    let wrote = async {
        // The server may have had enough of it.
        writer.write_all(sent).await.ok();
        writer.shutdown().await.ok();
    };
    let read = reader.read_to_end(&mut reply);
    let taken = async {
        while let Some(piece) = pieces.next().await {
            streamed.extend_from_slice(&piece);
        }
    };
    until_idle(async { tokio::join!(served, wrote, read, taken) });
    Spoken { reply, is_answered: shared.is_answered(), streamed }
}

/// Logs what a function prints, in these pieces, and gives the records.
///
/// # Errors
/// Never: the names in it are well formed.
pub fn log_lines<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<LogLine>> {
    let (sender, mut receiver) = log::channel();
    let function = FunctionKey {
        account: AccountId::new("000000000000")?,
        region: Region::new("us-east-1")?,
        name: FunctionName::new("hello")?,
    };
    let mut writer = LogWriter::new(sender, Arc::new(SystemClock), function, "stream".to_owned());
    pieces.for_each(|piece| writer.output(piece));
    drop(writer);
    let mut batches = Vec::new();
    receiver.take_waiting(&mut batches, usize::MAX);
    Ok(batches.into_iter().flat_map(|batch| batch.lines).collect())
}

/// Polls until the future is done or waits for nobody: all its ends are in here.
fn until_idle(future: impl Future) {
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut context);
        let goes_on = woken.0.swap(false, Ordering::Relaxed);
        if matches!(polled, Poll::Ready(_)) || !goes_on {
            return;
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
