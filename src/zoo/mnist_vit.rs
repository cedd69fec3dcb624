//! The tiny MNIST transformer: 7×7 patches, one head, post-norm blocks, mean of the tokens.
//!
//! ```text
//! patch_embed.proj pos_embed | encoder.{i}.{attn.in_proj attn.out_proj norm1 ffn.fc1 ffn.fc2 norm2} | norm classifier
//! ```

use serde_json::Value;

use super::rows;
use crate::Result;
use crate::net::{Activation, Builder, Conv, Network, Shape, Source};

const EPS: f32 = 1e-5;

pub(super) fn fits(source: &dyn Source) -> bool {
    ["patch_embed.proj.weight", "encoder.0.attn.in_proj_weight", "classifier.weight"]
        .iter()
        .all(|n| source.has(n))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, _: &Value, _: &[String]) -> Result<Network> {
    let (mut b, x) = Builder::new(source, image);
    let weight = "patch_embed.proj.weight";
    let side = ((b.side(weight, 1)? / image.c.max(1)) as f64).sqrt().round() as usize;
    let dim = rows(&b, weight)?;
    let x = b.conv(x, "patch_embed.proj", dim, Conv::square(side, side.max(1), 0))?;
    let x = b.tokens(x);
    let mut x = b.positions(x, "pos_embed")?;
    for i in 0.. {
        let part = |part: &str| format!("encoder.{i}.{part}");
        if !b.has(&part("attn.in_proj_weight")) {
            break;
        }
        let (weight, bias) = (part("attn.in_proj_weight"), part("attn.in_proj_bias"));
        let y = b.linear_named(x, &part("attn.in_proj"), &weight, &bias, 3 * dim)?;
        let y = b.attention(y, 1)?;
        let y = b.linear(y, &part("attn.out_proj"), dim)?;
        let y = b.add(x, y)?;
        x = b.layer_norm(y, &part("norm1"), EPS)?;
        let hidden = rows(&b, &part("ffn.fc1.weight"))?;
        let y = b.linear(x, &part("ffn.fc1"), hidden)?;
        let y = b.activation(y, Activation::Gelu);
        let y = b.linear(y, &part("ffn.fc2"), dim)?;
        let y = b.add(x, y)?;
        x = b.layer_norm(y, &part("norm2"), EPS)?;
    }
    let x = b.layer_norm(x, "norm", EPS)?;
    let x = b.global_pool(x);
    let classes = rows(&b, "classifier.weight")?;
    let x = b.linear(x, "classifier", classes)?;
    b.finish(x)
}
