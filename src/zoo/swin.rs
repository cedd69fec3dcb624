//! Swin transformers (Liu et al. 2021) as torchvision, timm and Hugging Face name them: attention within windows, which every
//! second block shifts by half a window; between stages squares of 2 by 2 positions become one. The head reads the mean of all
//! positions.
//!
//! ```text
//! features.0.{0 2} | features.{1 3 5 7}.{i}.{norm1 attn.{qkv proj relative_position_bias_table} norm2 mlp.0 mlp.3}
//!   | features.{2 4 6}.{norm reduction} | norm head
//! patch_embed.{proj norm} | layers.{s}.{downsample.{norm reduction} blocks.{i}.{norm1 attn.{qkv proj
//!     relative_position_bias_table} norm2 mlp.fc1 mlp.fc2}} | norm head.fc
//! swin.embeddings.{patch_embeddings.projection norm} | swin.encoder.layers.{s}.{blocks.{i}.{layernorm_before
//!     attention.self.{query key value relative_position_bias_table} attention.output.dense layernorm_after
//!     intermediate.dense output.dense} downsample.{norm reduction}} | swin.layernorm classifier
//! the same since Hugging Face's version 5: attention.{q_proj k_proj v_proj o_proj
//!     relative_position_bias.relative_position_bias_table} mlp.fc1 mlp.fc2
//! ```
//!
//! Before timm's version 0.9, and in the code of the paper, squares are joined at the end of a stage, and the head is `head`.
//! The table of a block tells the side of its windows and its heads. A map that windows do not divide, which the libraries
//! pad, is refused.

mod names;

use serde_json::{Value, json};

use super::family::{Family, Given, Reads, rows, start};
use super::names::{fit, head, matches};
use super::parts::{count, square_image, weight};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};
use crate::ops::{Bands, Windows};
use names::{FORMS, NAMES, Names};

pub(super) const FAMILY: Family = Family {
    name: "swin",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

fn named(arch: &str) -> bool {
    let sizes = ["tiny", "small", "base", "large"];
    ["swin", "swinforimageclassification", "swin_t", "swin_s", "swin_b"].contains(&arch)
        || sizes.iter().any(|size| {
            matches(&format!("swin_{size}_patch4_window#_#"), arch)
                || matches(&format!("swin_s3_{size}_#"), arch)
        })
}

fn names(source: &dyn Source) -> &'static Names {
    let table = |names: &&Names| source.has(&table(names, &block_name(names, 0, 0)));
    let known = || NAMES.iter().filter(|names| source.has(&weight(names.patches)));
    known().find(table).or_else(|| known().next()).unwrap_or(&NAMES[0])
}

fn block_name(names: &Names, stage: usize, i: usize) -> String {
    format!("{}.{i}", (names.stage)(stage))
}

fn table(names: &Names, block: &str) -> String {
    format!("{block}.{}", names.table)
}

/// The side of windows with this many offsets between two of their tokens.
fn side(offsets: usize) -> Option<usize> {
    let width = (offsets as f64).sqrt().round() as usize;
    (width * width == offsets && width % 2 == 1).then_some(width.div_ceil(2))
}

/// An image whose last stage is one window.
fn image(given: &Given) -> Result<Option<Shape>> {
    let (names, source) = (names(given.source), given.source);
    let tables = (0..).map(|stage| table(names, &block_name(names, stage, 0)));
    let tables: Vec<String> = tables.take_while(|table| source.has(table)).collect();
    let patch = source.shape(&weight(names.patches)).and_then(|shape| shape.get(2)).copied();
    let last = tables.last().and_then(|table| side(*source.shape(table)?.first()?));
    let shrinks = |last: usize, patch: usize| last.checked_mul(patch)?.checked_shl(tables.len() as u32 - 1);
    let image = last.zip(patch).and_then(|(last, patch)| shrinks(last, patch));
    Ok(image.and_then(|image| square_image(image, given.channels(&weight(names.patches)))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let names = names(source);
    let eps = reading.number(&["layer_norm_eps"])?.unwrap_or(1e-5);
    // Hugging Face's key is about blocks and the last norm alone.
    let fixed = if reading.is_hugging_face() || names.both { 1e-5 } else { eps };
    let activation = reading.activation(&["hidden_act", "act_layer"])?.unwrap_or(Activation::Gelu);
    reading.only(&[
        ("global_pool", "avg".into()),
        ("use_absolute_embeddings", false.into()),
        ("output_stride", 32.into()),
        ("patch_norm", true.into()),
    ])?;
    if reading.arch.is_none() {
        reading.assume("a plain Swin transformer: GELU, every second block shifted by half a window");
    }
    let (mut b, x) = start(source, image, reading)?;
    let (dim, patch) = (rows(&b, &weight(names.patches))?, b.side(&weight(names.patches), 2)?);
    if !image.h.is_multiple_of(patch) || !image.w.is_multiple_of(patch) {
        let reason = format!("patches of {patch}x{patch} do not divide images of {}x{}", image.h, image.w);
        return Err(Error::config(reason));
    }
    let mut x = b.conv(x, names.patches, dim, Conv::square(patch, patch, 0))?;
    x = b.layer_norm(x, names.patch_norm, fixed)?;
    let block = Block { names, eps, activation };
    let (mut blocks, mut heads, mut sides) = (vec![], vec![], vec![]);
    for stage in 0.. {
        let found = count(&b, &(names.stage)(stage), names.table);
        if found == 0 {
            break;
        }
        // At the beginning of its own stage, or at the end of the one before.
        let places = [(names.joined)(stage), (names.joined_before)(stage)];
        if let Some(place) = places.iter().flatten().find(|place| b.has(&format!("{place}.reduction.weight")))
        {
            x = joined(&mut b, x, place, fixed)?;
        }
        for i in 0..found {
            x = block.compose(&mut b, x, &block_name(names, stage, i), i % 2 == 1)?;
        }
        let table = table(names, &block_name(names, stage, 0));
        heads.push(b.side(&table, 1)?);
        sides.push(side(b.side(&table, 0)?).unwrap_or_default());
        blocks.push(found);
    }
    reading.saw(format!("stages of {blocks:?} blocks, windows of side {sides:?}, {heads:?} heads"));
    reading.agrees("depths", blocks)?;
    reading.agrees("num_heads", heads)?;
    let same = sides.iter().all(|side| *side == sides[0]);
    let sides: Value = if same { json!(sides.first()) } else { json!(sides) };
    reading.agrees("window_size", sides)?;
    let x = b.layer_norm(x, names.norm, eps)?;
    let x = b.global_pool(x);
    let head = head(&b, reading, names.heads)?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// Squares of 2 by 2 positions as one each, normed, by a linear layer.
fn joined(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let x = b.join_squares(x, 2)?;
    let x = b.layer_norm(x, &format!("{name}.norm"), eps)?;
    let reduction = format!("{name}.reduction");
    let outputs = rows(b, &weight(&reduction))?;
    b.linear(x, &reduction, outputs)
}

/// What all blocks share.
struct Block {
    names: &'static Names,
    eps: f32,
    activation: Activation,
}

impl Block {
    fn compose(&self, b: &mut Builder, x: NodeId, name: &str, shifted: bool) -> Result<NodeId> {
        let part = |part: &str| format!("{name}.{part}");
        let y = b.layer_norm(x, &part(self.names.norm1), self.eps)?;
        let y = self.attend(b, y, name, shifted)?;
        let x = b.add(x, y)?;
        let y = b.layer_norm(x, &part(self.names.norm2), self.eps)?;
        let [first, second] = self.names.mlp.map(part);
        let (hidden, dim) = (rows(b, &weight(&first))?, b.shape(x).c);
        let y = b.linear(y, &first, hidden)?;
        let y = b.activation(y, self.activation);
        let y = b.linear(y, &second, dim)?;
        b.add(x, y)
    }

    fn attend(&self, b: &mut Builder, x: NodeId, name: &str, shifted: bool) -> Result<NodeId> {
        let part = |part: &str| format!("{name}.{part}");
        let (Shape { h, w, c: dim }, table) = (b.shape(x), table(self.names, name));
        let offsets = b.side(&table, 0)?;
        let unknown = || Error::config(format!("`{table}` has {offsets} rows, which no square window has"));
        let side = side(offsets).ok_or_else(unknown)?;
        if !h.is_multiple_of(side) || !w.is_multiple_of(side) {
            return Err(Error::config(format!(
                "windows of {side}x{side} do not divide the map of {h}x{w} at `{name}`; padded maps are not supported, and \
                 images of other sizes do not need them"
            )));
        }
        // Windows as large as the map are not shifted: along that side, in Hugging Face along none.
        let moves = |size: usize| shifted && size > side && (!self.names.both || h.min(w) > side);
        let shift = |size: usize| if moves(size) { side / 2 } else { 0 };
        let (down, right) = (shift(h), shift(w));
        let bands = Bands { rows: h, columns: w, height: side, down, right };
        let windows = Windows { side, rows: h / side, columns: w / side, down, right };
        let y = b.reorder(x, bands, false, Shape::new(windows.count(), windows.tokens(), dim))?;
        let y = match self.names.qkv {
            [qkv] => b.linear(y, &part(qkv), 3 * dim)?,
            parts => {
                let parts = parts.iter().map(|one| b.linear(y, &part(one), dim));
                let parts = parts.collect::<Result<Vec<_>>>()?;
                b.concat(&parts)?
            }
        };
        let heads = b.side(&table, 1)?;
        let y = b.window_attention(y, heads, &table, windows)?;
        let y = b.linear(y, &part(self.names.proj), dim)?;
        b.reorder(y, bands, true, Shape::new(h, w, dim))
    }
}
