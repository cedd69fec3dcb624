//! Perturb: many noisy copies of the samples of a request, made as they are read (MATH.md, Eq. 6).
//!
//! Copy j of the sample with training index i is z + N(0, σ²) on the normalised input, keyed by (seed, i, j): the same
//! bits for any batch size, any order and any device.

use std::ops::Range;

use crate::data::{InputKind, Inputs, Samples};
use crate::net::Shape;
use crate::ops::perturb::Copies;
use crate::ops::philox::{Use, add_normals};
use crate::ops::tokens::{Replacement, Tokens, replace};

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
    /// Its labels, `[width]`.
    pub labels: &'a [u32],
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
    labels: &'a [u32],
    index: u32,
    copies: usize,
    noise: Noise,
) -> Perturbed<'a> {
    Perturbed { image, shape, labels, index, copies, noise }
}

/// `copies` noisy copies of each sample of a request. What is random in those of sample i is keyed by i, its index in
/// `samples`.
pub fn perturb_request<'a>(
    samples: &'a Samples,
    request: &[usize],
    copies: usize,
    noise: Noise,
) -> Vec<Perturbed<'a>> {
    let of = |&i: &usize| perturb(samples.image(i), samples.shape, samples.y.of(i), i as u32, copies, noise);
    request.iter().map(of).collect()
}

impl Inputs for Perturbed<'_> {
    fn label_width(&self) -> usize {
        self.labels.len()
    }

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
        y.chunks_exact_mut(self.labels.len().max(1)).for_each(|y| y.copy_from_slice(self.labels));
    }

    fn copies(&self) -> Option<Copies<'_>> {
        let Noise { sigma, seed } = self.noise;
        Some(Copies { image: self.image, labels: self.labels, seed, index: self.index, sigma })
    }
}

/// Copies of one text, as inputs: in each, some tokens are replaced, keyed like the noise on an image.
#[derive(Clone, Debug)]
pub struct PerturbedText<'a> {
    /// Token ids and mask, `[t]` each.
    pub tokens: Tokens<'a>,
    /// Its labels, `[width]`.
    pub labels: &'a [u32],
    /// Its index in the training data, which keys the replacement.
    pub index: u32,
    /// How many copies.
    pub copies: usize,
    /// What is replaced by what.
    pub replacement: &'a Replacement,
}

impl Inputs for PerturbedText<'_> {
    fn label_width(&self) -> usize {
        self.labels.len()
    }

    fn len(&self) -> usize {
        self.copies
    }

    fn shape(&self) -> Shape {
        InputKind::Text { tokens: self.tokens.ids.len() }.shape()
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) {
        let slots = self.tokens.slots();
        let copies = bytemuck::cast_slice_mut(x).chunks_exact_mut(self.shape().len());
        for (copy, out) in range.zip(copies) {
            replace(out, self.tokens, &slots, self.replacement, self.index, copy as u32);
        }
        y.chunks_exact_mut(self.labels.len().max(1)).for_each(|y| y.copy_from_slice(self.labels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::ops::tokens::replace_tokens;

    #[test]
    fn copies_of_a_text_are_those_of_the_operation() {
        let (ids, mask) = ([1, 20, 21, 22, 23, 2, 0], [1, 1, 1, 1, 1, 1, 0]);
        let (tokens, replacement) =
            (Tokens { ids: &ids, mask: &mask }, Replacement { count: 2, ordinary: 20..40, seed: 9 });
        let text =
            PerturbedText { tokens, labels: &[1, 0, 1], index: 4, copies: 10, replacement: &replacement };
        let (mut x, mut y, mut want) = ([f32::NAN; 42], [9; 9], [0; 42]);
        text.fill(&mut x, &mut y, 5..8);
        replace_tokens(&Device::cpu().unwrap(), &mut want, tokens, &replacement, 4, 5).unwrap();
        assert_eq!((x.map(f32::to_bits), y), (want, [1, 0, 1, 1, 0, 1, 1, 0, 1]));
        assert_eq!((text.len(), text.shape()), (10, Shape::new(2, 7, 1)));
    }
}
