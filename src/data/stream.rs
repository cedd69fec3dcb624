//! Images that are made when they are read, so that a set larger than memory is one: pixels become numbers then, and
//! pictures are decoded then.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::normalise::Normaliser;
use super::pictures::{Pictures, Ready};
use crate::error::Result;
use crate::ops::Shape;

/// Where images are made from.
pub(super) enum Source {
    /// Values that are ready, `[n, h, w, c]`.
    Values(Vec<f32>),
    /// Pixels, `[n, h, w, c]`.
    Pixels(Vec<u8>, Normaliser),
    /// Pictures, in files or within larger ones.
    Pictures(Box<Pictures>, Ready, Normaliser),
    /// One after the other; the first has this many images.
    Both(Arc<Stream>, usize, Arc<Stream>),
}

/// Images that are made when they are read.
pub struct Stream {
    shape: Shape,
    source: Source,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Stream").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(shape: Shape, source: Source) -> Stream {
        Stream { shape, source }
    }

    /// Bytes of memory that it takes; pictures are in their files.
    pub(super) fn bytes(&self) -> usize {
        match &self.source {
            Source::Values(values) => size_of_val(&values[..]),
            Source::Pixels(pixels, _) => pixels.len(),
            Source::Pictures(..) => 0,
            Source::Both(first, _, second) => first.bytes() + second.bytes(),
        }
    }

    /// Writes image `i` to `x` `[h, w, c]`.
    ///
    /// # Errors
    /// Where its file cannot be read any more; the message names it.
    pub(super) fn image(&self, i: usize, x: &mut [f32]) -> Result<()> {
        let place = |i: usize| i * self.shape.len()..(i + 1) * self.shape.len();
        match &self.source {
            Source::Values(values) => x.copy_from_slice(&values[place(i)]),
            Source::Pixels(pixels, normaliser) => normaliser.apply(&pixels[place(i)], x),
            Source::Pictures(pictures, ready, normaliser) => {
                normaliser.apply(&pictures.pixels(i, ready)?, x);
            }
            Source::Both(first, n, _) if i < *n => first.image(i, x)?,
            Source::Both(_, n, second) => second.image(i - n, x)?,
        }
        Ok(())
    }

    /// Writes the images of a range to `x` `[range.len(), h, w, c]`.
    ///
    /// # Errors
    /// As [`Stream::image`].
    pub(super) fn fill(&self, x: &mut [f32], range: Range<usize>) -> Result<()> {
        x.par_chunks_exact_mut(self.shape.len().max(1)).zip(range).try_for_each(|(x, i)| self.image(i, x))
    }
}
