//! The models that `verify` measures.

use std::path::{Path, PathBuf};

use scrubjay::comparison::{Behaviour, Sets};
use scrubjay::data::check_labels;
use scrubjay::device::Device;
use scrubjay::manifest::Manifest;
use scrubjay::net::Network;
use scrubjay::{Error, hash, zoo};

use crate::cli::model::ChoiceArgs;

/// A model to be measured.
pub struct Candidate<'a> {
    pub path: &'a Path,
    pub network: Network,
    pub family: &'static str,
    pub inputs: zoo::InputConfig,
    pub sha256: String,
    pub folder: PathBuf,
    /// Its `train.json`.
    pub manifest: Option<Manifest>,
}

impl<'a> Candidate<'a> {
    /// Reads it; it has to fit the samples and the test data, which is in the file `test`.
    pub fn open(
        choices: &ChoiceArgs,
        path: &'a Path,
        (data, test): (&Path, &Path),
        sets: &Sets,
    ) -> scrubjay::Result<Candidate<'a>> {
        let checkpoint = choices.checkpoint(path)?;
        let model = choices.open(&checkpoint, Some((data, &sets.samples)))?;
        check_labels(test, &sets.test.y, model.network.loss, model.network.classes())?;
        Ok(Candidate {
            path,
            network: model.network,
            family: model.family,
            inputs: zoo::inputs(&checkpoint),
            sha256: hash::of_files_at(checkpoint.contents())?,
            folder: checkpoint.folder().into(),
            manifest: Manifest::of(&checkpoint)?,
        })
    }

    /// What it does on the sets.
    pub fn behaviour(&self, device: &Device, sets: &Sets) -> scrubjay::Result<Behaviour> {
        Behaviour::of(device, &self.network, sets).map_err(|error| match error {
            Error::Config(reason) => Error::checkpoint(self.path, reason),
            other => other,
        })
    }
}
