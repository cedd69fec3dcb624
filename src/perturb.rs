//! Perturb: many noisy copies of the samples of a request, made as they are read (MATH.md, Eq. 6).
//!
//! Copy j of the sample with training index i is z + N(0, σ²) on the normalised input, keyed by (seed, i, j): the same
//! bits for any batch size, any order and any device.

use std::ops::Range;

use crate::data::Inputs;
use crate::net::Shape;
use crate::ops::perturb::Copies;
use crate::ops::philox::{Use, add_normals};

/// The noise on a request's inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation, in units of the normalised input.
    pub sigma: f32,
    /// The seed of its random numbers.
    pub seed: u64,
}

/// `copies` noisy copies of one sample, as inputs.
#[derive(Clone, Debug)]
pub struct Perturbed<'a> {
    /// `[h, w, c]`, normalised.
    pub image: &'a [f32],
    /// Its shape.
    pub shape: Shape,
    /// Its label.
    pub label: u32,
    /// Its index in the training data, which keys the noise.
    pub index: u32,
    /// How many copies.
    pub copies: usize,
    /// The noise.
    pub noise: Noise,
}

/// `copies` noisy copies of one sample.
pub fn perturb<'a>(
    image: &'a [f32],
    shape: Shape,
    label: u32,
    index: u32,
    copies: usize,
    noise: Noise,
) -> Perturbed<'a> {
    Perturbed { image, shape, label, index, copies, noise }
}

impl Inputs for Perturbed<'_> {
    fn len(&self) -> usize {
        self.copies
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        for (copy, x) in range.zip(x.chunks_exact_mut(self.shape.len())) {
            add_normals(
                x,
                self.image,
                self.noise.sigma,
                self.noise.seed,
                Use::Noise,
                self.index,
                copy as u32,
            );
        }
        y.fill(self.label);
    }

    fn copies(&self) -> Option<Copies<'_>> {
        let Noise { sigma, seed } = self.noise;
        Some(Copies { image: self.image, label: self.label, seed, index: self.index, sigma })
    }
}
