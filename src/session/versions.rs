//! Versions of a model: a session goes on with what an earlier run wrote, and later requests do not take back what that run
//! removed.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::{Session, no_files, same_layers};
use crate::data::Samples;
use crate::error::{Error, Result};
use crate::soft_label::Held;
use crate::zoo;

impl Session {
    /// Goes on with another version of the model, which a run wrote. Data, proxy and what `train.json` has on the first
    /// version stay.
    ///
    /// # Errors
    /// Where it cannot be read or has other layers; the session is then as before.
    pub fn move_to(&mut self, model: &Path) -> Result<()> {
        let files = self.files.as_mut().and_then(Arc::get_mut).ok_or_else(no_files)?; // no GPU shares it between runs
        let checkpoint = files.sources.checkpoint(model)?;
        let read = zoo::load_as(&checkpoint, &files.sources.choices, Some(self.network.kind()))?;
        let network = read.network.freeze();
        same_layers(&network, &self.network, &model.display().to_string())?;
        files.sources.model = model.into();
        files.checkpoint = checkpoint;
        self.network = network;
        Ok(())
    }

    /// States samples that earlier runs removed from the model: no request retains them or removes them again, and a hold
    /// holds those that `held` has at their soft labels.
    ///
    /// # Errors
    /// Where an index is outside the data, or there is not one soft label for every sample that is held.
    pub fn forget(&mut self, indices: &[usize], held: &Held) -> Result<()> {
        let n = self.samples.y.len();
        if let Some(i) = indices.iter().chain(&held.indices).find(|&&i| i >= n) {
            return Err(Error::config(format!("sample {i} was removed from a set of {n} (the first is 0)")));
        }
        let (expected, found) = (held.indices.len() * self.network.classes(), held.soft_labels.len());
        if expected != found {
            return Err(Error::shape("soft labels", expected.to_string(), found.to_string()));
        }
        self.forgotten.extend(indices);
        self.forgotten.sort_unstable();
        self.forgotten.dedup();
        self.held.indices.extend(&held.indices);
        self.held.soft_labels.extend(&held.soft_labels);
        Ok(())
    }

    /// The hashes of the samples and of the validation samples, by `of`; they are computed once.
    ///
    /// # Errors
    /// Those of `of`.
    pub(crate) fn hashes(&self, of: impl Fn(&Samples) -> Result<String>) -> Result<[String; 2]> {
        let hash = |cell: &OnceLock<String>, samples: Option<&Samples>| -> Result<String> {
            let Some(samples) = samples else { return Ok("none".into()) };
            if let Some(known) = cell.get() {
                return Ok(known.clone());
            }
            let hash = of(samples)?;
            Ok(cell.get_or_init(|| hash).clone())
        };
        let [samples, validation] = &self.hashes;
        Ok([hash(samples, Some(self.samples()))?, hash(validation, self.validation())?])
    }

    /// Samples that earlier runs removed, ascending.
    pub fn forgotten(&self) -> &[usize] {
        &self.forgotten
    }

    /// Those of them that a hold holds.
    pub fn held(&self) -> &Held {
        &self.held
    }
}
