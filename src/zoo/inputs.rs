//! What a model's configs say of its inputs and classes: the `config.json` of timm or Hugging Face, and the
//! `preprocessor_config.json` beside it.

use serde_json::Value;

use super::preprocessing;
use crate::checkpoint::{Checkpoint, image_size, side};
use crate::data::{Normalise, Preprocess};
use crate::error::{Error, Result};
use crate::net::Shape;

/// A model's inputs as its config describes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputConfig {
    /// Mean per channel, of values from 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel.
    pub std: Option<Vec<f32>>,
    /// The image's shape.
    pub shape: Option<Shape>,
    /// The steps before pixels become numbers.
    pub preprocess: Preprocess,
}

/// Image size and normalisation from timm's and Hugging Face's configs; none where they cannot be read ([`super::load`]
/// refuses such a model).
pub fn inputs(checkpoint: &Checkpoint) -> InputConfig {
    read(checkpoint).unwrap_or_default()
}

/// [`inputs`], with the reason where they cannot be read.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<InputConfig> {
    let config = checkpoint.config().unwrap_or(&Value::Null);
    let preprocessor = checkpoint.preprocessor().unwrap_or(&Value::Null);
    let timm = config.get("pretrained_cfg").filter(|value| !value.is_null()).unwrap_or(config);
    let mean = numbers(timm, "mean", "config.json")?;
    let std = numbers(timm, "std", "config.json")?;
    let (preprocess, of_weights) = preprocessing::read(config, preprocessor);
    let beside = scaled(preprocessor)?;
    let timm_shape = image_size(timm)?.map(|[c, h, w]| Shape::new(h, w, c));
    Ok(InputConfig {
        mean: mean.or(beside.mean).or(of_weights.mean),
        std: std.or(beside.std).or(of_weights.std),
        preprocess,
        shape: timm_shape.or(hugging_face_shape(config)?),
    })
}

/// Mean and std of a `preprocessor_config.json`, for values from 0 to 1: those of pixels times another factor than 1/255 are
/// converted.
fn scaled(preprocessor: &Value) -> Result<Normalise> {
    let beside = "preprocessor_config.json";
    let flag = |key: &str| preprocessor.get(key).and_then(Value::as_bool);
    let mut found = Normalise::default();
    if flag("do_normalize") != Some(false) {
        found.mean = numbers(preprocessor, "image_mean", beside)?;
        found.std = numbers(preprocessor, "image_std", beside)?;
    }
    let factor = match (flag("do_rescale"), preprocessor.get("rescale_factor").and_then(Value::as_f64)) {
        (Some(false), _) => 1.0,
        (_, factor) => factor.unwrap_or(1.0 / 255.0),
    };
    let whole = (factor * 255.0) as f32;
    if !(whole.is_finite() && whole > 0.0) {
        return Err(refused("rescale_factor", beside, "is not above 0"));
    }
    if whole != 1.0 {
        let divided = |values: Vec<f32>| values.into_iter().map(|value| value / whole).collect();
        found.mean = found.mean.map(divided);
        found.std = Some(found.std.map_or(vec![1.0 / whole], divided));
    }
    // EfficientNet's processor divides by the deviation twice.
    if flag("include_top") == Some(true) {
        found.std = found.std.map(|std| std.into_iter().map(|value| value * value).collect());
    }
    Ok(found)
}

/// `image_size`, one side or `[h, w]`, with `num_channels`.
fn hugging_face_shape(config: &Value) -> Result<Option<Shape>> {
    let Some(size) = config.get("image_size").filter(|value| !value.is_null()) else { return Ok(None) };
    let sides = match size.as_array().map(Vec::as_slice) {
        None => side(size).map(|side| (side, side)),
        Some([h, w]) => side(h).zip(side(w)),
        Some(_) => None,
    };
    let (h, w) = sides.ok_or_else(|| refused("image_size", "config.json", "is no side and no [h, w]"))?;
    let c = match config.get("num_channels").filter(|value| !value.is_null()) {
        None => 3,
        Some(c) => {
            side(c).ok_or_else(|| refused("num_channels", "config.json", "is no number of channels"))?
        }
    };
    Ok(Some(Shape::new(h, w, c)))
}

/// A list of numbers.
fn numbers(config: &Value, key: &str, file: &str) -> Result<Option<Vec<f32>>> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = |value: &Value| value.as_f64().map(|value| value as f32);
    let list = value.as_array().and_then(|list| list.iter().map(number).collect());
    list.map(Some).ok_or_else(|| refused(key, file, "is no list of numbers"))
}

fn refused(key: &str, file: &str, reason: &str) -> Error {
    Error::config(format!("{file}: \"{key}\" {reason}"))
}

/// The names of the classes by number: Hugging Face's `id2label`, but for its own placeholders (`LABEL_0`), or timm's
/// `label_names`.
pub(super) fn class_names(checkpoint: &Checkpoint) -> Option<Vec<String>> {
    let config = checkpoint.config()?;
    let listed = |of: &Value| {
        let list = of.get("label_names")?.as_array()?;
        list.iter().map(|name| name.as_str().map(String::from)).collect::<Option<Vec<String>>>()
    };
    let by_number = || {
        let names = config.get("id2label")?.as_object()?;
        let name = |i: usize| Some(names.get(&i.to_string())?.as_str()?.to_string());
        (0..names.len()).map(name).collect::<Option<Vec<String>>>()
    };
    let names = by_number().or_else(|| listed(config)).or_else(|| listed(config.get("pretrained_cfg")?))?;
    let placeholders = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
    (!placeholders && !names.is_empty()).then_some(names)
}
