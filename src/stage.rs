//! The stage of the hold that is running: what a run that was stopped within a batch goes on from, to the same bytes.
//!
//! It is a safetensors file beside the records. Once the proxy has answered, it has the soft labels; after every epoch of the
//! hold also the values of all parameters and what the optimizer remembers. Each version replaces the one before by rename, and
//! the batch's record makes it superfluous.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::communicator::Communicator;
use crate::data::tensors::{self, Tensor, TensorFile, Values};
use crate::error::{Error, Result};
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
#[derive(Clone)]
pub struct Stages {
    path: PathBuf,
    identity: String,
    ranks: Communicator,
}

impl Stages {
    /// Those of the run of this identity in `folder`.
    pub fn of(folder: &Path, identity: &str) -> Stages {
        Stages { path: folder.join(NAME), identity: identity.into(), ranks: Communicator::alone() }
    }

    /// The same for several ranks, of which rank 0 alone reads and writes the file.
    pub fn among(self, ranks: &Communicator) -> Stages {
        Stages { ranks: ranks.clone(), ..self }
    }

    /// The stage of a batch, where it was begun by this run.
    ///
    /// # Errors
    /// Where the file cannot be read or is damaged.
    pub fn read(&self, batch: usize) -> Result<Option<Stage>> {
        let found = match self.ranks.leads() && self.path.exists() {
            true => tensors::read(&self.path),
            false => Ok(vec![]),
        };
        let found = self.ranks.gather(found)?.swap_remove(0);
        if found.is_empty() {
            return Ok(None);
        }
        let file = TensorFile::of_bytes(&self.path, found)?;
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

    /// Keeps a stage, and waits until it is on the disk.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write(&self, stage: &Stage) -> Result<()> {
        let tensor = |name, values| Tensor { name, shape: vec![len(&values)], values };
        let all = [
            tensor("soft_labels", Values::F32(&stage.soft.q)),
            tensor("nudge", Values::F64(std::slice::from_ref(&stage.soft.nudge))),
            tensor("values", Values::F32(&stage.values)),
            tensor("memory", Values::F32(&stage.memory)),
        ];
        let said = [
            ("identity", self.identity.clone()),
            ("batch", stage.batch.to_string()),
            ("notes", serde_json::json!(stage.notes).to_string()),
            ("epochs", stage.epochs.to_string()),
        ];
        let said = HashMap::from(said.map(|(key, value)| (key.to_string(), value)));
        self.ranks.first(|| tensors::write(&self.path, &all, said))
    }

    /// Removes what was kept, once the batch has its record.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear(&self) -> Result<()> {
        self.ranks.first(|| match self.path.exists() {
            true => std::fs::remove_file(&self.path).map_err(Error::io(&self.path)),
            false => Ok(()),
        })
    }
}

fn len(values: &Values) -> usize {
    match values {
        Values::F32(v) => v.len(),
        Values::F64(v) => v.len(),
        Values::I64(v) => v.len(),
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
            stages.write(&stage).unwrap();
            assert_eq!(stages.read(2).unwrap(), Some(stage));
        }
        assert_eq!(stages.read(1).unwrap(), None);
        assert_eq!(Stages::of(dir.path(), "b").read(2).unwrap(), None);
        stages.clear().unwrap();
        stages.clear().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
