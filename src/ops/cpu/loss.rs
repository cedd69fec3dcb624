//! Softmax cross-entropy without label smoothing, for callers that know no other loss: [`crate::loss::softmax`].

pub use crate::loss::Weight;
pub use crate::loss::softmax::{curvature, draw as draw_curvature, largest};

use super::same;
use crate::loss::{outer, softmax};

/// The loss of each row of `logits` `[n, classes]`, to `losses` `[n]`.
pub fn cross_entropy(losses: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy", losses.len(), labels.len());
    same("cross_entropy", losses.len() * classes, logits.len());
    for ((loss, z), &label) in losses.iter_mut().zip(logits.chunks_exact(classes)).zip(labels) {
        *loss = softmax::value(z, label as usize, 0.0) as f32;
    }
}

/// δ = p − onehot(label) of each row, to `d` `[n, classes]`.
pub fn gradient(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy_gradient", labels.len() * classes, d.len());
    same("cross_entropy_gradient", d.len(), logits.len());
    softmax::gradient(d, logits, labels, classes, 0.0);
}

/// Multiplies row i of `d` `[n, classes]` by weight(`first` + i, its loss).
pub fn weigh(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize, first: usize, weight: &Weight) {
    same("weigh", labels.len() * classes, d.len());
    same("weigh", d.len(), logits.len());
    let rows = d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).zip(labels);
    for (i, ((d, z), &label)) in rows.enumerate() {
        let factor = weight(first + i, softmax::value(z, label as usize, 0.0)) as f32;
        d.iter_mut().for_each(|d| *d *= factor);
    }
}

/// δ (δ·t) of each row: the product with the empirical Fisher matrix at the logits.
pub fn fisher(back: &mut [f32], t: &[f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy_fisher", back.len(), t.len());
    gradient(back, logits, labels, classes);
    outer(back, t, classes);
}
