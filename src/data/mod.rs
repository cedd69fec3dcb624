//! Files to samples: labelled images for networks, columns for the dependence measure.

mod digits;
mod load;
mod spec;
pub mod table;
pub mod tensors;

use std::ops::Range;

pub use digits::digits;
pub use load::{Normalise, check_classes, files, load};
pub use spec::Spec;

use crate::ops::Shape;
use crate::ops::perturb::Copies;
use crate::{Error, Result};

/// A source of labelled inputs that is read in chunks, so that a thousand copies of an image need not exist at once.
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

    /// What they are made of where they are noisy copies of one image, input j being copy j: a GPU makes them itself.
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

/// Some samples of a set, in an order of their own.
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

/// Refuses labels that are no class; says which sample, the first of these being sample `first`.
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
