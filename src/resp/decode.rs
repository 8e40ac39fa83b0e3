//! The decoder of requests: arrays of bulk strings and inline commands, as Redis reads them
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>, `networking.c`).
//!
//! It has no I/O. It gets the bytes from the start of the request, as many as have arrived, and continues where it
//! stopped when more have come. Arguments are ranges of these bytes, so nothing is copied; only an inline command with
//! quotes needs a copy. A line has at most [`MAX_LINE_BYTES`], a request at most `max_bytes`.

use std::ops::Range;

use super::quotes::unquote;

/// The longest line: a count, a length, or an inline command.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// The most arguments of a request.
const MAX_ARGUMENTS: i64 = 1024 * 1024;

/// Arguments for which memory is kept between two requests.
const KEPT_ARGUMENTS: usize = 32;

/// What makes a request unreadable. The connection must be closed, because the start of the next request is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    #[error("Protocol error: expected '$', got '{}'", shown(*.0))]
    NoBulk(u8),
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: too big mbulk count string")]
    LongCount,
    #[error("Protocol error: too big bulk count string")]
    LongLength,
    #[error("Protocol error: too big inline request")]
    LongInline,
    /// A bulk string does not end where its length says.
    #[error("Protocol error: expected CRLF after a bulk string")]
    NoLineEnd,
    #[error("Protocol error: too big request")]
    LongRequest,
}

/// A byte for an error text: one that would break the line is shown as `?`.
fn shown(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }
}

/// What comes next in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// The length of an argument; `left` arguments are missing, this one included.
    Length {
        left: usize,
    },
    /// The bytes of an argument.
    Argument {
        left: usize,
        len: usize,
    },
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct Decoder {
    max_bytes: usize,
    state: State,
    /// The position of what comes next.
    at: usize,
    /// The position up to which there is no end of a line.
    scanned: usize,
    arguments: Vec<Range<usize>>,
    /// The arguments of an inline command, without quotes and escapes; `arguments` are then ranges of this.
    unquoted: Vec<u8>,
    is_inline: bool,
}

/// A complete request. Its first argument is the name of the command; there may be no argument at all.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    bytes: &'b [u8],
    arguments: &'b [Range<usize>],
}

impl<'b> Request<'b> {
    /// A request from its arguments, which are ranges of `bytes`.
    pub fn of(bytes: &'b [u8], arguments: &'b [Range<usize>]) -> Self {
        Self { bytes, arguments }
    }

    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// The argument at `index`, which must exist; 0 is the command's name.
    pub fn at(&self, index: usize) -> &'b [u8] {
        &self.bytes[self.arguments[index].clone()]
    }

    /// The arguments from `index` on.
    pub fn from(&self, index: usize) -> impl ExactSizeIterator<Item = &'b [u8]> + use<'b> {
        let bytes = self.bytes;
        self.arguments[index.min(self.arguments.len())..].iter().map(move |range| &bytes[range.clone()])
    }
}

impl Decoder {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            state: State::Start,
            at: 0,
            scanned: 0,
            arguments: Vec::new(),
            unquoted: Vec::new(),
            is_inline: false,
        }
    }

    /// Continues with the request at the start of `bytes`. Returns its length if it is complete, and then
    /// [`Decoder::request`] has it.
    ///
    /// # Errors
    /// The bytes are not a request. Nothing can be decoded any more.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.state {
                State::Start => match bytes.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(line) = self.line(bytes, ProtocolError::LongCount)? else { return Ok(None) };
                        let count = integer(&bytes[line.start + 1..line.end]).ok_or(ProtocolError::InvalidCount)?;
                        if count > MAX_ARGUMENTS {
                            return Err(ProtocolError::InvalidCount);
                        }
                        match usize::try_from(count) {
                            Ok(left) if left > 0 => self.state = State::Length { left },
                            _ => return Ok(Some(self.at)),
                        }
                    }
                    Some(_) => return self.inline(bytes),
                },
                State::Length { left } => {
                    let Some(line) = self.line(bytes, ProtocolError::LongLength)? else { return Ok(None) };
                    let (mark, digits) = bytes[line].split_first().unwrap_or((&b'\r', &[]));
                    if *mark != b'$' {
                        return Err(ProtocolError::NoBulk(*mark));
                    }
                    let len = integer(digits).and_then(|len| usize::try_from(len).ok());
                    let len = len.ok_or(ProtocolError::InvalidLength)?;
                    if len > self.max_bytes {
                        return Err(ProtocolError::InvalidLength);
                    }
                    if self.at + len > self.max_bytes {
                        return Err(ProtocolError::LongRequest);
                    }
                    self.state = State::Argument { left, len };
                }
                State::Argument { left, len } => {
                    let end = self.at + len;
                    if bytes.len() < end + 2 {
                        return Ok(None);
                    }
                    if &bytes[end..end + 2] != b"\r\n" {
                        return Err(ProtocolError::NoLineEnd);
                    }
                    self.arguments.push(self.at..end);
                    (self.at, self.scanned) = (end + 2, end + 2);
                    if left == 1 {
                        return Ok(Some(self.at));
                    }
                    self.state = State::Length { left: left - 1 };
                }
            }
        }
    }

    /// The request that [`Decoder::decode`] found complete; `bytes` are the same as there.
    pub fn request<'b>(&'b self, bytes: &'b [u8]) -> Request<'b> {
        Request { bytes: if self.is_inline { &self.unquoted } else { bytes }, arguments: &self.arguments }
    }

    /// Makes it ready for the next request.
    pub fn reset(&mut self) {
        (self.state, self.at, self.scanned, self.is_inline) = (State::Start, 0, 0, false);
        self.arguments.clear();
        self.arguments.shrink_to(KEPT_ARGUMENTS);
        self.unquoted = Vec::new();
    }

    /// Frees all memory, for an idle connection.
    pub fn free(&mut self) {
        self.reset();
        self.arguments = Vec::new();
    }

    /// The line at the current position without its end, and moves behind it; `None` if its end has not arrived.
    fn line(&mut self, bytes: &[u8], too_long: ProtocolError) -> Result<Option<Range<usize>>, ProtocolError> {
        let Some(end) = self.line_feed(bytes, too_long)? else { return Ok(None) };
        let start = self.at;
        (self.at, self.scanned) = (end + 1, end + 1);
        // Without a carriage return the line is not a number, and the caller says so.
        let is_ended = end > start && bytes[end - 1] == b'\r';
        Ok(Some(start..if is_ended { end - 1 } else { end + 1 }))
    }

    /// The position of the next line feed.
    fn line_feed(&mut self, bytes: &[u8], too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(self.at);
        let found = bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at);
        let len = found.unwrap_or(bytes.len()) - self.at;
        if len > MAX_LINE_BYTES {
            return Err(too_long);
        }
        self.scanned = bytes.len();
        Ok(found)
    }

    fn inline(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = self.line_feed(bytes, ProtocolError::LongInline)? else { return Ok(None) };
        let line = &bytes[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.is_inline = true;
        self.at = end + 1;
        let mut rest = line.trim_ascii_start();
        while !rest.is_empty() {
            let start = self.unquoted.len();
            rest = unquote(rest, &mut self.unquoted).ok_or(ProtocolError::UnbalancedQuotes)?.trim_ascii_start();
            self.arguments.push(start..self.unquoted.len());
        }
        Ok(Some(self.at))
    }
}

/// A number as Redis reads one (`string2ll`): decimal digits, no `+`, no zeros in front, no white space.
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [] => false,
        [b'0', ..] => text == b"0",
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    is_plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use redis_protocol::resp2::decode::decode_bytes_mut;
    use redis_protocol::resp2::types::BytesFrame;

    const MAX: usize = 1 << 20;

    /// Decodes all requests, with the bytes in pieces that end at `cuts`.
    fn decoded(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let (mut decoder, mut start, mut requests) = (Decoder::new(MAX), 0, Vec::new());
        let ends = cuts.iter().copied().chain([bytes.len()]);
        for end in ends {
            while let Some(len) = decoder.decode(&bytes[start..end])? {
                let request = decoder.request(&bytes[start..end]);
                requests.push(request.from(0).map(<[u8]>::to_vec).collect());
                start += len;
                decoder.reset();
            }
        }
        Ok(requests)
    }

    fn one(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        decoded(bytes, &[]).map(|mut requests| requests.pop().unwrap_or_default())
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn encoded(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for arguments in requests {
            bytes.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
            for argument in arguments {
                bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
                bytes.extend_from_slice(argument);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }

    #[test]
    fn requests_are_decoded_however_they_are_split() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*0\r\n*-1\r\n\r\n*1\r\n$0\r\n\r\n SET a \"b\\x00c\" \r\n";
        let expected = [
            words(&["GET", "k"]),
            words(&["PING"]),
            vec![],
            vec![],
            vec![],
            words(&[""]),
            words(&["SET", "a", "b\0c"]),
        ];
        assert_eq!(decoded(bytes, &[]).unwrap(), expected);
        for first in 0..=bytes.len() {
            assert_eq!(decoded(bytes, &[first]).unwrap(), expected, "cut at {first}");
            for second in first..=bytes.len() {
                assert_eq!(decoded(bytes, &[first, second]).unwrap(), expected, "cut at {first} and {second}");
            }
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(decoded(bytes, &every).unwrap(), expected);
    }

    #[test]
    fn inline_arguments_are_quoted_as_in_redis() {
        for (line, expected) in [
            ("PING\n", &["PING"][..]),
            ("  a\tb  c \r\n", &["a", "b", "c"]),
            ("a \"\" ''\r\n", &["a", "", ""]),
            ("\"\\n\\r\\t\\b\\a\\\\\\\"\\q\\x4\"\r\n", &["\n\r\t\u{8}\u{7}\\\"qx4"]),
            ("'\\n\\'' x\"y z\"\r\n", &["\\n'", "xy z"]),
            ("\"\\x41\\x6a\"\r\n", &["Aj"]),
        ] {
            assert_eq!(one(line.as_bytes()).unwrap(), words(expected), "{line:?}");
        }
        for line in ["\"a\r\n", "'a\r\n", "\"a\"b\r\n", "'a'b\r\n", "\"a\\\r\n", "a \"\r\n"] {
            assert_eq!(one(line.as_bytes()), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_a_request_is_refused_in_the_words_of_redis() {
        for (bytes, expected) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*\r\n", "invalid multibulk length"),
            ("*1\n", "invalid multibulk length"),
            ("*01\r\n", "invalid multibulk length"),
            ("*+1\r\n", "invalid multibulk length"),
            ("*3000000000\r\n", "invalid multibulk length"),
            ("*99999999999999999999\r\n", "invalid multibulk length"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$x\r\n", "invalid bulk length"),
            ("*1\r\n$2000000000\r\n", "invalid bulk length"),
            ("*1\r\n$\r\n", "invalid bulk length"),
            ("*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "expected '$', got 'f'"),
            ("*1\r\n\r\n", "expected '$', got '?'"),
            ("*1\r\n$1\r\nabc\r\n", "expected CRLF after a bulk string"),
            ("*2\r\n$1048000\r\n", ""),
        ] {
            let told = one(bytes.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(told.strip_prefix("Protocol error: ").unwrap_or_default(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn lines_and_requests_have_a_limit() {
        let long = "1".repeat(MAX_LINE_BYTES + 1);
        for (bytes, expected) in [
            (format!("*{long}"), ProtocolError::LongCount),
            (format!("*1\r\n${long}"), ProtocolError::LongLength),
            (long.clone(), ProtocolError::LongInline),
            (format!("{long}\r\n"), ProtocolError::LongInline),
        ] {
            assert_eq!(one(bytes.as_bytes()), Err(expected));
        }
        let half = vec![b'x'; MAX / 2];
        let request = encoded(&[vec![half.clone(), half.clone()]]);
        assert_eq!(one(&request), Err(ProtocolError::LongRequest));
        assert_eq!(one(&encoded(&[vec![half.clone()]])).unwrap(), [half]);
    }

    #[test]
    fn an_idle_decoder_holds_no_memory() {
        let mut decoder = Decoder::new(MAX);
        let request = encoded(&[vec![b"x".to_vec(); 1000]]);
        assert_eq!(decoder.decode(&request).unwrap(), Some(request.len()));
        decoder.reset();
        assert!(decoder.arguments.capacity() <= KEPT_ARGUMENTS);
        decoder.free();
        assert_eq!((decoder.arguments.capacity(), decoder.unquoted.capacity()), (0, 0));
    }

    /// The requests that the other implementation finds, until its first error.
    fn oracle(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let (mut rest, mut requests) = (BytesMut::from(bytes), Vec::new());
        while let Ok(Some((BytesFrame::Array(frames), ..))) = decode_bytes_mut(&mut rest) {
            let bulk = |frame| match frame {
                BytesFrame::BulkString(bytes) => Some(bytes.to_vec()),
                _ => None,
            };
            match frames.into_iter().map(bulk).collect() {
                Some(arguments) => requests.push(arguments),
                None => break,
            }
        }
        requests
    }

    proptest! {
        #[test]
        fn another_implementation_finds_the_same_requests(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
                0..5,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = encoded(&requests);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(&decoded(&bytes, &cuts).unwrap(), &requests);
            prop_assert_eq!(&oracle(&bytes), &requests);
        }

        #[test]
        fn any_bytes_are_decoded_alike_in_one_piece_and_byte_by_byte(
            bytes in prop::collection::vec(prop::sample::select(b"*$0123\r\n\"'\\x -ab\xff".as_slice()), 0..40),
        ) {
            let every: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(decoded(&bytes, &every), decoded(&bytes, &[]));
        }
    }
}
