//! The loss at a network's outputs, for a chunk of logits `[n, classes]`: value, gradient, products, draws, predictions.
//!
//! Two losses (MATH.md, Eq. 5): softmax cross-entropy, where a sample has one class, and binary cross-entropy, where it
//! has a 0 or 1 for every label. Nothing else in the library knows which one a network has. The functions for a GPU are
//! in [`crate::ops::cuda::loss`].
//!
//! Labels are words `[n, width]` for both: a class number (width 1), or a 0 or 1 per label (width = classes). Predictions
//! have the same form, so a sample is predicted right where its words are equal.

pub mod binary;
pub mod softmax;

pub use crate::ops::loss::{LogitProduct, Loss};

use crate::error::{Error, Result};

/// A factor on the loss of sample i, held constant under the derivative, from i and that loss.
pub type Weight<'a> = dyn Fn(usize, f64) -> f64 + Sync + 'a;

impl Loss {
    /// Refuses a smoothing outside [0, 1).
    ///
    /// # Errors
    /// Where it is outside.
    pub fn check(self) -> Result<()> {
        match self {
            Loss::CrossEntropy { smoothing } if !(0.0..1.0).contains(&smoothing) => {
                Err(Error::config(format!("label smoothing is from 0 to below 1, not {smoothing}")))
            }
            Loss::CrossEntropy { .. } | Loss::BinaryCrossEntropy => Ok(()),
        }
    }

    /// Whether a sample's loss is more than the surprisal of its labels.
    pub fn is_smoothed(self) -> bool {
        match self {
            Loss::CrossEntropy { smoothing } => smoothing > 0.0,
            Loss::BinaryCrossEntropy => false,
        }
    }

    /// The loss of each row of `logits` `[n, classes]`, to `losses` `[n]`; labels `[n, width]`.
    ///
    /// # Errors
    /// Where shapes do not fit or a label is out of range.
    pub fn values(self, losses: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) -> Result<()> {
        let n = self.rows("loss", logits, labels, classes)?;
        same("loss", "losses", n, losses.len())?;
        let rows = logits.chunks_exact(classes).zip(labels.chunks_exact(self.label_width(classes)));
        losses.iter_mut().zip(rows).for_each(|(loss, (z, y))| *loss = self.value(z, y) as f32);
        Ok(())
    }

    /// −ln of the probability that the model gives each sample's labels, for several labels the mean over them; shapes
    /// as in [`Loss::values`]. It is the loss, but for smoothing, and goes to 0 where the model is sure and right.
    ///
    /// # Errors
    /// As [`Loss::values`].
    pub fn surprisals(self, out: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) -> Result<()> {
        match self {
            Loss::CrossEntropy { .. } => Loss::default().values(out, logits, labels, classes),
            Loss::BinaryCrossEntropy => self.values(out, logits, labels, classes),
        }
    }

    /// δ = ∂f/∂z of each row, to `d` `[n, classes]`; labels `[n, width]`.
    ///
    /// # Errors
    /// Where shapes do not fit or a label is out of range.
    pub fn gradient(self, d: &mut [f32], logits: &[f32], labels: &[u32], classes: usize) -> Result<()> {
        self.rows("loss_gradient", logits, labels, classes)?;
        same("loss_gradient", "values", logits.len(), d.len())?;
        match self {
            Loss::CrossEntropy { smoothing } => softmax::gradient(d, logits, labels, classes, smoothing),
            Loss::BinaryCrossEntropy => binary::gradient(d, logits, labels, classes),
        }
        Ok(())
    }

    /// Multiplies row i of `d` `[n, classes]` by weight(`first` + i, its loss).
    ///
    /// # Errors
    /// Where shapes do not fit or a label is out of range.
    pub fn weigh(
        self,
        d: &mut [f32],
        logits: &[f32],
        labels: &[u32],
        classes: usize,
        first: usize,
        weight: &Weight,
    ) -> Result<()> {
        self.rows("weigh", logits, labels, classes)?;
        same("weigh", "values", logits.len(), d.len())?;
        let rows = logits.chunks_exact(classes).zip(labels.chunks_exact(self.label_width(classes)));
        for (i, (d, (z, y))) in d.chunks_exact_mut(classes).zip(rows).enumerate() {
            let factor = weight(first + i, self.value(z, y)) as f32;
            d.iter_mut().for_each(|d| *d *= factor);
        }
        Ok(())
    }

    /// The product of a matrix at the logits with t, row by row, to `back`; all `[n, classes]`, labels `[n, width]`.
    ///
    /// # Errors
    /// Where shapes do not fit or a label is out of range.
    pub fn product(
        self,
        matrix: LogitProduct,
        back: &mut [f32],
        t: &[f32],
        logits: &[f32],
        labels: &[u32],
        classes: usize,
    ) -> Result<()> {
        self.rows("loss_product", logits, labels, classes)?;
        same("loss_product", "values", logits.len(), back.len())?;
        same("loss_product", "tangents", logits.len(), t.len())?;
        match (matrix, self) {
            (LogitProduct::Curvature, Loss::CrossEntropy { .. }) => {
                softmax::curvature(back, t, logits, classes)
            }
            (LogitProduct::Curvature, Loss::BinaryCrossEntropy) => {
                binary::curvature(back, t, logits, classes)
            }
            (LogitProduct::Fisher, Loss::CrossEntropy { .. } | Loss::BinaryCrossEntropy) => {
                self.gradient(back, logits, labels, classes)?;
                outer(back, t, classes);
            }
        }
        Ok(())
    }

    /// For each row of `logits` `[n, classes]` a draw δ with E δδᵀ = ∂²f/∂z², to `d` `[n, classes]`, for K-FAC. Row i
    /// draws by the words of (seed, `first` + i), so chunks do not matter.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn draw(self, d: &mut [f32], logits: &[f32], classes: usize, seed: u64, first: usize) -> Result<()> {
        whole("loss_draw", logits, classes)?;
        same("loss_draw", "values", logits.len(), d.len())?;
        match self {
            Loss::CrossEntropy { .. } => softmax::draw(d, logits, classes, seed, first),
            Loss::BinaryCrossEntropy => binary::draw(d, logits, classes, seed, first),
        }
        Ok(())
    }

    /// What the model says of each row of `logits` `[n, classes]`, to `predicted` `[n, width]`: the first of the largest
    /// logits; or, for every label, whether its logit is above 0.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn predict(self, predicted: &mut [u32], logits: &[f32], classes: usize) -> Result<()> {
        let n = whole("predict", logits, classes)?;
        same("predict", "predictions", n * self.label_width(classes), predicted.len())?;
        match self {
            Loss::CrossEntropy { .. } => softmax::predict(predicted, logits, classes),
            Loss::BinaryCrossEntropy => binary::predict(predicted, logits),
        }
        Ok(())
    }

    /// Mean KL(p ‖ q) of the outputs of two models in nats, for several labels the mean over them; `p` and `q` are
    /// logits `[n, classes]`.
    ///
    /// # Errors
    /// Where shapes do not fit, there are no rows, or a logit is not finite.
    pub fn divergence(self, p: &[f32], q: &[f32], classes: usize) -> Result<f64> {
        if classes == 0 || p.is_empty() || p.len() != q.len() || !p.len().is_multiple_of(classes) {
            let found = format!("{} and {} logits of {classes} classes", p.len(), q.len());
            return Err(Error::shape("divergence", "two equal sets of [n, classes] logits, n > 0", found));
        }
        if !p.iter().chain(q).all(|logit| logit.is_finite()) {
            return Err(Error::shape("divergence", "finite logits", "one that is not"));
        }
        let row = |(p, q): (&[f32], &[f32])| match self {
            Loss::CrossEntropy { .. } => softmax::divergence(p, q),
            Loss::BinaryCrossEntropy => binary::divergence(p, q),
        };
        let rows = p.chunks_exact(classes).zip(q.chunks_exact(classes));
        Ok(rows.map(row).sum::<f64>() / (p.len() / classes) as f64)
    }

    /// The loss of one row of logits `[classes]` with its labels `[width]`.
    fn value(self, z: &[f32], y: &[u32]) -> f64 {
        match self {
            Loss::CrossEntropy { smoothing } => softmax::value(z, y[0] as usize, smoothing),
            Loss::BinaryCrossEntropy => binary::value(z, y),
        }
    }

    /// The number of rows; refuses labels of another shape or out of range.
    fn rows(self, op: &'static str, logits: &[f32], labels: &[u32], classes: usize) -> Result<usize> {
        let n = whole(op, logits, classes)?;
        same(op, "words of label", n * self.label_width(classes), labels.len())?;
        let values = match self {
            Loss::CrossEntropy { .. } => classes,
            Loss::BinaryCrossEntropy => 2,
        };
        match labels.iter().find(|&&label| label as usize >= values) {
            Some(label) => Err(Error::shape(op, format!("labels below {values}"), label.to_string())),
            None => Ok(n),
        }
    }
}

/// Samples that are predicted right: all their words are. A sample of several labels counts where every label is right.
/// Both `[n, width]`.
pub fn right(predicted: &[u32], labels: &[u32], width: usize) -> usize {
    let rows = predicted.chunks_exact(width.max(1)).zip(labels.chunks_exact(width.max(1)));
    rows.filter(|(predicted, labels)| predicted == labels).count()
}

/// Labels that are predicted right, one by one; both `[n, width]`. With classes it is [`right`].
pub fn labels_right(predicted: &[u32], labels: &[u32]) -> usize {
    predicted.iter().zip(labels).filter(|(predicted, label)| predicted == label).count()
}

/// 1 − p from −ln p (see [`Loss::surprisals`]): how unsure the model is of a sample's labels. A sample that is predicted
/// surely has next to no gradient to remove.
pub fn uncertainty(surprisal: f32) -> f64 {
    -f64::from(-surprisal).exp_m1()
}

/// d (d·t) of each row, in place of d; both `[n, classes]`.
pub(crate) fn outer(d: &mut [f32], t: &[f32], classes: usize) {
    for (d, t) in d.chunks_exact_mut(classes).zip(t.chunks_exact(classes)) {
        let along: f64 = d.iter().zip(t).map(|(&d, &t)| f64::from(d) * f64::from(t)).sum();
        d.iter_mut().for_each(|d| *d = (f64::from(*d) * along) as f32);
    }
}

/// The number of rows of `[n, classes]`.
fn whole(op: &'static str, logits: &[f32], classes: usize) -> Result<usize> {
    match logits.len().checked_div(classes) {
        Some(n) if n * classes == logits.len() => Ok(n),
        _ => Err(Error::shape(op, format!("rows of {classes} logits"), format!("{} logits", logits.len()))),
    }
}

fn same(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::shape(op, format!("{expected} {what}"), found.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSSES: [Loss; 3] = [
        Loss::CrossEntropy { smoothing: 0.0 },
        Loss::CrossEntropy { smoothing: 0.2 },
        Loss::BinaryCrossEntropy,
    ];
    const Z: [f32; 6] = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4];

    fn labels(loss: Loss) -> &'static [u32] {
        match loss {
            Loss::CrossEntropy { .. } => &[1, 2],
            Loss::BinaryCrossEntropy => &[1, 0, 1, 0, 1, 1],
        }
    }

    #[test]
    fn gradient_and_curvature_are_derivatives() {
        let t = [0.5f32, -0.25, 1.0, 2.0, -1.0, 0.75];
        let h = 1.0 / 64.0;
        for loss in LOSSES {
            let y = labels(loss);
            let moved = |h: f32| Z.iter().zip(t).map(|(z, t)| z + h * t).collect::<Vec<f32>>();
            let of = |z: &[f32]| {
                let (mut f, mut d) = ([0.0; 2], [0.0; 6]);
                loss.values(&mut f, z, y, 3).unwrap();
                loss.gradient(&mut d, z, y, 3).unwrap();
                (f, d)
            };
            let ((_, d), (above, up), (below, down)) = (of(&Z), of(&moved(h)), of(&moved(-h)));
            let (mut back, mut outer) = ([0.0; 6], [0.0; 6]);
            loss.product(LogitProduct::Curvature, &mut back, &t, &Z, y, 3).unwrap();
            loss.product(LogitProduct::Fisher, &mut outer, &t, &Z, y, 3).unwrap();
            for row in 0..2 {
                let of_row = 3 * row..3 * row + 3;
                let slope: f32 = of_row.clone().map(|j| d[j] * t[j]).sum();
                let difference = (above[row] - below[row]) / (2.0 * h);
                assert!((slope - difference).abs() < 1e-4, "{loss:?} {row}: {slope} {difference}");
                for j in of_row {
                    let difference = (up[j] - down[j]) / (2.0 * h);
                    assert!((back[j] - difference).abs() < 1e-4, "{loss:?} {j}: {} {difference}", back[j]);
                    assert!((outer[j] - d[j] * slope).abs() < 1e-6, "{loss:?} {j}");
                }
            }
        }
    }

    #[test]
    fn draws_have_the_curvature_as_their_second_moment() {
        let z = [2.0f32, -1.0, 0.5, 9.0, 0.0, 1.0];
        let (draws, n) = (20_000, 2);
        for loss in LOSSES {
            let mut sum = vec![[[0.0f64; 3]; 3]; n];
            for draw in 0..draws {
                let mut d = [0.0; 6];
                loss.draw(&mut d, &z, 3, 7, n * draw).unwrap();
                for (sum, d) in sum.iter_mut().zip(d.chunks_exact(3)) {
                    for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
                        sum[i][j] += f64::from(d[i]) * f64::from(d[j]) / draws as f64;
                    }
                }
            }
            for j in 0..3 {
                let (mut t, mut want) = ([0.0; 6], [0.0; 6]);
                (t[j], t[3 + j]) = (1.0, 1.0);
                loss.product(LogitProduct::Curvature, &mut want, &t, &z, labels(loss), 3).unwrap();
                for (sum, want) in sum.iter().zip(want.chunks_exact(3)) {
                    let trace = (0..3).map(|i| sum[i][i]).sum::<f64>();
                    for i in 0..3 {
                        // 20,000 draws, each of at most the trace: 5 standard errors.
                        let off = (sum[i][j] - f64::from(want[i])).abs();
                        assert!(off <= 0.035 * trace, "{loss:?} {i} {j}: {sum:?} {want:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn draws_do_not_depend_on_the_chunk() {
        for loss in LOSSES {
            let (mut all, mut last) = ([0.0; 6], [0.0; 3]);
            loss.draw(&mut all, &Z, 3, 5, 10).unwrap();
            loss.draw(&mut last, &Z[3..], 3, 5, 11).unwrap();
            assert_eq!(all[3..], last, "{loss:?}");
        }
    }

    #[test]
    fn a_sample_is_right_where_all_its_labels_are() {
        let loss = Loss::BinaryCrossEntropy;
        let mut predicted = [7; 6];
        loss.predict(&mut predicted, &[0.5, -0.5, 0.0, 1.0, 2.0, -1.0], 3).unwrap();
        assert_eq!(predicted, [1, 0, 0, 1, 1, 0]);
        let truth = [1, 0, 0, 1, 0, 0];
        assert_eq!((right(&predicted, &truth, 3), labels_right(&predicted, &truth)), (1, 5));
        let mut classes = [7; 2];
        Loss::default().predict(&mut classes, &Z, 3).unwrap();
        assert_eq!(classes, [2, 0]);
        assert_eq!((right(&classes, &[2, 1], 1), labels_right(&classes, &[2, 1])), (1, 1));
    }

    #[test]
    fn surprisal_is_the_loss_without_smoothing() {
        for loss in LOSSES {
            let (mut plain, mut value) = ([0.0; 2], [0.0; 2]);
            loss.surprisals(&mut plain, &Z, labels(loss), 3).unwrap();
            let hard = if matches!(loss, Loss::BinaryCrossEntropy) { loss } else { Loss::default() };
            hard.values(&mut value, &Z, labels(loss), 3).unwrap();
            assert_eq!(plain, value, "{loss:?}");
        }
        assert_eq!(uncertainty(0.0), 0.0);
        assert!((uncertainty(2f32.ln()) - 0.5).abs() < 1e-7);
    }

    #[test]
    fn divergence_is_zero_only_between_equals() {
        for loss in LOSSES {
            assert_eq!(loss.divergence(&Z, &Z, 3).unwrap(), 0.0);
            let other: Vec<f32> = Z.iter().enumerate().map(|(i, z)| z + 0.1 * i as f32).collect();
            assert!(loss.divergence(&Z, &other, 3).unwrap() > 0.0);
        }
        // One label: KL of two coins, with p = 3/4 and q = 1/2.
        let found = Loss::BinaryCrossEntropy.divergence(&[3f32.ln()], &[0.0], 1).unwrap();
        assert!((found - (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln())).abs() < 1e-7, "{found}");
    }

    #[test]
    fn misfits_are_refused() {
        let refused = |result: Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
        let mut out = [0.0; 2];
        refused(Loss::default().values(&mut out, &Z, &[1], 3));
        refused(Loss::default().values(&mut out, &Z, &[1, 3], 3));
        refused(Loss::default().values(&mut out[..1], &Z, &[1, 2], 3));
        refused(Loss::default().values(&mut out, &Z, &[1, 2], 0));
        refused(Loss::default().values(&mut out, &Z[..5], &[1, 2], 3));
        refused(Loss::BinaryCrossEntropy.values(&mut out, &Z, &[1, 2, 0, 0, 0, 0], 3));
        refused(Loss::BinaryCrossEntropy.values(&mut out, &Z, &[1, 0], 3));
        refused(Loss::BinaryCrossEntropy.gradient(&mut out, &Z, &[0; 6], 3));
        refused(Loss::BinaryCrossEntropy.draw(&mut out, &Z, 3, 1, 0));
        refused(Loss::BinaryCrossEntropy.predict(&mut [0; 2], &Z, 3));
        assert!(Loss::CrossEntropy { smoothing: 1.0 }.check().is_err());
        assert!(Loss::CrossEntropy { smoothing: f64::NAN }.check().is_err());
        assert!(LOSSES.iter().all(|loss| loss.check().is_ok()));
    }
}
