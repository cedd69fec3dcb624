//! The options of `scrubjay train`: the one list of them, with their defaults.

use serde::Deserialize;

use crate::data::{Augment, Labels};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::train::{Decayed, Optimizer, Recipe, Schedule};

/// How a model is trained, by the names of the command line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per mini-batch.
    pub batch_size: usize,
    /// The initial learning rate.
    pub lr: f32,
    /// The momentum of SGD.
    pub momentum: f32,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Weight decay.
    pub weight_decay: f32,
    /// The parameters that it is on.
    pub decay: Decayed,
    /// Epochs in which the learning rate rises to its initial value.
    pub warm_up: usize,
    /// Each image is shifted by up to this many pixels, at random.
    pub shift: usize,
    /// Whether half of the images are mirrored, at random.
    pub flip: bool,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// The seed of the initial weights and of the order of samples.
    pub seed: u64,
    /// Label smoothing of a new model's loss.
    pub label_smoothing: Option<f64>,
    /// The number of classes of a new model; by default one more than the largest label.
    pub classes: Option<usize>,
}

impl Default for TrainOptions {
    /// Those of `scrubjay train`.
    fn default() -> TrainOptions {
        let recipe = Recipe::default();
        TrainOptions {
            epochs: recipe.epochs,
            batch_size: recipe.batch,
            lr: recipe.rate,
            momentum: recipe.momentum,
            optimizer: recipe.optimizer,
            weight_decay: recipe.weight_decay,
            decay: recipe.decayed,
            warm_up: recipe.warm_up,
            shift: recipe.augment.shift,
            flip: recipe.augment.flip,
            schedule: recipe.schedule,
            seed: recipe.seed,
            label_smoothing: None,
            classes: None,
        }
    }
}

impl TrainOptions {
    /// Refuses numbers that mean nothing; the other options are checked against data and model.
    ///
    /// # Errors
    /// Names the option.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("epochs", self.epochs), ("batch-size", self.batch_size)] {
            if !(1..=u32::MAX as usize).contains(&value) {
                return Err(Error::config(format!(
                    "--{name} {value}: a number from 1 to 2^32 - 1 was expected"
                )));
            }
        }
        match self.lr.is_finite() && self.lr > 0.0 {
            true => Ok(()),
            false => Err(Error::config(format!("--lr {}: a number above 0 was expected", self.lr))),
        }
    }

    /// The recipe of one training.
    pub(super) fn recipe(&self, augment: &Augment, seed: u64) -> Recipe {
        Recipe {
            epochs: self.epochs,
            batch: self.batch_size,
            rate: self.lr,
            momentum: self.momentum,
            optimizer: self.optimizer,
            weight_decay: self.weight_decay,
            decayed: self.decay,
            schedule: self.schedule,
            warm_up: self.warm_up,
            augment: augment.clone(),
            seed,
        }
    }

    /// The loss of a new network: what its labels ask for.
    pub(super) fn loss(&self, labels: &Labels) -> Result<Loss> {
        let loss = match labels {
            Labels::Classes(_) => Loss::CrossEntropy { smoothing: self.label_smoothing.unwrap_or(0.0) },
            Labels::Multi { .. } if self.label_smoothing.is_some() => {
                return Err(Error::config("--label-smoothing is for samples of one class each"));
            }
            Labels::Multi { .. } => Loss::BinaryCrossEntropy,
        };
        loss.check()?;
        Ok(loss)
    }
}
