//! Vision transformers as timm names them (Dosovitskiy et al. 2021): patches by a convolution, pre-norm blocks, eps 1e-6;
//! the class token's features or, without one, the mean of all tokens go to the head.
//!
//! ```text
//! patch_embed.proj [cls_token] pos_embed | blocks.{i}.{norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2} | norm [fc_norm] head
//! ```
//!
//! The number of heads is `num_heads` or `num_attention_heads` of the config (or of its `model_args`), else one per 64
//! channels, as in every published ViT.

use serde_json::Value;

use super::rows;
use crate::checkpoint::Checkpoint;
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};
use crate::{Error, Result};

const EPS: f32 = 1e-6;

pub(super) fn fits(source: &dyn Source) -> bool {
    ["patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "head.weight"]
        .iter()
        .all(|n| source.has(n))
}

/// A square image: its patches are as many as the table has positions, the class token's apart.
pub(super) fn image(checkpoint: &Checkpoint) -> Option<Shape> {
    let patch = checkpoint.shape("patch_embed.proj.weight")?;
    let positions = checkpoint.shape("pos_embed")?.get(1)?;
    let patches = positions.saturating_sub(usize::from(checkpoint.shape("cls_token").is_some()));
    let side = (patches as f64).sqrt().round() as usize;
    Some(Shape::new(side * patch.get(2)?, side * patch.get(3)?, *patch.get(1)?))
}

pub(super) fn compose(
    source: &mut dyn Source,
    image: Shape,
    config: &Value,
    _: &[String],
) -> Result<Network> {
    let (mut b, x) = Builder::new(source, image);
    let (dim, side) = (rows(&b, "patch_embed.proj.weight")?, b.side("patch_embed.proj.weight", 2)?);
    let heads = heads(config, dim)?;
    let x = b.conv(x, "patch_embed.proj", dim, Conv::square(side, side, 0))?;
    let mut x = b.tokens(x);
    let class_token = b.has("cls_token");
    if class_token {
        x = b.class_token(x, "cls_token")?;
    }
    x = b.positions(x, "pos_embed")?;
    for i in 0.. {
        if !b.has(&format!("blocks.{i}.attn.qkv.weight")) {
            break;
        }
        x = block(&mut b, x, &format!("blocks.{i}"), heads)?;
    }
    if b.has("norm.weight") {
        x = b.layer_norm(x, "norm", EPS)?;
    }
    x = match (class_token, b.has("fc_norm.weight")) {
        (true, false) => b.token(x, 0),
        (false, _) => b.global_pool(x),
        (true, true) => {
            return Err(Error::config("a ViT with a class token and mean pooling is not supported"));
        }
    };
    if b.has("fc_norm.weight") {
        x = b.layer_norm(x, "fc_norm", EPS)?;
    }
    let classes = rows(&b, "head.weight")?;
    let x = b.linear(x, "head", classes)?;
    b.finish(x)
}

fn block(b: &mut Builder, x: NodeId, name: &str, heads: usize) -> Result<NodeId> {
    let part = |part: &str| format!("{name}.{part}");
    let dim = b.shape(x).c;
    let y = b.layer_norm(x, &part("norm1"), EPS)?;
    let y = b.linear(y, &part("attn.qkv"), 3 * dim)?;
    let y = b.attention(y, heads)?;
    let y = b.linear(y, &part("attn.proj"), dim)?;
    let x = b.add(x, y)?;
    let y = b.layer_norm(x, &part("norm2"), EPS)?;
    let hidden = rows(b, &part("mlp.fc1.weight"))?;
    let y = b.linear(y, &part("mlp.fc1"), hidden)?;
    let y = b.activation(y, Activation::Gelu);
    let y = b.linear(y, &part("mlp.fc2"), dim)?;
    b.add(x, y)
}

fn heads(config: &Value, dim: usize) -> Result<usize> {
    let arguments = config.get("model_args").unwrap_or(config);
    let said = ["num_heads", "num_attention_heads"]
        .iter()
        .find_map(|key| arguments.get(key).or_else(|| config.get(key)).and_then(Value::as_u64));
    match said {
        Some(heads) => Ok(heads as usize),
        None if dim.is_multiple_of(64) => Ok(dim / 64),
        None => Err(Error::config(format!(
            "a ViT of {dim} channels does not say its heads; config.json needs \"num_heads\""
        ))),
    }
}
