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
    /// How far the step from that position was given, when the page ended within it.
    pub cut: Option<Cut>,
}

/// A step of which a page held only a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Entries the step was asked to look at.
    pub count: usize,
    /// The position behind the step. If a repetition ends elsewhere, the shard has rearranged its
    /// keys, and the step is given whole: a key twice, but none left out.
    pub following: u64,
    /// The last key given; the others of the step are greater.
    pub after: String,
}

/// First letter of every cursor, so that a later form can tell itself apart.
const FORM: &str = "1";

impl Cursor {
    /// The place where the listing of `shard` begins.
    pub fn start_of(shard: ShardIndex) -> Self {
        Self { shard, position: 0, cut: None }
    }

    pub fn encode(&self) -> String {
        let mut text = format!("{FORM}\n{}\n{}", self.shard, self.position);
        if let Some(Cut { count, following, after }) = &self.cut {
            text.push_str(&format!("\n{count}\n{following}\n{after}"));
        }
        URL_SAFE_NO_PAD.encode(text)
    }

    /// The cursor in `text`; `None` when no listing gave it.
    pub fn decode(text: &str) -> Option<Self> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let parts: Vec<&str> = plain.split('\n').collect();
        let (place, cut) = match *parts.as_slice() {
            [FORM, shard, position] => ((shard, position), None),
            [FORM, shard, position, count, following, after] => {
                let count = count.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count))?;
                let cut = Cut { count, following: following.parse().ok()?, after: after.to_owned() };
                ((shard, position), Some(cut))
            }
            _ => return None,
        };
        Some(Self { shard: place.0.parse().ok()?, position: place.1.parse().ok()?, cut })
    }
}

/// No step looks at more; a cursor that says so was made up.
const MAX_COUNT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_garbage_is_refused() {
        let cut = Some(Cut { count: 7, following: 3, after: "a key/with ümlaut".into() });
        for cursor in [Cursor::start_of(1), Cursor { shard: 2, position: u64::MAX, cut }] {
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for text in [
            "",
            "garbage",
            "!!!",
            "MQ",
            &URL_SAFE_NO_PAD.encode("2\n0\n0"),
            &URL_SAFE_NO_PAD.encode("1\n0\n0\n9999\n0\nk"),
        ] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
