//! Values as text, f32 little-endian in hexadecimal, bit for bit.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};

/// Values that are written as text, so that the text need not be in memory.
pub struct Text<'a>(pub &'a [f32]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let digits = |byte: u8| [byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)]);
        self.0.chunks(64).try_for_each(|values| {
            let text: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).flat_map(digits).collect();
            f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
        })
    }
}

pub fn values(text: &str) -> Option<Vec<f32>> {
    let word = |i: usize| u32::from_str_radix(text.get(i..i + 8)?, 16).ok();
    let whole = text.len().is_multiple_of(8) && text.is_ascii();
    let read = |i| Some(f32::from_bits(word(i)?.swap_bytes()));
    whole.then(|| (0..text.len()).step_by(8).map(read).collect())?
}

pub fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Text(values))
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
    let text = String::deserialize(from)?;
    values(&text).ok_or_else(|| serde::de::Error::custom("values that are not hexadecimal f32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_bit_for_bit() {
        let all = [1.5, -0.0, f32::MIN_POSITIVE, 1e-40, f32::MAX];
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values(&Text(&all).to_string()).unwrap()), bits(&all));
        assert_eq!(Text(&[1.0]).to_string(), "0000803f");
        assert!(values("0000803").is_none() && values("0000803x").is_none() && values("ééé0").is_none());
    }
}
