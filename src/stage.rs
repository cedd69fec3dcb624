//! The stage of the hold that is running: what a run that was stopped within a batch goes on from, to the same bytes.
//!
//! It is a safetensors file beside the records. Once the proxy has answered, it has the soft labels; after every epoch of the
//! hold also the values of all parameters and what the optimizer remembers. Each version replaces the one before by rename, and
//! the batch's record makes it superfluous.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::data::tensors::{self, Tensor, TensorFile, Values};
use crate::error::{Error, Result};
use crate::net::State;
use crate::soft_label::SoftLabels;

/// The file's name.
const NAME: &str = "hold.stage";

/// How far the hold of a batch is.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The batch's number.
    pub batch: usize,
    /// The soft labels of its samples.
    pub soft: SoftLabels,
    /// What is to be known of the proxy.
    pub notes: Vec<String>,
    /// Epochs of the hold that are done.
    pub epochs: usize,
    /// The value of every parameter after them, in the network's order; none before the first.
    pub values: Vec<f32>,
    /// What the optimizer remembers then.
    pub memory: Vec<f32>,
}

/// Where the stages of one run are kept.
#[derive(Clone, Debug)]
pub struct Stages {
    path: PathBuf,
    identity: String,
}

impl Stages {
    /// Those of the run of this identity in `folder`.
    pub fn of(folder: &Path, identity: &str) -> Stages {
        Stages { path: folder.join(NAME), identity: identity.into() }
    }

    /// The stage of a batch, where it was begun by this run.
    ///
    /// # Errors
    /// Where the file cannot be read or is damaged.
    pub fn read(&self, batch: usize) -> Result<Option<Stage>> {
        if !self.path.exists() {
            return Ok(None);
        }
        let file = TensorFile::open(&self.path)?;
        let metadata = file.metadata();
        let said = |key: &str| metadata.get(key).map(String::as_str);
        if said("identity") != Some(&self.identity) || said("batch") != Some(&batch.to_string()) {
            return Ok(None);
        }
        let damaged =
            || Error::data(&self.path, "is no stage of a hold; remove it, and the batch begins anew");
        Ok(Some(Stage {
            batch,
            soft: SoftLabels {
                q: file.f32("soft_labels")?,
                nudge: *file.f64("nudge")?.first().ok_or_else(damaged)?,
            },
            notes: said("notes").and_then(|notes| serde_json::from_str(notes).ok()).ok_or_else(damaged)?,
            epochs: said("epochs").and_then(|epochs| epochs.parse().ok()).ok_or_else(damaged)?,
            values: file.f32("values")?,
            memory: file.f32("memory")?,
        }))
    }

    /// Keeps a stage with the values and memory of `state` in place of its own, and waits until it is on the disk.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write(&self, stage: &Stage, state: &State) -> Result<()> {
        let tensor = |name, len, values| Tensor { name, shape: vec![len], values };
        let bytes =
            |parts: Vec<&[f32]>| parts.into_iter().map(bytemuck::cast_slice).collect::<Vec<&[u8]>>().concat();
        let values = || bytes(state.values.clone());
        let memory = || bytes(state.memory.iter().map(|part| &**part).collect());
        let lens = [
            state.values.iter().map(|part| part.len()).sum(),
            state.memory.iter().map(|part| part.len()).sum(),
        ];
        let all = [
            tensor("soft_labels", stage.soft.q.len(), Values::F32(&stage.soft.q)),
            tensor("nudge", 1, Values::F64(std::slice::from_ref(&stage.soft.nudge))),
            tensor("values", lens[0], Values::Made(lens[0], &values)),
            tensor("memory", lens[1], Values::Made(lens[1], &memory)),
        ];
        let said = [
            ("identity", self.identity.clone()),
            ("batch", stage.batch.to_string()),
            ("notes", serde_json::json!(stage.notes).to_string()),
            ("epochs", stage.epochs.to_string()),
        ];
        tensors::write(&self.path, &all, HashMap::from(said.map(|(key, value)| (key.to_string(), value))))
    }

    /// Removes what was kept, once the batch has its record.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear(&self) -> Result<()> {
        match self.path.exists() {
            true => std::fs::remove_file(&self.path).map_err(Error::io(&self.path)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_comes_back_for_its_own_run_and_batch_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::of(dir.path(), "a");
        assert_eq!(stages.read(0).unwrap(), None);
        let soft = SoftLabels { q: vec![0.25, 0.75], nudge: -0.1 };
        let first = Stage {
            batch: 2,
            soft,
            notes: vec!["a \"note\"".into()],
            epochs: 0,
            values: vec![],
            memory: vec![],
        };
        let later = Stage { epochs: 3, values: vec![1e-40, -0.0, 3.5], memory: vec![0.5], ..first.clone() };
        for stage in [first, later] {
            let state = State { values: vec![&stage.values], memory: vec![stage.memory.as_slice().into()] };
            stages.write(&stage, &state).unwrap();
            assert_eq!(stages.read(2).unwrap(), Some(stage));
        }
        assert_eq!(stages.read(1).unwrap(), None);
        assert_eq!(Stages::of(dir.path(), "b").read(2).unwrap(), None);
        stages.clear().unwrap();
        stages.clear().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
