//! Bytes as lower-case hexadecimal digits, and back.

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The bytes of a text in the one spelling that [`hex`] writes.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect::<Option<_>>()?;
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_spelling() {
        for bytes in [&[][..], &[0], &[0x0f, 0xf0, 0xff], &(0..=255).collect::<Vec<u8>>()] {
            assert_eq!(unhex(&hex(bytes)).as_deref(), Some(bytes));
        }
        for other in ["0", "0F", "+f", "0x", "g0", " 0", "000"] {
            assert_eq!(unhex(other), None, "{other}");
        }
    }
}
