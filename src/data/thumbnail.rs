//! Inputs, and maps over them, as small PNG files for reports.

use super::normalise::{Normalise, per_channel};
use super::picture::Picture;
use super::png::encoded;
use super::resize::{Interpolation, resize};
use super::{InputKind, Samples};
use crate::error::{Error, Result};

/// The most pixels of a side.
const SIDE: usize = 96;

/// Small pictures of some images.
pub struct Thumbnails {
    /// PNG files.
    pub files: Vec<Vec<u8>>,
    /// Whether their brightness was stretched from the least value to the greatest, because the values are no pixels from 0
    /// to 1 even before `normalise`.
    pub stretched: bool,
}

/// Pictures of these samples as they are before `normalise`; none of texts, of features, of images with other than one or
/// three channels, and where scrubjay was built without `images`.
///
/// # Errors
/// Where a sample cannot be read any more, or `normalise` is not for as many channels.
pub fn thumbnails(samples: &Samples, indices: &[usize], normalise: &Normalise) -> Result<Option<Thumbnails>> {
    let InputKind::Image(shape) = samples.kind else { return Ok(None) };
    if ![1, 3].contains(&shape.c) || shape.h.min(shape.w) < 2 || !cfg!(feature = "images") {
        return Ok(None);
    }
    let (mean, std) = per_channel(normalise, shape.c).map_err(Error::Config)?;
    let stored = |input: &[f32]| -> Vec<f32> {
        let one = |(i, value): (usize, &f32)| value * std[i % shape.c] + mean[i % shape.c];
        input.iter().enumerate().map(one).collect()
    };
    let images = indices.iter().map(|&i| Ok(stored(&samples.image(i)?))).collect::<Result<Vec<_>>>()?;
    let all = images.iter().flatten();
    let (least, most) = all.fold((f32::MAX, f32::MIN), |(least, most), &v| (least.min(v), most.max(v)));
    let stretched = least < -0.01 || most > 1.01;
    let (from, to) = if stretched { (least, most) } else { (0.0, 1.0) };
    let file = |image: &Vec<f32>| png(shape.h, shape.w, shape.c, &levels(image, from, to));
    Ok(Some(Thumbnails { files: images.iter().map(file).collect::<Result<_>>()?, stretched }))
}

/// A map `[h, w]` as a picture, from black for 0 to white for `most`.
///
/// # Errors
/// Where scrubjay was built without `images`.
pub fn map_png(h: usize, w: usize, map: &[f32], most: f32) -> Result<Vec<u8>> {
    png(h, w, 1, &levels(map, 0.0, most))
}

/// Values as levels from 0 to 255.
fn levels(values: &[f32], from: f32, to: f32) -> Vec<u8> {
    let level = |value: &f32| ((value - from) / (to - from) * 255.0).round().clamp(0.0, 255.0) as u8;
    values.iter().map(level).collect()
}

/// A PNG file of pixels, made smaller where they are many.
fn png(h: usize, w: usize, c: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let mut picture = Picture { h, w, c, pixels: pixels.to_vec() };
    let longer = h.max(w);
    if longer > SIDE {
        let side = |side: usize| (side * SIDE).div_ceil(longer);
        picture = resize(picture, side(h), side(w), Interpolation::Box);
    }
    let shape = crate::ops::Shape::new(picture.h, picture.w, c);
    encoded(shape, &picture.pixels).map_err(Error::Config)
}

#[cfg(all(test, feature = "images"))]
mod tests {
    use super::super::decode::decode;
    use super::*;
    use crate::ops::Shape;

    #[test]
    fn a_thumbnail_has_the_pixels_that_were_normalised() {
        let shape = Shape::new(3, 2, 3);
        let pixels: Vec<u8> = (0..36).map(|i| i * 7).collect();
        let normalise = Normalise { mean: Some(vec![0.1, 0.5, 0.9]), std: Some(vec![0.2]) };
        let (mean, std) = per_channel(&normalise, 3).unwrap();
        let x = pixels.iter().enumerate().map(|(i, &p)| (f32::from(p) / 255.0 - mean[i % 3]) / std[i % 3]);
        let samples = Samples { kind: shape.into(), x: x.collect(), y: vec![0, 0].into(), stream: None };
        let found = thumbnails(&samples, &[1, 0], &normalise).unwrap().unwrap();
        assert!(!found.stretched);
        for (file, pixels) in found.files.iter().zip([&pixels[18..], &pixels[..18]]) {
            assert_eq!(decode(file, false).unwrap().picture.pixels, pixels);
        }
        // Not told how they were normalised: from the least to the greatest.
        let found = thumbnails(&samples, &[0, 1], &Normalise::default()).unwrap().unwrap();
        assert!(found.stretched);
        let wide = Samples { kind: Shape::new(2, 200, 1).into(), x: vec![0.5; 400], ..samples.clone() };
        let found = thumbnails(&wide, &[0], &Normalise::default()).unwrap().unwrap();
        let picture = decode(&found.files[0], false).unwrap().picture;
        assert_eq!((picture.h, picture.w, picture.pixels[0]), (1, 96, 128));
        let features = Samples { kind: Shape::new(1, 1, 18).into(), ..samples };
        assert!(thumbnails(&features, &[0], &normalise).unwrap().is_none());
    }
}
