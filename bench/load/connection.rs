//! One keep-alive connection. It sends a request and reads the answer: it keeps the status and discards the rest.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Size of the buffer for an answer's head and for each read of its body.
const BUFFER: usize = 16 * 1024;

/// The maximum number of bytes shown of an unexpected answer.
const SHOWN: usize = 400;

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; BUFFER] })
    }

    /// Returns the status, after reading the complete answer.
    ///
    /// # Errors
    /// The connection broke, or the answer has no length. The connection cannot be used any more.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let (mut filled, mut searched) = (0, 0);
        let head = loop {
            let count = self.stream.read(&mut self.buffer[filled..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += count;
            let found = self.buffer[searched..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(at) = found {
                break searched + at + 4;
            }
            searched = filled.saturating_sub(3);
        };
        // Show everything received, as that explains an unexpected answer best.
        let odd = |what: &str| {
            let came = String::from_utf8_lossy(&self.buffer[..filled.min(SHOWN)]);
            io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {came:?}"))
        };
        let (status, length) =
            parsed(&self.buffer[..head]).ok_or_else(|| odd("an answer without status or length"))?;
        let mut missing = length.checked_sub(filled - head).ok_or_else(|| odd("an answer longer than it says"))?;
        while missing > 0 {
            let part = missing.min(BUFFER);
            match self.stream.read(&mut self.buffer[..part]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => missing -= count,
            }
        }
        Ok(status)
    }
}

/// Parses the status and the body's length.
fn parsed(head: &[u8]) -> Option<(u16, usize)> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = std::str::from_utf8(lines.next()?.split(|byte| *byte == b' ').nth(1)?).ok()?.parse().ok()?;
    const LENGTH: &[u8] = b"content-length:";
    let is_length = |line: &&[u8]| line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH));
    let length = std::str::from_utf8(&lines.find(is_length)?[LENGTH.len()..]).ok()?.trim().parse().ok()?;
    Some((status, length))
}
