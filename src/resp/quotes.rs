//! The quotes and escapes of inline commands, as Redis reads them (`sdssplitargs`).

/// Appends the first argument of an inline command to `out` and returns the rest of the line; `None` if its quotes are
/// not balanced. Quotes as in Redis (`sdssplitargs`): escapes in double quotes, only `\'` in single quotes.
pub fn unquote<'l>(line: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    let mut rest = line;
    loop {
        match rest {
            [] => return Some(rest),
            [byte, ..] if byte.is_ascii_whitespace() => return Some(rest),
            [b'"', after @ ..] => rest = within_double_quotes(after, out)?,
            [b'\'', after @ ..] => rest = within_single_quotes(after, out)?,
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
                continue;
            }
        }
        // A closing quote ends the argument.
        return rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest);
    }
}

fn within_double_quotes<'l>(mut rest: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

fn within_single_quotes<'l>(mut rest: &'l [u8], out: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
