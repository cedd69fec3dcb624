//! Files to samples: labelled images and texts for networks, columns for the dependence measure.

mod augment;
mod chosen;
mod cifar;
mod classes;
#[cfg(feature = "parquet")]
mod columnar;
#[cfg(feature = "images")]
mod decode;
mod digits;
mod encoding;
pub mod file;
mod folder;
pub(crate) mod foreign;
mod format;
mod idx;
mod labels;
mod listing;
mod load;
mod mat;
mod names;
mod normalise;
mod npz;
mod options;
mod part;
mod pickled;
mod picture;
mod pictures;
mod pipeline;
mod pixels;
mod png;
mod records;
mod resize;
#[cfg(feature = "images")]
mod shards;
mod spec;
mod stl;
mod stream;
pub mod table;
pub mod tensors;
mod text;
mod text_options;
mod texts;
mod thumbnail;
pub mod tokenizer;
mod unpack;
mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub use augment::Augment;
pub(crate) use augment::Augmented;
pub use chosen::{Shown, first_shown, listing, shown};
pub use digits::digits;
pub use labels::{Labels, check_words};
pub use load::{Loaded, check_labels, class_count, encode, files, load, load_with};
pub use names::Names;
pub use normalise::Normalise;
pub use options::{CifarLabels, Expected, LoadOptions, MEMORY, Preprocess};
pub use pipeline::{Crop, Pipeline, Resize, Steps};
pub use png::write_png;
pub use resize::Interpolation;
pub(crate) use spec::beyond;
pub use spec::{Spec, choose};
pub use stream::Stream;
pub use text::{check_ids, pad_alike};
pub use text_options::{TextOptions, TokenizerSource};
pub use thumbnail::{Thumbnails, map_png, thumbnails};
pub use view::{Elements, View, extent};

use rayon::prelude::*;
use stream::Source;

use crate::error::Result;
pub use crate::ops::InputKind;
use crate::ops::Shape;
use crate::ops::perturb::Copies;
use crate::ops::tokens::Tokens;

/// A source of labelled inputs, read in chunks, so that a thousand copies of an image need not be in memory at once.
pub trait Inputs: Sync {
    /// The number of inputs.
    fn len(&self) -> usize;

    /// The shape of one input.
    fn shape(&self) -> Shape;

    /// Words of label per input: see [`Labels::width`].
    fn label_width(&self) -> usize;

    /// Writes inputs `range` to `x` `[range.len(), h, w, c]` (as [`Samples::x`]) and their labels to `y` `[range.len(),
    /// width]`.
    ///
    /// # Errors
    /// Where an input cannot be read any more.
    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()>;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the inputs are perturbed copies of one image or text, their description (input j is copy j): a GPU generates
    /// them itself.
    fn copies(&self) -> Option<&Copies<'_>> {
        None
    }
}

/// Labelled images in memory, normalised, NHWC; or labelled texts, t token ids and t words of mask each, which is 1 where a
/// token is attended. A network reads its inputs as f32, so these words stand there as bits ([`f32::from_bits`]), which
/// copies leave as they are.
#[derive(Clone, Debug)]
pub struct Samples {
    /// What one input is.
    pub kind: InputKind,
    /// `[n, h, w, c]`, or `[n, 2, t]`.
    pub x: Vec<f32>,
    /// `[n]`.
    pub y: Labels,
    /// Where images are made when they are read, as of a set that is larger than memory: `x` is then empty.
    pub stream: Option<Arc<Stream>>,
}

impl PartialEq for Samples {
    /// Equal values in memory; streams are equal where they are one.
    fn eq(&self, other: &Samples) -> bool {
        let same = match (&self.stream, &other.stream) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same && self.kind == other.kind && self.x == other.x && self.y == other.y
    }
}

impl Samples {
    /// The shape that one input has in memory.
    pub fn shape(&self) -> Shape {
        self.kind.shape()
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.x[..]) + self.stream.as_ref().map_or(0, |stream| stream.bytes())
    }

    /// Image or text `i`.
    ///
    /// # Errors
    /// Where its file cannot be read any more.
    pub fn image(&self, i: usize) -> Result<Cow<'_, [f32]>> {
        let len = self.shape().len();
        match &self.stream {
            None => Ok(Cow::Borrowed(&self.x[i * len..(i + 1) * len])),
            Some(stream) => {
                let mut image = vec![0.0; len];
                stream.image(i, &mut image)?;
                Ok(Cow::Owned(image))
            }
        }
    }

    /// Calls `take` with every image or text in order; those that are made when they are read are made in parallel.
    ///
    /// # Errors
    /// As [`Samples::image`].
    pub fn each(&self, mut take: impl FnMut(&[f32])) -> Result<()> {
        const AT_ONCE: usize = 256;
        let (n, len) = (self.y.len(), self.shape().len());
        let Some(stream) = &self.stream else {
            self.x.chunks_exact(len.max(1)).for_each(take);
            return Ok(());
        };
        let mut x = vec![0.0; AT_ONCE.min(n) * len];
        for first in (0..n).step_by(AT_ONCE) {
            let range = first..n.min(first + AT_ONCE);
            let x = &mut x[..range.len() * len];
            stream.fill(x, range)?;
            x.chunks_exact(len.max(1)).for_each(&mut take);
        }
        Ok(())
    }

    /// A copy in memory of the samples at these indices, in this order.
    ///
    /// # Errors
    /// As [`Samples::image`].
    pub fn copy(&self, indices: &[usize]) -> Result<Samples> {
        let mut x = Vec::with_capacity(indices.len() * self.shape().len());
        for &i in indices {
            x.extend_from_slice(&self.image(i)?);
        }
        Ok(Samples { kind: self.kind, x, y: self.y.subset(indices), stream: None })
    }

    /// [`Samples::copy`] of the inputs of a range.
    ///
    /// # Errors
    /// As there.
    pub fn part(&self, range: Range<usize>) -> Result<Samples> {
        self.copy(&range.collect::<Vec<_>>())
    }

    /// Appends further samples of the same kind.
    ///
    /// # Errors
    /// As [`Labels::extend`].
    pub fn extend(&mut self, more: Samples) -> Result<()> {
        let n = self.y.len();
        self.y.extend(&more.y)?;
        if self.stream.is_none() && more.stream.is_none() {
            self.x.extend(more.x);
            return Ok(());
        }
        let shape = self.shape();
        let of = |x: Vec<f32>, stream: Option<Arc<Stream>>| {
            stream.unwrap_or_else(|| Arc::new(Stream::new(shape, Source::Values(x))))
        };
        let first = of(std::mem::take(&mut self.x), self.stream.take());
        let both = Source::Both(first, n, of(more.x, more.stream));
        self.stream = Some(Arc::new(Stream::new(shape, both)));
        Ok(())
    }

    /// The token ids of text `i` and their mask; none of images.
    pub fn text(&self, i: usize) -> Option<Tokens<'_>> {
        match self.kind {
            InputKind::Image(_) => None,
            InputKind::Text { tokens } => {
                let row = &self.x[2 * tokens * i..2 * tokens * (i + 1)]; // texts are in memory
                let (ids, mask) = bytemuck::cast_slice(row).split_at(tokens);
                Some(Tokens { ids, mask })
            }
        }
    }

    /// The samples at these indices, in this order, without copying them.
    pub fn subset<'a>(&'a self, indices: &'a [usize]) -> Subset<'a> {
        Subset { samples: self, indices }
    }
}

impl Inputs for Samples {
    fn label_width(&self) -> usize {
        self.y.width()
    }

    fn len(&self) -> usize {
        self.y.len()
    }

    fn shape(&self) -> Shape {
        self.kind.shape()
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()> {
        let len = self.shape().len();
        y.copy_from_slice(self.y.part(range.clone()));
        match &self.stream {
            None => x.copy_from_slice(&self.x[range.start * len..range.end * len]),
            Some(stream) => stream.fill(x, range)?,
        }
        Ok(())
    }
}

/// Some samples of a set, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Subset<'a> {
    samples: &'a Samples,
    indices: &'a [usize],
}

impl Inputs for Subset<'_> {
    fn label_width(&self) -> usize {
        self.samples.y.width()
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> Shape {
        self.samples.shape()
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()> {
        let len = self.samples.shape().len();
        let indices = &self.indices[range];
        let labels = y.chunks_exact_mut(self.label_width()).zip(indices);
        labels.for_each(|(labels, &i)| labels.copy_from_slice(self.samples.y.of(i)));
        if let Some(stream) = &self.samples.stream {
            return x.par_chunks_exact_mut(len).zip(indices).try_for_each(|(x, &i)| stream.image(i, x));
        }
        for (image, &i) in x.chunks_exact_mut(len).zip(indices) {
            image.copy_from_slice(&self.samples.x[i * len..(i + 1) * len]);
        }
        Ok(())
    }
}
