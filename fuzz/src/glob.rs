//! Patterns: compares the matcher with a simple one that fills a table for every position of pattern and key, so that
//! its time only depends on their lengths. libFuzzer's time limit finds inputs for which the real matcher is slow.

use sidecache::model::Pattern;

/// An element of a pattern other than `*`.
struct One {
    /// The first and last byte of each range.
    ranges: Vec<(u8, u8)>,
    is_negated: bool,
}

enum Element {
    Star,
    One(One),
}

/// `data` is a pattern, a line feed, and a key.
pub fn check(data: &[u8]) {
    let Some((text, key)) = str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    let Ok(pattern) = Pattern::parse(text) else {
        let is_pattern = (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control);
        assert!(!is_pattern, "the valid pattern {text:?} is refused");
        return;
    };
    assert_eq!(pattern.as_str(), text);
    assert_eq!(pattern.matches(key), matches(&elements(text.as_bytes()), key.as_bytes()), "{text:?} on {key:?}");

    let literal: String = key.chars().flat_map(|letter| ['\\', letter]).collect();
    if let Ok(literal) = Pattern::parse(literal) {
        assert!(literal.matches(key), "the escaped form of {key:?} does not match it");
    }
}

fn elements(mut pattern: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    while let Some((&first, behind)) = pattern.split_first() {
        pattern = behind;
        let (ranges, is_negated) = match first {
            b'*' => {
                elements.push(Element::Star);
                continue;
            }
            b'?' => (vec![(0, 255)], false),
            b'[' => set(&mut pattern),
            b'\\' if !pattern.is_empty() => {
                let literal = pattern[0];
                pattern = &pattern[1..];
                (vec![(literal, literal)], false)
            }
            literal => (vec![(literal, literal)], false),
        };
        elements.push(Element::One(One { ranges, is_negated }));
    }
    elements
}

/// Parses a set after its opening bracket, up to and including its closing bracket or to the end of the pattern.
fn set(pattern: &mut &[u8]) -> (Vec<(u8, u8)>, bool) {
    let is_negated = pattern.first() == Some(&b'^');
    let mut rest = &pattern[usize::from(is_negated)..];
    let mut ranges = Vec::new();
    loop {
        let (range, taken) = match *rest {
            [] => break,
            [b']', ..] => {
                rest = &rest[1..];
                break;
            }
            [b'\\', literal, ..] => ((literal, literal), 2),
            [one, b'-', other, ..] => ((one.min(other), one.max(other)), 3),
            [literal, ..] => ((literal, literal), 1),
        };
        ranges.push(range);
        rest = &rest[taken..];
    }
    *pattern = rest;
    (ranges, is_negated)
}

/// Whether the elements match the key; computed for the first i elements and the first j bytes, for all i and j.
fn matches(elements: &[Element], key: &[u8]) -> bool {
    let mut row = vec![false; key.len() + 1];
    row[0] = true;
    for element in elements {
        let mut next = vec![false; key.len() + 1];
        match element {
            Element::Star => {
                let first = row.iter().position(|reached| *reached).unwrap_or(next.len());
                next[first..].fill(true);
            }
            Element::One(One { ranges, is_negated }) => {
                for (at, byte) in key.iter().enumerate() {
                    let is_within = ranges.iter().any(|(low, high)| low <= byte && byte <= high);
                    next[at + 1] = row[at] && is_within != *is_negated;
                }
            }
        }
        row = next;
    }
    row[key.len()]
}
