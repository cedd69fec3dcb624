//! Inputs as PNG files, to look at.

use std::path::Path;

use super::file::write_whole;
use super::normalise::{Normalise, per_channel};
use crate::error::{Error, Result};
use crate::ops::Shape;

/// Writes an input `[h, w, c]` of one or three channels as it is before `normalise`: values from 0 to 1 as 0 to 255, others cut
/// off.
///
/// # Errors
/// Where it has another number of channels, or the file system refuses.
pub fn write_png(path: &Path, shape: Shape, input: &[f32], normalise: &Normalise) -> Result<()> {
    if ![1, 3].contains(&shape.c) {
        return Err(Error::config(format!("an image of {} channels is not written; 1 and 3 are", shape.c)));
    }
    let (mean, std) = per_channel(normalise, shape.c).map_err(Error::Config)?;
    let pixel = |(i, value): (usize, &f32)| {
        let value = value * std[i % shape.c] + mean[i % shape.c];
        (value * 255.0).round().clamp(0.0, 255.0) as u8
    };
    let pixels: Vec<u8> = input.iter().enumerate().map(pixel).collect();
    write_whole(path, &encoded(shape, &pixels).map_err(|reason| Error::data(path, reason))?)
}

#[cfg(feature = "images")]
pub(super) fn encoded(shape: Shape, pixels: &[u8]) -> std::result::Result<Vec<u8>, String> {
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let colour = if shape.c == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut bytes = vec![];
    let written = PngEncoder::new(&mut bytes).write_image(pixels, shape.w as u32, shape.h as u32, colour);
    written.map(|()| bytes).map_err(|e| e.to_string())
}

#[cfg(not(feature = "images"))]
pub(super) fn encoded(_: Shape, _: &[u8]) -> std::result::Result<Vec<u8>, String> {
    Err("cannot be written: this scrubjay was built without its feature `images`".into())
}
