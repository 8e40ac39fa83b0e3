//! A client's connection, together with what was read from it and belongs to no request yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;

use super::head_timer::{HeadTimeouts, HeadTimer};

pub struct Wire {
    /// Writing to it fails when the client does not read for too long.
    pub stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Bytes that were read and not used.
    pub input: Vec<u8>,
    /// Whether a whole request may be among them that nobody has looked at.
    pub is_unseen: bool,
    /// Bytes that are to be written before anything else.
    pub output: Vec<u8>,
    /// Ends the connection when no request comes.
    pub timer: HeadTimer,
}

impl Wire {
    /// `write_timeout`: how long a write may make no progress.
    pub fn new(stream: TcpStream, write_timeout: Duration, timeouts: HeadTimeouts) -> Self {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        // A client that does not read its answer must not hold its connection for ever.
        stream.as_mut().set_write_timeout_pinned(Some(write_timeout));
        Self { stream, input: Vec::new(), is_unseen: false, output: Vec::new(), timer: HeadTimer::new(timeouts) }
    }

    /// Reads into `buffer`; 0 bytes at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.stream.as_mut().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes `bytes`; what the system does not take now becomes the output. There must be none.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.output.is_empty(), "what came first is written first");
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

    /// Writes the output out.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(self.stream.as_mut().poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.drain(..written);
        }
        // It is seldom needed, and a connection that is idle should hold little.
        self.output = Vec::new();
        Poll::Ready(Ok(()))
    }
}
