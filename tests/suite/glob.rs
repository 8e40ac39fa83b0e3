//! Compares our pattern matcher with that of Redis, on random patterns and texts. This file is the only one in the
//! suite that uses the crate directly: ten thousand pairs over HTTP would prove no more, and take minutes.

use sidecache::model::Pattern;

use crate::support::random::Random;
use crate::support::redis::Redis;

/// Each round matches every pattern with every text.
const ROUNDS: usize = 20;
const PATTERNS: usize = 60;
const TEXTS: usize = 60;

/// The parts of random patterns. Special characters are more frequent than others.
const PIECES: [&str; 39] = [
    "*", "*", "*", "**", "?", "?", "??", "[", "[", "[", "]", "]", "[^", "[^", "^", "^", "-", "-", "\\", "\\", "\\\\",
    "\\*", "\\]", "[a-c]", "[c-a]", "[^b-]", "[-b]", "[\\]]", "[]", "[^]", "a", "a", "b", "b", "c", "x", "ü", "€",
    "😀",
];

/// The characters of random texts.
const LETTERS: [&str; 22] =
    ["a", "a", "a", "b", "b", "b", "c", "c", "x", "-", "^", "[", "]", "\\", "*", "?", "ü", "ä", "€", "😀", "!", "~"];

fn made_of(random: &mut Random, pieces: &[&str], least: usize, most: usize) -> String {
    (0..random.between(least, most)).map(|_| *random.pick(pieces)).collect()
}

#[test]
fn the_matcher_agrees_with_redis_on_random_patterns() {
    let redis = Redis::start();
    let mut connection = redis.connect();
    let mut random = Random::new();
    let (mut pairs, mut matched) = (0, 0);
    for _ in 0..ROUNDS {
        connection.command(&["FLUSHALL"]);
        let mut texts: Vec<String> = (0..TEXTS).map(|_| made_of(&mut random, &LETTERS, 1, 7)).collect();
        texts.sort();
        texts.dedup();
        connection.pipeline(texts.iter().map(|text| vec!["SET", text, "1"]));
        let patterns: Vec<String> = (0..PATTERNS)
            .map(|_| match random.below(4) {
                // The beginning of a text, then a random pattern: an entirely random pattern seldom matches.
                0 => {
                    let text = random.pick(&texts).clone();
                    let kept: String = text.chars().take(random.below(4)).collect();
                    kept + &made_of(&mut random, &PIECES, 1, 4)
                }
                _ => made_of(&mut random, &PIECES, 1, 8),
            })
            // Redis compares the ends of a range as `char`, which is signed on some machines and unsigned on others;
            // our matcher compares unsigned bytes. So nobody can rely on a range with a letter beyond ASCII.
            .map(
                |pattern: String| {
                    if pattern.contains('[') { pattern.replace(|c: char| !c.is_ascii(), "b") } else { pattern }
                },
            )
            .collect();
        let replies = connection.pipeline(patterns.iter().map(|pattern| vec!["KEYS", pattern]));
        for (text, reply) in patterns.iter().zip(replies) {
            let pattern =
                Pattern::parse(text.as_str()).expect("neither empty, nor long, nor with control characters");
            let ours: Vec<&String> = texts.iter().filter(|key| pattern.matches(key)).collect();
            assert!(
                reply.sorted().iter().eq(ours.iter().copied()),
                "{text:?}: we match {ours:?}, Redis {:?}",
                reply.sorted()
            );
            pairs += texts.len();
            matched += ours.len();
        }
    }
    eprintln!("{matched} of {pairs} pairs match");
    assert!(pairs >= 10_000 && matched >= 1_000, "{matched} of {pairs} pairs match");
}
