//! The position of a listing. Clients treat it as opaque; it is not encrypted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A position within a listing: after the key `after` at `place`.
///
/// It names no shard, so every instance understands it, whatever the order of the shards in its settings. A key's
/// place stays the same as long as the key lives, whatever happens to other keys, and keys are listed by place and
/// name. So a key that exists during the whole listing is listed exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub place: u64,
    /// Empty: before all keys at `place`.
    pub after: String,
}

/// First letter of every cursor. A later format will use another letter.
const FORM: &str = "3";

impl Cursor {
    /// The position before all keys at `place` and later places.
    pub fn at(place: u64) -> Self {
        Self { place, after: String::new() }
    }

    pub fn encode(&self) -> String {
        let Self { place, after } = self;
        URL_SAFE_NO_PAD.encode(format!("{FORM}\n{place}\n{after}"))
    }

    /// Parses a cursor; `None` if `text` is not the cursor of a listing.
    pub fn decode(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let parts: Vec<&str> = plain.split('\n').collect();
        let [FORM, place, after] = *parts.as_slice() else { return None };
        Some(Self { place: place.parse().ok()?, after: after.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_garbage_is_refused() {
        let within = Cursor { after: "a key/with ümlaut".into(), ..Cursor::at(u64::MAX) };
        for cursor in [Cursor::at(0), within] {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for text in ["", "garbage", "!!!", "MQ", "1\n0\n0\n", "2\n0\n0\n", "3\n0", "3\n-1\n", "3\nx\n", "3\n0\na\nb"]
        {
            assert_eq!(Cursor::decode(text), None, "{text}");
            assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
    }
}
