//! Random shifts and mirror images of a mini-batch, as networks for CIFAR are trained on them (He et al. 2016, section 4.2).

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::normalise::{Normalise, per_channel};
use super::{InputKind, Inputs, Samples};
use crate::error::{Error, Result};
use crate::ops::Shape;
use crate::ops::philox::{Use, below, words};

/// What is changed at random in an image each time that it is trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// The image is shifted by at most this many pixels up or down, and as many to a side: a crop, as large as the image, of
    /// the image with a black margin that wide.
    pub shift: usize,
    /// Whether the image is mirrored, left to right, with probability 1/2.
    pub flip: bool,
    /// Black per channel, as the network reads it; 0 where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub black: Vec<f32>,
}

impl Augment {
    /// Shifts and mirrors for these samples, which are normalised in this way.
    ///
    /// # Errors
    /// Where they are texts, or the normalisation is of other channels.
    pub fn of(samples: &Samples, shift: usize, flip: bool, normalise: &Normalise) -> Result<Augment> {
        let mut augment = Augment { shift, flip, black: vec![] };
        if augment.is_nothing() {
            return Ok(augment);
        }
        let InputKind::Image(shape) = samples.kind else {
            return Err(Error::config("--shift and --flip are for images, and the data are texts"));
        };
        let (mean, std) = per_channel(normalise, shape.c).map_err(Error::Config)?;
        augment.black = mean.iter().zip(&std).map(|(mean, std)| -mean / std).collect();
        Ok(augment)
    }

    /// Whether every image stays as it is.
    pub fn is_nothing(&self) -> bool {
        self.shift == 0 && !self.flip
    }

    /// The image `to` `[h, w, c]` of `from`, by random words.
    fn change(&self, to: &mut [f32], from: &[f32], shape: Shape, words: impl Fn(u32) -> [u32; 4]) {
        let Shape { h, w, c } = shape;
        let ([y, y_low, x, x_low], [coin, ..]) = (words(0), words(1));
        let place = |high: u32, low: u32| below(high, low, 2 * self.shift as u32 + 1) as usize;
        let (down, right, mirrored) = (place(y, y_low), place(x, x_low), self.flip && coin & 1 == 1);
        for (row, line) in to.chunks_exact_mut(w * c).enumerate() {
            for (column, pixel) in line.chunks_exact_mut(c).enumerate() {
                let column = if mirrored { w - 1 - column } else { column };
                // In the image with its margin; a place in the margin is beyond the image.
                let (y, x) =
                    ((row + down).wrapping_sub(self.shift), (column + right).wrapping_sub(self.shift));
                match y < h && x < w {
                    true => pixel.copy_from_slice(&from[(y * w + x) * c..][..c]),
                    false if self.black.is_empty() => pixel.fill(0.0),
                    false => pixel.copy_from_slice(&self.black),
                }
            }
        }
    }
}

/// A mini-batch whose images are changed at random: by the seed, the epoch, and the index of each in the set.
pub(crate) struct Augmented<'a> {
    pub batch: &'a dyn Inputs,
    pub augment: &'a Augment,
    /// The index of each input of the batch.
    pub indices: &'a [usize],
    pub seed: u64,
    pub epoch: u32,
}

impl Inputs for Augmented<'_> {
    fn len(&self) -> usize {
        self.batch.len()
    }

    fn shape(&self) -> Shape {
        self.batch.shape()
    }

    fn label_width(&self) -> usize {
        self.batch.label_width()
    }

    fn fill(&self, x: &mut [f32], y: &mut [u32], range: Range<usize>) -> Result<()> {
        let shape = self.shape();
        let mut plain = vec![0.0; x.len()];
        self.batch.fill(&mut plain, y, range.clone())?;
        let images = x.par_chunks_exact_mut(shape.len()).zip(plain.par_chunks_exact(shape.len()));
        images.zip(&self.indices[range]).for_each(|((to, from), &index)| {
            let drawn = |block| words(self.seed, Use::Augment, index as u32, self.epoch, block);
            self.augment.change(to, from, shape, drawn);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Labels;

    fn samples(n: usize, shape: Shape) -> Samples {
        let x = (0..n * shape.len()).map(|i| i as f32 + 1.0).collect();
        let y = Labels::from((0..n as u32).collect::<Vec<_>>());
        Samples { kind: shape.into(), x, y, stream: None }
    }

    fn filled(batch: &dyn Inputs, range: Range<usize>) -> Vec<f32> {
        let mut x = vec![f32::NAN; range.len() * batch.shape().len()];
        batch.fill(&mut x, &mut vec![0; range.len()], range).unwrap();
        x
    }

    /// Every image is one of those that shifts and mirrors make of the original, all of which occur.
    #[test]
    fn images_are_shifted_and_mirrored_and_nothing_else() {
        let shape = Shape::new(3, 4, 2);
        let normalise = Normalise { mean: Some(vec![0.5, 0.25]), std: Some(vec![0.5, 0.125]) };
        let all = samples(400, shape);
        let augment = Augment::of(&all, 1, true, &normalise).unwrap();
        assert_eq!(augment.black, [-1.0, -2.0]);
        let indices: Vec<usize> = (0..400).collect();
        let batch = all.subset(&indices);
        let of = |epoch| Augmented { batch: &batch, augment: &augment, indices: &indices, seed: 7, epoch };
        let x = filled(&of(1), 0..400);
        assert_eq!([filled(&of(1), 0..150), filled(&of(1), 150..400)].concat(), x);
        assert_ne!(filled(&of(2), 0..400), x);
        let mut seen = std::collections::BTreeSet::new();
        for (image, from) in x.chunks_exact(24).zip(all.x.chunks_exact(24)) {
            let made = |down: i64, right: i64, mirrored: bool| {
                let mut pixels = vec![];
                for row in 0..3 {
                    for column in 0..4 {
                        let (y, x) = (row + down, if mirrored { 3 - column } else { column } + right);
                        match (0..3).contains(&y) && (0..4).contains(&x) {
                            true => pixels.extend(&from[(8 * y + 2 * x) as usize..][..2]),
                            false => pixels.extend([-1.0, -2.0]),
                        }
                    }
                }
                pixels
            };
            let forms = (-1..2).flat_map(|down| (-1..2).map(move |right| (down, right)));
            let forms: Vec<_> = forms.flat_map(|(d, r)| [(d, r, false), (d, r, true)]).collect();
            let found: Vec<_> = forms.iter().filter(|&&(d, r, m)| made(d, r, m) == image).collect();
            assert_eq!(found.len(), 1, "{image:?}");
            seen.insert(*found[0]);
        }
        assert_eq!(seen.len(), 18);
    }

    #[test]
    fn what_is_not_asked_for_changes_nothing_and_texts_are_refused() {
        let all = samples(5, Shape::new(2, 2, 1));
        let indices = [4, 0, 2];
        let batch = all.subset(&indices);
        let augment = Augment::of(&all, 0, false, &Normalise::default()).unwrap();
        assert!(augment.is_nothing());
        let same = Augmented { batch: &batch, augment: &augment, indices: &indices, seed: 1, epoch: 1 };
        assert_eq!(filled(&same, 0..3), filled(&batch, 0..3));
        let kind = InputKind::Text { tokens: 2 };
        let texts = Samples { kind, x: vec![0.0; 4], y: Labels::from(vec![0]), stream: None };
        let refused = Augment::of(&texts, 4, false, &Normalise::default()).unwrap_err().to_string();
        assert!(refused.contains("--shift"), "{refused}");
    }
}
