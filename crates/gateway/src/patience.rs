//! A connection whose writer gives up on a client that does not read.
//!
//! While something waits to be written, [`LEAST`] bytes must go in each [`WINDOW`]; otherwise the write
//! fails, and with it the connection and all that it holds. A window begins when a write has to wait and
//! ends when all is written: a function that takes its time costs its client nothing. A write that does
//! not have to wait, as nearly all, meets no clock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time in which so much must go.
const WINDOW: Duration = Duration::from_secs(30);
/// Bytes of a window.
const LEAST: usize = 16 * 1024;

/// A stream, and the window that is open if its writer waits.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    ends: Pin<Box<Sleep>>,
    written: usize,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, window: None }
    }

    /// Notes what came of a write.
    fn note(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match (&wrote, &mut self.window) {
            (Poll::Ready(Ok(count)), Some(window)) => window.written += count,
            (Poll::Ready(_), _) => {}
            (Poll::Pending, window) => {
                let window = window.get_or_insert_with(Window::begin);
                while window.ends.as_mut().poll(context).is_ready() {
                    if window.written < LEAST {
                        let message = "the client does not read";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
                    }
                    *window = Window::begin();
                }
            }
        }
        wrote
    }
}

impl Window {
    fn begin() -> Self {
        Self { ends: Box::pin(sleep_until(Instant::now() + WINDOW)), written: 0 }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked for when all is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.window = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A stream into which a kilobyte fits, full, and its reader.
    async fn full() -> (Patient<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(1024);
        let mut patient = Patient::new(ours);
        patient.write_all(&[0; 1024]).await.expect("it fits");
        (patient, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_given_up() {
        let (mut patient, _theirs) = full().await;
        let began = Instant::now();
        let error = patient.write_all(b"x").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), WINDOW.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_too_little_is_given_up_after_a_window() {
        let (mut patient, mut theirs) = full().await;
        let read = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 500]).await.expect("there is more");
            }
        };
        let began = Instant::now();
        tokio::select! {
            written = patient.write_all(&[0; 1 << 20]) => assert!(written.is_err()),
            () = read => {}
        }
        assert!((30..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_gets_all_however_long_it_takes() {
        let (mut patient, mut theirs) = full().await;
        let read = async {
            let mut left = 1024 + (1 << 20);
            while left > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut most = [0; 700];
                left -= theirs.read(&mut most).await.expect("there is more");
            }
        };
        let began = Instant::now();
        let (written, ()) = tokio::join!(patient.write_all(&[0; 1 << 20]), read);
        written.expect("all of it");
        assert!(began.elapsed() > 10 * WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_with_nothing_to_write_does_not_count() {
        let (mut patient, mut theirs) = full().await;
        let (written, read) = tokio::join!(patient.write_all(b"x"), async {
            tokio::time::sleep(WINDOW / 2).await;
            theirs.read_exact(&mut [0; 1024]).await
        });
        written.expect("in time");
        read.expect("there was something");
        patient.flush().await.expect("written");
        tokio::time::sleep(10 * WINDOW).await;
        theirs.read_exact(&mut [0; 1]).await.expect("it is there");
        patient.write_all(&[0; 1024]).await.expect("it fits");
        let (written, read) = tokio::join!(patient.write_all(b"x"), async {
            tokio::time::sleep(WINDOW / 2).await;
            theirs.read_exact(&mut [0; 1024]).await
        });
        written.expect("a new window");
        read.expect("there was something");
    }
}
