//! How far a shard has come: its changes are numbered.
//!
//! A client that has a position of its own write, or of another program's, sends it with a read, and gets nothing
//! older. As a header it is a structured dictionary (RFC 9651, 3.2), `a="<position>", b="<position>"`, whose keys are
//! the names of shards. Such a key has no capitals and begins with a letter or `*`, so in a name a capital is written
//! as `*` and the small letter, and another first character gets a `*` in front.

use std::fmt::{self, Display, Formatter};

use super::invalid::{Invalid, quoted};

/// A number that a shard gave to a change. Clients see it as text without a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first half of the name of the shard's incarnation. Another incarnation may have lost changes.
    pub incarnation: u64,
    /// The number of the ring. With another ring, other shards may own the keys.
    pub ring: u64,
    pub seq: u64,
}

/// Positions of several shards, by name. A shard occurs more than once if its positions cannot be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<(String, Position)>);

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (incarnation, ring, seq) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_whole = parts.next().is_none() && is_number(ring) && is_number(seq);
        let is_hexadecimal = incarnation.len() == 16 && incarnation.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_whole || !is_hexadecimal {
            return None;
        }
        let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
        Some(Self { incarnation, ring: ring.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl Positions {
    /// Parses the value of the header.
    ///
    /// # Errors
    /// [`Invalid::Position`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            let shown = quoted(text);
            Invalid::Position(format!("Cache-Position: pass the value of an answer unchanged, not {shown}"))
        };
        let mut positions = Vec::new();
        for member in text.split(',') {
            let (key, value) = member.trim_matches([' ', '\t']).split_once('=').ok_or_else(invalid)?;
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(invalid)?;
            let position = Position::parse(value).ok_or_else(invalid)?;
            positions.push((name_of(key).ok_or_else(invalid)?, position));
        }
        Ok(Self(positions))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a position of a shard, unless there is one that is at least as far.
    pub fn add(&mut self, shard: &str, position: Position) {
        let same = |(name, known): &&mut (String, Position)| {
            name == shard && known.incarnation == position.incarnation && known.ring == position.ring
        };
        match self.0.iter_mut().find(same) {
            Some((_, known)) => known.seq = known.seq.max(position.seq),
            None => self.0.push((shard.to_owned(), position)),
        }
    }

    /// The header's value for the position of one shard. Every write has one, so this uses no formatting.
    pub fn text_of(shard: &str, position: Position) -> String {
        let mut text = String::with_capacity(shard.len() + 64);
        put_key(&mut text, shard);
        text.push_str("=\"");
        for shift in (0..16).rev() {
            let digit = (position.incarnation >> (4 * shift)) & 0xf;
            text.push(char::from(b"0123456789abcdef"[digit as usize]));
        }
        for number in [position.ring, position.seq] {
            text.push('.');
            text.push_str(itoa::Buffer::new().format(number));
        }
        text.push('"');
        text
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Position)> {
        self.0.iter().map(|(shard, position)| (shard.as_str(), *position))
    }

    /// The positions of one shard.
    pub fn of<'p>(&'p self, shard: &'p str) -> impl Iterator<Item = Position> + 'p {
        self.iter().filter(move |(name, _)| *name == shard).map(|(_, position)| position)
    }
}

impl Display for Positions {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (i, (shard, position)) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(formatter, "{separator}{}", Self::text_of(shard, position))?;
        }
        Ok(())
    }
}

/// Adds the key of a dictionary for a shard's name.
fn put_key(text: &mut String, shard: &str) {
    for (i, c) in shard.chars().enumerate() {
        if c.is_ascii_uppercase() || (i == 0 && !c.is_ascii_lowercase()) {
            text.push('*');
        }
        text.push(c.to_ascii_lowercase());
    }
}

/// The shard's name for a key of a dictionary; `None` if it cannot be the key of one.
fn name_of(key: &str) -> Option<String> {
    let mut name = String::with_capacity(key.len());
    let mut chars = key.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => name.push(chars.next()?.to_ascii_uppercase()),
            c if c.is_ascii_lowercase() || (!name.is_empty() && matches!(c, '0'..='9' | '_' | '-' | '.')) => {
                name.push(c);
            }
            _ => return None,
        }
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Position = Position { incarnation: 0x00ff_0000_0000_0001, ring: 1, seq: 17 };

    #[test]
    fn positions_are_parsed_as_they_were_written() {
        let mut positions = Positions::default();
        for shard in ["a", "Shard_B.1", "1x", "-", "*"] {
            positions.add(shard, FIRST);
        }
        let text = positions.to_string();
        assert!(text.starts_with(r#"a="00ff000000000001.1.17", *shard_*b.1="#), "{text}");
        assert_eq!(Positions::parse(&text), Ok(positions));
        assert_eq!(
            Positions::parse("a=\"00ff000000000001.1.17\"\t,\tb=\"00ff000000000001.1.17\"").unwrap().0.len(),
            2
        );
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "a",
            "a=",
            "a=00ff000000000001.1.17",
            "a=\"00ff000000000001.1.17",
            "a=\"00ff000000000001.1\"",
            "a=\"00ff000000000001.1.17.0\"",
            "a=\"00ff000000000001.1.-1\"",
            "a=\"00ff000000000001.1.+1\"",
            "a=\"00ff000000000001.1.99999999999999999999\"",
            "a=\"0ff.1.17\"",
            "=\"00ff000000000001.1.17\"",
            "A=\"00ff000000000001.1.17\"",
            "1=\"00ff000000000001.1.17\"",
            "a*=\"00ff000000000001.1.17\"",
            "a=\"00ff000000000001.1.17\",",
        ] {
            assert!(matches!(Positions::parse(text), Err(Invalid::Position(_))), "{text}");
        }
    }

    #[test]
    fn the_position_that_is_farther_stays() {
        let mut positions = Positions::default();
        let other = Position { incarnation: 2, ..FIRST };
        for position in [FIRST, Position { seq: 19, ..FIRST }, Position { seq: 18, ..FIRST }, other] {
            positions.add("a", position);
        }
        assert_eq!(positions.of("a").collect::<Vec<_>>(), [Position { seq: 19, ..FIRST }, other]);
        assert_eq!(positions.of("b").count(), 0);
    }
}
