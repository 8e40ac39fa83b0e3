//! Reads the JSON of a body from front to back, without building values whose memory grows with the body.
//!
//! A body of a few megabytes can hold millions of empty strings. As Rust values they would need a hundred times their
//! size in memory. So objects are read field by field and arrays element by element, each as a slice of the body, and
//! the caller stops when it has enough. `serde_json` decides what is valid JSON. A string is decoded only if it is
//! short.

use std::borrow::Cow;

use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::error::Error;

/// A string in a body.
#[derive(Debug)]
pub enum Text<'b> {
    Decoded(Cow<'b, str>),
    /// The string has more bytes than the caller allows; this is its JSON.
    TooLong(&'b RawValue),
}

/// A body, and the position of the next byte to read.
pub struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// The most bytes of JSON that one byte of text can have: those of an escape such as `\u0061`.
const ESCAPED_BYTES: usize = 6;

/// How many characters of an unknown field's name are shown.
const SHOWN_CHARS: usize = 40;

/// Reads a body that must be one JSON object. Calls `field` at the value of each field, with the index of its name in
/// `names`.
///
/// # Errors
/// [`Error::InvalidBody`], which names the field and the position, or the error of `field`.
pub fn object<'b>(
    body: &'b [u8],
    names: &[&str],
    field: impl FnMut(usize, &mut Reader<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = Reader { bytes: body, at: 0 };
    if reader.peek().is_none() {
        return Err(Error::InvalidBody("the body is empty; expected a JSON object".to_owned()));
    }
    if opens_too_many(body) {
        return Err(Error::InvalidBody("the body opens more arrays and objects than it can close".to_owned()));
    }
    reader.object(names, field)?;
    if reader.peek().is_some() { Err(reader.wrong("trailing characters")) } else { Ok(()) }
}

/// The error for a missing field.
pub fn missing(name: &str) -> Error {
    Error::InvalidBody(format!("missing field `{name}`"))
}

/// Adds `place` in front of the text of an error, to show which part of the body is wrong.
pub fn within(place: &str, error: Error) -> Error {
    match error {
        Error::InvalidBody(reason) => Error::InvalidBody(format!("{place}: {reason}")),
        other => other,
    }
}

impl<'b> Reader<'b> {
    /// Reads an object. A duplicate field is an error.
    ///
    /// # Errors
    /// As [`object`].
    pub fn object(
        &mut self,
        names: &[&str],
        mut field: impl FnMut(usize, &mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.peek() != Some(b'{') {
            return Err(self.wrong("expected a JSON object"));
        }
        self.at += 1;
        if self.take(b'}') {
            return Ok(());
        }
        let mut seen = 0_u32;
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected the name of a field"));
            }
            let name = self.value()?;
            let Some(index) = names.iter().position(|known| is_text(name, known)) else {
                return Err(self.unknown_field(name, names));
            };
            if seen & (1 << index) != 0 {
                return Err(self.wrong(&format!("duplicate field `{}`", names[index])));
            }
            seen |= 1 << index;
            if !self.take(b':') {
                return Err(self.wrong("expected `:`"));
            }
            field(index, self).map_err(|error| match error {
                // An error from a nested value already names its place.
                Error::InvalidBody(reason) if reason.trim_start_matches('`').starts_with(names[index]) => {
                    Error::InvalidBody(reason)
                }
                error => within(&format!("`{}`", names[index]), error),
            })?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.wrong("expected `,` or `}`"));
            }
        }
    }

    /// Reads an array. Calls `element` at each element, with its index.
    ///
    /// # Errors
    /// As [`object`].
    pub fn array(&mut self, mut element: impl FnMut(usize, &mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.peek() != Some(b'[') {
            return Err(self.wrong("expected an array"));
        }
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            element(index, self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.wrong("expected `,` or `]`"));
            }
        }
        Ok(())
    }

    /// Reads any value, as a slice of the body.
    ///
    /// # Errors
    /// [`Error::InvalidBody`].
    pub fn value(&mut self) -> Result<&'b RawValue, Error> {
        self.peek();
        let mut deserializer = serde_json::Deserializer::from_slice(&self.bytes[self.at..]);
        let value = <&RawValue>::deserialize(&mut deserializer).map_err(|error| self.invalid(&error))?;
        self.at += value.get().len();
        Ok(value)
    }

    /// Reads any value. Null counts as absent.
    ///
    /// # Errors
    /// [`Error::InvalidBody`].
    pub fn optional(&mut self) -> Result<Option<&'b RawValue>, Error> {
        self.value().map(|value| Some(value).filter(|value| value.get() != "null"))
    }

    /// Reads `null` if it comes next, and returns whether it did.
    pub fn null(&mut self) -> bool {
        self.peek();
        let is_null = self.bytes[self.at..].starts_with(b"null");
        self.at += if is_null { 4 } else { 0 };
        is_null
    }

    /// Reads a string that may have at most `most` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidBody`].
    pub fn text(&mut self, most: usize) -> Result<Text<'b>, Error> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a string"));
        }
        let value = self.value()?;
        let inner = &value.get()[1..value.get().len() - 1];
        let is_plain = !inner.as_bytes().contains(&b'\\');
        if is_plain && inner.len() <= most {
            return Ok(Text::Decoded(inner.into()));
        }
        if is_plain || inner.len() > most * ESCAPED_BYTES {
            return Ok(Text::TooLong(value));
        }
        match serde_json::from_str::<String>(value.get()) {
            Ok(text) if text.len() <= most => Ok(Text::Decoded(text.into())),
            Ok(_) => Ok(Text::TooLong(value)),
            Err(_) => Err(self.wrong("a string that is not valid Unicode")),
        }
    }

    /// Skips white space and returns the next byte without reading it.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Reads `byte` if it comes next, and returns whether it did.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn unknown_field(&self, name: &RawValue, names: &[&str]) -> Error {
        let name = name.get();
        let inner = &name[1..name.len() - 1];
        let mut shown: String = inner.chars().take(SHOWN_CHARS).collect();
        if shown.len() < inner.len() {
            shown.push('…');
        }
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        // `wrong` adds the position after the name.
        let reason = format!("unknown field `{shown}`, expected one of {}", names.join(", "));
        within(&format!("`{shown}`"), self.wrong(&reason))
    }

    /// An error about the next byte.
    fn wrong(&self, reason: &str) -> Error {
        let (line, column) = self.place();
        Error::InvalidBody(format!("{reason} at line {line} column {column}"))
    }

    /// An error of `serde_json` about the value that begins here, with its position in the whole body.
    fn invalid(&self, error: &serde_json::Error) -> Error {
        let (first_line, before) = self.place();
        let line = first_line + error.line().max(1) - 1;
        let column = if error.line() <= 1 { before - 1 + error.column() } else { error.column() };
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or_default();
        Error::InvalidBody(format!("{reason} at line {line} column {column}"))
    }

    /// Line and column of the next byte, counted from 1.
    fn place(&self) -> (usize, usize) {
        let before = &self.bytes[..self.at];
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        (lines + 1, self.at - line_start + 1)
    }
}

/// Whether a JSON string equals this text.
fn is_text(json: &RawValue, text: &str) -> bool {
    let json = json.get();
    let inner = &json[1..json.len() - 1];
    if inner == text {
        return true;
    }
    let may_be = inner.contains('\\') && inner.len() <= text.len() * ESCAPED_BYTES;
    may_be && serde_json::from_str::<String>(json).is_ok_and(|decoded| decoded == text)
}

/// Whether a large body has more arrays and objects open at some point than it has bytes to close them. Such a body
/// is invalid, and the parser would need one byte of memory for each open array or object.
fn opens_too_many(body: &[u8]) -> bool {
    const LARGE: usize = 1 << 20;
    let most = body.len() / 2;
    if body.len() < LARGE || body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= most {
        return false;
    }
    let (mut open, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > most {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields `a` (any value) and `b` (strings of up to 4 bytes) of an object, or the error.
    fn read(body: &str) -> Result<(Option<String>, Vec<String>), String> {
        let (mut a, mut b) = (None, Vec::new());
        let read = object(body.as_bytes(), &["a", "b"], |index, reader| {
            if index == 0 {
                a = Some(reader.value()?.get().to_owned());
                return Ok(());
            }
            reader.array(|index, reader| {
                b.push(match reader.text(4).map_err(|error| within(&format!("`b[{index}]`"), error))? {
                    Text::Decoded(text) => text.into_owned(),
                    Text::TooLong(json) => format!("long {}", json.get().len()),
                });
                Ok(())
            })
        });
        read.map(|()| (a, b)).map_err(|error| error.to_string())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn fields_are_read_whatever_white_space_is_between_them() {
        assert_eq!(read("{}"), Ok((None, Vec::new())));
        assert_eq!(
            read(" \n{ \"a\" : [1e400, 0.10] , \"b\":[ ]\t}\r\n"),
            Ok((Some("[1e400, 0.10]".to_owned()), Vec::new()))
        );
        assert_eq!(
            read(r#"{"b":["x", "\u0079" ,"12345","\n\n\n\n\n", ""]}"#),
            Ok((None, texts(&["x", "y", "long 7", "long 12", ""])))
        );
        assert_eq!(read(r#"{"\u0061":null}"#), Ok((Some("null".to_owned()), Vec::new())), "a name may be escaped");
    }

    #[test]
    fn an_error_names_the_field_and_the_position() {
        for (body, expected) in [
            ("", "the body is empty"),
            (" ", "the body is empty"),
            ("[]", "expected a JSON object at line 1 column 1"),
            ("{\"a\":1", "expected `,` or `}` at line 1 column 7"),
            ("{\"a\":1} x", "trailing characters at line 1 column 9"),
            ("{\"a\":1,}", "expected the name of a field at line 1 column 8"),
            ("{\"a\" 1}", "expected `:` at line 1 column 6"),
            ("{a:1}", "expected the name of a field"),
            ("{\n\"a\":01}", "`a`: invalid number at line 2 column 6"),
            ("{\"a\":\n[1,]}", "`a`: "),
            ("{\"a\":nul}", "`a`: expected ident at line 1 column "),
            ("{\"a\":1,\"a\":2}", "duplicate field `a`"),
            ("{\"c\":1}", "`c`: unknown field `c`, expected one of `a`, `b` at line 1 column 5"),
            ("{\"b\":\"x\"}", "`b`: expected an array at line 1 column 6"),
            ("{\"b\":[1]}", "`b[0]`: expected a string at line 1 column 7"),
            ("{\"b\":[\"\\ud800\"]}", "`b[0]`: a string that is not valid Unicode"),
            ("{\"b\":[\"x\" \"y\"]}", "`b`: expected `,` or `]`"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.starts_with(expected), "{body}: {error}");
        }
        let long = format!("{{\"{}\":1}}", "x".repeat(1 << 20));
        assert!(read(&long).unwrap_err().len() < 300);
        assert!(object(b"{\"a\":\"\xff\"}", &["a"], |_, reader| reader.value().map(drop)).is_err());
    }

    #[test]
    fn only_a_body_that_cannot_close_its_arrays_is_refused() {
        let deep = "[".repeat(1 << 19) + &"]".repeat(1 << 19);
        let (text, escaped) = ("[".repeat(1 << 20), "\\\"[".repeat(1 << 19));
        for value in [deep, format!("\"{text}\""), format!("\"{escaped}[[[\"")] {
            assert!(!opens_too_many(format!("{{\"a\":{value}}}").as_bytes()));
        }
        assert!(opens_too_many("[".repeat(1 << 20).as_bytes()));
        assert!(opens_too_many(("{\"a\":\"".to_owned() + "\"[[" + &"[".repeat(1 << 20)).as_bytes()));
    }
}
