//! A model that was trained, and how its training went.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{self, Checkpoint};
use crate::data::tensors;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::net::{Network, Scores};
use crate::train::Epoch;

/// One pass over the data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Its number, from 1.
    pub epoch: usize,
    /// The mean training loss over its batches, each before its step.
    pub loss: f64,
    /// The share of correct predictions, at the same moments.
    pub accuracy: f64,
    /// The mean loss on the validation data after it.
    pub val_loss: Option<f64>,
    /// The accuracy there.
    pub val_accuracy: Option<f64>,
    /// Since the training began.
    pub seconds: f64,
}

impl EpochReport {
    /// Those of a `train.json`.
    ///
    /// # Errors
    /// Where it has none.
    pub fn all_of(manifest: &Value) -> Result<Vec<EpochReport>> {
        let epochs = manifest.get("epochs").cloned().unwrap_or_default();
        serde_json::from_value(epochs)
            .map_err(|e| Error::config(format!("train.json: no epochs are in it: {e}")))
    }

    pub(super) fn new(epoch: Epoch, validation: Option<&Scores>, seconds: f64) -> EpochReport {
        let Epoch { epoch, loss, accuracy } = epoch;
        let (val_loss, val_accuracy) = (validation.map(Scores::mean_loss), validation.map(Scores::accuracy));
        EpochReport { epoch, loss, accuracy, val_loss, val_accuracy, seconds }
    }
}

/// A model that was trained.
pub struct Trained {
    /// In train form.
    pub network: Network,
    /// Its `config.json`.
    pub config: Value,
    /// What made token ids of texts.
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// Every epoch.
    pub epochs: Vec<EpochReport>,
}

/// The name of a model's file.
pub(super) const NAME: &str = "model.safetensors";

impl Trained {
    /// Writes `model.safetensors`, `config.json` and the tokenizer of texts to a folder, which is made if need be.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn save(&self, folder: &Path) -> Result<()> {
        write(folder, &self.network, &self.config, self.tokenizer.as_deref())
    }

    /// The files of [`Trained::save`] in memory, without the tokenizer.
    ///
    /// # Errors
    /// Where they cannot be read again.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let bytes = checkpoint::serialized(Path::new(NAME), &self.network)?;
        Checkpoint::in_memory(NAME, bytes, Some(&format!("{:#}", self.config)), &[])
    }
}

/// Writes a model's files.
pub(super) fn write(
    folder: &Path,
    network: &Network,
    config: &Value,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    checkpoint::save(&folder.join(NAME), network)?;
    tokenizer.map_or(Ok(()), |tokenizer| tokenizer.save(folder))?;
    tensors::write_whole(&folder.join("config.json"), format!("{config:#}").as_bytes())
}
