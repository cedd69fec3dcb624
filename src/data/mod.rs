//! Files to samples: labelled images and texts for networks, columns for the dependence measure.

mod chosen;
mod digits;
mod encoding;
pub mod file;
pub(crate) mod foreign;
mod idx;
mod labels;
mod load;
mod names;
mod pixels;
mod spec;
pub mod table;
pub mod tensors;
mod text;
pub mod tokenizer;
mod view;

use std::ops::Range;

pub use chosen::{Shown, listing, shown};
pub use digits::digits;
pub use labels::{Labels, check_words};
pub use load::{CifarLabels, LoadOptions, Loaded, check_labels, class_count, files, load, load_with};
pub use names::Names;
pub use pixels::Normalise;
pub use spec::{Spec, choose};
pub use text::check_ids;
pub use view::{Elements, View, extent};

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
    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>);

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
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// What one input is.
    pub kind: InputKind,
    /// `[n, h, w, c]`, or `[n, 2, t]`.
    pub x: Vec<f32>,
    /// `[n]`.
    pub y: Labels,
}

impl Samples {
    /// The shape that one input has in memory.
    pub fn shape(&self) -> Shape {
        self.kind.shape()
    }

    /// Image or text `i`.
    pub fn image(&self, i: usize) -> &[f32] {
        let len = self.shape().len();
        &self.x[i * len..(i + 1) * len]
    }

    /// The token ids of text `i` and their mask; none of images.
    pub fn text(&self, i: usize) -> Option<Tokens<'_>> {
        match self.kind {
            InputKind::Image(_) => None,
            InputKind::Text { tokens } => {
                let (ids, mask) = bytemuck::cast_slice(self.image(i)).split_at(tokens);
                Some(Tokens { ids, mask })
            }
        }
    }

    /// A copy of inputs `range`.
    pub fn part(&self, range: Range<usize>) -> Samples {
        let len = self.shape().len();
        let indices: Vec<usize> = range.clone().collect();
        Samples {
            kind: self.kind,
            x: self.x[range.start * len..range.end * len].to_vec(),
            y: self.y.subset(&indices),
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

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        let len = self.shape().len();
        x.copy_from_slice(&self.x[range.start * len..range.end * len]);
        y.copy_from_slice(self.y.part(range));
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

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        let len = self.samples.shape().len();
        let to = x.chunks_exact_mut(len).zip(y.chunks_exact_mut(self.label_width()));
        for ((image, labels), &i) in to.zip(&self.indices[range]) {
            image.copy_from_slice(self.samples.image(i));
            labels.copy_from_slice(self.samples.y.of(i));
        }
    }
}
