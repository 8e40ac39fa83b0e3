//! Where a key stands in the index of its namespace; the same as in `lua/index.lua`.

use fred::util::sha1_hash;

/// Behind every place.
pub const PLACES: u64 = 1 << 32;

/// The place of a key: the first 32 bits of its SHA-1, which Lua scripts in Redis have at hand.
pub fn of(key: &str) -> u64 {
    u64::from_str_radix(&sha1_hash(key)[..8], 16).expect("a SHA-1 is written in hexadecimal digits")
}

#[cfg(test)]
mod tests {
    #[test]
    fn places_are_frozen() {
        // `printf user_123 | sha1sum`; keys stored by an earlier version must be found.
        assert_eq!(super::of("user_123"), 0xc048_6609);
    }
}
