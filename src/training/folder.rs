//! A training into a folder: its `train.json`, how far it is, and its end.

use std::path::Path;

use serde_json::{Value, json};

use super::progress::{MANIFEST, Progress};
use super::reading::tells_how_to_read;
use super::trained::{self, EpochReport};
use super::{Files, Training};
use crate::data::file::check_folder;
use crate::data::{CifarLabels, tensors};
use crate::error::{Error, Result};
use crate::net::TrainPass;
use crate::options::Pick;
use crate::session::Sources;

impl Training {
    /// The part of `train.json` that is known before the training.
    fn manifest(&self, seed: u64) -> Result<Value> {
        let files = self.files.as_ref().ok_or_else(no_files)?;
        let Sources { model, choices, ignore, weights, data, cifar_labels, .. } = &files.sources;
        let given = tells_how_to_read(&files.sources);
        let read_by =
            json!({"heads": choices.heads, "stem": choices.stem, "ignore": ignore, "weights": weights});
        Ok(json!({
            "scrubjay": env!("CARGO_PKG_VERSION"),
            "arch": files.arch,
            "model": (!model.as_os_str().is_empty()).then_some(model),
            "model_sha256": files.model_sha256,
            "read_by": given.then_some(read_by),
            "data": data,
            "data_sha256": files.data_sha256,
            "n": self.indices.len(),
            "exclude": self.exclude.as_ref().and_then(Pick::text),
            "excluded": self.excluded,
            "cifar_labels": (*cifar_labels == CifarLabels::Coarse).then_some("coarse"),
            "normalise": {"mean": self.normalise.mean, "std": self.normalise.std},
            "preprocess": self.pipeline,
            "classes": self.options.classes,
            "label_smoothing": self.options.label_smoothing,
            "options": self.options.recipe(&self.augment, seed),
        }))
    }

    /// How far the training of this seed into `folder` is.
    fn progress(&self, seed: u64, folder: &Path) -> Result<Progress> {
        let mut training = self.manifest(seed)?;
        if let Some(Files { sources, validation_sha256, .. }) = self.files.as_deref() {
            training["val_sha256"] = json!(validation_sha256);
            training["texts"] = json!(format!("{:?}", sources.texts));
            training["skip_corrupt"] = json!(sources.skip_corrupt);
        }
        training["device"] = json!(self.device.name());
        Ok(Progress::of(folder, training, self.device.ranks()))
    }

    /// The `train.json` of a training into this folder that was finished.
    ///
    /// # Errors
    /// Where the folder holds another training, or a model that no training began; neither is overwritten.
    pub fn finished(&self, seed: u64, folder: &Path) -> Result<Option<Value>> {
        let (progress, manifest) = (self.progress(seed, folder)?, self.manifest(seed)?);
        self.device.ranks().first(|| progress.finished(&manifest))
    }

    /// After how many epochs the training into this folder goes on; 0 where it begins.
    ///
    /// # Errors
    /// Where another training was stopped there, or what it kept is damaged.
    pub fn begun(&self, seed: u64, folder: &Path) -> Result<usize> {
        Ok(self.progress(seed, folder)?.reached()?.map_or(0, |reached| reached.epochs.len()))
    }

    /// Trains one model into a folder, which is made if need be: `model.safetensors`, `config.json`, the tokenizer of a new
    /// vocabulary, and `train.json`, which is written last and is given back. After the epochs of `keep` the model is also
    /// written to `epoch-E` there. A training that was stopped goes on after the last epoch that was kept; `each` is called for
    /// those that follow. One that was finished is left as it is.
    ///
    /// # Errors
    /// As [`Training::train`]; where the folder is that of the model, holds another training or a model that no training began, or
    /// cannot be written to; where the training was not opened from files.
    pub fn run(
        &self,
        seed: u64,
        folder: &Path,
        keep: &[usize],
        each: &mut dyn FnMut(&EpochReport) -> Result<()>,
    ) -> Result<Value> {
        self.together(
            |training| training.run_on(seed, folder, keep, &mut *each),
            |training| training.run_on(seed, folder, keep, &mut |_| Ok(())).map(drop),
        )
    }

    /// The same on the device of one rank.
    fn run_on(
        &self,
        seed: u64,
        folder: &Path,
        keep: &[usize],
        each: &mut dyn FnMut(&EpochReport) -> Result<()>,
    ) -> Result<Value> {
        let ranks = self.device.ranks();
        let (mut manifest, mut progress) = (self.manifest(seed)?, self.progress(seed, folder)?);
        let of_epoch = |epoch: usize| folder.join(format!("epoch-{epoch}"));
        let missing = |done: usize| keep.iter().find(|&&epoch| epoch <= done && !of_epoch(epoch).exists());
        let refused = |reason: String| {
            Error::config(format!("{}: {reason}; choose another --out, or remove it", folder.display()))
        };
        let found = ranks.first(|| {
            self.check_out(folder)?;
            let found = progress.finished(&manifest)?;
            match missing(if found.is_some() { self.options.epochs } else { 0 }) {
                None => Ok(found),
                Some(epoch) => Err(refused(format!("was finished without epoch-{epoch}"))),
            }
        })?;
        if let Some(found) = found {
            progress.clear()?; // of a training that was killed between its end and this
            return Ok(found);
        }
        let from = progress.reached()?;
        let done = from.as_ref().map_or(0, |reached| reached.epochs.len());
        ranks.first(|| match missing(done) {
            None => Ok(()),
            Some(epoch) => Err(refused(format!("has gone beyond epoch {epoch} without keeping it"))),
        })?;
        let (network, config) = self.start(seed)?;
        ranks.first(|| std::fs::create_dir_all(folder).map_err(Error::io(folder)))?;
        let tokenizer = self.tokenizer.as_deref();
        let mut after = |pass: &mut TrainPass, config: &Value, reports: &[EpochReport]| {
            let Some(report) = reports.last() else { return Ok(()) };
            each(report)?;
            if keep.contains(&report.epoch) {
                let network = pass.network()?;
                ranks.first(|| trained::write(&of_epoch(report.epoch), network, config, tokenizer))?;
            }
            match ranks.first(|| Ok(progress.is_due()))? {
                true => progress.keep(reports, &pass.state()?),
                false => Ok(()),
            }
        };
        let trained = self.go(seed, network, config, from, &mut after).map_err(|error| match error {
            Error::Interrupted { .. } => Error::Interrupted {
                kept: format!("the same command goes on after the last epoch kept in {}", folder.display()),
            },
            other => other,
        })?;
        ranks.first(|| trained.save(folder))?;
        manifest["device"] = json!(self.device.report());
        manifest["epochs"] = json!(trained.epochs);
        let text = format!("{manifest:#}");
        ranks.first(|| tensors::write_whole(&folder.join(MANIFEST), text.as_bytes()))?;
        progress.clear()?;
        Ok(manifest)
    }

    /// Refuses to write over the model that is trained on, and a folder that cannot be written.
    ///
    /// # Errors
    /// Where `folder` is the model's own, or nothing can be written there; where the training was not opened from files.
    pub fn check_out(&self, folder: &Path) -> Result<()> {
        let Files { own, .. } = self.files.as_deref().ok_or_else(no_files)?;
        match own.as_ref().is_some_and(|own| folder.canonicalize().is_ok_and(|out| out == *own)) {
            true => Err(Error::config("--out is the folder of --model, which would be overwritten")),
            false => check_folder(folder),
        }
    }
}

fn no_files() -> Error {
    Error::config("a training of values in memory has no files, and so no folder")
}
