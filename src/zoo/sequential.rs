//! Small networks without branches, described by `config.json`:
//!
//! ```text
//! {"architecture": "sequential", "input_size": [3, 16, 16], "layers": [
//!   {"conv": "conv1", "padding": 1}, {"batch_norm": "bn1"}, "relu", {"max_pool": 2}, "flatten", {"linear": "fc"}]}
//! ```
//!
//! A layer with tensors gives their name; filter size, widths and groups are read off them. `conv` takes `stride` (1),
//! `padding` (0) and `dilation` (1); `max_pool` and `average_pool` take `stride` (the window) and `padding` (0);
//! `batch_norm` and `layer_norm` take `eps` (1e-5); `adaptive_pool` is `[h, w]`. Any other key is refused by name. Plain
//! words: flatten, global_pool, and the activations' names (relu, gelu, silu, hard_swish and the others of
//! `Activation`). A layer named twice is one layer used twice. Without a description the names conv1, bn1, conv2, bn2,
//! fc stand for the small CNN: 3×3 filters, the second of stride 2, ReLU, 2×2 max pooling after the first; where no
//! config says so either, that is assumed, and reported so.

use serde_json::Value;

use super::family::{Family, Given, Reads, start};
use super::names::{Fit, Form, fit as fit_form};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "sequential",
    named: |arch| matches!(arch, "sequential" | "small_cnn"),
    fit,
    reads: Reads::Images { usual: |_| Ok(None), any_size: false, compose },
};

const SMALL_CNN: &str = r#"[{"conv": "conv1", "padding": 1}, {"batch_norm": "bn1"}, "relu", {"max_pool": 2},
    {"conv": "conv2", "stride": 2, "padding": 1}, {"batch_norm": "bn2"}, "relu", "flatten", {"linear": "fc"}]"#;

const SMALL_CNN_NAMES: &[Form] = &[Form {
    needs: &["conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight", "fc.weight"],
    others: &["conv1.bias", "conv2.bias", "bn1.*", "bn2.*", "fc.bias"],
    lacks: &["layer1.0.conv1.weight"],
}];

fn fit(given: &Given) -> Option<Fit> {
    match given.config.get("layers") {
        Some(_) => Some(Fit { fits: true, placed: given.names.len(), ..Fit::default() }),
        None => Some(fit_form(SMALL_CNN_NAMES, given.names)),
    }
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let layers = match reading.object("layers") {
        Some(layers) => layers.clone(),
        None if fit_form(SMALL_CNN_NAMES, reading.names).fits => {
            if reading.arch.is_none() {
                reading.assume(
                    "the small CNN of these names: padding 1, ReLU, 2x2 max pooling after bn1, stride 2 in conv2 \
                     (\"layers\" in config.json describes another)",
                );
            }
            let sides = |name: &str| source.shape(name).map(<[usize]>::to_vec).unwrap_or_default();
            for conv in ["conv1.weight", "conv2.weight"] {
                if sides(conv).get(2..) != Some(&[3, 3]) {
                    let found = sides(conv);
                    let reason =
                        format!("`{conv}` has shape {found:?}; the small CNN of these names has 3x3 filters");
                    return Err(Error::config(format!(
                        "{reason}; \"layers\" in config.json describes another"
                    )));
                }
            }
            serde_json::from_str(SMALL_CNN).map_err(|e| Error::config(e.to_string()))?
        }
        None => return Err(Error::config("a sequential model needs \"layers\" in its config.json")),
    };
    let layers = layers.as_array().ok_or_else(|| Error::config("\"layers\" in config.json is no list"))?;
    if let Some(said) = reading.image.filter(|said| said.c != image.c) {
        let reason = format!("the model takes images of {} channels, these have {}", said.c, image.c);
        return Err(Error::config(reason));
    }
    let (mut b, mut x) = start(source, image, reading)?;
    for (i, layer) in layers.iter().enumerate() {
        x = add(&mut b, x, layer)
            .map_err(|e| Error::config(format!("layer {i} of config.json ({layer}): {e}")))?;
    }
    b.finish(x)
}

fn add(b: &mut Builder, x: NodeId, layer: &Value) -> Result<NodeId> {
    if let Some(word) = layer.as_str() {
        return match word {
            "flatten" => Ok(b.flatten(x)),
            "global_pool" => Ok(b.global_pool(x)),
            _ => match Activation::named(word) {
                Some(activation) => Ok(b.activation(x, activation)),
                None => Err(Error::config("is no layer that is known here")),
            },
        };
    }
    let number = |key: &str, default: usize| match layer.get(key) {
        None => Ok(default),
        Some(value) => {
            value.as_u64().map(|v| v as usize).ok_or_else(|| Error::config(format!("\"{key}\" is no number")))
        }
    };
    let eps = || match layer.get("eps") {
        None => Ok(1e-5),
        Some(value) => match value.as_f64().filter(|eps| *eps > 0.0) {
            Some(eps) => Ok(eps as f32),
            None => Err(Error::config("\"eps\" is no number above 0")),
        },
    };
    let name = |key: &str| layer.get(key).and_then(Value::as_str);
    let window = |key: &str| -> Result<Window> {
        let size = number(key, 0)?;
        let (stride, padding) = (number("stride", size)?, number("padding", 0)?);
        match size > 0 && stride > 0 && 2 * padding <= size {
            true => Ok(Window::square(size, stride, padding)),
            false => Err(Error::config(
                "a window has a size and a stride above 0 and a padding of at most half its size",
            )),
        }
    };
    check_keys(layer)?;
    if let Some(name) = name("conv") {
        let weight = format!("{name}.weight");
        let sides = [b.side(&weight, 0)?, b.side(&weight, 1)?, b.side(&weight, 2)?, b.side(&weight, 3)?];
        let (stride, padding, dilation) =
            (number("stride", 1)?, number("padding", 0)?, number("dilation", 1)?);
        if stride == 0 || dilation == 0 || sides.contains(&0) {
            return Err(Error::config("stride, dilation and the sides of a filter are above 0"));
        }
        let groups = b.shape(x).c / sides[1];
        let conv =
            Conv { kernel: (sides[2], sides[3]), dilation, groups, ..Conv::square(1, stride, padding) };
        return b.conv(x, name, sides[0], conv);
    }
    if let Some(name) = name("linear") {
        let outputs = b.side(&format!("{name}.weight"), 0)?;
        return b.linear(x, name, outputs);
    }
    if let Some(name) = name("batch_norm") {
        return b.batch_norm_with(x, name, eps()?);
    }
    if let Some(name) = name("layer_norm") {
        return b.layer_norm(x, name, eps()?);
    }
    if layer.get("max_pool").is_some() {
        return b.max_pool(x, window("max_pool")?);
    }
    if layer.get("average_pool").is_some() {
        return b.average_pool(x, window("average_pool")?);
    }
    let sides = layer.get("adaptive_pool").and_then(Value::as_array);
    let side = |i: usize| sides?.get(i)?.as_u64().filter(|&side| side > 0);
    if let (Some(h), Some(w)) = (side(0), side(1)) {
        return Ok(b.adaptive_pool(x, h as usize, w as usize));
    }
    Err(Error::config("is no layer that is known here"))
}

/// The kinds of layers with options, and their options.
const KINDS: [(&str, &[&str]); 7] = [
    ("conv", &["stride", "padding", "dilation"]),
    ("linear", &[]),
    ("batch_norm", &["eps"]),
    ("layer_norm", &["eps"]),
    ("max_pool", &["stride", "padding"]),
    ("average_pool", &["stride", "padding"]),
    ("adaptive_pool", &[]),
];

/// Refuses a layer with a key that its kind does not have.
fn check_keys(layer: &Value) -> Result<()> {
    let Some(keys) = layer.as_object() else { return Ok(()) };
    let Some((kind, options)) = KINDS.iter().find(|(kind, _)| keys.contains_key(*kind)) else {
        return Ok(());
    };
    match keys.keys().find(|key| key != kind && !options.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::config(format!("\"{key}\" is not supported for {kind}"))),
    }
}
