//! The tiny MNIST transformer: 7×7 patches, one head, post-norm blocks, mean of the tokens.
//!
//! ```text
//! patch_embed.proj pos_embed | encoder.{i}.{attn.in_proj attn.out_proj norm1 ffn.fc1 ffn.fc2 norm2} | norm classifier
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Conv, Network, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "vit-mnist",
    named: |arch| matches!(arch, "vit-mnist" | "vit_mnist" | "mnist_vit" | "mnist-vit"),
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: false, compose },
};

const EPS: f32 = 1e-5;

const FORMS: &[Form] = &[Form {
    needs: &[
        "patch_embed.proj.weight",
        "encoder.0.attn.in_proj_weight",
        "classifier.weight|classifier.#.weight",
    ],
    others: &[
        "patch_embed.proj.bias",
        "pos_embed",
        "encoder.#.attn.in_proj_bias",
        "encoder.#.attn.out_proj.*",
        "encoder.#.norm#.*",
        "encoder.#.ffn.fc#.*",
        "norm.*",
        "classifier.*",
    ],
    lacks: &[],
}];

fn image(_: &Given) -> Result<Option<Shape>> {
    Ok(Some(Shape::new(28, 28, 1)))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let heads = reading.heads()?.unwrap_or(1);
    let activation = reading.activation(&["hidden_act"])?.unwrap_or(Activation::Gelu);
    let eps = reading.number(&["layer_norm_eps"])?.unwrap_or(EPS);
    if reading.arch.is_none() {
        reading.assume("the transformer for MNIST: one head, the norms behind, GELU, the mean of the tokens");
    }
    let (mut b, x) = start(source, image, reading)?;
    let weight = "patch_embed.proj.weight";
    let side = ((b.side(weight, 1)? / image.c.max(1)) as f64).sqrt().round() as usize;
    let dim = rows(&b, weight)?;
    let x = b.conv(x, "patch_embed.proj", dim, Conv::square(side, side.max(1), 0))?;
    let x = b.tokens(x);
    let (table, patches) = (b.side("pos_embed", 1)?, b.shape(x).positions());
    if table != patches {
        let size = format!("{}x{}", image.h, image.w);
        let reason = format!(
            "the model takes images of {table} patches of {side}x{side}; these of {size} have {patches}"
        );
        return Err(Error::config(reason));
    }
    let mut x = b.positions(x, "pos_embed")?;
    for i in 0.. {
        let part = |part: &str| format!("encoder.{i}.{part}");
        if !b.has(&part("attn.in_proj_weight")) {
            break;
        }
        let (weight, bias) = (part("attn.in_proj_weight"), part("attn.in_proj_bias"));
        let y = b.linear_named(x, &part("attn.in_proj"), &weight, &bias, 3 * dim)?;
        let y = b.attention(y, heads)?;
        let y = b.linear(y, &part("attn.out_proj"), dim)?;
        let y = b.add(x, y)?;
        x = b.layer_norm(y, &part("norm1"), eps)?;
        let hidden = rows(&b, &part("ffn.fc1.weight"))?;
        let y = b.linear(x, &part("ffn.fc1"), hidden)?;
        let y = b.activation(y, activation);
        let y = b.linear(y, &part("ffn.fc2"), dim)?;
        let y = b.add(x, y)?;
        x = b.layer_norm(y, &part("norm2"), eps)?;
    }
    let x = b.layer_norm(x, "norm", eps)?;
    let x = b.global_pool(x);
    let head = head(&b, reading, &["classifier"])?;
    let classes = rows(&b, &format!("{head}.weight"))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}
