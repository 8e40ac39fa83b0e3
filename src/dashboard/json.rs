//! Formats JSON for people. Only white space changes: numbers of any size, the order of keys and escapes stay as they
//! were written.

/// Spaces per level.
const INDENT: usize = 2;

/// Deeper levels are not indented further.
const MAX_LEVELS: usize = 32;

/// Puts JSON on several lines, with indentation.
pub fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut level = 0usize;
    let (mut is_string, mut is_escaped) = (false, false);
    let mut parts = json.chars().peekable();
    while let Some(c) = parts.next() {
        if is_string {
            text.push(c);
            is_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            '}' | ']' => {
                level = level.saturating_sub(1);
                break_line(&mut text, level);
            }
            c if c.is_ascii_whitespace() => continue,
            _ => {}
        }
        text.push(c);
        match c {
            '"' => is_string = true,
            ':' => text.push(' '),
            ',' => break_line(&mut text, level),
            '{' | '[' => {
                while parts.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = parts.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    level += 1;
                    break_line(&mut text, level);
                }
            }
            _ => {}
        }
    }
    text
}

fn break_line(text: &mut String, level: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', INDENT * level.min(MAX_LEVELS)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn objects_and_arrays_are_broken_up_and_nothing_else_changes() {
        let written = r#"{"a":[1e400,0.10, {}],"b":"x, {\"y\": \\","c":[ ]}"#;
        let expected =
            "{\n  \"a\": [\n    1e400,\n    0.10,\n    {}\n  ],\n  \"b\": \"x, {\\\"y\\\": \\\\\",\n  \"c\": []\n}";
        assert_eq!(pretty(written), expected);
        assert_eq!(pretty("12"), "12");
    }

    #[test]
    fn the_size_of_deeply_nested_json_is_bounded() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert!(pretty(&deep).len() < deep.len() * (2 + INDENT * MAX_LEVELS));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[\\PC\"\\\\]*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_formatted_json_has_the_same_value(value in any_json()) {
            let read: Value = serde_json::from_str(&pretty(&value.to_string())).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
