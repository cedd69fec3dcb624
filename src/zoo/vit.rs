//! Vision transformers as timm and Hugging Face name them (Dosovitskiy et al. 2021), with DeiT (Touvron et al. 2021):
//! patches by a convolution, pre-norm blocks. The head reads the class token. It reads the mean of the other tokens
//! where there is no class token, where `global_pool` is "avg", or where `fc_norm` precedes the head.
//!
//! ```text
//! patch_embed.proj [cls_token] pos_embed
//!   | blocks.{i}.{norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2} | norm [fc_norm] head
//! vit.embeddings.{patch_embeddings.projection cls_token [distillation_token] position_embeddings}
//!   | vit.encoder.layer.{i}.{layernorm_before attention.attention.{query key value} attention.output.dense
//!     layernorm_after intermediate.dense output.dense} | vit.layernorm classifier
//! the same since Hugging Face's version 5: vit.layers.{i}.{attention.{q_proj k_proj v_proj o_proj} mlp.fc1 mlp.fc2}
//! ```
//!
//! The number of heads is `num_heads` or `num_attention_heads` of the config (or of its `model_args`), else one per 64
//! channels, as in every published ViT; `layer_norm_eps` is 1e-6 in timm and 1e-12 in Hugging Face's by default,
//! `hidden_act` GELU.

use serde_json::Value;

use super::{activation, rows};
use crate::checkpoint::Checkpoint;
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};
use crate::{Error, Result};

/// A library's names of the parts.
struct Names {
    patches: &'static str,
    class_token: &'static str,
    distillation_token: &'static str,
    positions: &'static str,
    block: &'static str,
    norm1: &'static str,
    /// One packed layer of q, k and v, or three layers.
    qkv: &'static [&'static str],
    proj: &'static str,
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    norm: &'static str,
    head: &'static str,
    eps: f32,
}

const TIMM: Names = Names {
    patches: "patch_embed.proj",
    class_token: "cls_token",
    distillation_token: "dist_token",
    positions: "pos_embed",
    block: "blocks",
    norm1: "norm1",
    qkv: &["attn.qkv"],
    proj: "attn.proj",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    norm: "norm",
    head: "head",
    eps: 1e-6,
};

const HUGGING_FACE: Names = Names {
    patches: "vit.embeddings.patch_embeddings.projection",
    class_token: "vit.embeddings.cls_token",
    distillation_token: "vit.embeddings.distillation_token",
    positions: "vit.embeddings.position_embeddings",
    block: "vit.encoder.layer",
    norm1: "layernorm_before",
    qkv: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    proj: "attention.output.dense",
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    norm: "vit.layernorm",
    head: "classifier",
    eps: 1e-12,
};

/// The names since version 5 of the library, which still reads the older ones.
const HUGGING_FACE_5: Names = Names {
    block: "vit.layers",
    qkv: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    proj: "attention.o_proj",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    ..HUGGING_FACE
};

const HUGGING_FACE_DEIT: Names = Names {
    patches: "deit.embeddings.patch_embeddings.projection",
    class_token: "deit.embeddings.cls_token",
    distillation_token: "deit.embeddings.distillation_token",
    positions: "deit.embeddings.position_embeddings",
    block: "deit.encoder.layer",
    norm: "deit.layernorm",
    ..HUGGING_FACE
};

const NAMES: [Names; 4] = [TIMM, HUGGING_FACE, HUGGING_FACE_5, HUGGING_FACE_DEIT];

impl Names {
    /// The first block's first weight.
    fn first(&self) -> String {
        format!("{}.0.{}.weight", self.block, self.qkv[0])
    }
}

fn weight(name: &str) -> String {
    format!("{name}.weight")
}

/// The library whose names a model has: those of its patches and, where it has one, of its first block.
fn names(has: &dyn Fn(&str) -> bool) -> Option<&'static Names> {
    let known = || NAMES.iter().filter(|names| has(&weight(names.patches)));
    known().find(|names| has(&names.first())).or_else(|| known().next())
}

pub(super) fn fits(source: &dyn Source) -> bool {
    names(&|name| source.has(name)).is_some_and(|names| {
        [names.positions, &weight(names.head), &names.first()].iter().all(|name| source.has(name))
    })
}

/// A square image: it has as many patches as the table has positions, less those of the tokens before them.
pub(super) fn image(checkpoint: &Checkpoint) -> Option<Shape> {
    let names = names(&|name| checkpoint.shape(name).is_some())?;
    let patch = checkpoint.shape(&weight(names.patches))?;
    let positions = checkpoint.shape(names.positions)?.get(1)?;
    let tokens = [names.class_token, names.distillation_token];
    let before = tokens.iter().filter(|name| checkpoint.shape(name).is_some()).count();
    let side = (positions.saturating_sub(before) as f64).sqrt().round() as usize;
    Some(Shape::new(side * patch.get(2)?, side * patch.get(3)?, *patch.get(1)?))
}

pub(super) fn compose(
    source: &mut dyn Source,
    image: Shape,
    config: &Value,
    _: &[String],
) -> Result<Network> {
    let names = names(&|name| source.has(name)).unwrap_or(&TIMM);
    let (mut b, x) = Builder::new(source, image);
    let patches = weight(names.patches);
    let (dim, side) = (rows(&b, &patches)?, b.side(&patches, 2)?);
    let block = Block {
        names,
        heads: heads(config, dim)?,
        eps: config.get("layer_norm_eps").and_then(Value::as_f64).map_or(names.eps, |eps| eps as f32),
        activation: activation(config, Activation::Gelu)?,
    };
    let x = b.conv(x, names.patches, dim, Conv::square(side, side, 0))?;
    let mut x = b.tokens(x);
    let mut before = 0;
    for token in [names.distillation_token, names.class_token] {
        if b.has(token) {
            x = b.class_token(x, token)?;
            before += 1;
        }
    }
    x = b.positions(x, names.positions)?;
    for i in 0.. {
        let name = format!("{}.{i}", names.block);
        if !b.has(&format!("{name}.{}.weight", names.qkv[0])) {
            break;
        }
        x = block.compose(&mut b, x, &name)?;
    }
    if b.has(&weight(names.norm)) {
        x = b.layer_norm(x, names.norm, block.eps)?;
    }
    let fc_norm = b.has("fc_norm.weight");
    x = match pooling(config).unwrap_or(if fc_norm || before == 0 { "avg" } else { "token" }) {
        "avg" if before == 0 => b.global_pool(x),
        "avg" => {
            let patches = b.tokens_from(x, before)?;
            b.global_pool(patches)
        }
        "token" if before > 0 => b.token(x, 0),
        other => {
            let reason =
                format!("\"global_pool\": \"{other}\" is not known here for a ViT of {before} tokens");
            return Err(Error::config(format!("{reason} beside its patches; there are avg and token")));
        }
    };
    if fc_norm {
        x = b.layer_norm(x, "fc_norm", block.eps)?;
    }
    let classes = rows(&b, &weight(names.head))?;
    let x = b.linear(x, names.head, classes)?;
    b.finish(x)
}

/// What all blocks of a model share.
struct Block {
    names: &'static Names,
    heads: usize,
    eps: f32,
    activation: Activation,
}

impl Block {
    fn compose(&self, b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
        let part = |part: &str| format!("{name}.{part}");
        let (names, dim) = (self.names, b.shape(x).c);
        let y = b.layer_norm(x, &part(names.norm1), self.eps)?;
        let y = match names.qkv {
            [qkv] => b.linear(y, &part(qkv), 3 * dim)?,
            parts => {
                let parts = parts.iter().map(|one| b.linear(y, &part(one), dim));
                let parts = parts.collect::<Result<Vec<_>>>()?;
                b.concat(&parts)?
            }
        };
        let y = b.attention(y, self.heads)?;
        let y = b.linear(y, &part(names.proj), dim)?;
        let x = b.add(x, y)?;
        let y = b.layer_norm(x, &part(names.norm2), self.eps)?;
        let hidden = rows(b, &part(&weight(names.fc1)))?;
        let y = b.linear(y, &part(names.fc1), hidden)?;
        let y = b.activation(y, self.activation);
        let y = b.linear(y, &part(names.fc2), dim)?;
        b.add(x, y)
    }
}

/// timm's word for the input of the head.
fn pooling(config: &Value) -> Option<&str> {
    let said = config.get("model_args").and_then(|arguments| arguments.get("global_pool"));
    said.or_else(|| config.get("global_pool")).and_then(Value::as_str)
}

fn heads(config: &Value, dim: usize) -> Result<usize> {
    let arguments = config.get("model_args").unwrap_or(config);
    let said = ["num_heads", "num_attention_heads"]
        .iter()
        .find_map(|key| arguments.get(key).or_else(|| config.get(key)).and_then(Value::as_u64));
    match said {
        Some(heads) if heads > 0 && (dim as u64).is_multiple_of(heads) => Ok(heads as usize),
        Some(heads) => Err(Error::config(format!("{heads} attention heads do not divide {dim} channels"))),
        None if dim.is_multiple_of(64) => Ok(dim / 64),
        None => Err(Error::config(format!(
            "a ViT of {dim} channels does not say its heads; config.json needs \"num_heads\""
        ))),
    }
}
