//! Perturb: many copies of the samples of a request that differ a little from them, made as they are read (MATH.md, Eq. 6).
//!
//! Copy j of the image with training index i is z + N(0, σ²) on the normalised input, keyed by (seed, i, j). In copy j of
//! a text, some attended tokens are replaced by random ordinary ones, keyed likewise. The bits are the same for any batch
//! size, any order and any device.

use std::ops::Range;

use crate::data::{InputKind, Inputs, Samples};
use crate::error::{Error, Result};
use crate::net::Shape;
use crate::ops::perturb::{Copies, Original};
use crate::ops::tokens::Replacement;

/// The standard deviation of an image's noise by default.
pub const SIGMA: f32 = 0.1;
/// How many tokens of a text are replaced by default.
pub const REPLACE: u32 = 1;

/// How copies differ from their sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Of images, the standard deviation, in units of the normalised input.
    pub sigma: f32,
    /// Of texts, how many tokens are replaced.
    pub replace: u32,
    /// The seed of what is random.
    pub seed: u64,
}

/// Refuses an option that is for the other kind of input.
///
/// # Errors
/// Where σ is given for texts, or a number of tokens for images.
pub fn check_options(kind: InputKind, sigma: Option<f32>, replace: Option<u32>) -> Result<()> {
    match kind {
        InputKind::Text { .. } if sigma.is_some() => Err(Error::config(
            "--sigma is for images; no noise is added to texts, of whose copies --replace tokens are replaced",
        )),
        InputKind::Image(_) if replace.is_some() => {
            Err(Error::config("--replace is for texts; copies of images have noise of deviation --sigma"))
        }
        InputKind::Text { .. } | InputKind::Image(_) => Ok(()),
    }
}

/// Perturbed copies of one sample, as inputs.
#[derive(Clone, Debug)]
pub struct Perturbed<'a> {
    /// The sample, and how its copies differ from it.
    of: Copies<'a>,
    /// The shape of one.
    shape: Shape,
    /// How many copies.
    copies: usize,
}

/// `copies` perturbed copies of sample `i`; `ordinary` are the token ids that stand for words ([`crate::net::Network::ordinary`]).
///
/// # Errors
/// Where tokens of a text are to be replaced, and fewer than two ids stand for words; where an image cannot be read any more.
pub fn perturb<'a>(
    samples: &'a Samples,
    i: usize,
    ordinary: &Range<u32>,
    copies: usize,
    noise: Noise,
) -> Result<Perturbed<'a>> {
    let Noise { sigma, replace, seed } = noise;
    let original = match samples.text(i) {
        None => Original::Image { image: samples.image(i)?, sigma, seed },
        Some(tokens) => {
            let replacement = Replacement { count: replace, ordinary: ordinary.clone(), seed };
            replacement.check()?;
            Original::Text { tokens, slots: tokens.slots(), replacement }
        }
    };
    let of = Copies { original, labels: samples.y.of(i), index: i as u32 };
    Ok(Perturbed { of, shape: samples.shape(), copies })
}

/// `copies` perturbed copies of each sample of a request. What is random in those of sample i is keyed by i, its index in
/// `samples`.
///
/// # Errors
/// As [`perturb`].
pub fn perturb_request<'a>(
    samples: &'a Samples,
    request: &[usize],
    ordinary: &Range<u32>,
    copies: usize,
    noise: Noise,
) -> Result<Vec<Perturbed<'a>>> {
    request.iter().map(|&i| perturb(samples, i, ordinary, copies, noise)).collect()
}

impl Inputs for Perturbed<'_> {
    fn label_width(&self) -> usize {
        self.of.labels.len()
    }

    fn len(&self) -> usize {
        self.copies
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()> {
        for (copy, x) in range.zip(x.chunks_exact_mut(self.shape.len())) {
            self.of.fill(x, copy as u32);
        }
        y.chunks_exact_mut(self.of.labels.len().max(1)).for_each(|y| y.copy_from_slice(self.of.labels));
        Ok(())
    }

    fn copies(&self) -> Option<&Copies<'_>> {
        Some(&self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;
    use crate::device::Device;
    use crate::ops::tokens::replace_tokens;

    #[test]
    fn copies_of_a_text_are_those_of_the_operation() {
        let words = [1, 20, 21, 22, 23, 2, 0, 1, 1, 1, 1, 1, 1, 0];
        let x: Vec<f32> = [[0; 14], words].concat().into_iter().map(f32::from_bits).collect();
        let y = Labels::Multi { labels: 3, rows: vec![0, 0, 0, 1, 0, 1] };
        let samples = Samples { kind: InputKind::Text { tokens: 7 }, x, y, stream: None };
        let noise = Noise { sigma: 0.1, replace: 2, seed: 9 };
        let text = perturb(&samples, 1, &(20..40), 10, noise).unwrap();
        let (mut x, mut y, mut want) = ([f32::NAN; 42], [9; 9], [0; 42]);
        text.fill(&mut x, &mut y, 5..8).unwrap();
        let (tokens, replacement) =
            (samples.text(1).unwrap(), Replacement { count: 2, ordinary: 20..40, seed: 9 });
        replace_tokens(&Device::cpu().unwrap(), &mut want, tokens, &replacement, 1, 5).unwrap();
        assert_eq!((x.map(f32::to_bits), y), (want, [1, 0, 1, 1, 0, 1, 1, 0, 1]));
        assert_eq!((text.len(), text.shape()), (10, Shape::new(2, 7, 1)));
        assert!(perturb(&samples, 1, &(20..21), 10, noise).is_err());
    }

    #[test]
    fn options_for_the_other_kind_of_input_are_refused() {
        let (text, image) = (InputKind::Text { tokens: 3 }, InputKind::Image(Shape::new(1, 1, 2)));
        let refused = |kind, sigma, replace| {
            check_options(kind, sigma, replace).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!([refused(text, None, Some(2)), refused(image, Some(0.2), None)], ["", ""]);
        assert!(refused(text, Some(0.2), None).contains("--sigma is for images"));
        assert!(refused(image, None, Some(2)).contains("--replace is for texts"));
    }
}
