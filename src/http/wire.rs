//! A client's connection, together with the bytes that were read but not used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

use super::head_timer::{HeadTimeouts, HeadTimer};

/// The longest head of a request, in bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The most bytes that the router's HTTP server (hyper) reads at a time. A connection that sent a large body keeps up
/// to twice this much memory.
pub const READ_BYTES: usize = 32 * 1024;

pub struct Wire {
    /// A write fails if the client does not read for too long.
    pub stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Bytes that were read but not used yet.
    pub input: Vec<u8>,
    /// Whether `input` may contain a complete request that was not examined yet.
    pub is_unseen: bool,
    /// Bytes that must be written before anything else.
    pub output: Vec<u8>,
    /// Fires if no request arrives in time.
    pub timer: HeadTimer,
}

impl Wire {
    /// `write_timeout` is how long a write may make no progress.
    pub fn new(stream: TcpStream, write_timeout: Duration, timeouts: HeadTimeouts) -> Self {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        // A client that does not read its response must not hold the connection forever.
        stream.as_mut().set_write_timeout_pinned(Some(write_timeout));
        Self { stream, input: Vec::new(), is_unseen: false, output: Vec::new(), timer: HeadTimer::new(timeouts) }
    }

    /// Reads into `buffer`; 0 bytes at the end of the connection.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.stream.as_mut().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes `bytes`. The part that the system does not accept now is kept in `output`, which must be empty before.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.output.is_empty(), "earlier output must be written first");
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.as_mut().poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => rest = &rest[written..],
                Poll::Pending => {
                    self.output.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes the rest of `output`.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(self.stream.as_mut().poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.drain(..written);
        }
        // `output` is seldom needed, and an idle connection should hold little memory.
        self.output = Vec::new();
        Poll::Ready(Ok(()))
    }
}
