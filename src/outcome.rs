//! What was done, typed: a [`Record`] with its [`Account`] for every batch, and the [`Outcome`] of a run.
//!
//! JSON is written of them at the border (`events.jsonl`, `report.json`) and read back into the same types only.

mod reading;

mod hexadecimal;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::Snapshot;
use crate::block::Block;
use crate::clock::Phase;
use crate::error::{Error, Result};
use crate::names::{names, number, numbers};
use crate::net::{LayerId, Network, UnitId};
use crate::newton::SolveReport;
use crate::select::{Agreement, Selection};
use crate::soft_label::Summary;
use crate::task::{Approximation, CertificateSpec, ProxyKind};
use crate::update::{Certificate, NoiseUnits, Scaled};

/// What happened to one batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The batch's number, from 0.
    pub batch: usize,
    /// The samples, by index in the training data.
    pub indices: Vec<usize>,
    /// What became of them; unless they were removed, the model is as it was before the batch.
    pub fate: Fate,
    /// Why not, or what to know of how.
    pub notes: Vec<String>,
    /// The chosen units, `(layer, row)`, in order of choice.
    pub units: Vec<(String, usize)>,
    /// The numbers.
    pub account: Account,
    /// What `values` are of.
    pub changed: Changed,
    /// The new values, bit for bit; none where the batch was not removed. In JSON f32 little-endian in hexadecimal.
    #[serde(with = "hexadecimal")]
    pub values: Vec<f32>,
    /// `[m, classes]`: the soft labels that later batches hold the samples at; none where no hold removed them. In JSON as the
    /// values.
    #[serde(with = "hexadecimal")]
    pub soft_labels: Vec<f32>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was removed, with a measured effect towards its aim.
    Removed,
    /// The step has no effect towards its aim that can be measured; it was not taken.
    NoEffect,
    /// The step misses its target or the gate; it was not taken.
    Refused,
    /// No unit depends on it, so that there was no step.
    NoUnits,
}

impl Fate {
    /// By why a step is refused and why it has no effect, where either is so; the reason is noted.
    pub fn of(refused: Option<String>, no_effect: Option<String>, notes: &mut Vec<String>) -> Fate {
        let (fate, reason) = match (refused, no_effect) {
            (Some(reason), _) => (Fate::Refused, Some(reason)),
            (None, Some(reason)) => (Fate::NoEffect, Some(reason)),
            (None, None) => (Fate::Removed, None),
        };
        notes.extend(reason);
        fate
    }
}

names!(Fate { Removed = "removed", NoEffect = "no-effect", Refused = "refused", NoUnits = "no-units" });

/// Which values of a network a batch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Those of the chosen units, in order of choice.
    Block,
    /// Those of every unit, in unit order: where noise goes outside the block.
    EveryUnit,
    /// Those of every parameter, running statistics included, in the network's order.
    EveryParameter,
}

names!(Changed { Block = "block", EveryUnit = "every-unit", EveryParameter = "every-parameter" });

impl Record {
    /// Whether the samples were removed.
    pub fn removed(&self) -> bool {
        self.fate == Fate::Removed
    }

    /// Applies the record to the network that it was made on.
    ///
    /// # Errors
    /// Where it does not fit the network; the record is then of another model.
    pub fn replay(&self, net: &mut Network) -> Result<()> {
        if !self.removed() {
            return Ok(());
        }
        let chosen = self
            .units
            .iter()
            .map(|(layer, row)| net.units().find(net.layer_named(layer)?, *row))
            .collect::<Result<Vec<UnitId>>>()?;
        let block = match self.changed {
            Changed::Block => Block::of(net, &chosen)?,
            Changed::EveryUnit => Block::all(net)?,
            Changed::EveryParameter => {
                self.fits(net.parameters())?;
                let mut new = net.thaw();
                set_parameters(&mut new, &self.values)?;
                *net = new.freeze();
                return Ok(());
            }
        };
        self.fits(block.len())?;
        block.assign(net, &self.values);
        Ok(())
    }

    /// [`Record::replay`], after which the record has no values.
    ///
    /// # Errors
    /// As there.
    pub fn replayed(mut self, net: &mut Network) -> Result<Record> {
        self.replay(net)?;
        self.values = vec![];
        Ok(self)
    }

    fn fits(&self, values: usize) -> Result<()> {
        match self.values.len() == values {
            true => Ok(()),
            false => Err(Error::config(format!("record {} does not fit the model", self.batch))),
        }
    }
}

/// Units as a record names them: layer and row.
pub fn names_of(net: &Network, units: &[UnitId]) -> Vec<(String, usize)> {
    let name = |&unit: &UnitId| {
        let (layer, row) = net.units().locate(unit);
        (net.layer(layer).name.clone(), row)
    };
    units.iter().map(name).collect()
}

/// The values of every parameter, in the network's order.
pub fn parameters(net: &Network) -> Vec<f32> {
    net.params.iter().flat_map(|param| param.value.iter().copied()).collect()
}

/// Sets the values of every parameter of a network in train form.
///
/// # Errors
/// Where there are more or fewer.
pub fn set_parameters(net: &mut Network, values: &[f32]) -> Result<()> {
    if values.len() != net.parameters() {
        let (expected, found) = (net.parameters(), values.len());
        return Err(Error::shape("parameters", expected.to_string(), found.to_string()));
    }
    let mut rest = values;
    for param in &mut net.params {
        let (own, others) = rest.split_at(param.value.len());
        param.value.copy_from_slice(own);
        rest = others;
    }
    Ok(())
}

/// The account of one batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Samples that the model knew before the batch.
    pub n: usize,
    /// Samples of the batch.
    pub m: usize,
    /// By what the units were chosen.
    pub selection: SelectionAccount,
    /// How the model did before.
    pub before: Snapshot,
    /// The step; none where no unit depends on the batch.
    #[serde(flatten)]
    pub step: Option<StepAccount>,
    /// The hold, where that is the method.
    #[serde(flatten)]
    pub hold: Option<HoldAccount>,
    /// Seconds of each phase.
    pub seconds: BTreeMap<Phase, f64>,
}

impl Account {
    /// How the model did after; none where nothing was tried.
    pub fn after(&self) -> Option<&Snapshot> {
        let of_step = self.step.as_ref().map(|step| &step.after);
        of_step.or(self.hold.as_ref().map(|hold| &hold.after))
    }
}

/// The account of a hold ([`crate::hold`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldAccount {
    /// Where the soft labels came from.
    pub proxy: ProxyKind,
    /// Passes over the retained samples.
    pub epochs: Epochs,
    /// Mini-batches of the hold.
    pub mini_batches: usize,
    /// What was added to the proxy's logit of each sample's label.
    pub nudge: f64,
    /// What the soft labels say of the batch.
    pub target: Summary,
    /// What the new model says of it.
    pub reached: Summary,
    /// How the model does after.
    pub after: Snapshot,
}

/// Passes over the retained samples, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epochs {
    /// Of the proxy's training.
    pub proxy: usize,
    /// Of the hold.
    pub hold: usize,
    /// Samples that both train on, the forgotten ones beside the retained ones included, over the retained samples there are:
    /// epochs of retraining.
    pub cost: f64,
}

/// By what the units of a batch were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectionAccount {
    /// Units chosen.
    pub units: usize,
    /// What each was chosen by, see [`Selection::scores`].
    #[serde(deserialize_with = "numbers")]
    pub scores: Vec<f64>,
    /// The largest first-step T.
    pub first_t: Option<f64>,
    /// What it reaches where losses are permuted.
    pub noise_level: Option<f64>,
    /// Noisy copies whose loss equals another's.
    pub tied_losses: usize,
    /// Noisy copies that the device took at once.
    pub images_at_once: Option<usize>,
    /// How far a choice below f32 agrees with f32.
    pub agreement: Option<Agreement>,
}

impl From<&Selection> for SelectionAccount {
    fn from(chosen: &Selection) -> SelectionAccount {
        SelectionAccount {
            units: chosen.units.len(),
            scores: chosen.scores.clone(),
            first_t: chosen.first,
            noise_level: chosen.noise_level,
            tied_losses: chosen.tied_losses,
            images_at_once: chosen.images_at_once,
            agreement: chosen.agreement,
        }
    }
}

/// The account of the step on a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepAccount {
    /// p, the parameters of the block.
    pub parameters: usize,
    /// What stood for the Hessian.
    pub curvature: Approximation,
    /// One report per stage, then one per further iteration.
    pub solves: Vec<SolveReport>,
    /// The length of the last stage.
    pub length: Scaled,
    /// Norm of the change on the block.
    #[serde(deserialize_with = "number")]
    pub step_norm: f64,
    /// How the model does after.
    pub after: Snapshot,
    /// Norm of the batch's mean gradient on the block.
    pub gradient_norm: BeforeAfter,
    /// Share of the batch's gradient that is gone from the retained objective's ([`crate::audit::share_removed`]).
    #[serde(deserialize_with = "number")]
    pub gradient_share_removed: f64,
    /// The batch's part of a certificate.
    pub certificate: Option<Certificate>,
}

/// A number before and after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// Before.
    #[serde(deserialize_with = "number")]
    pub before: f64,
    /// After.
    #[serde(deserialize_with = "number")]
    pub after: f64,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// One record per batch.
    pub records: Vec<Record>,
    /// Samples that were removed.
    pub removed: usize,
    /// Samples that were not.
    pub not_removed: usize,
    /// The certificate that was spent, where one was asked for.
    pub privacy: Option<Privacy>,
    /// What no request of this method changes, in words.
    pub never_touched: &'static str,
    /// What to know of the model, the data and the calibration.
    pub notes: Vec<String>,
    /// The files written.
    pub files: Vec<PathBuf>,
    /// How the files that were written do; none in memory, or where nothing was removed.
    pub written: Option<Written>,
    /// Values that differ from the input's as stored.
    pub changed_values: usize,
    /// Values whose change was too small for the type they are stored in.
    pub lost_updates: usize,
    /// Units of every layer.
    pub layers: Vec<LayerAccount>,
    /// Seconds of the run that finished it.
    pub seconds: f64,
}

/// How the model does before a run and as its files were written, on all samples that were removed and the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// Before the first batch.
    pub before: Snapshot,
    /// As read back from the files.
    pub after: Snapshot,
    /// Whether the removal is still there: rounding to the type of the files can undo it.
    pub removed: bool,
}

/// Samples that the records removed, in their order.
pub fn removed(records: &[Record]) -> Vec<usize> {
    records.iter().filter(|r| r.removed()).flat_map(|r| r.indices.iter().copied()).collect()
}

/// What was spent of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Privacy {
    /// ε, summed over the batches that were removed.
    pub epsilon_spent: f64,
    /// δ, likewise.
    pub delta_spent: f64,
    /// The units that got noise.
    pub noise: NoiseUnits,
    /// When the certificate holds, in words.
    pub holds: &'static str,
}

impl Privacy {
    /// Of these records; none where no certificate was asked for.
    pub fn spent(records: &[Record], certificate: Option<CertificateSpec>) -> Option<Privacy> {
        let CertificateSpec { epsilon, delta, noise } =
            certificate.filter(|spec| spec.noise != NoiseUnits::None)?;
        let removals = records.iter().filter(|record| record.removed()).count() as f64;
        Some(Privacy {
            epsilon_spent: epsilon * removals,
            delta_spent: delta * removals,
            noise,
            holds: "only where the loss is strongly convex with the damping and weight decay used, and the formula's \
                    constants (M = 0.25, L = 1) bound it, and for the formula's own length; a neural network's loss is \
                    not, and a calibrated step is outside it",
        })
    }
}

/// Units of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerAccount {
    /// The layer.
    pub name: String,
    /// How many there are.
    pub units: usize,
    /// How many were chosen for a batch that was removed.
    pub chosen: usize,
    /// How many differ from before.
    pub changed: usize,
}

impl LayerAccount {
    /// Of every layer, by the network before and after the records.
    pub fn all(before: &Network, after: &Network, records: &[Record]) -> Vec<LayerAccount> {
        let removed = records.iter().filter(|record| record.removed());
        let chosen: std::collections::BTreeSet<&(String, usize)> =
            removed.flat_map(|record| &record.units).collect();
        let bits = |net: &Network, layer, row| -> Vec<u32> {
            let (weights, bias) = net.unit_row(layer, row);
            weights.iter().copied().chain(bias).map(f32::to_bits).collect()
        };
        let layers = before.layers.iter().enumerate().map(|(i, layer)| {
            let id = LayerId(i as u32);
            let differs = |row: &usize| bits(before, id, *row) != bits(after, id, *row);
            LayerAccount {
                name: layer.name.clone(),
                units: layer.outputs,
                chosen: chosen.iter().filter(|(name, _)| *name == layer.name).count(),
                changed: (0..layer.outputs).filter(differs).count(),
            }
        });
        layers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_what_is_no_number_stays_so() {
        let performance = crate::audit::Performance { loss: 0.25, accuracy: 1.0 };
        let lost = crate::audit::Performance { loss: f64::INFINITY, ..performance };
        let before = Snapshot { forget: performance, retain: performance, validation: None };
        let kfac = r#"{"damping":0.5,"largest_eigenvalue":2.0,"solver":"kfac"}"#;
        let none = r#"{"damping":0.0,"solver":"none"}"#;
        let cg = r#"{"converged":true,"damping":1.0,"largest_eigenvalue":null,"negative_curvature":0.0,"products":3,"raised":0,"residual":0.5,"solver":"cg"}"#;
        let solves: Vec<SolveReport> =
            [kfac, none, cg].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for (report, text) in solves.iter().zip([kfac, none, cg]) {
            assert_eq!(serde_json::json!(report).to_string(), text);
        }
        let step = StepAccount {
            parameters: 3,
            curvature: Approximation::Ggn,
            solves,
            length: Scaled { scale: 1.0, target: None, loss: f64::NAN, reached: true },
            step_norm: 0.1,
            after: Snapshot { forget: lost, ..before },
            gradient_norm: BeforeAfter { before: 1.0, after: f64::NAN },
            gradient_share_removed: 0.5,
            certificate: None,
        };
        let account = Account {
            n: 10,
            m: 2,
            selection: SelectionAccount::from(&Selection::default()),
            before,
            step: Some(step),
            hold: None,
            seconds: BTreeMap::from([(Phase::Select, 1.0)]),
        };
        for step in [account.step.clone(), None] {
            let account = Account { step, ..account.clone() };
            let text = serde_json::json!(account).to_string();
            let read: Account = serde_json::from_str(&text).unwrap();
            assert_eq!(read.step.is_some(), account.step.is_some());
            assert_eq!(serde_json::json!(read).to_string(), text);
        }
    }
}
