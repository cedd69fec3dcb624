//! Rounding at random to the type of a model's files: a value between two neighbours of the type becomes either of them, the nearer
//! one the more often, so that it is right on average. Where a step changes a value by less than half the distance of its
//! neighbours, rounding to the nearest one loses it; at random a part of such changes stays (Gupta et al., ICML 2015).

use safetensors::Dtype;

use super::Checkpoint;
use crate::error::Result;
use crate::names::names;
use crate::net::Network;
use crate::ops::philox::{Use, words};

/// How new values become those of the model's files, where these have 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest number of the type.
    Nearest,
    /// At random to one of the two numbers beside a value, so that it is right on average ([`Checkpoint::round_at_random`]).
    Stochastic,
}

names!(Rounding {
    Nearest = "nearest": "to the nearest number of the type; a change of less than half a step is lost",
    Stochastic = "stochastic": "at random to one of the two numbers beside a value, so that it is right on average",
});

/// What was rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounded {
    /// Values that had changed, of tensors whose type is narrower than f32.
    pub changed: usize,
    /// Of these, those that rounding gave their old value again.
    pub unchanged: usize,
}

impl Checkpoint {
    /// Rounds the values of `after` that differ from those of `before` to the type that their tensor has in the files, at random
    /// by `seed`. f32 and f64 stay as they are.
    ///
    /// # Errors
    /// Where a tensor is not in the files.
    pub fn round_at_random(&self, before: &Network, after: &mut Network, seed: u64) -> Result<Rounded> {
        let mut rounded = Rounded::default();
        for (number, (old, new)) in before.params.iter().zip(&mut after.params).enumerate() {
            let Some(place) = self.place.get(&old.name) else { continue };
            let Some(grid) = Grid::of(self.files[place.file].dtype(&place.stored)?) else { continue };
            for (i, (&old, new)) in old.value.iter().zip(new.value.iter_mut()).enumerate() {
                if old.to_bits() == new.to_bits() {
                    continue;
                }
                let word = words(seed, Use::Rounding, number as u32, 0, i as u32)[0];
                *new = grid.round(*new, word);
                rounded.changed += 1;
                rounded.unchanged += usize::from(*new == old);
            }
        }
        Ok(rounded)
    }
}

/// The numbers of a type that f32 can hold, too.
#[derive(Clone, Copy)]
enum Grid {
    Bf16,
    F16,
}

impl Grid {
    fn of(dtype: Dtype) -> Option<Grid> {
        match dtype {
            Dtype::BF16 => Some(Grid::Bf16),
            Dtype::F16 => Some(Grid::F16),
            _ => None,
        }
    }

    /// The number of the type that is nearest to a value.
    fn nearest(self, value: f32) -> f32 {
        match self {
            Grid::Bf16 => half::bf16::from_f32(value).to_f32(),
            Grid::F16 => half::f16::from_f32(value).to_f32(),
        }
    }

    /// The neighbour of a number of the type, on the side of larger magnitudes or of smaller ones.
    fn neighbour(self, number: f32, larger: bool) -> f32 {
        let beside = |bits: u16| if larger { bits + 1 } else { bits - 1 };
        match self {
            Grid::Bf16 => half::bf16::from_bits(beside(half::bf16::from_f32(number).to_bits())).to_f32(),
            Grid::F16 => half::f16::from_bits(beside(half::f16::from_f32(number).to_bits())).to_f32(),
        }
    }

    /// One of the two numbers of the type between which a value is, the upper one with the probability of its place between them.
    /// A value that is no number, or lies beyond the largest one, is rounded to the nearest.
    fn round(self, value: f32, word: u32) -> f32 {
        let nearest = self.nearest(value);
        if nearest == value || !nearest.is_finite() {
            return nearest;
        }
        let other = if nearest == 0.0 {
            self.neighbour(nearest, true).copysign(value)
        } else {
            self.neighbour(nearest, value.abs() > nearest.abs())
        };
        if !other.is_finite() {
            return nearest;
        }
        let share = f64::from(value - nearest) / (f64::from(other) - f64::from(nearest));
        if f64::from(word) < share * f64::from(u32::MAX) { other } else { nearest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a value between two numbers of the type, 2¹² draws give both of them and no other, and the value on average.
    #[test]
    fn rounding_at_random_is_right_on_average() {
        for (grid, values) in [
            (Grid::Bf16, [1.001, -3.0071, 1e-30, 2.9e-39, 0.999]),
            (Grid::F16, [1.0003, -3.0004, 6.0e-8, -1e-9, 1023.9]),
        ] {
            for value in values {
                let draws = 4096u32;
                let all: Vec<f32> = (0..draws).map(|i| grid.round(value, i << 20)).collect();
                let (least, most) = all.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
                assert!(least < value && value < most, "{least} {value} {most}");
                assert!(all.iter().all(|&v| (v == least || v == most) && grid.nearest(v) == v));
                let mean = all.iter().map(|&v| f64::from(v)).sum::<f64>() / f64::from(draws);
                let step = f64::from(most) - f64::from(least);
                assert!((mean - f64::from(value)).abs() <= 2.0 * step / f64::from(draws), "{mean} {value}");
            }
        }
    }

    #[test]
    fn what_the_type_has_stays_and_what_it_has_not_is_the_nearest() {
        for word in [0, 1 << 31, u32::MAX] {
            assert_eq!(Grid::Bf16.round(1.5, word), 1.5);
            assert_eq!(Grid::F16.round(0.0, word), 0.0);
            assert_eq!(Grid::F16.round(65519.0, word), 65504.0); // the next one would be infinite
            assert_eq!(Grid::F16.round(1e6, word), f32::INFINITY);
            assert!(Grid::Bf16.round(f32::NAN, word).is_nan());
        }
    }
}
