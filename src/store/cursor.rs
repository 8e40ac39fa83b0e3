//! Where a listing goes on: opaque to clients, plain inside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ShardIndex;

/// A place within a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The shard being listed.
    pub shard: ShardIndex,
    /// The store's own position within the shard.
    pub position: u64,
    /// The last key given from that position's batch; empty when the batch is untouched.
    pub after: String,
}

/// First letter of every cursor, so that a later form can tell itself apart.
const FORM: &str = "1";

impl Cursor {
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{FORM}\n{}\n{}\n{}", self.shard, self.position, self.after))
    }

    /// The cursor in `text`; `None` when no listing gave it.
    pub fn decode(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = plain.splitn(4, '\n');
        if parts.next()? != FORM {
            return None;
        }
        let shard = parts.next()?.parse().ok()?;
        let position = parts.next()?.parse().ok()?;
        Some(Self { shard, position, after: parts.next()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_garbage_is_refused() {
        let cursor = Cursor { shard: 2, position: u64::MAX, after: "a key/with ümlaut".into() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["", "garbage", "!!!", "MQ", &URL_SAFE_NO_PAD.encode("2\n0\n0\n")] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
