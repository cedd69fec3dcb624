//! STL-10's binary files: images of 96 by 96 in planes of red, green and blue, each column by column, and labels from 1.

use std::path::Path;

use super::Names;
use super::cifar::named;
use super::pixels::{Numbers, Stored};
use super::tensors::read_unzipped;
use crate::error::{Error, Result};
use crate::ops::Shape;

const SIDE: usize = 96;

/// Reads a file of images and the file of their labels.
///
/// # Errors
/// Where one is cut off, or a label is 0 or above 10.
pub(super) fn read(images: &Path, labels: &Path) -> Result<(Stored, Names, Vec<String>)> {
    let (columns, y) = (read_unzipped(images)?, read_unzipped(labels)?);
    let image = 3 * SIDE * SIDE;
    if columns.len() != y.len() * image {
        let reason =
            format!("has {} bytes, where {} labels take {image} each (truncated?)", columns.len(), y.len());
        return Err(Error::data(images, reason));
    }
    if let Some(i) = y.iter().position(|label| !(1..=10).contains(label)) {
        let reason = format!("is {}, where 1 to 10 was expected", y[i]);
        return Err(Error::record(labels, format!("label {i}"), reason));
    }
    let mut x = vec![0; columns.len()];
    for (plane, columns) in x.chunks_exact_mut(SIDE * SIDE).zip(columns.chunks_exact(SIDE * SIDE)) {
        plane.iter_mut().enumerate().for_each(|(at, pixel)| *pixel = columns[at % SIDE * SIDE + at / SIDE]);
    }
    let names = Names { classes: named(images, &["class_names.txt"])?, ..Names::default() };
    let y = y.into_iter().map(|label| u32::from(label) - 1).collect();
    Ok((
        Stored { shape: Shape::new(SIDE, SIDE, 3), x: Numbers::Pixels(x), y, channels_last: false },
        names,
        vec![],
    ))
}
