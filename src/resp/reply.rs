//! The encoder of replies, in RESP2 and RESP3, into one output buffer for all commands of a pipeline.
//!
//! What RESP2 lacks has the form that Redis gives it there: a map is an array of keys and values, a null is a null bulk
//! string, a verbatim text is a bulk string.

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

impl Version {
    pub fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// The replies of one connection that are not sent yet.
#[derive(Debug, Default)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub version: Version,
}

impl Reply {
    /// A short text without line ends: `+OK`.
    pub fn simple(&mut self, text: &str) {
        self.text(b'+', text);
    }

    pub fn ok(&mut self) {
        self.simple("OK");
    }

    /// An error. Its first word says which kind it is.
    pub fn error(&mut self, text: &str) {
        self.text(b'-', text);
    }

    pub fn integer(&mut self, number: i64) {
        self.number(b':', number);
    }

    /// The size of something, as an integer.
    pub fn count(&mut self, count: impl TryInto<i64>) {
        self.integer(count.try_into().unwrap_or(i64::MAX));
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.number(b'$', bytes.len() as i64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A text with lines for people.
    pub fn verbatim(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => {
                self.number(b'=', text.len() as i64 + 4);
                self.bytes.extend_from_slice(b"txt:");
                self.bytes.extend_from_slice(text.as_bytes());
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The absence of a value.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// The absence of an array.
    pub fn null_array(&mut self) {
        self.bytes.extend_from_slice(match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// Begins an array; `len` elements must follow.
    pub fn array(&mut self, len: usize) {
        self.number(b'*', len as i64);
    }

    /// Begins a map; `len` pairs of key and value must follow.
    pub fn map(&mut self, len: usize) {
        match self.version {
            Version::Resp2 => self.number(b'*', 2 * len as i64),
            Version::Resp3 => self.number(b'%', len as i64),
        }
    }

    /// Begins a set; `len` elements must follow.
    pub fn set(&mut self, len: usize) {
        match self.version {
            Version::Resp2 => self.array(len),
            Version::Resp3 => self.number(b'~', len as i64),
        }
    }

    fn number(&mut self, mark: u8, number: i64) {
        self.bytes.push(mark);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn text(&mut self, mark: u8, text: &str) {
        self.bytes.push(mark);
        // A line end within the text would begin another reply.
        let safe = |byte: u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
        self.bytes.extend(text.bytes().map(safe));
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use redis_protocol::{resp2, resp3};

    fn everything(version: Version) -> Vec<u8> {
        let mut reply = Reply { version, ..Reply::default() };
        reply.array(9);
        reply.ok();
        reply.error("ERR a\r\nb");
        reply.integer(-1);
        reply.bulk(b"\r\n\0");
        reply.verbatim("a: b\n");
        reply.null();
        reply.null_array();
        reply.map(1);
        reply.bulk(b"");
        reply.count(u64::MAX);
        reply.set(1);
        reply.bulk(b"x");
        reply.bytes
    }

    #[test]
    fn replies_have_the_form_of_redis() {
        let resp2 = "*9\r\n+OK\r\n-ERR a  b\r\n:-1\r\n$3\r\n\r\n\0\r\n$5\r\na: b\n\r\n$-1\r\n*-1\r\n*2\r\n$0\r\n\r\n:9223372036854775807\r\n*1\r\n$1\r\nx\r\n";
        assert_eq!(String::from_utf8(everything(Version::Resp2)).unwrap(), resp2);
        let resp3 = "*9\r\n+OK\r\n-ERR a  b\r\n:-1\r\n$3\r\n\r\n\0\r\n=9\r\ntxt:a: b\n\r\n_\r\n_\r\n%1\r\n$0\r\n\r\n:9223372036854775807\r\n~1\r\n$1\r\nx\r\n";
        assert_eq!(String::from_utf8(everything(Version::Resp3)).unwrap(), resp3);
    }

    #[test]
    fn another_implementation_reads_them() {
        let two = everything(Version::Resp2);
        let (_, read, _) = resp2::decode::decode_bytes_mut(&mut BytesMut::from(&two[..])).unwrap().unwrap();
        assert_eq!(read, two.len());
        let three = everything(Version::Resp3);
        let decoded = resp3::decode::complete::decode_bytes_mut(&mut BytesMut::from(&three[..]));
        assert_eq!(decoded.unwrap().unwrap().1, three.len());
    }
}
