//! The place of a key in the index of its namespace; must be equal to `place_of` in `lua/index.lua`.

use fred::util::sha1_hash;

/// The number of places; every place is smaller.
pub const PLACES: u64 = 1 << 32;

/// The place of a key: the first 32 bits of a SHA-1 over the fleet's `secret` and the key. Lua scripts in Redis have
/// SHA-1 built in. Without the secret, nobody can choose many keys that have the same place.
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
        // From `printf 'c0ffeeuser_123' | sha1sum`. The scripts must compute the same place.
        assert_eq!(super::of("c0ffee", "user_123"), 0x54c9b301);
    }
}
