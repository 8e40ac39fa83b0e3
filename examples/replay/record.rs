//! One access: its namespace, its key and its value.
//!
//! The value depends only on the record, so that every value from the cache can be checked byte for byte.

use std::fmt::{self, Write};

use crate::zipf::SplitMix64;

/// An access in the trace's encoding: bits 27-31 type, 10-26 id, 0-9 index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record(u32);

impl Record {
    /// The length of the shortest value, which has room for the fixed part.
    pub const MIN_VALUE_BYTES: usize = 64;

    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// 0 to 31; each type has its own namespace.
    pub fn type_number(self) -> u32 {
        self.0 >> 27
    }

    /// The name of the type: the namespace without the run's prefix.
    pub fn type_name(self) -> String {
        format!("type_{}", self.type_number())
    }

    /// `<id>:<index>`, unique within the namespace.
    pub fn key(self) -> String {
        format!("{}:{}", (self.0 >> 10) & 0x1_ffff, self.0 & 0x3ff)
    }

    /// A JSON object of exactly `value_bytes` (at least [`Self::MIN_VALUE_BYTES`]) bytes.
    ///
    /// The price always has two decimals: a cache that parses and rewrites numbers would return `12.5` for `12.50`,
    /// and the check would notice it.
    pub fn value(self, value_bytes: usize) -> String {
        let mut random = SplitMix64::new(u64::from(self.0));
        let price_cents = random.next() % 1_000_000;
        let mut value = String::with_capacity(value_bytes);
        write!(value, r#"{{"product":"{self}","price":{}.{:02},"text":""#, price_cents / 100, price_cents % 100)
            .expect("writing into a String cannot fail");
        let closing = "\"}";
        while value.len() < value_bytes - closing.len() {
            value.push(char::from(b'a' + (random.next() % 26) as u8));
        }
        value.push_str(closing);
        value
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.type_name(), self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_split_into_type_id_and_index_as_the_trace_format_says() {
        let record = Record::from_bits((3 << 27) | (70_000 << 10) | 1_001);
        assert_eq!((record.type_name().as_str(), record.key().as_str()), ("type_3", "70000:1001"));
        assert_eq!(Record::from_bits(u32::MAX).to_string(), "type_31/131071:1023");
    }

    #[test]
    fn a_value_is_json_of_the_length_asked_for() {
        for bits in [0, 1, 0x0123_4567, u32::MAX] {
            for length in [Record::MIN_VALUE_BYTES, 1_000] {
                let value = Record::from_bits(bits).value(length);
                assert_eq!(value.len(), length, "{value}");
                serde_json::from_str::<serde_json::Value>(&value).expect("values are JSON");
            }
        }
    }

    #[test]
    fn different_records_have_different_values() {
        assert_ne!(Record::from_bits(1).value(100), Record::from_bits(2).value(100));
    }
}
