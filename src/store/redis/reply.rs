//! Parses the answers of the scripts. An answer that no script gives is an error, not a panic.

use bytes::Bytes;
use fred::types::Resp3Frame as Frame;

/// What was expected instead of the answer.
pub type Unexpected = &'static str;

pub fn array(frame: Frame) -> Result<Vec<Frame>, Unexpected> {
    match frame {
        Frame::Array { data, .. } => Ok(data),
        _ => Err("an array"),
    }
}

/// An array of exactly `N` elements.
pub fn tuple<const N: usize>(frame: Frame) -> Result<[Frame; N], Unexpected> {
    array(frame)?.try_into().map_err(|_| "an array of another length")
}

/// An array of rows with `N` fields each.
pub fn rows<const N: usize>(frame: Frame) -> Result<Vec<[Frame; N]>, Unexpected> {
    let mut fields = array(frame)?.into_iter();
    let mut rows = Vec::with_capacity(fields.len() / N);
    while !fields.as_slice().is_empty() {
        let row: Vec<Frame> = fields.by_ref().take(N).collect();
        rows.push(row.try_into().map_err(|_| "complete rows of fields")?);
    }
    Ok(rows)
}

pub fn bytes(frame: Frame) -> Result<Bytes, Unexpected> {
    match frame {
        Frame::BlobString { data, .. } | Frame::SimpleString { data, .. } => Ok(data),
        _ => Err("a string"),
    }
}

pub fn text(frame: Frame) -> Result<String, Unexpected> {
    String::from_utf8(bytes(frame)?.to_vec()).map_err(|_| "UTF-8")
}

/// A number, sent as an integer by Redis or as digits by Lua.
pub fn number(frame: Frame) -> Result<i64, Unexpected> {
    match frame {
        Frame::Number { data, .. } => Ok(data),
        other => text(other)?.parse().map_err(|_| "a number"),
    }
}

/// A number that cannot be negative. A total that drifted below zero is shown as 0.
pub fn count(frame: Frame) -> Result<u64, Unexpected> {
    Ok(number(frame)?.try_into().unwrap_or(0))
}

pub fn counts(frame: Frame) -> Result<Vec<u64>, Unexpected> {
    array(frame)?.into_iter().map(count).collect()
}

pub fn texts(frame: Frame) -> Result<Vec<String>, Unexpected> {
    array(frame)?.into_iter().map(text).collect()
}
