//! Targets: how far a step is to go (MATH.md, Eq. 12, α).
//!
//! Calibration aims at the loss that the network, before any step, has on samples it has not seen. The way there is
//! divided into stages.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::data::Samples;
use crate::error::{Error, Result};
use crate::loss::softmax::largest;
use crate::net::{Network, Scores, evaluate, outputs};
use crate::task::{Calibration, SMALLEST_BATCH, Settings, Target, Task, is_convex};
use crate::update::Length;

/// A standard error of the target above which, as a share of it, a receipt says that it is uncertain.
const UNCERTAIN: f64 = 0.25;

/// The most by which one stage raises the mean loss of the forgotten, and how many stages there are by default.
const STAGE_LOSS: f64 = 1.5;
const STAGES: RangeInclusive<usize> = 2..=16;

/// Stages for a rise of the loss.
fn stages(rise: f64) -> usize {
    ((rise / STAGE_LOSS).ceil() as usize).clamp(*STAGES.start(), *STAGES.end())
}

/// Stages that a batch of `m` samples takes at most (an ordinary one where the loss of held-out samples is no more
/// than 3).
pub fn stages_at_most(settings: &Settings, net: &Network, m: usize) -> usize {
    match (settings.calibration, settings.target) {
        _ if is_convex(net, settings.l2) => 1,
        (Calibration::One, _) => 1,
        (Calibration::Calibrated, _) if m < SMALLEST_BATCH => 1,
        (Calibration::Calibrated, Target::HeldOut) => settings.stages.unwrap_or(*STAGES.start()),
        (Calibration::Calibrated, Target::Loss(loss)) => settings.stages.unwrap_or(stages(loss)),
        (Calibration::Calibrated, Target::WrongLabels | Target::Class) => {
            settings.stages.unwrap_or(*STAGES.end())
        }
    }
}

/// The lengths of the stages: the formula's own, or targets on the way from the forgotten samples' loss to
/// calibration's.
///
/// # Errors
/// Where no sample can stand for the request's, or a pass fails.
pub fn lengths(
    task: &Task,
    net: &Network,
    request: &[usize],
    loss: f64,
    notes: &mut Vec<String>,
) -> Result<Vec<Length>> {
    let (settings, m) = (&task.settings, request.len());
    if settings.calibration == Calibration::One || is_convex(net, settings.l2) {
        return Ok(vec![Length::One]);
    }
    if m < SMALLEST_BATCH {
        notes.push(format!(
            "a batch of {m} takes the formula's own length, which changes a trained network little; {SMALLEST_BATCH} or more are calibrated"
        ));
        return Ok(vec![Length::One]);
    }
    let target = match settings.target {
        Target::Loss(loss) => loss,
        Target::HeldOut | Target::WrongLabels | Target::Class => {
            let scores = unseen(task, net, request)?;
            let (target, error) = (scores.mean_loss(), error_of_mean(&scores.losses));
            if error > UNCERTAIN * target {
                let count = scores.losses.len();
                notes.push(format!(
                    "the target {target:.3} is uncertain by {error:.3}: it is the mean of {count} samples alone"
                ));
            }
            target
        }
    };
    if loss >= target {
        notes.push(format!(
            "the forgotten samples' loss, {loss:.3}, is at the target {target:.3} before any step: the formula's own \
             length, or less where the loss would rise by more than the target"
        ));
        return Ok(vec![Length::AtMost(loss + target)]);
    }
    let stages = settings.stages.unwrap_or_else(|| stages(target - loss));
    let at = |stage: usize| loss + (target - loss) * stage as f64 / stages as f64;
    Ok((1..=stages).map(|stage| Length::To(at(stage))).collect())
}

/// The standard error of a mean.
fn error_of_mean(losses: &[f32]) -> f64 {
    let n = losses.len() as f64;
    let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / n;
    let squares = losses.iter().map(|&loss| (f64::from(loss) - mean).powi(2)).sum::<f64>();
    (squares / (n * (n - 1.0))).sqrt()
}

/// How the network does, before any step, on samples that it has not seen and that stand for the request's: held-out
/// samples; for wrong labels, held-out samples under these labels; for a class, held-out samples of the classes that it
/// is likeliest to be taken for, under its label.
fn unseen(task: &Task, net: &Network, request: &[usize]) -> Result<Scores> {
    let (samples, held_out) = match task.validation {
        Some(validation) => (validation, (0..validation.y.len()).collect()),
        None => (task.samples, task.held_out.clone()),
    };
    let labels: Vec<u32> = request.iter().filter_map(|&i| task.samples.y.class_of(i)).collect();
    let stand_ins = match task.settings.target {
        Target::Class => {
            let logits = outputs(task.device, net, &task.samples.subset(request))?.logits;
            look_alikes(samples, &held_out, &labels, &second_choices(&logits, &labels))?
        }
        Target::WrongLabels => wrongly_labelled(samples, &held_out, &labels)?,
        Target::HeldOut | Target::Loss(_) => {
            return evaluate(task.device, net, &samples.subset(&held_out));
        }
    };
    evaluate(task.device, net, &stand_ins)
}

/// The likeliest class beside the label, for each row of `logits` `[m, classes]`.
fn second_choices(logits: &[f32], labels: &[u32]) -> Vec<u32> {
    let rows = logits.chunks_exact(logits.len() / labels.len()).zip(labels);
    rows.map(|(row, &label)| {
        let mut others = row.to_vec();
        others[label as usize] = f32::NEG_INFINITY;
        largest(&others)
    })
    .collect()
}

/// For each of `labels`, the next of the samples at `indices` that has the class beside it, under the label.
///
/// # Errors
/// Where no sample has any of these classes.
fn look_alikes(samples: &Samples, indices: &[usize], labels: &[u32], classes: &[u32]) -> Result<Samples> {
    let (mut x, mut y) = (vec![], vec![]);
    let of =
        |class: u32| indices.iter().copied().filter(move |&i| samples.y.class_of(i) == Some(class)).collect();
    let mut turns: BTreeMap<u32, (Vec<usize>, usize)> = BTreeMap::new(); // of each class, and how many are taken
    for (&label, &class) in labels.iter().zip(classes) {
        let (turn, taken) = turns.entry(class).or_insert_with(|| (of(class), 0));
        if !turn.is_empty() {
            x.extend_from_slice(&samples.image(turn[*taken % turn.len()])?);
            y.push(label);
            *taken += 1;
        }
    }
    match y.is_empty() {
        true => Err(Error::config("no held-out sample has a class that the samples would be taken for")),
        false => Ok(Samples { kind: samples.kind, x, y: y.into(), stream: None }),
    }
}

/// The samples at `indices` under `labels` taken in turn, each with the next one that is not its own.
///
/// # Errors
/// Where no sample has another label than all of these.
fn wrongly_labelled(samples: &Samples, indices: &[usize], labels: &[u32]) -> Result<Samples> {
    let mut turn = labels.iter().cycle();
    let (mut x, mut y) = (vec![], vec![]);
    for &i in indices {
        let other = turn.by_ref().take(labels.len()).find(|&&label| samples.y.class_of(i) != Some(label));
        if let Some(&label) = other {
            x.extend_from_slice(&samples.image(i)?);
            y.push(label);
        }
    }
    match y.is_empty() {
        true => Err(Error::config("every held-out sample has the label of the wrongly labelled ones")),
        false => Ok(Samples { kind: samples.kind, x, y: y.into(), stream: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;

    #[test]
    fn a_class_is_stood_in_for_by_those_it_is_taken_for() {
        let labels = [2, 2, 2, 2];
        let logits = [1.0, 0.0, 9.0, 3.0, 4.0, 9.0, 0.0, -1.0, -2.0, 0.0, 5.0, 9.0];
        let classes = second_choices(&logits, &labels);
        assert_eq!(classes, [0, 1, 0, 1]);
        let samples = Samples {
            kind: Shape::new(1, 1, 1).into(),
            x: vec![0.0, 1.0, 2.0, 3.0, 4.0],
            y: vec![0, 1, 2, 0, 0].into(),
            stream: None,
        };
        let stand_ins = look_alikes(&samples, &[0, 1, 2, 3], &labels, &classes).unwrap();
        assert_eq!((stand_ins.x, stand_ins.y), (vec![0.0, 1.0, 3.0, 1.0], vec![2, 2, 2, 2].into()));
        assert!(look_alikes(&samples, &[2], &labels, &classes).is_err());
    }

    #[test]
    fn wrong_labels_are_taken_in_turn_and_are_never_the_sample_s_own() {
        let samples = Samples {
            kind: Shape::new(1, 1, 1).into(),
            x: vec![0.0, 1.0, 2.0, 3.0],
            y: vec![0, 1, 1, 2].into(),
            stream: None,
        };
        let wrong = wrongly_labelled(&samples, &[0, 1, 3], &[1, 0]).unwrap();
        assert_eq!((wrong.x, wrong.y), (vec![0.0, 1.0, 3.0], vec![1, 0, 1].into()));
        let some = wrongly_labelled(&samples, &[1, 3], &[1]).unwrap();
        assert_eq!((some.x, some.y), (vec![3.0], vec![1].into()));
        assert!(wrongly_labelled(&samples, &[1, 2], &[1, 1]).is_err());
    }
}
