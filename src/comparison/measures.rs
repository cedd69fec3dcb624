//! The measures of a model, and the one list of them.

use serde::Serialize;

/// The measures of one model; `None` where one is not defined or has too few references.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // MEASURES says what each field is
pub struct Row {
    pub forget_accuracy: f64,
    pub forget_loss: f64,
    pub retain_accuracy: f64,
    pub retain_loss: f64,
    pub test_accuracy: f64,
    pub test_loss: f64,
    pub auc: f64,
    pub likelihood_auc: Option<f64>,
    pub likelihood_members: Option<f64>,
    pub likelihood_members_1: Option<f64>,
    pub likelihood_members_01: Option<f64>,
    pub rank: Option<f64>,
    pub rank_lowest: Option<f64>,
    pub rank_highest: Option<f64>,
    pub rank_beyond: Option<f64>,
    pub divergence_forget: Option<f64>,
    pub divergence_test: Option<f64>,
    pub weight_distance: Option<f64>,
    pub average_gap: Option<f64>,
    pub relearned_1: f64,
    pub relearned_3: f64,
    pub relearned_10: f64,
}

/// One measure: its names, its unit, and its field in a [`Row`].
pub struct Definition {
    /// The field of [`Row`], and the key in a report.
    pub key: &'static str,
    /// The name for people.
    pub name: &'static str,
    /// The unit of scaled numbers; empty for plain ones.
    pub unit: &'static str,
    /// The factor for display: 100 for shares shown in per cent.
    pub scale: f64,
    /// Digits after the point, once scaled.
    pub digits: usize,
    /// Its definition, in one sentence.
    pub text: &'static str,
    /// Its value.
    pub of: fn(&Row) -> Option<f64>,
}

/// Every measure, in the order of a table.
#[rustfmt::skip]
pub const MEASURES: [Definition; 22] = [
    Definition { key: "forget_accuracy", name: "forget accuracy", unit: "%", scale: 100.0, digits: 2,
        text: "The share of forgotten samples whose label the model predicts.",
        of: |row| Some(row.forget_accuracy) },
    Definition { key: "forget_loss", name: "forget loss", unit: "", scale: 1.0, digits: 4,
        text: "The mean cross-entropy of the forgotten samples at their labels, in nats.",
        of: |row| Some(row.forget_loss) },
    Definition { key: "retain_accuracy", name: "retain accuracy", unit: "%", scale: 100.0, digits: 2,
        text: "The share of retained training samples whose label the model predicts.",
        of: |row| Some(row.retain_accuracy) },
    Definition { key: "retain_loss", name: "retain loss", unit: "", scale: 1.0, digits: 4,
        text: "The mean cross-entropy of the retained training samples, in nats.",
        of: |row| Some(row.retain_loss) },
    Definition { key: "test_accuracy", name: "test accuracy", unit: "%", scale: 100.0, digits: 2,
        text: "The share of test samples whose label the model predicts.",
        of: |row| Some(row.test_accuracy) },
    Definition { key: "test_loss", name: "test loss", unit: "", scale: 1.0, digits: 4,
        text: "The mean cross-entropy of the test samples, in nats.",
        of: |row| Some(row.test_loss) },
    Definition { key: "auc", name: "membership AUC by loss", unit: "", scale: 1.0, digits: 3,
        text: "The probability that a forgotten sample's loss is below an unseen one's: an attacker who calls low \
               losses members does as well as that, and 0.5 is chance.",
        of: |row| Some(row.auc) },
    Definition { key: "likelihood_auc", name: "membership AUC by likelihood ratio", unit: "", scale: 1.0, digits: 3,
        text: "The same for an attacker who knows the retrained models: each sample is scored by how many \
               standard deviations its confidence lies above what the retrained models have in it (Carlini and \
               others 2022, offline).",
        of: |row| row.likelihood_auc },
    Definition { key: "likelihood_members", name: "called members at 5 % error", unit: "%", scale: 100.0, digits: 1,
        text: "The share of forgotten samples that this attacker calls members where 5 % of unseen ones are \
               called so, too.",
        of: |row| row.likelihood_members },
    Definition { key: "likelihood_members_1", name: "called members at 1 % error", unit: "%", scale: 100.0, digits: 1,
        text: "The same share where 1 % of unseen ones are called so; below 100 unseen samples none is.",
        of: |row| row.likelihood_members_1 },
    Definition { key: "likelihood_members_01", name: "called members at 0.1 % error", unit: "%", scale: 100.0, digits: 1,
        text: "The same share where 0.1 % of unseen ones are called so; below 1,000 unseen samples none is.",
        of: |row| row.likelihood_members_01 },
    Definition { key: "rank", name: "loss rank among retrained", unit: "", scale: 1.0, digits: 1,
        text: "For each forgotten sample the percentage of retrained models whose loss on it is lower, averaged: \
               0 is remembered still, 50 like retrained, 100 over-forgotten.",
        of: |row| row.rank },
    Definition { key: "rank_lowest", name: "loss below all retrained", unit: "%", scale: 100.0, digits: 1,
        text: "The share of forgotten samples on which the loss is below that of every retrained model, by chance \
               one in k + 1 with k of them.",
        of: |row| row.rank_lowest },
    Definition { key: "rank_highest", name: "loss above all retrained", unit: "%", scale: 100.0, digits: 1,
        text: "The share of forgotten samples on which the loss is above that of every retrained model, by chance \
               one in k + 1 with k of them.",
        of: |row| row.rank_highest },
    Definition { key: "rank_beyond", name: "loss beyond all retrained", unit: "%", scale: 100.0, digits: 1,
        text: "The sum of these two shares, by chance two in k + 1.",
        of: |row| row.rank_beyond },
    Definition { key: "divergence_forget", name: "KL to retrained, forget", unit: "", scale: 1.0, digits: 4,
        text: "The Kullback-Leibler divergence of the model's predicted probabilities from a retrained model's on \
               the forgotten samples, averaged over samples and retrained models, in nats.",
        of: |row| row.divergence_forget },
    Definition { key: "divergence_test", name: "KL to retrained, test", unit: "", scale: 1.0, digits: 4,
        text: "The same divergence on the test samples.",
        of: |row| row.divergence_test },
    Definition { key: "weight_distance", name: "weight distance", unit: "", scale: 1.0, digits: 4,
        text: "The distance of the weights from a retrained model's over the distance at which the model before \
               began, for convex models alone: 1 is no step, 0 is retrained.",
        of: |row| row.weight_distance },
    Definition { key: "average_gap", name: "average gap", unit: "points", scale: 1.0, digits: 2,
        text: "The mean of the differences in forget, retain and test accuracy and in membership AUC by loss from \
               the retrained models' means, in points; for the retrained models, each against the others, it is \
               the floor below which no method can be expected.",
        of: |row| row.average_gap },
    Definition { key: "relearned_1", name: "forget loss after 1 step on them", unit: "", scale: 1.0, digits: 4,
        text: "The mean loss of the forgotten samples after one step of training on up to 64 of them (SGD, rate 0.05, \
               momentum 0.9, gradients shortened to norm 1): an attacker who relearns them finds them sooner where the \
               weights still tell of them.",
        of: |row| Some(row.relearned_1) },
    Definition { key: "relearned_3", name: "forget loss after 3 steps", unit: "", scale: 1.0, digits: 4,
        text: "The same after three steps.",
        of: |row| Some(row.relearned_3) },
    Definition { key: "relearned_10", name: "forget loss after 10 steps", unit: "", scale: 1.0, digits: 4,
        text: "The same after ten steps.",
        of: |row| Some(row.relearned_10) },
];

/// The retrained models' values of one measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (divided by k − 1); none for a single model.
    pub deviation: Option<f64>,
}

pub(super) fn spread(rows: &[Row], of: fn(&Row) -> Option<f64>) -> Option<Spread> {
    let values: Vec<f64> = rows.iter().filter_map(of).collect();
    let k = values.len() as f64;
    let mean = values.iter().sum::<f64>() / k;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let deviation = (values.len() > 1).then(|| (squares / (k - 1.0)).sqrt());
    (!values.is_empty()).then_some(Spread { mean, deviation })
}
