//! Model files that describe their own network, as ONNX files do: their description replaces that of a config.

use std::path::Path;

use serde_json::{Map, Value};

use super::file::ModelFile;
use crate::data::file::StoredFile;
use crate::error::{Error, Result};
use crate::onnx;

/// Keys of a config beside such a file that are about data, classes and the loss, and not about the network.
const DATA: [&str; 18] = [
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
    "preprocess",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "label_names",
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
    let said = config.as_ref().unwrap_or(&Value::Null);
    let timm = said.get("pretrained_cfg").unwrap_or(&Value::Null);
    let described = onnx::open(file, folder, image_size(said)?.or(image_size(timm)?))?;
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
    // timm's part has a size too, of which the graph's takes the place.
    let size = all.get("input_size").cloned();
    if let Some(timm) = all.get_mut("pretrained_cfg").and_then(Value::as_object_mut) {
        timm.extend(size.map(|size| ("input_size".to_string(), size)));
    }
    *config = Some(Value::Object(all));
    Ok(described.files.into_iter().map(|(file, tensors)| ModelFile::Onnx(file, tensors)).collect())
}

/// A config with the keys of its `vision_config`, as CLIP's has one, beside its own, which win; what describes the whole model
/// and its classes is never the part's.
pub(super) fn of_images(mut config: Value) -> Value {
    let Some(Value::Object(part)) = config.get_mut("vision_config").map(Value::take) else { return config };
    if let Some(all) = config.as_object_mut() {
        all.remove("vision_config");
        let whole = ["model_type", "architectures", "num_labels", "id2label", "label2id", "problem_type"];
        for (key, value) in part.into_iter().filter(|(key, _)| !whole.contains(&key.as_str())) {
            if all.get(&key).is_none_or(Value::is_null) {
                all.insert(key, value);
            }
        }
    }
    config
}

/// `input_size` of a config: channels, rows, columns.
///
/// # Errors
/// Where it is there and is no three such sides ([`side`]).
pub(crate) fn image_size(config: &Value) -> Result<Option<[usize; 3]>> {
    let Some(said) = config.get("input_size").filter(|said| !said.is_null()) else { return Ok(None) };
    let sides = said.as_array().and_then(|sides| sides.iter().map(side).collect::<Option<Vec<_>>>());
    let sides = sides.and_then(|sides| <[usize; 3]>::try_from(sides).ok());
    sides.map(Some).ok_or_else(|| {
        let expected = format!("[c, h, w], three whole numbers from 1 to {LARGEST}");
        Error::config(format!("config.json: \"input_size\": {said}, where {expected} were expected"))
    })
}

/// The most rows, columns or channels of an image in a config.
const LARGEST: usize = 1 << 20;

/// A side of an image, or its number of channels: a whole number above 0.
pub(crate) fn side(value: &Value) -> Option<usize> {
    let found = value.as_f64().filter(|side| side.fract() == 0.0)?;
    (1.0..=LARGEST as f64).contains(&found).then_some(found as usize)
}
