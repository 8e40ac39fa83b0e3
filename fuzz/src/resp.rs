//! Requests of Redis clients: any bytes are decoded alike in one piece and in pieces, and what is decoded gives the same
//! request again when it is encoded.

use sidecache::model::{KeyRef, Namespace, key_bytes};
use sidecache::resp::{Decoder, ProtocolError};

const MAX_BYTES: usize = 1 << 20;

/// The first byte is the length of the pieces.
pub fn check(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let whole = decoded(bytes, bytes.len().max(1));
    assert_eq!(whole, decoded(bytes, piece), "in pieces of {piece}");
    for arguments in whole.unwrap_or_default().iter().filter(|arguments| !arguments.is_empty()) {
        let again = decoded(&encoded(arguments), piece).expect("an encoded request is valid");
        assert_eq!(&again, std::slice::from_ref(arguments));
        arguments.iter().for_each(|argument| key(argument));
    }
}

/// All requests in the bytes.
fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
    let (mut decoder, mut start, mut requests) = (Decoder::new(MAX_BYTES), 0, Vec::new());
    for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
        while let Some(len) = decoder.decode(&bytes[start..end])? {
            requests.push(decoder.request(&bytes[start..end]).from(0).map(<[u8]>::to_vec).collect());
            start += len;
            decoder.reset();
        }
    }
    Ok(requests)
}

fn encoded(arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Bytes give a valid key, and the key gives them back.
fn key(bytes: &[u8]) {
    let (namespace, mut text) = (Namespace::parse("users").expect("a namespace"), String::new());
    let Ok(key) = KeyRef::of_bytes(&namespace, bytes, &mut text) else { return };
    assert_eq!(&*key_bytes(key.key()), bytes);
    let mut parsed = String::new();
    assert!(KeyRef::parse("users", key.key(), &mut parsed).is_ok_and(|parsed| parsed.text() == key.text()));
}
