//! The oracle of the losses: their values alone, generic over the number. Dual numbers give the gradient, dual numbers of dual
//! numbers the second derivative.

use scrubjay::loss::Loss;

use super::dual::{Dual, Number};
use super::layers;

/// The loss of one row of logits; y is a class, or a 0 or 1 per label.
pub fn value<T: Number>(loss: Loss, z: &[T], y: &[u32]) -> T {
    let count = T::of(z.len() as f64);
    match loss {
        Loss::CrossEntropy { smoothing } => {
            let label = y[0] as usize;
            let lead = z.iter().fold(T::of(0.0), |sum, &other| sum + (z[label] - other)) / count;
            layers::loss(z, label) + T::of(smoothing) * lead
        }
        Loss::BinaryCrossEntropy => {
            let of = |(&z, &y): (&T, &u32)| softplus(if y == 1 { -z } else { z });
            z.iter().zip(y).map(of).fold(T::of(0.0), |sum, f| sum + f) / count
        }
    }
}

/// ln(1 + eˢ).
fn softplus<T: Number>(s: T) -> T {
    if s.value() > 0.0 { s + (-s).exp().ln_1p() } else { s.exp().ln_1p() }
}

/// The derivative of the loss by each logit.
pub fn gradient<T: Number>(loss: Loss, z: &[T], y: &[u32]) -> Vec<T> {
    let along = |j: usize| {
        let slope = |i: usize| T::of(f64::from(u8::from(i == j)));
        let z: Vec<Dual<T>> =
            z.iter().enumerate().map(|(i, &value)| Dual { value, slope: slope(i) }).collect();
        value(loss, &z, y).slope
    };
    (0..z.len()).map(along).collect()
}

/// The derivative of the gradient along the logits' slopes.
pub fn curvature<T: Number>(loss: Loss, z: &[Dual<T>], y: &[u32]) -> Vec<T> {
    gradient(loss, z, y).into_iter().map(|d| d.slope).collect()
}
