//! Soft labels: what a model that never saw the forgotten samples would answer to them (MATH.md, Eq. 16).
//!
//! They are made of the logits of a *proxy*, which has not seen the samples, in two steps. Held-out samples, which neither
//! model has seen, say how the proxy differs from the original. Those of a class that no retained sample has are left out: the
//! original knows the class, and the proxy does not.
//!
//! 1. *Nudge*: δ is added to the logit of every sample's own label, so that the proxy is right on as many held-out samples
//!    as the original is.
//! 2. *Confidence*: the log odds of a sample's largest probability, κ = ln p/(1 − p), are moved from the proxy's distribution
//!    of them over held-out samples to the original's, quantile by quantile. The logits are scaled until κ is the one wanted;
//!    the prediction stays the same.

use crate::error::{Error, Result};
use crate::loss::softmax::{largest, log_odds, log_softmax};

/// The logits of one model on some samples, with their labels.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// `[n, classes]`.
    pub logits: &'a [f32],
    /// `[n]`.
    pub labels: &'a [u32],
}

impl<'a> Answers<'a> {
    /// The share of the samples with labels that count whose label has the largest logit; 0 where there is none.
    pub fn accuracy(self, counts: impl Fn(u32) -> bool) -> f64 {
        let (mut right, mut all) = (0, 0);
        for (z, label) in self.rows().filter(|(_, label)| counts(*label)) {
            (right, all) = (right + usize::from(largest(z) == label), all + 1);
        }
        right as f64 / all.max(1) as f64
    }

    fn rows(self) -> impl Iterator<Item = (&'a [f32], u32)> {
        let classes = self.logits.len() / self.labels.len().max(1);
        self.logits.chunks_exact(classes.max(1)).zip(self.labels.iter().copied())
    }

    /// ln p/(1 − p) of the largest probability of each sample whose label counts, ascending.
    fn confidences(self, counts: impl Fn(u32) -> bool) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.rows().filter(|(_, label)| counts(*label)).map(|(z, _)| log_odds(z)).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// Forgotten samples with the soft labels that a hold holds them at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// By index in the training data.
    pub indices: Vec<usize>,
    /// `[indices, classes]`.
    pub soft_labels: Vec<f32>,
}

/// Soft labels of `m` samples, and what they amount to.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftLabels {
    /// `[m, classes]`; every row adds up to 1.
    pub q: Vec<f32>,
    /// δ of the nudge.
    pub nudge: f64,
}

impl SoftLabels {
    /// Of the forgotten samples. `retained[c]` tells whether any retained sample has class c: held-out samples of other classes
    /// are left out.
    ///
    /// # Errors
    /// Where no held-out sample has a class that is retained, or a logit is not finite.
    pub fn new(
        forgotten: Answers,
        proxy: Answers,
        original: Answers,
        retained: &[bool],
    ) -> Result<SoftLabels> {
        for answers in [forgotten, proxy, original] {
            if !answers.logits.iter().all(|z| z.is_finite()) {
                return Err(Error::config("a model answers with a logit that is not finite"));
            }
        }
        let nudge = nudge(proxy, original, retained)?;
        let classes = retained.len();
        let nudged = |answers: Answers| -> Vec<f32> {
            let mut logits = answers.logits.to_vec();
            for (z, &label) in logits.chunks_exact_mut(classes).zip(answers.labels) {
                z[label as usize] += nudge as f32;
            }
            logits
        };
        let known = |label: u32| retained[label as usize];
        let theirs = Answers { logits: &nudged(proxy), ..proxy }.confidences(known);
        let ours = original.confidences(known);
        let mut q = nudged(forgotten);
        for z in q.chunks_exact_mut(classes) {
            let wanted = at(&ours, place(&theirs, log_odds(z)));
            scale(z, wanted);
            log_softmax(z).iter().zip(z).for_each(|(log, q)| *q = log.exp() as f32);
        }
        Ok(SoftLabels { q, nudge })
    }

    /// What they say of samples with these labels `[m]`.
    pub fn summary(&self, labels: &[u32]) -> Summary {
        let classes = self.q.len() / labels.len().max(1);
        let rows = self.q.chunks_exact(classes.max(1)).zip(labels);
        let (mut right, mut loss, mut confidence) = (0.0, 0.0, 0.0);
        for (q, &label) in rows {
            let top = largest(q);
            right += f64::from(u8::from(top == label));
            loss -= f64::from(q[label as usize].max(f32::MIN_POSITIVE)).ln();
            confidence += f64::from(q[top as usize]);
        }
        let m = labels.len() as f64;
        Summary { accuracy: right / m, loss: loss / m, confidence: confidence / m }
    }
}

/// What answers amount to, on average over some samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The share of samples whose label is the likeliest.
    pub accuracy: f64,
    /// −ln of the label's probability.
    pub loss: f64,
    /// The largest probability.
    pub confidence: f64,
}

impl Summary {
    /// Of a model's answers.
    pub fn of(answers: Answers) -> Summary {
        let q = answers.rows().flat_map(|(z, _)| log_softmax(z)).map(|log| log.exp() as f32).collect();
        SoftLabels { q, nudge: 0.0 }.summary(answers.labels)
    }
}

/// How many points of accuracy a proxy may be behind the model before that is reported.
const BEHIND: f64 = 0.1;

/// That a proxy is right on far fewer held-out samples of retained classes than the model is, in words: it was trained too
/// little to tell what retraining would answer.
pub fn far_behind(proxy: Answers, original: Answers, retained: &[bool]) -> Option<String> {
    let known = |label: u32| retained[label as usize];
    let (ours, theirs) = (original.accuracy(known), proxy.accuracy(known));
    (ours - theirs > BEHIND).then(|| {
        format!(
            "the proxy is right on {:.1} % of held-out samples, the model on {:.1} %: it tells little of what retraining would \
             answer, and more --proxy-epochs may come closer",
            100.0 * theirs,
            100.0 * ours
        )
    })
}

/// δ: the a-quantile of −margin over held-out samples of retained classes, a being the original's accuracy on them and the
/// margin the proxy's lead of the label's logit over the best other.
fn nudge(proxy: Answers, original: Answers, retained: &[bool]) -> Result<f64> {
    let known = |label: u32| retained[label as usize];
    let (mut right, mut lacks) = (0, vec![]);
    for ((ours, label), (theirs, _)) in original.rows().zip(proxy.rows()).filter(|((_, y), _)| known(*y)) {
        right += usize::from(largest(ours) == label);
        let others = theirs.iter().enumerate().filter(|(c, _)| *c != label as usize).map(|(_, &z)| z);
        let best = others.fold(f32::NEG_INFINITY, f32::max);
        lacks.push(f64::from(best) - f64::from(theirs[label as usize]));
    }
    if lacks.is_empty() {
        return Err(Error::config("no held-out sample has a class that retained samples have"));
    }
    lacks.sort_by(f64::total_cmp);
    // With δ at the k-th least, k samples are right, ties aside; half of the way to the next keeps them apart.
    Ok(match right {
        0 => lacks[0] - 1.0,
        k if k == lacks.len() => lacks[k - 1] + 1.0,
        k => 0.5 * (lacks[k - 1] + lacks[k]),
    })
}

/// Where x lies among ascending values, as a share from 0 to 1: value i is at (i + 1/2)/n, and between two values it is
/// linear.
fn place(values: &[f64], x: f64) -> f64 {
    let n = values.len() as f64;
    let above = values.partition_point(|&value| value < x);
    let at = match above {
        0 => 0.0,
        end if end == values.len() => n - 1.0,
        i => {
            let (low, high) = (values[i - 1], values[i]);
            (i - 1) as f64 + if high > low { (x - low) / (high - low) } else { 1.0 }
        }
    };
    (at + 0.5) / n
}

/// The inverse of [`place`], on other values.
fn at(values: &[f64], share: f64) -> f64 {
    let last = values.len() - 1;
    let at = (share * values.len() as f64 - 0.5).clamp(0.0, last as f64);
    let low = (at.floor() as usize).min(last);
    let high = (low + 1).min(last);
    values[low] + (at - low as f64) * (values[high] - values[low])
}

/// Scales the logits about their mean until their log odds are `wanted`, by bisection. Where two logits share the lead, the
/// log odds stay below 0, and the scale ends at its bound.
fn scale(z: &mut [f32], wanted: f64) {
    const DOUBLINGS: usize = 20;
    const HALVINGS: usize = 60;
    let mean = z.iter().map(|&z| f64::from(z)).sum::<f64>() / z.len() as f64;
    let centred: Vec<f64> = z.iter().map(|&z| f64::from(z) - mean).collect();
    let scaled = |s: f64| -> Vec<f32> { centred.iter().map(|&z| (s * z) as f32).collect() };
    let short = |s: f64| log_odds(&scaled(s)) < wanted;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..DOUBLINGS {
        if !short(high) {
            break;
        }
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if short(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    z.copy_from_slice(&scaled(high));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Labels, the same for all models, and the logits of one that is as sure as `sure`: its noise is as large as the lead of the
    /// label.
    fn answers(n: usize, classes: usize, sure: f32, seed: u32) -> (Vec<f32>, Vec<u32>) {
        let labels: Vec<u32> = (0..n).map(|i| ((i * i + i / 7) % classes) as u32).collect();
        let mut stream = Stream::new(1, Use::Choice, seed);
        let logits = labels.iter().flat_map(|&label| {
            let lead = |c: u32| if c == label { 1.0 } else { 0.0 };
            (0..classes as u32).map(|c| sure * (lead(c) + stream.normal())).collect::<Vec<f32>>()
        });
        (logits.collect(), labels)
    }

    fn accuracy(answers: Answers) -> f64 {
        Summary::of(answers).accuracy
    }

    #[test]
    fn a_proxy_far_behind_on_retained_classes_is_told() {
        let labels = &[0, 0, 0, 0, 1];
        let good = Answers { logits: &[1., 0., 1., 0., 1., 0., 1., 0., 0., 1.], labels };
        let poor = Answers { logits: &[1., 0., 1., 0., 1., 0., 0., 1., 0., 1.], labels };
        let blind = Answers { logits: &[1., 0., 1., 0., 1., 0., 1., 0., 1., 0.], labels }; // to class 1
        assert!(
            far_behind(poor, good, &[true, true])
                .unwrap()
                .contains("80.0 % of held-out samples, the model on 100.0 %")
        );
        assert_eq!(far_behind(good, good, &[true, true]), None);
        assert_eq!(far_behind(blind, good, &[true, false]), None);
    }

    #[test]
    fn the_nudge_gives_the_proxy_the_accuracy_of_the_original() {
        let (proxy, labels) = answers(400, 5, 1.0, 1);
        for seed in [2, 3] {
            let original: Vec<f32> = answers(400, 5, 1.0, seed).0;
            let (proxy, original) =
                (Answers { logits: &proxy, labels: &labels }, Answers { logits: &original, labels: &labels });
            let delta = nudge(proxy, original, &[true; 5]).unwrap();
            let mut moved = proxy.logits.to_vec();
            moved.chunks_exact_mut(5).zip(&labels).for_each(|(z, &y)| z[y as usize] += delta as f32);
            let moved = Answers { logits: &moved, labels: &labels };
            assert!((accuracy(moved) - accuracy(original)).abs() < 1e-9, "{delta}");
            // Samples of a class that is gone are not asked: their answers change nothing.
            let retained = [true, true, false, true, true];
            let mut changed = proxy.logits.to_vec();
            let of_class = changed.chunks_exact_mut(5).zip(&labels).filter(|(_, y)| **y == 2);
            of_class.for_each(|(z, _)| z[2] -= 100.0);
            let changed = Answers { logits: &changed, labels: &labels };
            let asked = |answers| nudge(answers, original, &retained).unwrap();
            assert_eq!(asked(changed), asked(proxy));
            assert_ne!(nudge(changed, original, &[true; 5]).unwrap(), delta);
            assert!(nudge(proxy, original, &[false; 5]).is_err());
        }
    }

    #[test]
    fn a_proxy_that_is_the_original_keeps_its_answers() {
        let (logits, labels) = answers(300, 4, 2.0, 4);
        let held_out = Answers { logits: &logits, labels: &labels };
        let (z, y) = answers(50, 4, 2.0, 5);
        let soft =
            SoftLabels::new(Answers { logits: &z, labels: &y }, held_out, held_out, &[true; 4]).unwrap();
        // The nudge lies between two margins, of which 0 is the border of one that is right and one that is not.
        assert!(soft.nudge.abs() < 0.1, "{}", soft.nudge);
        for (q, z) in soft.q.chunks_exact(4).zip(z.chunks_exact(4)) {
            for (q, log) in q.iter().zip(log_softmax(z)) {
                assert!((f64::from(*q) - log.exp()).abs() < 0.06, "{q} {}", log.exp());
            }
        }
    }

    #[test]
    fn held_out_samples_of_a_class_that_is_gone_change_no_soft_label() {
        let retained = [true, false, true];
        let ((proxy, labels), (original, _)) = (answers(300, 3, 1.0, 8), answers(300, 3, 2.0, 9));
        let (forgotten, of_class) = (answers(40, 3, 1.0, 10).0, [1; 40]);
        let forgotten = Answers { logits: &forgotten, labels: &of_class };
        let q = |original: &[f32], proxy: &[f32], retained: &[bool]| {
            let (theirs, ours) =
                (Answers { logits: proxy, labels: &labels }, Answers { logits: original, labels: &labels });
            SoftLabels::new(forgotten, theirs, ours, retained).unwrap().q
        };
        let surer = |logits: &[f32], times: f32| -> Vec<f32> {
            let rows = logits.chunks_exact(3).zip(&labels);
            rows.flat_map(|(z, &y)| z.iter().map(move |z| if y == 1 { times * z } else { *z })).collect()
        };
        let (sure, unsure) = (surer(&original, 30.0), surer(&proxy, 0.01));
        assert_eq!(q(&sure, &unsure, &retained), q(&original, &proxy, &retained));
        assert_ne!(q(&sure, &unsure, &[true; 3]), q(&original, &proxy, &[true; 3]));
    }

    #[test]
    fn confidences_become_the_original_s_and_predictions_stay() {
        let (unsure, labels) = answers(500, 3, 0.5, 6);
        let (sure, _) = answers(500, 3, 4.0, 7);
        let (proxy, original) =
            (Answers { logits: &unsure, labels: &labels }, Answers { logits: &sure, labels: &labels });
        let soft = SoftLabels::new(proxy, proxy, original, &[true; 3]).unwrap();
        let mut found: Vec<f64> = soft
            .q
            .chunks_exact(3)
            .map(|q| {
                let top = f64::from(q.iter().fold(0f32, |a, &b| a.max(b)));
                (top / (1.0 - top)).ln()
            })
            .collect();
        found.sort_by(f64::total_cmp);
        let expected = original.confidences(|_| true);
        for (found, expected) in found.iter().zip(&expected).take(450) {
            assert!((found - expected).abs() < 1e-3 * (1.0 + expected.exp()), "{found} {expected}");
        }
        assert!(soft.q.chunks_exact(3).all(|q| (q.iter().sum::<f32>() - 1.0).abs() < 1e-5));
        let (mut nudged, delta) = (unsure.clone(), soft.nudge as f32);
        nudged.chunks_exact_mut(3).zip(&labels).for_each(|(z, &y)| z[y as usize] += delta);
        for (q, z) in soft.q.chunks_exact(3).zip(nudged.chunks_exact(3)) {
            assert_eq!(largest(q), largest(z));
        }
    }

    #[test]
    fn quantiles_are_linear_between_values_and_end_at_the_ends() {
        let (a, b) = ([0.0, 1.0, 3.0], [10.0, 20.0, 40.0]);
        for (x, expected) in [(-5.0, 10.0), (0.0, 10.0), (0.5, 15.0), (1.0, 20.0), (2.0, 30.0), (9.0, 40.0)] {
            assert!((at(&b, place(&a, x)) - expected).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn a_summary_counts_what_the_labels_get() {
        let soft = SoftLabels { q: vec![0.75, 0.25, 0.5, 0.5], nudge: 0.0 };
        let summary = soft.summary(&[0, 1]);
        assert_eq!((summary.accuracy, summary.confidence), (0.5, 0.625));
        assert!((summary.loss - 0.5 * (-(0.75f64.ln()) - 0.5f64.ln())).abs() < 1e-9);
    }
}
