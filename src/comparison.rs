//! Comparison: a model before and after unlearning, beside models that were retrained without the forgotten samples.
//!
//! Every measure is computed for every model, and for a retrained model against the other retrained ones. They show
//! what forgetting looks like, so a number has a meaning only in comparison with theirs. [`MEASURES`] is the one list
//! of measures, from which tables, reports and definitions are made. Flags go both ways: a model that over-forgets the
//! samples is as far from retraining as one that remembers them.

mod findings;
mod measures;

use serde::Serialize;

pub use findings::{Finding, Flag};
pub use measures::{Definition, MEASURES, Row, Spread};

use findings::findings;
use measures::spread;

use crate::audit::Performance;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::verify::{Measures, auc, average_gap, divergence, likelihood_ratios, ranks, weight_distance};

/// The least number of references for the likelihood ratio: each then has two others as shadow models.
pub const SHADOWS: usize = 3;

/// The least number of unseen samples for membership inference.
pub const UNSEEN: usize = 10;

/// The outputs of a model on one set of `n` samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// `[n]`, cross-entropies at the true labels.
    pub losses: Vec<f64>,
    /// `[n, classes]`.
    pub logits: Vec<f32>,
    /// The share of correct predictions.
    pub accuracy: f64,
}

/// The outputs of a model on the three sets, which are the same for all models.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// The forgotten samples.
    pub forget: Outputs,
    /// The retained samples.
    pub retain: Outputs,
    /// Samples that no model has seen.
    pub test: Outputs,
    /// All weights of a convex model, `[p]`.
    pub weights: Option<Vec<f32>>,
}

/// The losses of the models on one forgotten sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The loss before.
    pub before: f64,
    /// The loss after.
    pub after: f64,
    /// The loss of each retrained model.
    pub references: Vec<f64>,
    /// The percentage of retrained models whose loss is below that of the model after.
    pub rank: f64,
    /// The likelihood-ratio score under the model after, where there are enough references.
    pub likelihood_ratio: Option<f64>,
}

/// A model before and after, beside retrained ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The model before.
    pub before: Row,
    /// The model after.
    pub after: Row,
    /// The retrained models, each against the others.
    pub references: Vec<Row>,
    /// Every forgotten sample.
    pub samples: Vec<Sample>,
    /// What is wrong with the model after; empty where it cannot be distinguished from a retrained one.
    pub findings: Vec<Finding>,
    /// Whether the model before remembers the samples, by the same rules. If not, there was little to forget.
    pub remembered: bool,
}

impl Comparison {
    /// Compares the models. `unseen` are the indices of the test samples that membership inference compares with the
    /// forgotten ones: all, or for a class those of the class. `classes` is the width of the logits, `loss` that of the models.
    ///
    /// # Errors
    /// Where there is no reference, fewer than [`UNSEEN`] unseen samples, the sets are not of equal size in all
    /// models, a loss is NaN or a logit not finite, or a convex reference has the weights of the model before.
    pub fn new(
        before: &Behaviour,
        after: &Behaviour,
        references: &[Behaviour],
        unseen: &[usize],
        classes: usize,
        loss: Loss,
    ) -> Result<Comparison> {
        if references.is_empty() {
            return Err(Error::config("a comparison needs a model that was retrained without the samples"));
        }
        if unseen.len() < UNSEEN {
            return Err(Error::config(format!(
                "{} unseen samples are too few to tell forgotten ones from: {UNSEEN} are needed",
                unseen.len()
            )));
        }
        let all: Vec<&Behaviour> = references.iter().collect();
        let context = Context { before, unseen, classes, loss };
        let rows = (0..all.len())
            .map(|i| context.row(all[i], &[&all[..i], &all[i + 1..]].concat()))
            .collect::<Result<Vec<Row>>>()?;
        let row = |model| context.row(model, &all);
        let (row_before, row_after) = (row(before)?, row(after)?);
        let losses: Vec<Vec<f64>> = all.iter().map(|one| one.forget.losses.clone()).collect();
        let percentiles = ranks(&after.forget.losses, &losses)?;
        let scores = context.scores(after, &all)?;
        let samples = (0..after.forget.losses.len())
            .map(|i| Sample {
                before: before.forget.losses[i],
                after: after.forget.losses[i],
                references: losses.iter().map(|one| one[i]).collect(),
                rank: percentiles[i],
                likelihood_ratio: scores.as_ref().map(|scores| scores[i]),
            })
            .collect();
        let findings = findings(&row_after, &rows);
        let remembered = self::findings(&row_before, &rows).iter().any(|f| f.flag == Flag::Remembers);
        Ok(Comparison {
            before: row_before,
            after: row_after,
            references: rows,
            samples,
            findings,
            remembered,
        })
    }

    /// The retrained models' values of a measure, where they have one.
    pub fn retrained(&self, measure: &Definition) -> Option<Spread> {
        spread(&self.references, measure.of)
    }

    /// How far a model is from the retrained ones' mean, where both have the measure.
    pub fn gap(&self, measure: &Definition, row: &Row) -> Option<f64> {
        Some((measure.of)(row)? - self.retrained(measure)?.mean)
    }
}

/// The inputs of the measures.
struct Context<'a> {
    before: &'a Behaviour,
    unseen: &'a [usize],
    classes: usize,
    loss: Loss,
}

impl Context<'_> {
    fn unseen(&self, model: &Behaviour) -> Result<Vec<f64>> {
        let loss = |&i: &usize| model.test.losses.get(i).copied();
        let losses: Option<Vec<f64>> = self.unseen.iter().map(loss).collect();
        losses.ok_or_else(|| {
            Error::shape("comparison", "unseen samples of the test set", "an index beyond its end")
        })
    }

    fn measures(&self, model: &Behaviour) -> Result<Measures> {
        Ok(Measures {
            forget: model.forget.accuracy,
            retain: model.retain.accuracy,
            test: model.test.accuracy,
            auc: auc(&model.forget.losses, &self.unseen(model)?)?,
        })
    }

    /// Likelihood-ratio scores of the forgotten samples, then of the unseen ones.
    fn scores(&self, model: &Behaviour, others: &[&Behaviour]) -> Result<Option<Vec<f64>>> {
        if others.len() + 1 < SHADOWS {
            return Ok(None);
        }
        let both = |model: &Behaviour| Ok([model.forget.losses.clone(), self.unseen(model)?].concat());
        let others = others.iter().map(|one| both(one)).collect::<Result<Vec<_>>>()?;
        likelihood_ratios(&both(model)?, &others).map(Some)
    }

    fn row(&self, model: &Behaviour, others: &[&Behaviour]) -> Result<Row> {
        let of = |outputs: &Outputs| Performance { loss: mean(&outputs.losses), accuracy: outputs.accuracy };
        let (forget, retain, test) = (of(&model.forget), of(&model.retain), of(&model.test));
        let measures = self.measures(model)?;
        let mut row = Row {
            forget_accuracy: forget.accuracy,
            forget_loss: forget.loss,
            retain_accuracy: retain.accuracy,
            retain_loss: retain.loss,
            test_accuracy: test.accuracy,
            test_loss: test.loss,
            auc: measures.auc,
            likelihood_auc: None,
            likelihood_members: None,
            rank: None,
            rank_lowest: None,
            rank_highest: None,
            rank_beyond: None,
            divergence_forget: None,
            divergence_test: None,
            weight_distance: None,
            average_gap: None,
        };
        if others.is_empty() {
            return Ok(row);
        }
        if let Some(scores) = self.scores(model, others)? {
            let negative: Vec<f64> = scores.iter().map(|score| -score).collect();
            let (forget, unseen) = negative.split_at(model.forget.losses.len());
            let mut sorted = unseen.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            // At most 5 % of the unseen lie strictly below this, as low losses do.
            let point = sorted[(sorted.len() as f64 * 0.05).floor() as usize];
            row.likelihood_auc = Some(auc(forget, unseen)?);
            row.likelihood_members = Some(share(forget, |score| score < point));
        }
        let losses: Vec<Vec<f64>> = others.iter().map(|one| one.forget.losses.clone()).collect();
        let percentiles = ranks(&model.forget.losses, &losses)?;
        row.rank = Some(mean(&percentiles));
        row.rank_lowest = Some(share(&percentiles, |rank| rank == 0.0));
        row.rank_highest = Some(share(&percentiles, |rank| rank == 100.0));
        row.rank_beyond = Some(share(&percentiles, |rank| rank == 0.0 || rank == 100.0));
        let average = |of: &dyn Fn(&Behaviour) -> Result<f64>| -> Result<Option<f64>> {
            let values = others.iter().map(|one| of(one)).collect::<Result<Vec<f64>>>()?;
            Ok(Some(mean(&values)))
        };
        row.divergence_forget =
            average(&|one| divergence(&model.forget.logits, &one.forget.logits, self.classes, self.loss))?;
        row.divergence_test =
            average(&|one| divergence(&model.test.logits, &one.test.logits, self.classes, self.loss))?;
        if let (Some(ours), Some(before)) = (&model.weights, &self.before.weights) {
            row.weight_distance =
                average(&|one| weight_distance(ours, before, one.weights.as_deref().unwrap_or_default()))?;
        }
        let theirs = others.iter().map(|one| self.measures(one)).collect::<Result<Vec<_>>>()?;
        row.average_gap = Some(average_gap(measures, &theirs)?);
        Ok(row)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn share(values: &[f64], is: impl Fn(f64) -> bool) -> f64 {
    values.iter().filter(|&&value| is(value)).count() as f64 / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of two classes with these losses on forget and test; every label is 0.
    fn model(forget: &[f64], test: &[f64]) -> Behaviour {
        let outputs = |losses: &[f64]| Outputs {
            losses: losses.to_vec(),
            logits: losses.iter().flat_map(|&loss| [0.0, loss.exp_m1().ln() as f32]).collect(),
            accuracy: share(losses, |loss| loss < 2.0f64.ln()),
        };
        Behaviour { forget: outputs(forget), retain: outputs(&[0.01; 4]), test: outputs(test), weights: None }
    }

    /// `k` models whose losses lie about `forget` and 1.
    fn retrained(forget: f64, k: usize) -> Vec<Behaviour> {
        let of = |seed: usize, i: usize, about: f64| about * (1.0 + 0.1 * ((7 * seed + 3 * i) % 11) as f64);
        let losses = |seed, n, about| (0..n).map(|i| of(seed, i, about)).collect::<Vec<f64>>();
        (0..k).map(|seed| model(&losses(seed, 44, forget), &losses(seed + 5, 20, 1.0))).collect()
    }

    fn compare(before: &Behaviour, after: &Behaviour, references: &[Behaviour]) -> Comparison {
        Comparison::new(before, after, references, &(0..20).collect::<Vec<_>>(), 2, Loss::default()).unwrap()
    }

    #[test]
    fn every_measure_is_a_field_of_the_row_and_has_a_sentence() {
        let all = retrained(1.0, 4);
        let found = compare(&all[0], &all[1], &all[2..]);
        let serde_json::Value::Object(row) = serde_json::to_value(&found.after).unwrap() else { panic!() };
        let mut keys: Vec<&str> = MEASURES.iter().map(|measure| measure.key).collect();
        for measure in &MEASURES {
            assert_eq!(row[measure.key].as_f64(), (measure.of)(&found.after), "{}", measure.key);
            let text = measure.text;
            assert!(text.ends_with('.') && text.matches(". ").count() == 0, "{text}: not one sentence");
        }
        keys.sort_unstable();
        let mut fields: Vec<&str> = row.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(keys, fields);
    }

    #[test]
    fn a_retrained_model_raises_no_flag_and_the_others_do_by_the_same_rules() {
        let all = retrained(1.0, 6);
        let before = model(&[1e-3; 44], &all[0].test.losses);
        let like = compare(&before, &all[0], &all[1..]);
        assert_eq!(like.findings, []);
        assert!(like.remembered);
        let flags = |after: &Behaviour| -> Vec<(Flag, &str)> {
            compare(&before, after, &all[1..]).findings.iter().map(|f| (f.flag, f.measure)).collect()
        };
        let all_four =
            |flag, extreme| vec![(flag, "auc"), (flag, "likelihood_auc"), (flag, "rank"), (flag, extreme)];
        assert_eq!(flags(&before), all_four(Flag::Remembers, "rank_lowest"));
        let over = model(&[30.0; 44], &all[0].test.losses);
        assert_eq!(flags(&over), all_four(Flag::OverForgets, "rank_highest"));
        let mut split = all[0].clone(); // half remembered, half over-forgotten
        split.forget.losses = [[1e-3; 22], [30.0; 22]].concat();
        let found = flags(&split);
        assert!(found.contains(&(Flag::Remembers, "rank_lowest")), "{found:?}");
        assert!(found.contains(&(Flag::OverForgets, "rank_highest")), "{found:?}");
        split.forget.losses =
            [vec![1e-3; 15], all[0].forget.losses[15..29].to_vec(), vec![30.0; 15]].concat();
        assert_eq!(flags(&split), [(Flag::Uneven, "rank_beyond")]);
        let mut worse = all[0].clone();
        worse.retain.accuracy -= 0.02;
        assert_eq!(flags(&worse), [(Flag::Damaged, "retain_accuracy")]);
    }

    #[test]
    fn retrained_models_stand_against_the_others_alone() {
        let all = retrained(1.0, 3);
        let before = model(&[1e-3; 44], &all[0].test.losses);
        let one = compare(&before, &before, &all[..1]);
        assert_eq!((one.references[0].rank, one.references[0].average_gap), (None, None));
        assert_eq!((one.after.rank, one.after.likelihood_auc), (Some(0.0), None));
        let three = compare(&before, &before, &all);
        let floor = crate::verify::floor(
            &three
                .references
                .iter()
                .map(|row| Measures {
                    forget: row.forget_accuracy,
                    retain: row.retain_accuracy,
                    test: row.test_accuracy,
                    auc: row.auc,
                })
                .collect::<Vec<_>>(),
        );
        let gaps: Vec<f64> = three.references.iter().filter_map(|row| row.average_gap).collect();
        assert!((mean(&gaps) - floor.unwrap()).abs() < 1e-12);
        assert_eq!(three.after.likelihood_auc, Some(1.0));
        assert_eq!(three.after.likelihood_members, Some(1.0));
        let ranks: f64 = three.references.iter().filter_map(|row| row.rank).sum();
        assert!((ranks / 3.0 - 50.0).abs() < 1e-9, "one model's lead is another's lag");
        let itself = three.references[0].divergence_test.unwrap();
        assert!(itself > 0.0 && itself < three.after.divergence_forget.unwrap());
    }

    #[test]
    fn weights_of_convex_models_are_held_against_retrained_ones() {
        let weighed = |w: f32, model: &Behaviour| Behaviour { weights: Some(vec![w, 0.0]), ..model.clone() };
        let all = retrained(1.0, 2);
        let references = [weighed(0.0, &all[0]), weighed(0.1, &all[1])];
        let found = compare(&weighed(1.0, &all[0]), &weighed(0.5, &all[0]), &references);
        assert_eq!(found.before.weight_distance, Some(1.0));
        let expected = (0.5 + 0.4 / 0.9) / 2.0;
        assert!((found.after.weight_distance.unwrap() - expected).abs() < 1e-6);
        assert!(found.references[0].weight_distance.unwrap() < 0.12);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let all = retrained(1.0, 2);
        let unseen: Vec<usize> = (0..20).collect();
        let new = |references: &[Behaviour], unseen: &[usize]| {
            Comparison::new(&all[0], &all[1], references, unseen, 2, Loss::default())
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(new(&[], &unseen).contains("needs a model"));
        assert!(new(&all, &unseen[..9]).contains("9 unseen samples"));
        assert!(new(&all, &[unseen.clone(), vec![20]].concat()).contains("beyond"));
        assert!(new(&[model(&[1.0; 3], &[1.0; 20])], &unseen).contains("3"));
    }
}
