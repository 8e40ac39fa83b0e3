//! Where a key stands in the index of its namespace; the same as in `lua/index.lua`.

use fred::util::sha1_hash;

/// Behind every place.
pub const PLACES: u64 = 1 << 32;

/// The place of a key: the first 32 bits of a SHA-1, which Lua scripts in Redis have at hand, over the fleet's
/// `secret` and the key. Who does not know the secret cannot choose keys that crowd one place.
pub fn of(secret: &str, key: &str) -> u64 {
    let mut text = String::with_capacity(secret.len() + key.len());
    text.push_str(secret);
    text.push_str(key);
    u64::from_str_radix(&sha1_hash(&text)[..8], 16).expect("a SHA-1 is written in hexadecimal digits")
}

#[cfg(test)]
mod tests {
    #[test]
    fn places_are_frozen() {
        // `printf 'c0ffeeuser_123' | sha1sum`; the scripts must find what was put in by this.
        assert_eq!(super::of("c0ffee", "user_123"), 0x54c9b301);
    }
}
