//! The steps from a picture to a model's inputs, as its configs say: `preprocess` of scrubjay's own `config.json`, timm's
//! `pretrained_cfg`, the name of torchvision's weights, or Hugging Face's `preprocessor_config.json`.

use serde_json::Value;

use crate::data::{Crop, Interpolation, Normalise, Pipeline, Preprocess, Resize};

/// The key of scrubjay's own steps.
const OWN: &str = "preprocess";

/// What is read, or why it cannot be followed.
type Found<T> = Result<T, String>;

/// The steps, and the mean and std that torchvision's weights have beside them.
pub(super) fn read(config: &Value, preprocessor: &Value) -> (Preprocess, Normalise) {
    let said = |found: Found<Pipeline>, file: &str| match found {
        Ok(pipeline) => (Preprocess::Pictures(pipeline), Normalise::default()),
        Err(reason) => (Preprocess::Unknown(format!("{file}: {reason}")), Normalise::default()),
    };
    if let Some(own) = config.get(OWN) {
        return match serde_json::from_value(own.clone()) {
            Ok(pipeline) => (Preprocess::Pixels(pipeline), Normalise::default()),
            Err(error) => said(Err(format!("\"{OWN}\": {error}")), "config.json"),
        };
    }
    let timm = config.get("pretrained_cfg").filter(|value| !value.is_null()).unwrap_or(config);
    if timm.get("crop_pct").is_some() || timm.get("interpolation").is_some() {
        return said(of_timm(timm), "config.json");
    }
    if let Some(weights) = config.get("weights").and_then(Value::as_str) {
        return match of_torchvision(config, weights) {
            Ok((pipeline, normalise)) => (Preprocess::Pictures(pipeline), normalise),
            Err(reason) => said(Err(reason), "config.json"),
        };
    }
    match preprocessor.is_null() {
        true => (Preprocess::None, Normalise::default()),
        false => said(of_hugging_face(preprocessor), "preprocessor_config.json"),
    }
}

/// Writes steps to a config, as [`super::inputs`] reads them.
pub fn write_preprocess(config: &mut serde_json::Map<String, Value>, pipeline: &Pipeline) {
    config.insert(OWN.into(), serde_json::json!(pipeline));
}

fn number(of: &Value, key: &str) -> Option<usize> {
    of.get(key)?.as_u64().map(|number| number as usize).filter(|number| (1..1 << 16).contains(number))
}

/// timm resizes to the size of the inputs over `crop_pct`, rounded down, and cuts at the centre.
fn of_timm(of: &Value) -> Found<Pipeline> {
    let size = of.get("input_size").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let side =
        |i: usize| size.get(i).and_then(Value::as_u64).map(|side| side as usize).filter(|&side| side > 0);
    let (Some(h), Some(w), 3) = (side(1), side(2), size.len()) else {
        return Err("\"crop_pct\" needs \"input_size\": [c, h, w]".into());
    };
    let share = match of.get("crop_pct") {
        None | Some(Value::Null) => 0.875,
        Some(share) => share.as_f64().filter(|share| *share > 0.0).ok_or("\"crop_pct\" is no share")?,
    };
    let larger = |side: usize| (side as f64 / share).floor() as usize;
    let word = |key: &str| of.get(key).and_then(Value::as_str);
    let interpolation = named(word("interpolation").unwrap_or("bicubic"))?;
    let resize = match word("crop_mode") {
        None | Some("center") if h == w => Resize::Shortest(larger(h)),
        Some("squash") => Resize::Exact([larger(h), larger(w)]),
        mode => return Err(format!("\"crop_mode\": {mode:?} of {h} x {w} is not known here")),
    };
    Ok(Pipeline { resize, interpolation, crop: Crop::Centre([h, w]) })
}

fn named(word: &str) -> Found<Interpolation> {
    serde_json::from_value(word.into())
        .map_err(|_| format!("\"interpolation\": \"{word}\" is not known here"))
}

/// Presets of torchvision: the beginning of an architecture's name without `_`, the weights, the size that the shorter side
/// gets, the side that is cut out, and the interpolation. The first that fits holds.
const PRESETS: [(&str, &str, usize, usize, Interpolation); 23] = [
    ("convnextbase", "V1", 232, 224, Interpolation::Bilinear),
    ("convnextlarge", "V1", 232, 224, Interpolation::Bilinear),
    ("convnextsmall", "V1", 230, 224, Interpolation::Bilinear),
    ("convnexttiny", "V1", 236, 224, Interpolation::Bilinear),
    ("efficientnetb0", "V1", 256, 224, Interpolation::Bicubic),
    ("efficientnetb1", "V1", 256, 240, Interpolation::Bicubic),
    ("efficientnetb1", "V2", 255, 240, Interpolation::Bilinear),
    ("efficientnetb2", "V1", 288, 288, Interpolation::Bicubic),
    ("efficientnetb3", "V1", 320, 300, Interpolation::Bicubic),
    ("efficientnetb4", "V1", 384, 380, Interpolation::Bicubic),
    ("efficientnetb5", "V1", 456, 456, Interpolation::Bicubic),
    ("efficientnetb6", "V1", 528, 528, Interpolation::Bicubic),
    ("efficientnetb7", "V1", 600, 600, Interpolation::Bicubic),
    ("resnext10164x4d", "V1", 232, 224, Interpolation::Bilinear),
    ("vitl16", "V1", 242, 224, Interpolation::Bilinear),
    ("vith14", "SWAG_E2E_V1", 518, 518, Interpolation::Bicubic),
    ("vitl16", "SWAG_E2E_V1", 512, 512, Interpolation::Bicubic),
    ("vitb16", "SWAG_E2E_V1", 384, 384, Interpolation::Bicubic),
    ("regnety", "SWAG_E2E_V1", 384, 384, Interpolation::Bicubic),
    ("vit", "SWAG_LINEAR_V1", 224, 224, Interpolation::Bicubic),
    ("regnety", "SWAG_LINEAR_V1", 224, 224, Interpolation::Bicubic),
    ("", "V1", 256, 224, Interpolation::Bilinear),
    ("", "V2", 232, 224, Interpolation::Bilinear),
];

/// Beginnings of the architectures that [`PRESETS`] speaks of.
const ARCHITECTURES: [&str; 10] = [
    "alexnet",
    "convnext",
    "densenet",
    "efficientnetb",
    "mobilenet",
    "regnet",
    "resnet",
    "resnext",
    "vgg",
    "vit",
];

/// The preset of weights: `IMAGENET1K_V2` beside an architecture, or `ResNet50_Weights.IMAGENET1K_V2`.
fn of_torchvision(config: &Value, weights: &str) -> Found<(Pipeline, Normalise)> {
    let unknown =
        || format!("\"weights\": \"{weights}\" is not known here; --resize and --crop say what it would");
    let (before, tag) =
        weights.split_once("_Weights.").map_or((None, weights), |(arch, tag)| (Some(arch), tag));
    let arch =
        before.or_else(|| config.get("architecture").or(config.get("arch"))?.as_str()).unwrap_or_default();
    let arch: String =
        arch.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let tag = tag.strip_prefix("IMAGENET1K_").ok_or_else(unknown)?;
    let arch = arch.trim_start_matches("wide");
    if !ARCHITECTURES.iter().any(|known| arch.starts_with(known)) {
        return Err(unknown());
    }
    let fits = |(known, weights, ..): &&(&str, &str, usize, usize, Interpolation)| {
        *weights == tag && arch.starts_with(known)
    };
    let &(_, _, resize, crop, interpolation) = PRESETS.iter().find(fits).ok_or_else(unknown)?;
    let pipeline =
        Pipeline { resize: Resize::Shortest(resize), interpolation, crop: Crop::Centre([crop, crop]) };
    let normalise = Normalise { mean: Some(vec![0.485, 0.456, 0.406]), std: Some(vec![0.229, 0.224, 0.225]) };
    Ok((pipeline, normalise))
}

/// Steps of Hugging Face's processors that are not known here, where they are asked for.
const UNKNOWN: [&str; 7] = [
    "do_flip_channel_order",
    "do_pad",
    "do_align_long_axis",
    "do_thumbnail",
    "rescale_offset",
    "do_grayscale",
    "do_image_splitting",
];

/// Hugging Face's steps: resize, cut at the centre.
fn of_hugging_face(of: &Value) -> Found<Pipeline> {
    let flag = |key: &str| of.get(key).and_then(Value::as_bool);
    if let Some(key) = UNKNOWN.iter().find(|key| flag(key) == Some(true)) {
        return Err(format!("\"{key}\" is not known here; --resize and --crop take the place of all steps"));
    }
    let class =
        ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| of.get(key)?.as_str());
    let class = class.unwrap_or_default();
    let size = of.get("size").filter(|size| !size.is_null());
    let interpolation = match of.get("resample").and_then(Value::as_u64) {
        None => Interpolation::Bilinear,
        Some(code) => code_named(code)?,
    };
    let none = Pipeline { interpolation, ..Pipeline::default() };
    let crop = match of.get("crop_size").filter(|_| flag("do_center_crop") != Some(false)) {
        None | Some(Value::Null) => Crop::None,
        Some(size) => Crop::CentreDown(square(size).ok_or_else(|| refused("crop_size", size))?),
    };
    let Some(size) = size.filter(|_| flag("do_resize") != Some(false)) else {
        return Ok(Pipeline { crop, ..none });
    };
    let shortest = || {
        // A plain number is the shorter side to processors of these, and a square to others.
        const SHORTER: [&str; 4] = ["ConvNext", "MobileNet", "CLIP", "PoolFormer"];
        let plain = SHORTER.iter().any(|name| class.starts_with(name)) && size.is_u64();
        if plain { size.as_u64().map(|side| side as usize) } else { number(size, "shortest_edge") }
    };
    if size.get("longest_edge").is_some_and(|edge| !edge.is_null()) {
        return Err(refused("size", size));
    }
    let share = of.get("crop_pct").and_then(Value::as_f64).filter(|share| *share > 0.0);
    let resize = match (shortest(), share) {
        (Some(side), _) if class.starts_with("ConvNext") => {
            // The processor's own share is 224/256; large inputs are not cut.
            let resize = Resize::Shortest((side as f64 / share.unwrap_or(224.0 / 256.0)) as usize);
            let crop = Crop::CentreDown([side, side]);
            return Ok(match side < 384 {
                true => Pipeline { resize, crop, ..none },
                false => Pipeline { resize: Resize::Exact([side, side]), ..none },
            });
        }
        (_, Some(_)) => return Err(refused("crop_pct", &of["crop_pct"])),
        (Some(side), None) => Resize::Shortest(side),
        (None, None) => Resize::Exact(square(size).ok_or_else(|| refused("size", size))?),
    };
    Ok(Pipeline { resize, crop, ..none })
}

fn refused(key: &str, value: &Value) -> String {
    format!("\"{key}\": {value} is not known here; --resize and --crop take its place")
}

/// Height and width: a side, a list, or an object.
fn square(size: &Value) -> Option<[usize; 2]> {
    let sides = match size {
        Value::Number(side) => (side.as_u64()?, side.as_u64()?),
        Value::Array(sides) if sides.len() == 2 => (sides[0].as_u64()?, sides[1].as_u64()?),
        _ => (size.get("height")?.as_u64()?, size.get("width")?.as_u64()?),
    };
    let sides = [sides.0 as usize, sides.1 as usize];
    sides.iter().all(|side| (1..1 << 16).contains(side)).then_some(sides)
}

/// Pillow's numbers of its filters.
fn code_named(code: u64) -> Found<Interpolation> {
    Ok(match code {
        0 => Interpolation::Nearest,
        1 => Interpolation::Lanczos,
        2 => Interpolation::Bilinear,
        3 => Interpolation::Bicubic,
        4 => Interpolation::Box,
        5 => Interpolation::Hamming,
        _ => return Err(format!("\"resample\": {code} is not known here")),
    })
}
