//! Softmax cross-entropy at the logits, with label smoothing (MATH.md, Eq. 5).
//!
//! Without smoothing the loss is log1p(Σ_{j≠y} exp(z_j − z_y)), shifted by the largest logit where one exceeds z_y.
//! logsumexp − z_y would be exactly 0, or tied, for about half the copies of a confidently classified image, and nothing
//! could be selected. The gradient at the label is minus the sum of the others', not p_y − 1, for the same reason.
//! Smoothing ε adds ε (z_y − mean z), which takes at most the share ε of that loss away: no digits are lost.

use multiversion::multiversion;

use crate::ops::cpu::exp::exp;
use crate::ops::cpu::sums::{self, set, sum};
use crate::ops::philox::{Stream, Use};

/// The loss of one row of logits.
pub fn value(z: &[f32], label: usize, smoothing: f64) -> f64 {
    let loss = surprisal(z, label);
    if smoothing > 0.0 {
        let at = f64::from(z[label]);
        let lead = z.iter().map(|&z| at - f64::from(z)).sum::<f64>() / z.len() as f64;
        loss + smoothing * lead
    } else {
        loss
    }
}

/// −ln p of the label.
#[multiversion(targets("x86_64+avx2+fma"))]
fn surprisal(z: &[f32], label: usize) -> f64 {
    let (at, top) = (f64::from(z[label]), f64::from(sums::largest(z)));
    let others = of_others(z, label, |z| exp(z - at.max(top)));
    if top <= at { others.ln_1p() } else { (top - at) + (others + exp(at - top)).ln() }
}

/// Σ f over the logits of a row but the label's.
#[inline(always)]
fn of_others(z: &[f32], label: usize, f: impl Fn(f64) -> f64) -> f64 {
    sum([&z[..label]], |[z]| f(z)) + sum([&z[label + 1..]], |[z]| f(z))
}

/// The first of the largest logits of one row.
pub fn largest(z: &[f32]) -> u32 {
    let best = (0..z.len()).reduce(|best, i| if z[i] > z[best] { i } else { best });
    best.unwrap_or(0) as u32
}

/// [`largest`] of each row of `logits` `[n, classes]`, to `predicted` `[n]`.
pub fn predict(predicted: &mut [u32], logits: &[f32], classes: usize) {
    predicted.iter_mut().zip(logits.chunks_exact(classes)).for_each(|(predicted, z)| *predicted = largest(z));
}

/// Softmax of one row; returns 1 / Σ and the shift, for callers that need p_j = exp(z_j − shift) · scale.
#[inline(always)]
fn softmax(z: &[f32]) -> (f64, f64) {
    let top = f64::from(sums::largest(z));
    (1.0 / sum([z], |[z]| exp(z - top)), top)
}

/// δ = p − (1 − ε) onehot(label) − ε/classes of each row, to `d` `[n, classes]`; labels `[n]`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn gradient(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize, smoothing: f64) {
    let share = smoothing / classes as f64;
    for ((d, z), &label) in d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).zip(labels) {
        let (scale, top) = softmax(z);
        let p = |z: f64| exp(z - top) * scale - share;
        set(d, [z], |[z]| p(z));
        d[label as usize] = -of_others(z, label as usize, p) as f32;
    }
}

/// For each row of `logits` `[n, classes]` a draw δ with E δδᵀ = diag(p) − ppᵀ, to `d` `[n, classes]`; row i by the
/// first word of (seed, `first` + i).
///
/// δ = √(p_c/q_c) (p − onehot(c)) of a class drawn with q_c ∝ p_c ‖p − onehot(c)‖², so that every row has its whole
/// trace. With q = p, the rows of a network that is sure of its data would be 0 but for a few.
pub fn draw(d: &mut [f32], logits: &[f32], classes: usize, seed: u64, first: usize) {
    let mut p = vec![0.0; classes];
    for (i, (d, z)) in d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).enumerate() {
        let (scale, top) = softmax(z);
        p.iter_mut().zip(z).for_each(|(p, &z)| *p = (f64::from(z) - top).exp() * scale);
        let others = |c: usize| p.iter().enumerate().filter(move |(j, _)| *j != c).map(|(_, p)| *p);
        let square = |c: usize| others(c).sum::<f64>().powi(2) + others(c).map(|p| p * p).sum::<f64>();
        let trace: f64 = (0..classes).map(|c| p[c] * square(c)).sum();
        let mut left = Stream::new(seed, Use::Labels, (first + i) as u32).uniform() * trace;
        let drawn = (0..classes).find(|&c| {
            left -= p[c] * square(c);
            left < 0.0
        });
        // Rounding may leave a little, and a row whose p is 0 or 1 has no curvature.
        let c = drawn.unwrap_or(largest(z) as usize);
        let weight = if square(c) > 0.0 { (trace / square(c)).sqrt() } else { 0.0 };
        d.iter_mut().zip(&p).for_each(|(d, p)| *d = (weight * p) as f32);
        d[c] = -(weight * others(c).sum::<f64>()) as f32;
    }
}

/// (diag(p) − ppᵀ) t of each row: the second derivative of the loss along t, for any smoothing; all `[n, classes]`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn curvature(back: &mut [f32], t: &[f32], logits: &[f32], classes: usize) {
    let rows = back.chunks_exact_mut(classes).zip(t.chunks_exact(classes)).zip(logits.chunks_exact(classes));
    for ((back, t), z) in rows {
        let (scale, top) = softmax(z);
        let p = |z: f64| exp(z - top) * scale;
        let mean = sum([z, t], |[z, t]| p(z) * t);
        set(back, [z, t], |[z, t]| p(z) * (t - mean));
    }
}

/// KL(p ‖ q) of one row of logits each.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
}

/// ln p/(1 − p) of the largest probability p of one row.
pub fn log_odds(z: &[f32]) -> f64 {
    let best = largest(z) as usize;
    let others = || z.iter().enumerate().filter(|(j, _)| *j != best).map(|(_, &z)| f64::from(z));
    let top = others().fold(f64::NEG_INFINITY, f64::max);
    f64::from(z[best]) - top - others().map(|z| (z - top).exp()).sum::<f64>().ln()
}

/// ln of the probabilities of one row.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits.iter().map(|z| f64::from(*z) - f64::from(largest)).collect();
    let sum = shifted.iter().map(|z| z.exp()).sum::<f64>().ln();
    shifted.iter().map(|z| z - sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confident_losses_keep_their_order() {
        // logsumexp − z_y in f32 gives 0 for all of these.
        let logits: Vec<f32> = (0..10).flat_map(|i| [30.0 + i as f32 * 0.1, 1.0, -2.0]).collect();
        let losses: Vec<f32> = logits.chunks_exact(3).map(|z| value(z, 0, 0.0) as f32).collect();
        assert!(losses.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{losses:?}");
    }

    #[test]
    fn losses_are_the_log_probability_on_both_branches() {
        let sum = 1f64.exp() + 2f64.exp() + 0.5f64.exp();
        assert!((value(&[1.0, 2.0, 0.5], 1, 0.0) - (sum.ln() - 2.0)).abs() < 1e-7);
        assert_eq!(value(&[900.0, 1.0, 2.0], 2, 0.0), 898.0);
    }

    #[test]
    fn smoothing_mixes_the_losses_of_all_labels() {
        let (z, smoothing) = ([0.3f32, -1.2, 2.0, 0.7], 0.3);
        for label in 0..4 {
            let all = (0..4).map(|j| surprisal(&z, j)).sum::<f64>() / 4.0;
            let want = (1.0 - smoothing) * surprisal(&z, label) + smoothing * all;
            assert!((value(&z, label, smoothing) - want).abs() < 1e-12, "{label}");
            let mut d = [0.0; 4];
            gradient(&mut d, &z, &[label as u32], 4, smoothing);
            assert!(d.iter().sum::<f32>().abs() < 1e-6, "{d:?}");
        }
    }
}
