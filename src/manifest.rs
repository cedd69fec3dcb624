//! `train.json` beside a model: the data it was trained on, and the samples that were left out.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::data::tensors;
use crate::error::{Error, Result};

/// A `train.json`.
pub struct Manifest(pub Value);

impl Manifest {
    /// The manifest of a checkpoint. `train` writes `model.safetensors`; a file of another name has no manifest.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Manifest>> {
        match checkpoint.file_names().eq(["model.safetensors"]) {
            true => Ok(json_in(checkpoint.folder(), "train.json")?.map(Manifest)),
            false => Ok(None),
        }
    }

    /// The samples that were left out.
    pub fn excluded(&self) -> Option<HashSet<usize>> {
        let list = self.0.get("excluded")?.as_array()?;
        list.iter().map(|i| i.as_u64().map(|i| i as usize)).collect()
    }

    /// Whether it was trained on files with these hashes, under any names.
    pub fn trained_on(&self, data: &BTreeMap<String, String>) -> bool {
        let listed = self.0.get("data_sha256").and_then(Value::as_object);
        let theirs: Option<Vec<&str>> = listed.map(|map| map.values().filter_map(Value::as_str).collect());
        let sorted = |mut hashes: Vec<&str>| -> Vec<String> {
            hashes.sort_unstable();
            hashes.into_iter().map(String::from).collect()
        };
        theirs.map(sorted) == Some(sorted(data.values().map(String::as_str).collect()))
    }
}

/// A JSON file in a folder, where there is one.
///
/// # Errors
/// Where it cannot be read or is not JSON.
pub fn json_in(folder: &Path, name: &str) -> Result<Option<Value>> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let value = serde_json::from_slice(&tensors::read(&path)?);
    value.map(Some).map_err(|e| Error::data(&path, format!("is not JSON: {e}")))
}

/// Names the first few of many samples.
pub fn listed(samples: &[usize]) -> String {
    let some: Vec<String> = samples.iter().take(5).map(usize::to_string).collect();
    format!("{}{}", some.join(", "), if samples.len() > 5 { " .." } else { "" })
}
