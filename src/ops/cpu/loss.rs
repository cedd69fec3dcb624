//! Softmax cross-entropy at the logits: value, gradient, and the two curvatures (MATH.md, Eq. 5).
//!
//! The loss is log1p(Σ_{j≠y} exp(z_j − z_y)), shifted by the largest logit where one exceeds z_y. logsumexp − z_y would
//! be exactly 0, or tied, for about half the copies of a confidently classified image, and nothing could be selected.
//! The gradient at the label is minus the sum of the others', not p_y − 1, for the same reason.

use super::same;
use crate::ops::philox::{Stream, Use};

/// The loss of each row of `logits` `[n, classes]`, to `losses` `[n]`.
pub fn cross_entropy(losses: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy", losses.len(), labels.len());
    same("cross_entropy", losses.len() * classes, logits.len());
    for ((loss, z), &label) in losses.iter_mut().zip(logits.chunks_exact(classes)).zip(labels) {
        *loss = row_loss(z, label as usize) as f32;
    }
}

fn row_loss(z: &[f32], label: usize) -> f64 {
    let at = f64::from(z[label]);
    let top = z.iter().fold(f64::NEG_INFINITY, |top, &z| top.max(f64::from(z)));
    let others = z.iter().enumerate().filter(|(j, _)| *j != label).map(|(_, &z)| f64::from(z));
    if top <= at {
        others.map(|z| (z - at).exp()).sum::<f64>().ln_1p()
    } else {
        (top - at) + (others.map(|z| (z - top).exp()).sum::<f64>() + (at - top).exp()).ln()
    }
}

/// The first of the largest logits of one row.
pub fn largest(z: &[f32]) -> u32 {
    let best = (0..z.len()).reduce(|best, i| if z[i] > z[best] { i } else { best });
    best.unwrap_or(0) as u32
}

/// Softmax of one row; returns 1 / Σ and the shift, for callers that need p_j = exp(z_j − shift) · scale.
fn softmax(z: &[f32]) -> (f64, f64) {
    let top = z.iter().fold(f64::NEG_INFINITY, |top, &z| top.max(f64::from(z)));
    (1.0 / z.iter().map(|&z| (f64::from(z) - top).exp()).sum::<f64>(), top)
}

/// δ = p − onehot(label) of each row, to `d` `[n, classes]`.
pub fn gradient(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy_gradient", labels.len() * classes, d.len());
    same("cross_entropy_gradient", d.len(), logits.len());
    for ((d, z), &label) in d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).zip(labels) {
        let (scale, top) = softmax(z);
        let mut others = 0.0;
        for (j, (d, &z)) in d.iter_mut().zip(z).enumerate() {
            let p = (f64::from(z) - top).exp() * scale;
            if j != label as usize {
                others += p;
                *d = p as f32;
            }
        }
        d[label as usize] = -others as f32;
    }
}

/// For each row of `logits` `[n, classes]` a draw δ with E δδᵀ = diag(p) − ppᵀ, to `d` `[n, classes]`; row i by the
/// first word of (seed, `first` + i).
///
/// δ = √(p_c/q_c) (p − onehot(c)) of a class drawn with q_c ∝ p_c ‖p − onehot(c)‖², so that every row has its whole
/// trace. With q = p, the rows of a network that is sure of its data would be 0 but for a few.
pub fn draw_curvature(d: &mut [f32], logits: &[f32], classes: usize, seed: u64, first: usize) {
    same("draw_curvature", d.len(), logits.len());
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

/// A factor on the loss of sample i, held constant under the derivative, from i and that loss.
pub type Weight<'a> = dyn Fn(usize, f64) -> f64 + Sync + 'a;

/// Multiplies row i of `d` `[n, classes]` by weight(`first` + i, its loss).
pub fn weigh(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize, first: usize, weight: &Weight) {
    same("weigh", labels.len() * classes, d.len());
    same("weigh", d.len(), logits.len());
    let rows = d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).zip(labels);
    for (i, ((d, z), &label)) in rows.enumerate() {
        let factor = weight(first + i, row_loss(z, label as usize)) as f32;
        d.iter_mut().for_each(|d| *d *= factor);
    }
}

/// (diag(p) − ppᵀ) t of each row: the loss's second derivative along the logits' tangent.
pub fn curvature(back: &mut [f32], t: &[f32], logits: &[f32], classes: usize) {
    [t, logits].iter().for_each(|x| same("cross_entropy_curvature", back.len(), x.len()));
    let rows = back.chunks_exact_mut(classes).zip(t.chunks_exact(classes)).zip(logits.chunks_exact(classes));
    for ((back, t), z) in rows {
        let (scale, top) = softmax(z);
        let p = |j: usize| (f64::from(z[j]) - top).exp() * scale;
        let mean: f64 = t.iter().enumerate().map(|(j, &t)| p(j) * f64::from(t)).sum();
        for (j, (back, &t)) in back.iter_mut().zip(t).enumerate() {
            *back = (p(j) * (f64::from(t) - mean)) as f32;
        }
    }
}

/// δ (δ·t) of each row: the empirical Fisher matrix's form.
pub fn fisher(back: &mut [f32], t: &[f32], logits: &[f32], labels: &[u32], classes: usize) {
    same("cross_entropy_fisher", back.len(), t.len());
    gradient(back, logits, labels, classes);
    for (d, t) in back.chunks_exact_mut(classes).zip(t.chunks_exact(classes)) {
        let along: f64 = d.iter().zip(t).map(|(&d, &t)| f64::from(d) * f64::from(t)).sum();
        d.iter_mut().for_each(|d| *d = (f64::from(*d) * along) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_curvature_as_their_second_moment() {
        let logits = [2.0f32, -1.0, 0.5, 9.0, 0.0, 1.0];
        let (rows, n) = (20_000, 2);
        let mut sum = vec![[[0.0f64; 3]; 3]; n];
        for draw in 0..rows {
            let mut d = [0.0; 6];
            draw_curvature(&mut d, &logits, 3, 7, n * draw);
            for (sum, d) in sum.iter_mut().zip(d.chunks_exact(3)) {
                for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
                    sum[i][j] += f64::from(d[i]) * f64::from(d[j]) / rows as f64;
                }
            }
        }
        for j in 0..3 {
            let (mut t, mut want) = ([0.0; 6], [0.0; 6]);
            (t[j], t[3 + j]) = (1.0, 1.0);
            curvature(&mut want, &t, &logits, 3);
            for (sum, want) in sum.iter().zip(want.chunks_exact(3)) {
                let trace = (0..3).map(|i| sum[i][i]).sum::<f64>();
                for i in 0..3 {
                    // Of 20,000 draws of at most the trace: 5 standard errors.
                    assert!(
                        (sum[i][j] - f64::from(want[i])).abs() <= 0.035 * trace,
                        "{i} {j}: {sum:?} {want:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn confident_losses_stay_apart() {
        // logsumexp − z_y in f32 gives 0 for all of these.
        let logits: Vec<f32> = (0..10).flat_map(|i| [30.0 + i as f32 * 0.1, 1.0, -2.0]).collect();
        let mut losses = vec![0.0; 10];
        cross_entropy(&mut losses, &logits, &[0; 10], 3);
        assert!(losses.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{losses:?}");
    }

    #[test]
    fn losses_are_the_log_probability_on_both_branches() {
        let logits = [1.0, 2.0, 0.5, 900.0, 1.0, 2.0];
        let mut losses = [0.0; 2];
        cross_entropy(&mut losses, &logits, &[1, 2], 3);
        let sum = 1f64.exp() + 2f64.exp() + 0.5f64.exp();
        assert!((f64::from(losses[0]) - (sum.ln() - 2.0)).abs() < 1e-7);
        assert_eq!(losses[1], 898.0);
    }

    #[test]
    fn gradient_and_curvature_are_derivatives() {
        let z = [0.3f32, -1.2, 2.0, 0.7];
        let t = [0.5f32, -0.25, 1.0, 2.0];
        let (mut d, mut back) = ([0.0; 4], [0.0; 4]);
        gradient(&mut d, &z, &[1], 4);
        curvature(&mut back, &t, &z, 4);
        let moved = |h: f64| -> Vec<f32> {
            z.iter().zip(t).map(|(z, t)| (f64::from(*z) + h * f64::from(t)) as f32).collect()
        };
        let slope: f64 = d.iter().zip(t).map(|(d, t)| f64::from(*d) * f64::from(t)).sum();
        let h = 1.0 / 64.0;
        let difference = (row_loss(&moved(h), 1) - row_loss(&moved(-h), 1)) / (2.0 * h);
        assert!((slope - difference).abs() < 1e-4, "{slope} {difference}");
        let (mut plus, mut minus) = ([0.0; 4], [0.0; 4]);
        gradient(&mut plus, &moved(h), &[1], 4);
        gradient(&mut minus, &moved(-h), &[1], 4);
        for j in 0..4 {
            let difference = f64::from(plus[j] - minus[j]) / (2.0 * h);
            assert!((f64::from(back[j]) - difference).abs() < 1e-4, "{j}");
        }
        assert!(d.iter().sum::<f32>().abs() < 1e-6 && back.iter().sum::<f32>().abs() < 1e-6);
        let mut outer = [0.0; 4];
        fisher(&mut outer, &t, &z, &[1], 4);
        for j in 0..4 {
            assert!((f64::from(outer[j]) - f64::from(d[j]) * slope).abs() < 1e-6);
        }
    }
}
