//! Small networks without branches, described by `config.json`:
//!
//! ```text
//! {"architecture": "sequential", "input_size": [3, 16, 16], "layers": [
//!   {"conv": "conv1", "padding": 1}, {"batch_norm": "bn1"}, "relu", {"max_pool": 2}, "flatten", {"linear": "fc"}]}
//! ```
//!
//! A layer with tensors gives their name; filter size, widths and groups are read off them. `conv` takes `stride` (1),
//! `padding` (0) and `dilation` (1); `max_pool` and `average_pool` take `stride` (the window) and `padding` (0);
//! `layer_norm` takes `eps` (1e-5); `adaptive_pool` is `[h, w]`. Plain words: flatten, global_pool, and the
//! activations' names (relu, gelu, silu, hard_swish and the others of `Activation`). A layer named twice is one layer used twice. Without a description the names conv1, bn1, conv2,
//! bn2, fc stand for the small CNN: 3×3 filters, the second of stride 2, ReLU, 2×2 max pooling after the first.

use serde_json::Value;

use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source, Window};
use crate::{Error, Result};

const SMALL_CNN: &str = r#"[{"conv": "conv1", "padding": 1}, {"batch_norm": "bn1"}, "relu", {"max_pool": 2},
    {"conv": "conv2", "stride": 2, "padding": 1}, {"batch_norm": "bn2"}, "relu", "flatten", {"linear": "fc"}]"#;

pub(super) fn fits(source: &dyn Source) -> bool {
    let names = ["conv1.weight", "bn1.weight", "conv2.weight", "bn2.weight", "fc.weight"];
    names.iter().all(|name| source.has(name)) && !source.has("layer1.0.conv1.weight")
}

pub(super) fn compose(
    source: &mut dyn Source,
    image: Shape,
    config: &Value,
    _: &[String],
) -> Result<Network> {
    let described = config.get("layers").cloned();
    let layers = match described {
        Some(layers) => layers,
        None if fits(source) => serde_json::from_str(SMALL_CNN).map_err(|e| Error::config(e.to_string()))?,
        None => return Err(Error::config("a sequential model needs \"layers\" in its config.json")),
    };
    let layers = layers.as_array().ok_or_else(|| Error::config("\"layers\" in config.json is no list"))?;
    let (mut b, mut x) = Builder::new(source, image);
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
    let name = |key: &str| layer.get(key).and_then(Value::as_str);
    let window = |key: &str| -> Result<Window> {
        let size = number(key, 0)?;
        let (stride, padding) = (number("stride", size)?, number("padding", 0)?);
        match size > 0 && stride > 0 && 2 * padding <= size {
            true => Ok(Window { size, stride, padding }),
            false => Err(Error::config(
                "a window has a size and a stride above 0 and a padding of at most half its size",
            )),
        }
    };
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
            Conv { kernel: (sides[2], sides[3]), stride, padding: (padding, padding), dilation, groups };
        return b.conv(x, name, sides[0], conv);
    }
    if let Some(name) = name("linear") {
        let outputs = b.side(&format!("{name}.weight"), 0)?;
        return b.linear(x, name, outputs);
    }
    if let Some(name) = name("batch_norm") {
        return b.batch_norm(x, name);
    }
    if let Some(name) = name("layer_norm") {
        let eps = layer.get("eps").and_then(Value::as_f64).unwrap_or(1e-5) as f32;
        return b.layer_norm(x, name, eps);
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
