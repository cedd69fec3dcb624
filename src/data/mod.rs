//! Files to samples: labelled images for networks, columns for the dependence measure.

mod digits;
mod encoding;
mod idx;
mod labels;
mod load;
mod pixels;
mod spec;
pub mod table;
pub mod tensors;
mod text;

use std::ops::Range;

pub use digits::digits;
pub use labels::{Labels, check_words};
pub use load::{CifarLabels, LoadOptions, Loaded, check_classes, class_count, files, load, load_with};
pub use pixels::Normalise;
pub use spec::{Spec, choose};
pub use text::{InputKind, Text, read_text};

use crate::ops::Shape;
use crate::ops::perturb::Copies;
use crate::{Error, Result};

/// A source of labelled inputs, read in chunks, so that a thousand copies of an image need not be in memory at once.
pub trait Inputs: Sync {
    /// The number of inputs.
    fn len(&self) -> usize;

    /// The shape of one input.
    fn shape(&self) -> Shape;

    /// Writes inputs `range` to `x` `[range.len(), h, w, c]` (normalised, NHWC) and their labels to `y`.
    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>);

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the inputs are noisy copies of one image, their description (input j is copy j): a GPU generates them
    /// itself.
    fn copies(&self) -> Option<Copies<'_>> {
        None
    }
}

/// Labelled images in memory, normalised, NHWC.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// The shape of one image.
    pub shape: Shape,
    /// `[n, h, w, c]`.
    pub x: Vec<f32>,
    /// `[n]`.
    pub y: Vec<u32>,
}

impl Samples {
    /// Image `i`.
    pub fn image(&self, i: usize) -> &[f32] {
        &self.x[i * self.shape.len()..(i + 1) * self.shape.len()]
    }

    /// The samples at these indices, in this order, without copying them.
    pub fn subset<'a>(&'a self, indices: &'a [usize]) -> Subset<'a> {
        Subset { samples: self, indices }
    }
}

impl Inputs for Samples {
    fn len(&self) -> usize {
        self.y.len()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        x.copy_from_slice(&self.x[range.start * self.shape.len()..range.end * self.shape.len()]);
        y.copy_from_slice(&self.y[range]);
    }
}

/// Some samples of a set, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Subset<'a> {
    samples: &'a Samples,
    indices: &'a [usize],
}

impl Inputs for Subset<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> Shape {
        self.samples.shape
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        let len = self.samples.shape.len();
        for ((image, label), &i) in x.chunks_exact_mut(len).zip(y).zip(&self.indices[range]) {
            image.copy_from_slice(self.samples.image(i));
            *label = self.samples.y[i];
        }
    }
}

/// Refuses labels that are not a class; the error names the sample, where the first label is that of sample `first`.
///
/// # Errors
/// Where a label is not below `classes`.
pub fn check_labels(labels: &[u32], first: usize, classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(i) => Err(Error::config(format!(
            "sample {} has label {}, but the model has {classes} classes",
            first + i,
            labels[i]
        ))),
        None => Ok(()),
    }
}
