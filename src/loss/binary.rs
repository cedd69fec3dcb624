//! Binary cross-entropy over L labels at the logits, the mean over labels (MATH.md, Eq. 5).
//!
//! With s = −z where a label is 1 and s = z where it is 0, the loss of a label is ln(1 + eˢ), as max(s, 0) +
//! log1p(exp(−|s|)): losses of labels that are predicted surely stay above 0 and keep their order. Gradient and curvature
//! are made of exp(−|z|) as well, so that no difference of numbers close to each other is taken. A label that is
//! neither 0 nor 1 gives NaN.

use crate::ops::philox::{Stream, Use};

/// The loss of one row of logits; z and y `[L]`.
pub fn value(z: &[f32], y: &[u32]) -> f64 {
    z.iter().zip(y).map(|(&z, &y)| softplus(against(z, y))).sum::<f64>() / z.len() as f64
}

/// The logit of the label's opposite: −z where it is 1, z where it is 0.
fn against(z: f32, label: u32) -> f64 {
    match label {
        0 => f64::from(z),
        1 => -f64::from(z),
        _ => f64::NAN,
    }
}

/// ln(1 + eˢ).
fn softplus(s: f64) -> f64 {
    s.max(0.0) + (-s.abs()).exp().ln_1p()
}

/// 1/(1 + e⁻ˢ).
fn sigmoid(s: f64) -> f64 {
    let e = (-s.abs()).exp();
    if s < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// p (1 − p) with p = sigmoid(z).
fn variance(z: f32) -> f64 {
    let e = (-f64::from(z).abs()).exp();
    e / ((1.0 + e) * (1.0 + e))
}

/// δ = (p − y)/L, to `d` `[n, classes]`.
pub fn gradient(d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) {
    for ((d, &z), &label) in d.iter_mut().zip(logits).zip(labels) {
        let p = sigmoid(against(z, label)) / classes as f64; // of what the label is not
        *d = if label == 1 { -p } else { p } as f32;
    }
}

/// p (1 − p) t / L: the second derivative of the loss along t; all `[n, classes]`.
pub fn curvature(back: &mut [f32], t: &[f32], logits: &[f32], classes: usize) {
    for ((back, &t), &z) in back.iter_mut().zip(t).zip(logits) {
        *back = (variance(z) * f64::from(t) / classes as f64) as f32;
    }
}

/// For each row a draw δ with E δδᵀ = diag(p (1 − p))/L, to `d` `[n, classes]`: √(p (1 − p)/L) with a random sign.
///
/// A sign leaves the diagonal exact in every draw; a normal would not. The sign of label l is bit l mod 32 of word l/32 of
/// (seed, `first` + row).
pub fn draw(d: &mut [f32], logits: &[f32], classes: usize, seed: u64, first: usize) {
    for (i, (d, z)) in d.chunks_exact_mut(classes).zip(logits.chunks_exact(classes)).enumerate() {
        let mut signs = Stream::new(seed, Use::Labels, (first + i) as u32);
        for (d, z) in d.chunks_mut(32).zip(z.chunks(32)) {
            let word = signs.word();
            for (l, (d, &z)) in d.iter_mut().zip(z).enumerate() {
                let size = (variance(z) / classes as f64).sqrt();
                *d = if word >> l & 1 == 1 { -size } else { size } as f32;
            }
        }
    }
}

/// Whether each logit is above 0, as 1 or 0, to `predicted` of the same shape.
pub fn predict(predicted: &mut [u32], logits: &[f32]) {
    predicted.iter_mut().zip(logits).for_each(|(predicted, &z)| *predicted = u32::from(z > 0.0));
}

/// KL(p ‖ q) of one row of logits each: the mean over labels.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let of = |(&a, &b): (&f32, &f32)| {
        let (a, b) = (f64::from(a), f64::from(b));
        sigmoid(a) * (softplus(-b) - softplus(-a)) + sigmoid(-a) * (softplus(b) - softplus(a))
    };
    p.iter().zip(q).map(of).sum::<f64>() / p.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_the_mean_of_minus_ln_p() {
        let (z, y) = ([0.5f32, -2.0, 3.0, 0.0], [1, 0, 0, 1]);
        let p = |z: f32| 1.0 / (1.0 + (-f64::from(z)).exp());
        let of = |(&z, &y): (&f32, &u32)| if y == 1 { -p(z).ln() } else { -(1.0 - p(z)).ln() };
        let want = z.iter().zip(&y).map(of).sum::<f64>() / 4.0;
        assert!((value(&z, &y) - want).abs() < 1e-15, "{} {want}", value(&z, &y));
    }

    #[test]
    fn sure_losses_keep_their_order_and_large_ones_are_exact() {
        let logits: Vec<f32> = (0..20).flat_map(|i| [50.0 + i as f32, -60.0 - i as f32]).collect();
        let labels = [1, 0].repeat(20);
        let losses: Vec<f32> = logits.chunks_exact(2).map(|z| value(z, &[1, 0]) as f32).collect();
        assert!(losses.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{losses:?}");
        let mut d = vec![0.0; 40];
        gradient(&mut d, &logits, &labels, 2);
        assert!(d.chunks(2).all(|d| d[0] < 0.0 && d[1] > 0.0), "{d:?}");
        assert_eq!(value(&[-900.0, 700.0], &[1, 0]), 800.0);
        assert!(value(&[0.0], &[2]).is_nan());
    }

    #[test]
    fn every_draw_has_the_diagonal_and_both_signs() {
        let z: Vec<f32> = (0..70).map(|l| (l as f32 - 35.0) * 0.1).collect();
        let mut d = vec![0.0; 70];
        draw(&mut d, &z, 70, 3, 1);
        for (d, &z) in d.iter().zip(&z) {
            let want = variance(z) / 70.0;
            assert!((f64::from(d * d) - want).abs() <= 1e-6 * want);
        }
        let negative = d.iter().filter(|d| **d < 0.0).count();
        assert!((20..50).contains(&negative), "{negative}");
    }
}
