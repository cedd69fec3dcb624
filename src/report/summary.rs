//! What a scrub came to, summed over its batches: the numbers behind the verdict of its page.

use crate::audit::Performance;
use crate::outcome::{Outcome, Record};

/// A change of the forgotten samples' accuracy, as a share, and of their mean loss, relative to it, below which their
/// answers hardly moved.
const HARDLY: (f64, f64) = (0.005, 0.02);
/// A drop of accuracy on other samples, as a share, above which the model is damaged: the margin of a verification's flag.
const DAMAGE: f64 = 0.01;

/// A number before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub before: Performance,
    pub after: Performance,
}

/// What became of the forgotten samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The model's answers on them moved.
    Moved,
    /// They hardly moved.
    Unmoved,
    /// Their loss was at its aim before: there was little to forget.
    Nothing,
    /// Rounding to the type of the files took the step back.
    Undone,
    /// No batch was removed.
    None,
}

/// The removed samples, and the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub effect: Effect,
    /// The removed samples, each batch just before and after its removal.
    pub forget: Option<Change>,
    /// The mean loss that was aimed at.
    pub aim: Option<f64>,
    /// The retained samples, before the first batch and after the last.
    pub retain: Option<Change>,
    /// The validation samples, likewise.
    pub validation: Option<Change>,
}

/// The loss that a batch's samples were to have.
pub fn aim(record: &Record) -> Option<f64> {
    let account = &record.account;
    let of_hold = account.hold.as_ref().map(|hold| hold.target.loss);
    of_hold.or(account.step.as_ref().and_then(|step| step.length.target))
}

/// A mean over batches, weighted by their samples; none where a batch lacks the number.
fn mean(records: &[&Record], of: impl Fn(&Record) -> Option<f64>) -> Option<f64> {
    let samples: usize = records.iter().map(|record| record.indices.len()).sum();
    let sum: Option<f64> = records.iter().map(|record| Some(of(record)? * record.indices.len() as f64)).sum();
    Some(sum? / samples as f64).filter(|mean| mean.is_finite())
}

impl Summary {
    pub fn of(outcome: &Outcome) -> Summary {
        let removed: Vec<&Record> = outcome.records.iter().filter(|record| record.removed()).collect();
        let before =
            |of: fn(&Performance) -> f64| mean(&removed, |record| Some(of(&record.account.before.forget)));
        let after =
            |of: fn(&Performance) -> f64| mean(&removed, |record| Some(of(&record.account.after()?.forget)));
        let performance =
            |loss: Option<f64>, accuracy: Option<f64>| Some(Performance { loss: loss?, accuracy: accuracy? });
        let forget = performance(before(|p| p.loss), before(|p| p.accuracy))
            .zip(performance(after(|p| p.loss), after(|p| p.accuracy)))
            .map(|(before, after)| Change { before, after });
        let (first, last) =
            (outcome.records.first(), removed.last().and_then(|record| record.account.after()));
        let ends = first.map(|record| &record.account.before).zip(last);
        let ends = outcome.written.as_ref().map(|written| (&written.before, &written.after)).or(ends);
        let aim = mean(&removed, aim);
        Summary {
            effect: match &outcome.written {
                Some(written) if !written.removed => Effect::Undone,
                _ => effect(forget, aim),
            },
            forget,
            aim,
            retain: ends.map(|(before, after)| Change { before: before.retain, after: after.retain }),
            validation: ends.and_then(|(before, after)| {
                Some(Change { before: before.validation?, after: after.validation? })
            }),
        }
    }

    /// Whether retained or validation samples lost accuracy.
    pub fn is_damaged(&self) -> bool {
        let drop = |change: &Change| change.before.accuracy - change.after.accuracy;
        self.retain.iter().chain(&self.validation).any(|change| drop(change) > DAMAGE)
    }
}

fn effect(forget: Option<Change>, aim: Option<f64>) -> Effect {
    let Some(Change { before, after }) = forget else { return Effect::None };
    let unmoved = (after.accuracy - before.accuracy).abs() < HARDLY.0
        && (after.loss - before.loss).abs() < HARDLY.1 * before.loss;
    match aim {
        Some(aim) if before.loss >= (1.0 - HARDLY.1) * aim => Effect::Nothing,
        _ if unmoved => Effect::Unmoved,
        _ => Effect::Moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_what_the_numbers_show() {
        let of = |loss, accuracy| Performance { loss, accuracy };
        let found = |before, after, aim| effect(Some(Change { before, after }), aim);
        assert_eq!(found(of(0.1, 1.0), of(2.0, 0.5), Some(2.0)), Effect::Moved);
        assert_eq!(found(of(0.1, 1.0), of(0.101, 1.0), None), Effect::Unmoved);
        assert_eq!(found(of(0.1, 1.0), of(0.101, 1.0), Some(2.0)), Effect::Unmoved);
        assert_eq!(found(of(2.1, 0.3), of(2.1, 0.3), Some(2.0)), Effect::Nothing);
        assert_eq!(effect(None, Some(2.0)), Effect::None);
    }

    #[test]
    fn damage_is_a_lost_point_on_either_set() {
        let of = |accuracy| Performance { loss: 0.1, accuracy };
        let change = |drop| Some(Change { before: of(0.9), after: of(0.9 - drop) });
        let of = |retain, validation| Summary {
            effect: Effect::Moved,
            forget: None,
            aim: None,
            retain: change(retain),
            validation: change(validation),
        };
        assert!(!of(0.005, 0.005).is_damaged() && of(0.02, 0.0).is_damaged() && of(0.0, 0.02).is_damaged());
    }
}
