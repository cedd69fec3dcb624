//! The data that ships with scrubjay: 1,797 images of handwritten digits, 8×8 (CC BY 4.0; `assets/README.md`).

use std::io::Read;

use super::Samples;
use crate::error::{Error, Result};
use crate::ops::Shape;

static DIGITS: &[u8] = include_bytes!("../../assets/digits.csv.gz");

/// The digits, values from 0 to 1.
///
/// # Errors
/// Where the embedded file is damaged.
pub fn digits() -> Result<Samples> {
    let damaged = |what: &str| Error::config(format!("the embedded digits are damaged: {what}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(DIGITS).read_to_string(&mut text).map_err(|e| damaged(&e.to_string()))?;
    let (mut x, mut y) = (vec![], vec![]);
    for (i, line) in text.lines().enumerate() {
        let numbers: Vec<f32> = line.split(',').filter_map(|number| number.parse().ok()).collect();
        let [pixels @ .., label] = numbers.as_slice() else {
            return Err(damaged(&format!("line {}", i + 1)));
        };
        if pixels.len() != 64 {
            return Err(damaged(&format!("line {}", i + 1)));
        }
        x.extend(pixels.iter().map(|pixel| pixel / 16.0));
        y.push(*label as u32);
    }
    Ok(Samples { kind: Shape::new(8, 8, 1).into(), x, y: y.into(), stream: None })
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_1797_digits_of_ten_classes() {
        let digits = super::digits().unwrap();
        assert_eq!((digits.y.len(), digits.x.len()), (1797, 1797 * 64));
        assert!(digits.x.iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!((0..10).filter(|class| digits.y.words().contains(class)).count(), 10);
    }
}
