//! A thousand keys with the same 64-bit XXH3 hash under the project's fixed seed, in the namespace [`NAMESPACE`].
//!
//! For long texts, XXH3 adds up values computed from each 8 bytes. In these keys the 8 bytes at offset 68 differ
//! freely, and the 8 bytes at offset 132 compensate: the sum of the two parts is the same in all keys, and so is the
//! sum of their products. `collisions.txt` contains the free bytes, which a search found.

/// The hash covers the namespace as well, so the keys collide only in this one.
pub const NAMESPACE: &str = "dos";

const FREE: &str = include_str!("collisions.txt");

/// The sum of the two parts that differ, both read as little-endian numbers.
const SUM: u64 = 0xa3b6_9d8a_8bb6_7391;

const START: &str = "62ks2zz3ooc7djfeeh7aspf1clpbpgqgmjahztwqj013yovcbov0zhfudox26pzlskfp";
const MIDDLE: &str = "asgekdn84pjdoei19n4hh6ob8u6x2o47d780rp7k26dg9mps0woll3t5";
const END: &str = "uj3vqgxxh3mkzxol0mk6ze7t7n399hmuklsdjlkuorfxyw8doxi6xmmk49q685hapf5yze7t7mfh4n2cqcx6fehd2q6b2711iy3i\
                   ctszqklafud9ty2hyadnn6kbip11115g4zorisldnlhdx44rc5c8uqkb";

/// The keys, all different.
pub fn keys() -> Vec<String> {
    let key = |free: &str| {
        let number = u64::from_le_bytes(free.as_bytes().try_into().expect("eight bytes"));
        let rest = SUM.wrapping_sub(number).to_le_bytes();
        let rest = str::from_utf8(&rest).expect("both parts are printable ASCII");
        format!("{START}{free}{MIDDLE}{rest}{END}")
    };
    FREE.split_whitespace().map(key).collect()
}
