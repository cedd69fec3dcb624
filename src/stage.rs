//! What work that was stopped goes on from, to the same bytes: a file beside what it has written ([`Kept`]), and its content for a
//! hold ([`Stage`]).
//!
//! That of a hold lies beside the records. Once the proxy has answered, it has the soft labels; after every epoch of the
//! hold also the values of all parameters and what the optimizer remembers. Each version replaces the one before by rename, and
//! the batch's record makes it superfluous.

use std::path::{Path, PathBuf};

use crate::communicator::Communicator;
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

/// A safetensors file of vectors and words that is replaced as work goes on, each time by rename, and is gone at the end. Of several
/// ranks, rank 0 alone reads and writes it, and all have what was read.
#[derive(Clone)]
pub struct Kept {
    path: PathBuf,
    ranks: Communicator,
}

impl Kept {
    /// The one of this name in `folder`.
    pub fn of(folder: &Path, name: &str) -> Kept {
        Kept { path: folder.join(name), ranks: Communicator::alone() }
    }

    /// The same for several ranks.
    pub fn among(self, ranks: &Communicator) -> Kept {
        Kept { ranks: ranks.clone(), ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept, where something was.
    ///
    /// # Errors
    /// Where the file cannot be read or is damaged.
    pub fn read(&self) -> Result<Option<TensorFile>> {
        if self.ranks.size() == 1 {
            return self.path.exists().then(|| TensorFile::open(&self.path)).transpose();
        }
        let found = match self.ranks.leads() && self.path.exists() {
            true => tensors::read(&self.path),
            false => Ok(vec![]),
        };
        let found = self.ranks.gather(found)?.swap_remove(0);
        (!found.is_empty()).then(|| TensorFile::of_bytes(&self.path, found)).transpose()
    }

    /// Keeps where training is, as `values` and `memory`, with other vectors and words by name, and waits until they are on the
    /// disk.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write<'a>(
        &self,
        state: &State,
        vectors: impl IntoIterator<Item = (&'static str, Values<'a>)>,
        words: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<()> {
        fn tensor<'v>((name, values): (&'static str, Values<'v>)) -> Tensor<'v> {
            Tensor { name, shape: vec![values.count()], values }
        }
        let bytes =
            |parts: Vec<&[f32]>| parts.into_iter().map(bytemuck::cast_slice).collect::<Vec<&[u8]>>().concat();
        let values = || bytes(state.values.clone());
        let memory = || bytes(state.memory.iter().map(|part| &**part).collect());
        let [of_values, of_memory] = state.lens();
        let mut all: Vec<Tensor> = vectors.into_iter().map(tensor).collect();
        all.push(tensor(("values", Values::Made(of_values, &values))));
        all.push(tensor(("memory", Values::Made(of_memory, &memory))));
        let words = words.into_iter().map(|(key, value)| (key.to_string(), value));
        self.ranks.first(|| tensors::write(&self.path, &all, words.collect()))
    }

    /// Removes what was kept.
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

/// Where the stages of one run are kept.
#[derive(Clone)]
pub struct Stages {
    kept: Kept,
    identity: String,
}

impl Stages {
    /// Those of the run of this identity in `folder`.
    pub fn of(folder: &Path, identity: &str) -> Stages {
        Stages { kept: Kept::of(folder, NAME), identity: identity.into() }
    }

    /// The same for several ranks.
    pub fn among(self, ranks: &Communicator) -> Stages {
        Stages { kept: self.kept.among(ranks), ..self }
    }

    /// The stage of a batch, where it was begun by this run.
    ///
    /// # Errors
    /// Where the file cannot be read or is damaged.
    pub fn read(&self, batch: usize) -> Result<Option<Stage>> {
        let Some(file) = self.kept.read()? else { return Ok(None) };
        let metadata = file.metadata();
        let said = |key: &str| metadata.get(key).map(String::as_str);
        if said("identity") != Some(&self.identity) || said("batch") != Some(&batch.to_string()) {
            return Ok(None);
        }
        let damaged =
            || Error::data(self.kept.path(), "is no stage of a hold; remove it, and the batch begins anew");
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
        let vectors = [
            ("soft_labels", Values::F32(&stage.soft.q)),
            ("nudge", Values::F64(std::slice::from_ref(&stage.soft.nudge))),
        ];
        let words = [
            ("identity", self.identity.clone()),
            ("batch", stage.batch.to_string()),
            ("notes", serde_json::json!(stage.notes).to_string()),
            ("epochs", stage.epochs.to_string()),
        ];
        self.kept.write(state, vectors, words)
    }

    /// Removes what was kept, once the batch has its record.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear(&self) -> Result<()> {
        self.kept.clear()
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
