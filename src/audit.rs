//! The audit: what a step did to the forgotten, the retained and the validation samples, and whether it is kept.

use serde::{Deserialize, Serialize};

use crate::data::{Inputs, Subset};
use crate::error::Result;
use crate::names::number;
use crate::net::{Network, evaluate};
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

/// Why a step is none, in words: the mean loss of the forgotten moves too little to measure, and as many are right as before.
pub fn no_effect(before: &Snapshot, after: &Snapshot) -> Option<String> {
    let (was, is) = (before.forget, after.forget);
    ((is.loss - was.loss).abs() < MEASURABLE && is.accuracy == was.accuracy).then(|| {
        format!(
            "not removed: no effect can be measured; the loss of the forgotten moves by less than {MEASURABLE}, from {:.4} to \
             {:.4}",
            was.loss, is.loss
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
