//! Verify: measures of how near an unlearned model is to models trained without the forgotten samples.
//!
//! Pure functions of logits, losses and weights; none runs a network. Sums are f64 and in index order. Losses are
//! cross-entropies at the true label, so exp(−loss) is that label's probability. A tie counts half, everywhere.

use crate::error::{Error, Result};
use crate::loss::Loss;

/// The measures of one model that the average gap compares, as shares from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Measures {
    /// Accuracy on the forgotten samples.
    pub forget: f64,
    /// Accuracy on the retained samples.
    pub retain: f64,
    /// Accuracy on the test samples.
    pub test: f64,
    /// [`auc`] of the forgotten against the test samples.
    pub auc: f64,
}

/// The probability that the loss of a forgotten sample is below that of a test sample: the area under the curve of
/// membership inference by a threshold on the loss. 0.5 cannot tell them apart; above it the forgotten still look like
/// members, below it they look less like members than unseen samples do. Slices are `[m]` and `[n]`; O((m + n) log).
///
/// # Errors
/// Where a set is empty or a loss is NaN.
pub fn auc(forget: &[f64], test: &[f64]) -> Result<f64> {
    check("auc", forget)?;
    check("auc", test)?;
    let mut sorted = test.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let above = |loss: &f64| {
        let below = sorted.partition_point(|other| other < loss);
        let no_more = sorted.partition_point(|other| other <= loss);
        (sorted.len() - no_more) as f64 + (no_more - below) as f64 / 2.0
    };
    Ok(forget.iter().map(above).sum::<f64>() / (forget.len() as f64 * test.len() as f64))
}

/// Mean KL(p ‖ q) = Σ p ln(p/q) of the outputs of two models with this loss, in nats; `p` and `q` are logits
/// `[n, classes]`.
///
/// # Errors
/// Where the shapes do not fit, there are no rows, or a logit is not finite.
pub fn divergence(p: &[f32], q: &[f32], classes: usize, loss: Loss) -> Result<f64> {
    loss.divergence(p, q, classes)
}

/// Mean KL(p ‖ q) + KL(q ‖ p), in nats; arguments and errors as in [`divergence`].
///
/// # Errors
/// As [`divergence`].
pub fn symmetric_divergence(p: &[f32], q: &[f32], classes: usize, loss: Loss) -> Result<f64> {
    Ok(divergence(p, q, classes, loss)? + divergence(q, p, classes, loss)?)
}

/// The percentile of each forgotten sample's loss among the references' losses on it: 100 × the share of references
/// whose loss is below. 0 is remembered still, 50 is like retrained, 100 is over-forgotten. `ours` is `[m]`, every
/// reference `[m]`; gives `[m]`.
///
/// # Errors
/// Where there is no reference, a set is empty or of another length, or a loss is NaN.
pub fn ranks(ours: &[f64], references: &[Vec<f64>]) -> Result<Vec<f64>> {
    check_references("ranks", ours, references, 1)?;
    let rank = |i: usize| {
        let below = |theirs: &Vec<f64>| match theirs[i].total_cmp(&ours[i]) {
            _ if theirs[i] == ours[i] => 0.5,
            std::cmp::Ordering::Less => 1.0,
            _ => 0.0,
        };
        100.0 * references.iter().map(below).sum::<f64>() / references.len() as f64
    };
    Ok((0..ours.len()).map(rank).collect())
}

/// ln(p / (1 − p)) of the true label's probability p = exp(−loss): the logit-scaled confidence of Carlini et al.
/// (2022). A loss below 1e-30 counts as 1e-30, so that the value stays finite.
pub fn confidence(loss: f64) -> f64 {
    let loss = loss.max(1e-30);
    -(loss + (-(-loss).exp_m1()).ln())
}

/// The offline likelihood-ratio score of Carlini et al. (2022), with references that never saw the samples as
/// shadow models: (φ − μ) / σ, with φ our [`confidence`] in a sample and μ its mean over the references. The Gaussian's
/// σ² is the references' variance about μ (divided by k − 1), pooled over all samples, as is advised for few shadow
/// models. A large score says member. `ours` is `[m]`, every reference `[m]`; gives `[m]`.
///
/// # Errors
/// As [`ranks`]; and where there are fewer than two references, or they agree on every sample and σ is 0.
pub fn likelihood_ratios(ours: &[f64], references: &[Vec<f64>]) -> Result<Vec<f64>> {
    check_references("likelihood_ratios", ours, references, 2)?;
    let k = references.len() as f64;
    let (mut means, mut squares) = (vec![], 0.0);
    for i in 0..ours.len() {
        let mean = references.iter().map(|theirs| confidence(theirs[i])).sum::<f64>() / k;
        squares += references.iter().map(|theirs| (confidence(theirs[i]) - mean).powi(2)).sum::<f64>();
        means.push(mean);
    }
    let deviation = (squares / (ours.len() as f64 * (k - 1.0))).sqrt();
    if deviation == 0.0 {
        return Err(Error::config("the references agree on every sample: they are no shadow models"));
    }
    Ok(ours.iter().zip(&means).map(|(loss, mean)| (confidence(*loss) - mean) / deviation).collect())
}

/// ‖w − w_ref‖ / ‖w_before − w_ref‖ of a convex model: 1 is no step, 0 is the retrained model. Slices are `[p]`.
///
/// # Errors
/// Where lengths differ, or the model before is the reference itself.
pub fn weight_distance(after: &[f32], before: &[f32], reference: &[f32]) -> Result<f64> {
    if after.len() != reference.len() || before.len() != reference.len() {
        let found = format!("{}, {} and {}", after.len(), before.len(), reference.len());
        return Err(Error::shape("weight_distance", "three sets of as many weights", found));
    }
    let far = |a: &[f32]| {
        let squares = a.iter().zip(reference).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        squares.sum::<f64>().sqrt()
    };
    match far(before) {
        0.0 => Err(Error::config("the reference's weights are those of the model before")),
        whole => Ok(far(after) / whole),
    }
}

/// The mean of |Δ forget|, |Δ retain|, |Δ test| and |Δ AUC| against the references' means, in points.
///
/// # Errors
/// Where there is no reference.
pub fn average_gap(ours: Measures, references: &[Measures]) -> Result<f64> {
    if references.is_empty() {
        return Err(Error::config("an average gap needs a reference"));
    }
    let parts = |m: &Measures| [m.forget, m.retain, m.test, m.auc];
    let ours = parts(&ours);
    let gap = |i: usize| {
        let mean = references.iter().map(|m| parts(m)[i]).sum::<f64>() / references.len() as f64;
        (ours[i] - mean).abs()
    };
    Ok(100.0 * (0..ours.len()).map(gap).sum::<f64>() / ours.len() as f64)
}

/// The average gap's floor: the mean over the references of each one's [`average_gap`] against the others, in points.
/// No method can be expected below it.
///
/// # Errors
/// Where there are fewer than two references.
pub fn floor(references: &[Measures]) -> Result<f64> {
    if references.len() < 2 {
        return Err(Error::config("a floor needs two references or more"));
    }
    let mut sum = 0.0;
    for (i, one) in references.iter().enumerate() {
        let others: Vec<Measures> = [&references[..i], &references[i + 1..]].concat();
        sum += average_gap(*one, &others)?;
    }
    Ok(sum / references.len() as f64)
}

fn check(op: &'static str, losses: &[f64]) -> Result<()> {
    if losses.is_empty() || losses.iter().any(|loss| loss.is_nan()) {
        let found = if losses.is_empty() { "none" } else { "a NaN" };
        return Err(Error::shape(op, "one loss or more, each a number", found));
    }
    Ok(())
}

fn check_references(op: &'static str, ours: &[f64], references: &[Vec<f64>], least: usize) -> Result<()> {
    check(op, ours)?;
    if references.len() < least {
        return Err(Error::shape(op, format!("{least} references or more"), references.len().to_string()));
    }
    for theirs in references {
        check(op, theirs)?;
        if theirs.len() != ours.len() {
            let expected = format!("{} losses of every reference", ours.len());
            return Err(Error::shape(op, expected, theirs.len().to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSS: Loss = Loss::CrossEntropy { smoothing: 0.0 };

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} and {b}");
    }

    #[test]
    fn auc_counts_pairs_and_ties_by_half() {
        near(auc(&[1.0, 2.0], &[3.0, 4.0]).unwrap(), 1.0);
        near(auc(&[5.0], &[3.0, 4.0]).unwrap(), 0.0);
        near(auc(&[2.0, 2.0], &[2.0, 2.0, 2.0]).unwrap(), 0.5);
        near(auc(&[1.0, 3.0], &[1.0, 2.0, 4.0]).unwrap(), 3.5 / 6.0); // 2.5 of the pairs of 1, 1 of those of 3
    }

    #[test]
    fn divergence_of_known_distributions() {
        let (p, q) = ([0.0f32, 0.0], [3.0f32.ln(), 0.0]); // (1/2, 1/2) and (3/4, 1/4)
        let (forth, back) = (0.5 * (4.0f64 / 3.0).ln(), 0.75 * 1.5f64.ln() - 0.25 * 2.0f64.ln());
        assert!((divergence(&p, &q, 2, LOSS).unwrap() - forth).abs() < 1e-7);
        assert!((symmetric_divergence(&p, &q, 2, LOSS).unwrap() - forth - back).abs() < 1e-7);
        near(divergence(&[1e4, 0.0, 5.0, 5.0], &[1e4, 0.0, -5.0, -5.0], 2, LOSS).unwrap(), 0.0);
    }

    #[test]
    fn ranks_are_percentiles_with_ties_by_half() {
        let references = [vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0]];
        assert_eq!(ranks(&[0.5, 2.0, 9.0], &references).unwrap(), [0.0, 75.0, 100.0]);
    }

    #[test]
    fn confidence_is_the_logit_of_the_probability() {
        near(confidence(2.0f64.ln()), 0.0);
        near(confidence(4.0f64.ln()), (1.0f64 / 3.0).ln());
        near(confidence(800.0), -800.0);
        assert!(confidence(0.0).is_finite());
    }

    #[test]
    fn likelihood_ratios_by_hand() {
        let loss = |confidence: f64| (-confidence).exp().ln_1p();
        let references = [vec![loss(0.0), loss(1.0)], vec![loss(2.0), loss(1.0)]]; // means 1 and 1; σ² = 2 / 2
        let scores = likelihood_ratios(&[loss(3.0), loss(0.0)], &references).unwrap();
        near(scores[0], 2.0);
        near(scores[1], -1.0);
    }

    #[test]
    fn distances_and_gaps_by_hand() {
        near(weight_distance(&[3.0, 0.0], &[3.0, 4.0], &[0.0, 0.0]).unwrap(), 0.6);
        let all = |v: f64| Measures { forget: v, retain: v, test: v, auc: v };
        near(average_gap(Measures { forget: 0.9, ..all(0.5) }, &[all(0.4), all(0.6)]).unwrap(), 10.0);
        near(floor(&[all(0.4), all(0.5), all(0.6)]).unwrap(), (15.0 + 0.0 + 15.0) / 3.0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(auc(&[], &[1.0]).is_err() && auc(&[1.0], &[]).is_err() && auc(&[f64::NAN], &[1.0]).is_err());
        assert!(divergence(&[1.0], &[1.0, 2.0], 1, LOSS).is_err() && divergence(&[], &[], 2, LOSS).is_err());
        assert!(
            divergence(&[1.0; 3], &[1.0; 3], 2, LOSS).is_err()
                && divergence(&[1.0], &[1.0], 0, LOSS).is_err()
        );
        assert!(divergence(&[f32::NAN, 0.0], &[0.0, 0.0], 2, LOSS).is_err());
        assert!(ranks(&[1.0], &[]).is_err() && ranks(&[1.0], &[vec![1.0, 2.0]]).is_err());
        assert!(likelihood_ratios(&[1.0], &[vec![1.0]]).is_err());
        assert!(likelihood_ratios(&[1.0], &[vec![1.0], vec![1.0]]).is_err());
        assert!(
            weight_distance(&[1.0], &[1.0], &[1.0]).is_err() && weight_distance(&[], &[1.0], &[1.0]).is_err()
        );
        let one = Measures { forget: 1.0, retain: 1.0, test: 1.0, auc: 0.5 };
        assert!(average_gap(one, &[]).is_err() && floor(&[one]).is_err());
    }
}
