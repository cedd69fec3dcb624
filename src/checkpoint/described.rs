//! Model files that describe their network, as ONNX files do: what they say takes the place of a config's.

use std::path::Path;

use serde_json::{Map, Value};

use super::file::ModelFile;
use crate::data::file::StoredFile;
use crate::error::{Error, Result};
use crate::onnx;

/// Keys of a config beside such a file that are about data, classes and the loss, and not about the network.
const DATA: [&str; 13] = [
    "num_classes",
    "num_labels",
    "id2label",
    "label2id",
    "input_size",
    "image_size",
    "num_channels",
    "mean",
    "std",
    "pretrained_cfg",
    "problem_type",
    "label_smoothing",
    "ordinary_tokens",
];

/// A model file, with those beside it that hold its values. Where it describes its network, that is written to `config`,
/// which keeps what is about data alone.
///
/// # Errors
/// As [`ModelFile::of`] and [`onnx::open`].
pub(super) fn files(
    file: StoredFile,
    folder: Option<&Path>,
    weights: &[String],
    config: &mut Option<Value>,
) -> Result<Vec<ModelFile>> {
    if !onnx::is_onnx(&file.read(0..file.len().min(16))?) {
        return Ok(vec![ModelFile::of(file, weights)?]);
    }
    let described = onnx::open(file, folder, size(config.as_ref()))?;
    let known = config.take();
    let known = known.as_ref().and_then(Value::as_object).into_iter().flatten();
    let mut all: Map<String, Value> = described.config;
    for (key, value) in known.filter(|(key, _)| DATA.contains(&key.as_str())) {
        match all.get(key) {
            Some(said) if key == "problem_type" && said != value => {
                let reason =
                    format!("config.json: \"{key}\": {value}, and the graph of the model is for {said}");
                return Err(Error::config(reason));
            }
            Some(_) => {}
            None => drop(all.insert(key.clone(), value.clone())),
        }
    }
    *config = Some(Value::Object(all));
    Ok(described.files.into_iter().map(|(file, tensors)| ModelFile::Onnx(file, tensors)).collect())
}

/// The size of images in a config, channels first.
fn size(config: Option<&Value>) -> Option<[usize; 3]> {
    let sides = config?.get("input_size")?.as_array()?;
    let sides: Vec<usize> = sides.iter().filter_map(|side| usize::try_from(side.as_u64()?).ok()).collect();
    sides.try_into().ok()
}
