//! Images as a file stores them, and the rules by which they become inputs. Whole numbers are pixels from 0 to 255 and
//! are divided by 255. Channels are first or last. A config's mean and std are for values from 0 to 1, so they are not
//! applied to values that are normalised already.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::Dtype;

use super::normalise::{Normalise, Normaliser, per_channel};
use super::part::Part;
use super::picture::Picture;
use super::pictures::{Pictures, Ready};
use super::pipeline::Pipeline;
use super::stream::{Source, Stream};
use super::tensors::TensorFile;
use super::{Labels, Samples};
use crate::error::{Error, Result};
use crate::ops::Shape;

/// The most bytes of a set of pixels that is kept as numbers.
const AS_NUMBERS: usize = 64 << 20;

/// Images whose values are not yet normalised.
pub(super) struct Stored {
    pub shape: Shape,
    /// `[n, c, h, w]`, or `[n, h, w, c]` where the channels are last.
    pub x: Numbers,
    pub y: Labels,
    pub channels_last: bool,
}

/// The values of images.
pub(super) enum Numbers {
    /// Pixels, 0 to 255, which become values from 0 to 1.
    Pixels(Vec<u8>),
    /// Values that are left as they are.
    Floats(Vec<f32>),
    /// Pixels of pictures that are decoded when they are read.
    Pictures(Box<Pictures>, Ready),
}

/// Whole numbers as pixels.
///
/// # Errors
/// Where one is outside; the message names its image, of `image` values.
pub(super) fn pixels(
    path: &Path,
    what: &str,
    values: impl Iterator<Item = i64>,
    image: usize,
) -> Result<Vec<u8>> {
    let scale = |(i, value): (usize, i64)| match u8::try_from(value) {
        Ok(pixel) => Ok(pixel),
        Err(_) => {
            let reason = format!(
                "holds the whole number {value}, where pixels are from 0 to 255; store other scales as floats, which are \
                 left as they are"
            );
            Err(Error::record(path, format!("{what} {}", i / image), reason))
        }
    };
    values.enumerate().map(scale).collect()
}

/// Names of the tensors of images and labels. `#` stands for `train`, `val` or `test`.
const PAIRS: [(&str, &str); 13] = [
    ("x", "y"),
    ("X", "y"),
    ("images", "labels"),
    ("image", "label"),
    ("data", "targets"),
    ("data", "labels"),
    ("inputs", "targets"),
    ("x_#", "y_#"),
    ("X_#", "y_#"),
    ("#_images", "#_labels"),
    ("images_#", "labels_#"),
    ("#_x", "#_y"),
    ("#_data", "#_labels"),
];

/// The names of the images and labels of a file: those of a part where it is asked for, else the only ones, else the training
/// part's.
fn pair(file: &TensorFile, part: Option<Part>) -> Result<(String, String)> {
    let has = |part: Part| {
        let named = PAIRS.iter().filter(|(x, _)| x.contains('#'));
        let named = named.map(|(x, y)| (x.replace('#', part.name()), y.replace('#', part.name())));
        named.into_iter().find(|(x, y)| file.has(x) && file.has(y))
    };
    if let Some(part) = part {
        return has(part).ok_or_else(|| {
            let reason =
                format!("has no tensors `x_{0}` and `y_{0}`, but {1}", part.name(), file.names().join(", "));
            Error::data(file.path(), reason)
        });
    }
    let plain = PAIRS.iter().find(|(x, y)| file.has(x) && file.has(y));
    let plain = plain.map(|(x, y)| (x.to_string(), y.to_string()));
    Ok(plain.or_else(|| has(Part::Train)).unwrap_or(("x".into(), "y".into())))
}

/// Reads the images and labels of a safetensors file, with notes.
pub(super) fn from_tensors(file: &TensorFile, part: Option<Part>) -> Result<(Stored, Vec<String>)> {
    let path = file.path();
    let refuse = |tensor: &str, reason: String| Error::record(path, format!("tensor `{tensor}`"), reason);
    let (images, labels) = pair(file, part)?;
    let (images, labels) = (images.as_str(), labels.as_str());
    let sides = file.shape(images)?;
    let (shape, channels_last) = match *sides {
        [_, h, w, c] if channels_are_last(h, w, c) => (Shape::new(h, w, c), true),
        [_, c, h, w] => (Shape::new(h, w, c), false),
        [_, h, w] => (Shape::new(h, w, 1), true),
        [_, features] => (Shape::new(1, 1, features), false),
        _ => {
            let reason =
                format!("has shape {sides:?}, where [n, c, h, w], [n, h, w] or [n, features] was expected");
            return Err(refuse(images, reason));
        }
    };
    let n = sides[0];
    if n > 0 && shape.is_empty() {
        return Err(refuse(images, format!("has shape {sides:?}: images of no values")));
    }
    let y = Labels::read(file, labels, n)?;
    let mut notes = Vec::new();
    if channels_last && sides.len() == 4 {
        notes.push(format!("{images} {sides:?} is read as [n, h, w, c]"));
    }
    let x = match file.dtype(images)? {
        Dtype::U8 => Numbers::Pixels(file.stored(images)?),
        dtype @ (Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64) => {
            let values = file.f32(images)?;
            let features = sides.len() == 2;
            let like_pixels =
                || values.iter().all(|v| (0.0..=255.0).contains(v)) && values.iter().any(|&v| v > 127.0);
            if features && like_pixels() {
                notes.push(format!(
                    "{images} holds whole numbers of type {dtype:?} and shape [n, features], which are left as they are; store \
                     pixels as U8"
                ));
            }
            match features {
                true => Numbers::Floats(values),
                false => {
                    let values = values.iter().map(|&v| v as i64);
                    Numbers::Pixels(pixels(path, "sample", values, shape.len())?)
                }
            }
        }
        _ => Numbers::Floats(file.f32(images)?),
    };
    Ok((Stored { shape, x, y, channels_last }, notes))
}

/// Whether `[n, a, b, c]` has the channels last: 3 or 4 of them, or one in square images, and a and b are no numbers of
/// channels.
fn channels_are_last(a: usize, b: usize, c: usize) -> bool {
    let images = a >= 5 && b >= 5;
    images && (c == 3 || c == 4 || c == 1 && a == b)
}

impl Stored {
    /// The mean and std to apply: as given, whatever the values are, else the config's. Those of a config are for values
    /// from 0 to 1. Values outside that range that they could have produced are normalised already.
    pub fn normalisation(
        &self,
        given: &Normalise,
        config: &Normalise,
        notes: &mut Vec<String>,
    ) -> std::result::Result<Normalise, String> {
        let wanted = given.or(config);
        let none = Normalise::default();
        let Numbers::Floats(x) = &self.x else { return Ok(wanted) };
        if *given != none || *config == none {
            return Ok(wanted);
        }
        const ROUNDING: f32 = 1e-3;
        let least = x.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if least >= -ROUNDING && greatest <= 1.0 + ROUNDING {
            return Ok(wanted);
        }
        let (mean, std) = per_channel(&wanted, self.shape.c)?;
        let produced = |(i, value): (usize, &f32)| {
            let channel = self.channel(i % self.shape.len());
            let stored = value * std[channel] + mean[channel];
            (-0.01..=1.01).contains(&stored)
        };
        let range = format!("values from {least} to {greatest}");
        if x.iter().enumerate().all(produced) {
            notes.push(format!(
                "x holds {range}, which are normalised already; the config's mean and std are not applied again (--mean \
                 and --std are, if given)"
            ));
            return Ok(none);
        }
        if self.shape.positions() > 1 {
            return Err(format!(
                "x holds {range}, where the config's mean and std are for values from 0 to 1; scale x, or give --mean \
                 and --std (0 and 1 leave x as it is)"
            ));
        }
        notes.push(format!("x holds {range}, and is normalised by the config's mean and std"));
        Ok(wanted)
    }

    /// The channel of the value at a place in an image.
    fn channel(&self, at: usize) -> usize {
        if self.channels_last { at % self.shape.c } else { at / self.shape.positions() }
    }

    /// Whether the values are pixels.
    pub fn is_pixels(&self) -> bool {
        matches!(self.x, Numbers::Pixels(_))
    }

    /// Pixels, each image brought to another size; floats as they are.
    ///
    /// # Errors
    /// The image that is too small, and the reason.
    pub fn through(self, pipeline: &Pipeline) -> std::result::Result<Stored, (usize, String)> {
        let Shape { h, w, c } = self.shape;
        let Numbers::Pixels(x) = &self.x else { return Ok(self) };
        if *pipeline == Pipeline::default() {
            return Ok(self);
        }
        let one = |(i, image): (usize, &[u8])| {
            let at = |i: usize| image[if self.channels_last { i } else { i % c * h * w + i / c }];
            let picture = Picture { h, w, c, pixels: (0..image.len()).map(at).collect() };
            pipeline.apply(picture).map_err(|reason| (i, reason))
        };
        let images = x.par_chunks_exact(h * w * c).enumerate().map(one);
        let images = images.collect::<std::result::Result<Vec<Picture>, _>>()?;
        let shape = images.first().map_or(self.shape, |first| Shape::new(first.h, first.w, c));
        let x = Numbers::Pixels(images.into_iter().flat_map(|image| image.pixels).collect());
        Ok(Stored { shape, x, channels_last: true, ..self })
    }

    /// (value − mean) / std, with the channels last. Of pixels the numbers are in memory where they take no more than this many bytes
    /// ([`super::LoadOptions::memory`]) and 64 MiB; else the pixels are, a quarter of that, and an image becomes numbers when it is
    /// read.
    pub fn normalised(self, normalise: &Normalise, memory: usize) -> std::result::Result<Samples, String> {
        let c = self.shape.c;
        let normaliser = Normaliser::new(normalise, c)?;
        let (kind, shape) = (self.shape.into(), self.shape);
        let streamed =
            |y, source| Samples { kind, x: vec![], y, stream: Some(Arc::new(Stream::new(shape, source))) };
        let x = match self.x {
            Numbers::Pictures(pictures, ready) => {
                return Ok(streamed(self.y, Source::Pictures(pictures, ready, normaliser)));
            }
            Numbers::Pixels(x) => {
                let x = if self.channels_last { x } else { with_channels_last(x, shape) };
                if memory < usize::MAX && x.len() * size_of::<f32>() > memory.min(AS_NUMBERS) {
                    return Ok(streamed(self.y, Source::Pixels(x, normaliser)));
                }
                let mut out = vec![0.0; x.len()];
                normaliser.apply(&x, &mut out);
                out
            }
            Numbers::Floats(x) => {
                let mut x = if self.channels_last { x } else { with_channels_last(x, shape) };
                x.iter_mut().enumerate().for_each(|(i, value)| *value = normaliser.of(*value, i % c));
                x
            }
        };
        Ok(Samples { kind, x, y: self.y, stream: None })
    }
}

/// Images `[n, c, h, w]` as `[n, h, w, c]`, one after the other where they are.
fn with_channels_last<T: Copy + Send + Sync>(mut x: Vec<T>, shape: Shape) -> Vec<T> {
    let (c, positions) = (shape.c, shape.positions());
    if c > 1 && positions > 1 {
        x.par_chunks_exact_mut(c * positions).for_each_init(Vec::new, |planes, image| {
            planes.clear();
            planes.extend_from_slice(image);
            let place = |at: usize| at % c * positions + at / c;
            image.iter_mut().enumerate().for_each(|(at, value)| *value = planes[place(at)]);
        });
    }
    x
}
