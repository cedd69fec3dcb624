//! MNIST's idx files: two zero bytes, the type of the elements, the number of axes, the length of each axis, and the
//! elements, all big-endian.

use std::path::Path;

use super::pixels::{Numbers, Stored, pixels};
use super::tensors::read_unzipped;
use crate::error::{Error, Result};
use crate::ops::Shape;

/// Reads a file of images and the file of their labels.
///
/// # Errors
/// Where they do not fit each other, or as [`Idx::read`].
pub(super) fn read(images: &Path, labels: &Path) -> Result<Stored> {
    let (stored, y) = (Idx::read(images, 3)?, Idx::read(labels, 1)?);
    let sides = &stored.sides;
    if y.sides[0] != sides[0] {
        return Err(Error::data(labels, format!("has {} labels for {} images", y.sides[0], sides[0])));
    }
    if sides[0] > 0 && sides[1] * sides[2] == 0 {
        return Err(Error::data(images, format!("has images of {} x {} pixels", sides[1], sides[2])));
    }
    let shape = Shape::new(sides[1], sides[2], 1);
    let x = Numbers::Pixels(pixels(images, "image", stored.elements(), shape.len())?);
    Ok(Stored { shape, x, y: y.labels(labels)?.into(), channels_last: false })
}

/// An idx file of whole numbers.
struct Idx {
    /// The length of each axis.
    sides: Vec<usize>,
    bytes: Vec<u8>,
    header: usize,
    width: usize,
    signed: bool,
}

impl Idx {
    /// Reads a file of this number of axes.
    ///
    /// # Errors
    /// Where it cannot be read, begins otherwise, or has another length than its axes take.
    fn read(path: &Path, axes: usize) -> Result<Idx> {
        let bytes = read_unzipped(path)?;
        let header = 4 + 4 * axes;
        let element = match bytes.get(..4) {
            Some(&[0, 0, kind, found]) if usize::from(found) == axes && bytes.len() >= header => {
                element(kind)
            }
            _ => None,
        };
        let Some((width, signed)) = element else {
            let (magic, found) = ([0, 0, 8, axes as u8], &bytes[..bytes.len().min(4)]);
            let reason = format!(
                "begins with {found:02x?}, where an idx file of {axes} axes has {magic:02x?} (or 09, 0b, 0c for other \
                 integers)"
            );
            return Err(Error::data(path, reason));
        };
        let axis =
            |i: usize| bytes[4 + 4 * i..8 + 4 * i].iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
        let sides: Vec<usize> = (0..axes).map(axis).collect();
        let expected =
            header as u128 + sides.iter().map(|&side| side as u128).product::<u128>() * width as u128;
        if expected != bytes.len() as u128 {
            let reason = format!("has {} bytes, where {sides:?} takes {expected} (truncated?)", bytes.len());
            return Err(Error::data(path, reason));
        }
        Ok(Idx { sides, bytes, header, width, signed })
    }

    /// The elements.
    fn elements(&self) -> impl Iterator<Item = i64> {
        self.bytes[self.header..].chunks_exact(self.width).map(|element| {
            let first = if self.signed { i64::from(element[0] as i8) } else { i64::from(element[0]) };
            element[1..].iter().fold(first, |value, &byte| value << 8 | i64::from(byte))
        })
    }

    /// The elements as labels.
    ///
    /// # Errors
    /// Where one is negative.
    fn labels(&self, path: &Path) -> Result<Vec<u32>> {
        let label = |(i, value): (usize, i64)| {
            u32::try_from(value).map_err(|_| {
                let reason = format!("{value} is no label: a whole number from 0 was expected");
                Error::record(path, format!("label {i}"), reason)
            })
        };
        self.elements().enumerate().map(label).collect()
    }
}

/// The width in bytes of a type of whole numbers, and whether it is signed.
fn element(kind: u8) -> Option<(usize, bool)> {
    match kind {
        0x08 => Some((1, false)),
        0x09 => Some((1, true)),
        0x0b => Some((2, true)),
        0x0c => Some((4, true)),
        _ => None,
    }
}
