//! The position in a listing of rows, as text. Opaque to clients; it contains numbers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes `numbers` as a cursor of the format `form`.
pub(crate) fn encode(form: &str, numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    URL_SAFE_NO_PAD.encode(format!("{form}\n{}", numbers.join("\n")))
}

/// The numbers in `text`; `None` if it is not a cursor of this format.
pub(crate) fn decode<const N: usize>(form: &str, text: &str) -> Option<[i64; N]> {
    let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (found, numbers) = plain.split_once('\n')?;
    let number = |text: &str| text.parse().ok().filter(|number| *number >= 0);
    let numbers = numbers.split('\n').map(number).collect::<Option<Vec<i64>>>()?;
    if found == form { numbers.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_what_is_none_is_refused() {
        assert_eq!(decode("log1", &encode("log1", &[3, i64::MAX])), Some([3, i64::MAX]));
        assert_eq!(decode::<2>("audit1", &encode("log1", &[3, 4])), None, "another form");
        assert_eq!(decode::<1>("log1", &encode("log1", &[3, 4])), None, "too many numbers");
        assert_eq!(decode::<1>("log1", &encode("log1", &[-3])), None, "no row has it");
        for text in ["", "garbage", "!!!", &URL_SAFE_NO_PAD.encode("log1\n"), &URL_SAFE_NO_PAD.encode("log1\n1x")] {
            assert_eq!(decode::<1>("log1", text), None, "{text}");
        }
    }
}
