//! A request body that is sent in pieces, so that progress can be shown. It never copies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::ProgressBar;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;

/// What is left of a request body.
#[derive(Debug)]
pub(crate) struct Upload {
    left: Bytes,
    progress: Option<ProgressBar>,
}

impl Upload {
    /// A body of `bytes`.
    pub(super) fn new(bytes: Bytes, progress: Option<ProgressBar>) -> Self {
        Self { left: bytes, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE);
        let piece = self.left.split_to(length);
        if let Some(bar) = &self.progress {
            bar.inc(length as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
