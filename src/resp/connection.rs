//! One connection of a Redis client from its start to its end.
//!
//! All requests that have arrived are executed one after another, and their replies are sent with one write. An idle
//! connection holds no buffers: they are borrowed from the thread for as long as there is something to read or to send.
//! While a reply is being sent, nothing is read, so a client that does not read its replies soon cannot send either;
//! its connection is closed when a write makes no progress for too long.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::command::Commands;
use super::decode::Decoder;
use super::dispatch::Parts;
use super::door::Door;
use super::reply::Reply;
use super::session::Session;
use crate::clock::Moment;
use crate::net::{Budget, HeadTimeouts, Share, ShutdownReceiver, Wire};

/// How many bytes are read at a time. Larger input takes memory from the budget for requests.
const READ_BYTES: usize = 16 * 1024;

/// Replies are collected until they have this many bytes, and then sent.
const SENT_BYTES: usize = 64 * 1024;

/// The most buffers that a thread keeps.
const KEPT_BUFFERS: usize = 8;

/// Redis clients keep idle connections for ever. The operating system finds those that are dead, see [`keep_alive`].
const IDLE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// After this time without a packet, the operating system asks whether the client is still there; as in Redis.
const ASKED_AFTER: Duration = Duration::from_secs(300);

/// How long a client may take to read the last error before its connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    static INPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static OUTPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The client closed it or asked for that, or the process stops.
    Closed,
    /// A request did not arrive completely in time.
    Slow,
    /// The client sent something that is not a request, or too much, and got an error reply.
    Refused,
}

/// A connection of a client.
pub struct Connection<'d> {
    door: &'d Door,
    commands: &'d Commands,
    wire: Wire,
    session: Session,
    decoder: Decoder,
    input: Input,
    reply: Reply,
    /// The part of the budget that the input takes.
    memory: Share<Arc<Budget>>,
}

/// Bytes that were read. Those from `start` to `end` are not used yet.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn unused(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

impl<'d> Connection<'d> {
    pub fn new(door: &'d Door, commands: &'d Commands, stream: TcpStream, peer: SocketAddr) -> Self {
        keep_alive(&stream);
        let timeouts = HeadTimeouts { header: door.request_timeout, idle: IDLE };
        let mut wire = Wire::new(stream, door.request_timeout, timeouts);
        // A client may connect long before its first command.
        wire.timer.await_request(Moment::now());
        Self {
            door,
            commands,
            wire,
            session: Session::new(door.clients.add(peer), &door.databases, door.answers.clone()),
            decoder: Decoder::new(door.max_request_bytes),
            input: Input::default(),
            reply: Reply::default(),
            memory: Share::of(door.bodies.clone()),
        }
    }

    /// Executes commands until the connection ends.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub async fn serve(&mut self, closing: &mut ShutdownReceiver) -> io::Result<End> {
        loop {
            if let Some(end) = poll_fn(|cx| self.poll_input(cx, closing)).await? {
                return Ok(end);
            }
            if !self.execute_all().await? {
                return self.refuse().await;
            }
            if self.session.is_closing {
                return Ok(End::Closed);
            }
            if !self.grow() {
                self.reply.error("ERR other requests use all the memory for requests");
                return self.refuse().await;
            }
        }
    }

    /// Reads what has arrived; `Some` if the connection ends.
    fn poll_input(&mut self, cx: &mut Context<'_>, closing: &mut ShutdownReceiver) -> Poll<io::Result<Option<End>>> {
        if self.input.buffer.is_empty() {
            let kept = INPUTS.with_borrow_mut(Vec::pop);
            self.input.buffer = kept.unwrap_or_else(|| vec![0; READ_BYTES]);
        }
        let end = self.input.end;
        match self.wire.poll_read(cx, &mut self.input.buffer[end..]) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Some(End::Closed))),
            Poll::Ready(Ok(read)) => {
                self.input.end += read;
                return Poll::Ready(Ok(None));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {}
        }
        if self.input.unused().is_empty() {
            self.release();
        } else {
            self.wire.timer.await_rest_of_head();
        }
        if self.wire.timer.poll_overdue(cx).is_ready() {
            return Poll::Ready(Ok(Some(End::Slow)));
        }
        if closing.poll(cx).is_ready() {
            return Poll::Ready(Ok(Some(End::Closed)));
        }
        Poll::Pending
    }

    /// Executes all complete requests and sends the replies. Returns false if the rest cannot be decoded; then the
    /// reply says so and is not sent yet.
    async fn execute_all(&mut self) -> io::Result<bool> {
        let (now, begun) = (Moment::now(), self.input.start);
        self.reply.bytes = OUTPUTS.with_borrow_mut(Vec::pop).unwrap_or_default();
        loop {
            let unused = &self.input.buffer[self.input.start..self.input.end];
            let len = match self.decoder.decode(unused) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(error) => {
                    self.reply.error(&format!("ERR {error}"));
                    return Ok(false);
                }
            };
            let request = self.decoder.request(unused);
            if !request.is_empty() {
                let (session, reply) = (&mut self.session, &mut self.reply);
                let mut parts = Parts { door: self.door, commands: self.commands, session, reply };
                if let Some(waiting) = parts.begin(request, now) {
                    Box::pin(parts.wait(waiting, request, now)).await;
                }
            }
            self.input.start += len;
            self.decoder.reset();
            if self.session.is_closing {
                break;
            }
            if self.reply.bytes.len() >= SENT_BYTES {
                self.send().await?;
            }
        }
        self.send().await?;
        put_back(&OUTPUTS, mem::take(&mut self.reply.bytes), 4 * SENT_BYTES);
        if self.input.start > begun {
            // The time of the next request begins now, also if a part of it has arrived with this one.
            self.wire.timer.await_request(now);
        }
        if self.input.unused().is_empty() {
            (self.input.start, self.input.end) = (0, 0);
        }
        Ok(true)
    }

    async fn send(&mut self) -> io::Result<()> {
        if !self.reply.bytes.is_empty() {
            self.wire.stream.write_all(&self.reply.bytes).await?;
            self.reply.bytes.clear();
        }
        self.session.memory.give_back();
        Ok(())
    }

    /// Sends the last reply and ends the connection such that the client can read it.
    async fn refuse(&mut self) -> io::Result<End> {
        self.send().await?;
        let farewell = async {
            self.wire.stream.shutdown().await?;
            let mut unread = [0; 1024];
            while self.wire.stream.read(&mut unread).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        // A connection that is closed with unread bytes is reset, and the reply would be lost.
        let _ = timeout(FAREWELL, farewell).await;
        Ok(End::Refused)
    }

    /// Makes room for the rest of a request of which a part has arrived. Returns false if the budget has no memory.
    fn grow(&mut self) -> bool {
        let Input { buffer, start, end } = &mut self.input;
        if *end < buffer.len() || buffer.is_empty() {
            return true;
        }
        if *start > 0 {
            buffer.copy_within(*start..*end, 0);
            (*start, *end) = (0, *end - *start);
        }
        if *end < buffer.len() {
            return true;
        }
        // The buffer grows with the bytes that have arrived, not with the length that the client announced.
        let len = buffer.len() * 2;
        if self.memory.resize(len).is_err() {
            return false;
        }
        buffer.resize(len, 0);
        true
    }

    /// Gives the buffers back.
    fn release(&mut self) {
        let Input { buffer, .. } = mem::take(&mut self.input);
        put_back(&INPUTS, buffer, READ_BYTES);
        self.memory.give_back();
        self.decoder.free();
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.door.clients.remove(self.session.client.id);
    }
}

/// Lets the operating system end the connection of a client that is gone without a word.
fn keep_alive(stream: &TcpStream) {
    let set = set_socket_keepalive(stream, true).and_then(|()| set_tcp_keepidle(stream, ASKED_AFTER));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set SO_KEEPALIVE");
    }
}

/// Keeps a buffer for other connections of this thread, unless it is larger than `most` or there are enough.
fn put_back(buffers: &'static std::thread::LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>, most: usize) {
    buffers.with_borrow_mut(|buffers| {
        if buffer.capacity() <= most && buffer.capacity() > 0 && buffers.len() < KEPT_BUFFERS {
            buffers.push(buffer);
        }
    });
}
