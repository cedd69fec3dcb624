//! The audit: what a step did to the forgotten, the retained and the validation samples, and whether it is kept.

use serde::{Deserialize, Serialize};

use crate::data::{Inputs, Subset};
use crate::error::Result;
use crate::names::number;
use crate::net::{Network, evaluate};
use crate::soft_label::Summary;
use crate::task::Task;

/// A change of the forgotten samples' mean loss below which nothing measurable happened.
const MEASURABLE: f64 = 0.01;

/// Mean loss and accuracy of a model on some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// The mean loss, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The share of correct predictions.
    #[serde(deserialize_with = "number")]
    pub accuracy: f64,
}

/// The performance on the three sets, before or after a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// On the batch that is to be forgotten.
    pub forget: Performance,
    /// On the retained samples that are used.
    pub retain: Performance,
    /// On the validation samples that the gate judges by, where there are some.
    pub validation: Option<Performance>,
}

impl Snapshot {
    /// Evaluates the network on all three.
    ///
    /// # Errors
    /// Where a pass fails.
    pub fn of(
        task: &Task,
        net: &Network,
        request: &dyn Inputs,
        validation: Option<&Subset>,
    ) -> Result<Snapshot> {
        let of = |inputs: &dyn Inputs| -> Result<Performance> {
            let scores = evaluate(task.device, net, inputs)?;
            Ok(Performance { loss: scores.mean_loss(), accuracy: scores.accuracy() })
        };
        Ok(Snapshot {
            forget: of(request)?,
            retain: of(&task.samples.subset(&task.retained))?,
            validation: validation.map(|samples| of(samples)).transpose()?,
        })
    }

    /// Whether every loss is a finite number.
    pub fn is_finite(&self) -> bool {
        let all = [Some(self.forget), Some(self.retain), self.validation];
        all.into_iter().flatten().all(|performance| performance.loss.is_finite())
    }
}

/// The validation samples that the gate judges by: without those of a class that is to go wholly, which a model that
/// never saw it gets wrong too.
pub fn judged(task: &Task, request: &[usize], notes: &mut Vec<String>) -> Vec<usize> {
    let Some(validation) = task.validation.map(|samples| &samples.y) else { return vec![] };
    let labels = &task.samples.y;
    let is = |class: u32| move |&i: &usize| labels.class_of(i) == Some(class);
    let class = request
        .first()
        .and_then(|&i| labels.class_of(i))
        .filter(|&class| request.iter().all(is(class)) && !task.retained.iter().any(is(class)));
    let judged: Vec<usize> =
        (0..validation.len()).filter(|&i| class.is_none() || validation.class_of(i) != class).collect();
    if let Some(class) = class.filter(|_| judged.len() < validation.len()) {
        notes.push(format!("validation leaves out class {class}, of which nothing is retained"));
    }
    judged
}

/// Why a drop of accuracy, on validation or on retained samples, keeps a step from being taken, in words; nothing where the gate
/// is met.
pub fn gate(before: &Snapshot, after: &Snapshot, gate: f64) -> Option<String> {
    let validation = before.validation.zip(after.validation);
    let sets = [("validation", validation), ("retained", Some((before.retain, after.retain)))];
    sets.into_iter().find_map(|(what, pair)| {
        let (was, is) = pair.map(|(before, after)| (before.accuracy, after.accuracy))?;
        (was - is > gate).then(|| {
            format!(
                "not removed: {what} accuracy would fall by {:.2} points, the gate is {:.2}",
                100.0 * (was - is),
                100.0 * gate
            )
        })
    })
}

/// What the forgotten samples were to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aim {
    /// Their mean loss.
    pub loss: f64,
    /// Their accuracy, where that is known too.
    pub accuracy: Option<f64>,
}

impl From<Summary> for Aim {
    /// What the soft labels of a hold say.
    fn from(target: Summary) -> Aim {
        Aim { loss: target.loss, accuracy: Some(target.accuracy) }
    }
}

/// Whether nothing of the forgotten samples' answers moved that can be measured: their mean loss by too little, and as many are right
/// as before.
pub fn is_unmoved(before: &Snapshot, after: &Snapshot) -> bool {
    let (was, is) = (before.forget, after.forget);
    (is.loss - was.loss).abs() < MEASURABLE && is.accuracy == was.accuracy
}

/// Why a step is none, in words: nothing moved, or the forgotten moved away from their aim. Forgetting raises their mean loss, or lets it
/// fall to an aim below it; a fall that does not end nearer to the aim is none. Where the loss moved too little to measure, the same
/// holds of the accuracy, which forgetting lowers.
pub fn no_effect(before: &Snapshot, after: &Snapshot, aim: Option<Aim>) -> Option<String> {
    let (was, is) = (before.forget, after.forget);
    if is_unmoved(before, after) {
        return Some(format!(
            "not removed: no effect can be measured; the loss of the forgotten moves by less than {MEASURABLE}, from {:.4} to \
             {:.4}",
            was.loss, is.loss
        ));
    }
    let nearer =
        |was: f64, is: f64, aim: Option<f64>| aim.is_some_and(|aim| (is - aim).abs() < (was - aim).abs());
    let towards = match (is.loss - was.loss).abs() >= MEASURABLE {
        true => is.loss > was.loss || nearer(was.loss, is.loss, aim.map(|aim| aim.loss)),
        false => {
            is.accuracy < was.accuracy || nearer(was.accuracy, is.accuracy, aim.and_then(|aim| aim.accuracy))
        }
    };
    let what = match aim {
        Some(aim) => format!("away from the aim, a loss of {:.4}", aim.loss),
        None => "where forgetting raises the loss and lowers the accuracy".to_string(),
    };
    (!towards).then(|| {
        format!(
            "not removed: the loss of the forgotten moves from {:.4} to {:.4} and their accuracy from {:.1} % to {:.1} %, {what}",
            was.loss,
            is.loss,
            100.0 * was.accuracy,
            100.0 * is.accuracy
        )
    })
}

/// 1 − ‖g_res(w') − n/(n−m) ∇F(w)‖ / ‖Σ_U ∇f(w) / (n−m)‖ on the block (MATH.md, Eq. 14), where ∇F(w) is put together from the
/// retained samples' mean gradient and the forgotten samples' `sum`, which carries their weight decay. All slices are
/// `[p]`.
pub fn share_removed(
    start: &[f32],
    end: &[f32],
    retained_before: &[f64],
    retained_after: &[f64],
    sum: &[f64],
    n: usize,
    m: usize,
    l2: f64,
) -> f64 {
    let residual = (n - m) as f64;
    let (mut left, mut all) = (0.0, 0.0);
    for i in 0..sum.len() {
        let forgotten = sum[i] / residual;
        let whole = retained_before[i] + forgotten + l2 * f64::from(start[i]);
        left += (retained_after[i] + l2 * f64::from(end[i]) - whole).powi(2);
        all += forgotten.powi(2);
    }
    1.0 - (left / all).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_one_towards_the_aim() {
        let of = |loss, accuracy| {
            let set = Performance { loss, accuracy };
            Snapshot { forget: set, retain: set, validation: None }
        };
        let aim = |loss| Some(Aim { loss, accuracy: None });
        let effect = |was, is, aim| no_effect(&was, &is, aim).is_none();
        assert!(effect(of(0.1, 1.0), of(0.9, 0.8), aim(1.0)));
        assert!(effect(of(0.1, 1.0), of(4.0, 0.0), aim(1.0)), "beyond the aim");
        assert!(effect(of(0.1, 1.0), of(0.9, 0.8), None));
        assert!(effect(of(2.0, 0.2), of(1.6, 0.3), aim(1.5)), "from above");
        assert!(effect(of(0.67, 0.7), of(1.17, 0.46), aim(0.66)), "more than was aimed at");
        // What only went on learning.
        assert!(!effect(of(0.48, 0.9), of(0.19, 0.95), aim(0.9)));
        assert!(!effect(of(0.48, 0.9), of(0.19, 0.95), aim(0.481)), "at its aim before");
        assert!(!effect(of(0.48, 0.9), of(0.19, 0.95), None));
        assert!(!effect(of(2.0, 0.2), of(0.9, 0.6), aim(1.5)), "below its aim, and farther from it");
        // By accuracy alone.
        let known = |loss, accuracy| Some(Aim { loss, accuracy: Some(accuracy) });
        assert!(effect(of(0.48, 0.9), of(0.485, 0.8), known(0.6, 0.7)));
        assert!(!effect(of(0.48, 0.9), of(0.485, 0.95), known(0.6, 0.7)));
        assert!(effect(of(0.48, 0.9), of(0.485, 0.95), known(0.6, 0.99)));
        assert!(!effect(of(0.48, 0.9), of(0.485, 0.9), known(0.6, 0.7)), "too little to measure");
        let why = no_effect(&of(0.48, 0.9), &of(0.19, 0.95), aim(0.9)).unwrap();
        assert!(
            why.contains("from 0.4800 to 0.1900") && why.contains("away from the aim, a loss of 0.9000"),
            "{why}"
        );
    }
}
