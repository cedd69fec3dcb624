//! Vision transformers as timm, torchvision and Hugging Face name them (Dosovitskiy et al. 2021), with DeiT (Touvron et
//! al. 2021): patches by a convolution, pre-norm blocks. The head reads the class token. It reads the mean of the other
//! tokens where there is no class token, where `global_pool` is "avg", or where `fc_norm` precedes the head.
//!
//! ```text
//! patch_embed.proj [cls_token] pos_embed
//!   | blocks.{i}.{norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2} | norm [fc_norm] head
//! conv_proj class_token encoder.pos_embedding
//!   | encoder.layers.encoder_layer_{i}.{ln_1 self_attention.{in_proj_weight out_proj} ln_2 mlp.0 mlp.3} | encoder.ln
//!   heads.head
//! vit.embeddings.{patch_embeddings.projection cls_token [distillation_token] position_embeddings}
//!   | vit.encoder.layer.{i}.{layernorm_before attention.attention.{query key value} attention.output.dense
//!     layernorm_after intermediate.dense output.dense} | vit.layernorm classifier
//! the same since Hugging Face's version 5: vit.layers.{i}.{attention.{q_proj k_proj v_proj o_proj} mlp.fc1 mlp.fc2}
//! dinov2.embeddings.{patch_embeddings.projection cls_token position_embeddings} | dinov2.encoder.layer.{i}.{norm1
//!     attention.attention.{query key value} attention.output.dense layer_scale1 norm2 mlp.fc1 mlp.fc2 layer_scale2}
//!   | dinov2.layernorm classifier, which reads the class token and the mean of the patches
//! vision_model.{embeddings.{patch_embedding class_embedding position_embedding} pre_layrnorm} | vision_model.encoder.layers.{i}
//!     .{layer_norm1 self_attn.{k_proj v_proj q_proj out_proj} layer_norm2 mlp.fc1 mlp.fc2} | classifier
//! ```
//!
//! The last is CLIP's image tower (Radford et al. 2021), whose tokens are normed before the first block, as timm's are by
//! `norm_pre`. Hugging Face's head reads the mean of its patches, without a norm, timm's the class token.
//!
//! timm's may have registers, `reg_token` (Darcet et al. 2024): learned tokens behind the class token; then the table has
//! positions of the patches alone.
//!
//! Tensors do not tell the number of heads: it is `--heads`, or `num_heads` or `num_attention_heads` of the config (or
//! of its `model_args`), or that of the published architecture of the config's name and of this width. Anything else is
//! a guess, one head per 64 channels, and reported so. `layer_norm_eps` is 1e-12 in Hugging Face by default, in CLIP 1e-5,
//! else 1e-6; `hidden_act` or `act_layer` is GELU, in Hugging Face's CLIP and in timm's architectures with `quickgelu` in
//! their names QuickGELU.

mod names;

use serde_json::json;

pub(super) use names::FORMS;
use names::{HeadReads, NAMES, Names, Qkv, TIMM};

use super::family::{Family, Given, Reads, rows, start};
use super::names::{fit, head, matches};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "vit",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: false, compose },
};

/// Words of which the names of architectures are made that this family computes. Any other word in a name may stand for
/// another function of the same tensors (`rpn`, `siglip`).
const WORDS: &[&str] = &[
    "vit",
    "deit",
    "vitforimageclassification",
    "deitforimageclassification",
    "mini",
    "micro",
    "nano",
    "ti",
    "tiny",
    "small",
    "little",
    "medium",
    "base",
    "large",
    "huge",
    "giant",
    "gigantic",
    "s",
    "b",
    "l",
    "h",
    "g",
    "patch#",
    "p#",
    "#",
    "in#k",
    "cifar",
    "cifar#",
    "imagenet",
    "augreg",
    "orig",
    "miil",
    "dino",
    "dinov2",
    "reg#",
    "gap",
    "mae",
    "distilled",
    "clip",
    "quickgelu",
    "plus",
    "xsmall",
    "betwixt",
];

fn named(arch: &str) -> bool {
    let mut words = arch.split(['_', '-']);
    let usual = arch.starts_with("vit") || arch.starts_with("deit");
    matches!(
        arch,
        "clip"
            | "clipforimageclassification"
            | "dinov2"
            | "dinov2forimageclassification"
            | "deitforimageclassificationwithteacher"
    ) || usual && words.all(|word| WORDS.iter().any(|known| matches(known, word)))
}

/// Words for the sizes of published architectures, their channels and their heads.
const PUBLISHED: [(&[&str], usize, usize); 7] = [
    (&["ti", "tiny"], 192, 3),
    (&["s", "small"], 384, 6),
    (&["b", "base"], 768, 12),
    (&["l", "large"], 1024, 16),
    (&["h", "huge"], 1280, 16),
    (&["g", "giant"], 1408, 16),
    (&["gigantic"], 1664, 16),
];

fn weight(name: &str) -> String {
    format!("{name}.weight")
}

/// The library whose names a model has: those of its patches and, where it has one, of its first block.
fn names(has: &dyn Fn(&str) -> bool) -> Option<&'static Names> {
    let known = || NAMES.iter().filter(|names| has(&weight(names.patches)));
    let first = |names: &&Names| {
        let part = |part: &str| format!("{}0.{part}", names.block);
        has(&part(&names.qkv.weight())) && has(&part(&weight(names.fc1)))
    };
    known().find(first).or_else(|| known().next())
}

/// The images of a model, as its position table tells them.
struct Images {
    /// Rows and columns of a patch.
    patch: (usize, usize),
    channels: usize,
    /// The number of patches.
    patches: usize,
}

impl Images {
    fn of(source: &dyn Source, names: &Names) -> Option<Images> {
        let patch = source.shape(&weight(names.patches))?;
        let positions = source.shape(names.positions)?.iter().rev().nth(1)?;
        let tokens = [names.class_token, names.distillation_token];
        let before = match source.has(names.registers) {
            true => 0,
            false => tokens.iter().filter(|name| source.has(name)).count(),
        };
        let patches = positions.checked_sub(before)?;
        Some(Images { patch: (*patch.get(2)?, *patch.get(3)?), channels: *patch.get(1)?, patches })
    }

    /// The square image of this many patches, if there is one.
    fn square(&self) -> Option<Shape> {
        let side = (self.patches as f64).sqrt().round() as usize;
        let shape = || Shape::new(side * self.patch.0, side * self.patch.1, self.channels);
        (side * side == self.patches).then(shape)
    }

    /// Refuses images of another size than the model's: what the config says, or the square that the table tells.
    fn check(&self, image: Shape, reading: &mut Reading) -> Result<()> {
        let (down, right) = (image.h / self.patch.0.max(1), image.w / self.patch.1.max(1));
        let words = |shape: Shape| format!("{}x{} images of {} channels", shape.h, shape.w, shape.c);
        let said = reading.image.map(|shape| Shape { c: self.channels, ..shape });
        let wanted = said.or(self.square());
        match wanted {
            Some(wanted) if wanted != image => Err(Error::config(format!(
                "the model takes {}, these are {}; a table of positions is not resized",
                words(wanted),
                words(image)
            ))),
            _ if down * right != self.patches
                || (down * self.patch.0, right * self.patch.1) != (image.h, image.w) =>
            {
                Err(Error::config(format!(
                    "the model takes images of {} patches of {}x{}, these are {}",
                    self.patches,
                    self.patch.0,
                    self.patch.1,
                    words(image)
                )))
            }
            Some(_) => Ok(()),
            None => {
                reading.assume(format!(
                    "{down} rows of {right} patches: their number alone does not tell the shape"
                ));
                Ok(())
            }
        }
    }
}

/// A square image of as many patches as the table of positions has, less those of the tokens before them.
fn image(given: &Given) -> Result<Option<Shape>> {
    let names = names(&|name| given.source.has(name));
    Ok(names.and_then(|names| Images::of(given.source, names)).and_then(|images| images.square()))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let names = names(&|name| source.has(name)).unwrap_or(&TIMM);
    let images = Images::of(source, names);
    let (mut b, x) = start(source, image, reading)?;
    let patches = weight(names.patches);
    let (dim, side) = (rows(&b, &patches)?, b.side(&patches, 2)?);
    if let Some(images) = images {
        images.check(image, reading)?;
        reading.saw(format!("{} patches of {side}x{side}, {dim} channels", images.patches));
    }
    let pre_norm = b.has(&weight(names.norm_pre)); // only models of CLIP have it
    let block = Block {
        names,
        heads: heads(reading, dim)?,
        eps: reading.number(&["layer_norm_eps"])?.unwrap_or(if pre_norm { 1e-5 } else { names.eps }),
        activation: activation(names, reading)?,
    };
    let registers = if b.has(names.registers) { b.side(names.registers, 1)? } else { 0 };
    reading.only(&[
        ("no_embed_class", json!(registers > 0)),
        ("pool_include_prefix", json!(false)),
        ("pre_norm", json!(pre_norm)),
        ("qk_norm", json!(false)),
        ("pos_embed", json!("learn")),
        ("position_embedding_type", json!("absolute")),
        ("reg_tokens", json!(registers)),
        ("use_swiglu_ffn", json!(false)),
        ("apply_layernorm", json!(true)),
    ])?;
    if reading.arch.is_none() {
        let (activation, eps) = (block.activation.name(), block.eps);
        reading.assume(format!("a plain ViT: pre-norm blocks, {activation}, eps {eps:e}"));
    }
    let x = b.conv(x, names.patches, dim, Conv::square(side, side, 0))?;
    let mut x = b.tokens(x);
    if registers > 0 {
        x = b.positions(x, names.positions)?;
        x = b.tokens_before(x, names.registers, registers)?;
        reading.saw(format!("{registers} registers, and positions of the patches alone"));
    }
    let mut classes = 0;
    for token in [names.distillation_token, names.class_token] {
        if b.has(token) {
            x = b.class_token(x, token)?;
            classes += 1;
        }
    }
    if registers == 0 {
        x = match b.side(names.positions, 2) {
            Ok(_) => b.positions(x, names.positions)?,
            Err(_) => {
                let rows = rows(&b, names.positions)?;
                b.position_rows(x, names.positions, rows)?
            }
        };
    }
    if pre_norm {
        x = b.layer_norm(x, names.norm_pre, block.eps)?;
    }
    for i in 0.. {
        let name = format!("{}{i}", names.block);
        if !b.has(&format!("{name}.{}", names.qkv.weight())) {
            break;
        }
        x = block.compose(&mut b, x, &name)?;
    }
    if b.has(&weight(names.norm)) {
        x = b.layer_norm(x, names.norm, block.eps)?;
    }
    classify(b, x, [classes, registers], block, reading)
}

/// The head, or both heads of a distilled model, behind tokens that are no patches: those of classes, and registers.
fn classify(
    mut b: Builder,
    normed: NodeId,
    [of_classes, registers]: [usize; 2],
    Block { names, eps, .. }: Block,
    reading: &mut Reading,
) -> Result<Network> {
    let fc_norm = b.has("fc_norm.weight");
    let pooling = reading.word("global_pool")?;
    let means = fc_norm || of_classes == 0 || names.reads == HeadReads::Mean;
    let usual = if means { "avg" } else { "token" };
    let mean = |b: &mut Builder| -> Result<NodeId> {
        let patches = match of_classes + registers {
            0 => normed,
            before => b.tokens_from(normed, before)?,
        };
        Ok(b.global_pool(patches))
    };
    let mut x = match pooling.as_deref().unwrap_or(usual) {
        "token" if names.reads == HeadReads::Both => {
            let parts = [b.token(normed, 0), mean(&mut b)?];
            b.concat(&parts)?
        }
        "avg" if names.reads != HeadReads::Both => mean(&mut b)?,
        "token" if of_classes > 0 => b.token(normed, 0),
        other => {
            let reason =
                format!("\"global_pool\": \"{other}\" is not known here for a ViT of {of_classes} tokens");
            return Err(Error::config(format!("{reason} beside its patches; there are avg and token")));
        }
    };
    if fc_norm {
        x = b.layer_norm(x, "fc_norm", eps)?;
    }
    let head = head(&b, reading, names.heads)?;
    let classes = rows(&b, &weight(&head))?;
    let mut logits = b.linear(x, &head, classes)?;
    let distilled = names.distilled;
    if b.has(&weight(distilled)) {
        if of_classes != 2 || pooling.is_some_and(|pooling| pooling != "token") {
            return Err(Error::config(format!(
                "`{distilled}` reads a distillation token, and the model has none"
            )));
        }
        reading.saw(format!("logits are the mean of those of `{head}` and of `{distilled}`"));
        let token = b.token(normed, 1);
        let taught = b.linear(token, distilled, classes)?;
        logits = b.add(logits, taught)?;
        logits = b.scale(logits, 0.5);
    }
    b.finish(logits)
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
        let y = match &names.qkv {
            Qkv::Packed(qkv) => b.linear(y, &part(qkv), 3 * dim)?,
            Qkv::Projected(attention) => {
                let (weight, bias) = ("in_proj_weight", "in_proj_bias");
                let at = |tensor: &str| part(&format!("{attention}.{tensor}"));
                b.linear_named(y, &at("in_proj"), &at(weight), &at(bias), 3 * dim)?
            }
            Qkv::Parts(parts) => {
                let parts = parts.iter().map(|one| b.linear(y, &part(one), dim));
                let parts = parts.collect::<Result<Vec<_>>>()?;
                b.concat(&parts)?
            }
            Qkv::KeysFirst(parts) => {
                let mut of = |one: &str| b.linear(y, &part(one), dim);
                let [k, v, q] = [of(parts[0])?, of(parts[1])?, of(parts[2])?];
                b.concat(&[q, k, v])?
            }
        };
        let y = b.attention(y, self.heads)?;
        let y = b.linear(y, &part(names.proj), dim)?;
        let y = scaled(b, y, &part(names.scales[0]))?;
        let x = b.add(x, y)?;
        let y = b.layer_norm(x, &part(names.norm2), self.eps)?;
        let hidden = rows(b, &part(&weight(names.fc1)))?;
        let y = b.linear(y, &part(names.fc1), hidden)?;
        let y = b.activation(y, self.activation);
        let y = b.linear(y, &part(names.fc2), dim)?;
        let y = scaled(b, y, &part(names.scales[1]))?;
        b.add(x, y)
    }
}

/// With the layer scale that a block may have, as those of DINOv2.
fn scaled(b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
    if b.has(name) { b.layer_scale(x, name) } else { Ok(x) }
}

/// The nonlinearity: read, or that of the architecture's name, or of the library.
fn activation(names: &Names, reading: &mut Reading) -> Result<Activation> {
    let quick = |arch: &&String| arch.split('_').any(|word| word == "quickgelu");
    let of_name = reading.arch.as_ref().filter(quick).map(|_| Activation::QuickGelu);
    let read = reading.activation(&["hidden_act", "act_layer"])?;
    Ok(read.or(of_name).unwrap_or(names.activation))
}

/// The number of heads: chosen, read, published, or else guessed.
fn heads(reading: &mut Reading, dim: usize) -> Result<usize> {
    let heads = match reading.heads()? {
        Some(heads) => heads,
        None => unsaid_heads(reading, dim)?,
    };
    match heads > 0 && dim.is_multiple_of(heads) {
        true => Ok(heads),
        false => Err(Error::config(format!("{heads} attention heads do not divide {dim} channels"))),
    }
}

fn unsaid_heads(reading: &mut Reading, dim: usize) -> Result<usize> {
    let arch = reading.arch.clone().unwrap_or_default();
    let published = PUBLISHED.iter().find(|(_, channels, _)| *channels == dim);
    if let Some((words, _, heads)) = published
        && arch.split(['_', '-']).any(|word| words.contains(&word))
    {
        reading.facts.config.push(format!("{heads} attention heads, as `{arch}` was published"));
        return Ok(*heads);
    }
    let remedy = "--heads, or \"num_heads\" in config.json, says how many there are";
    if reading.is_hugging_face() {
        reading.assume(format!("12 attention heads, Hugging Face's default; {remedy}"));
        return Ok(12);
    }
    let guess = match published {
        Some((_, _, heads)) => *heads,
        None if dim.is_multiple_of(64) => dim / 64,
        None => {
            return Err(Error::config(format!(
                "the heads of a ViT of {dim} channels cannot be told from its tensors; {remedy}"
            )));
        }
    };
    let each = dim / guess;
    reading.assume(format!("{guess} attention heads of {each} channels, a guess by the width; {remedy}"));
    Ok(guess)
}
