//! Where a listing goes on: opaque to clients, plain inside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ShardIndex;

/// A position within a listing: behind the key `after` at `place`.
///
/// Every key has a place that stays the same while it lives, whatever becomes of the others, and
/// keys are listed by place and name. So a key that lives throughout is listed exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The shard being listed.
    pub shard: ShardIndex,
    pub place: u64,
    /// Empty: in front of all keys of the place.
    pub after: String,
}

/// First letter of every cursor, so that a later form can tell itself apart.
const FORM: &str = "2";

impl Cursor {
    /// In front of everything from `place` on.
    pub fn at(shard: ShardIndex, place: u64) -> Self {
        Self { shard, place, after: String::new() }
    }

    pub fn encode(&self) -> String {
        let Self { shard, place, after } = self;
        URL_SAFE_NO_PAD.encode(format!("{FORM}\n{shard}\n{place}\n{after}"))
    }

    /// The cursor in `text`; `None` when no listing gave it.
    pub fn decode(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let parts: Vec<&str> = plain.split('\n').collect();
        let [FORM, shard, place, after] = *parts.as_slice() else { return None };
        Some(Self { shard: shard.parse().ok()?, place: place.parse().ok()?, after: after.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_garbage_is_refused() {
        let within = Cursor { after: "a key/with ümlaut".into(), ..Cursor::at(2, u64::MAX) };
        for cursor in [Cursor::at(1, 0), within] {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for text in ["", "garbage", "!!!", "MQ", "1\n0\n0\n", "2\n0\n0", "2\n-1\n0\n", "2\n0\nx\n", "2\n0\n0\na\nb"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
            assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
    }
}
