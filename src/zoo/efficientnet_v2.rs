//! EfficientNetV2 (Tan & Le 2021) as torchvision and timm name it: fused blocks, a full filter in place of an expansion
//! and a depthwise one, then the blocks of EfficientNet. The number of blocks in each stage tells which; strides are
//! those of the paper.
//!
//! ```text
//! features.0.{0 1} | features.{1..}.{i}.block.{0 1}.{0 1}, or block as in EfficientNet | features.{7 8}.{0 1} |
//!     classifier.1
//! ```
//!
//! timm's names are those of `timm_blocks.rs`; the eps of its norms is 1e-5, in networks named `tf_` 1e-3. timm also has XL, B0 to
//! B3, and three of its own, `rw`.

use super::family::{Family, Given, Reads, start};
use super::mobilenet::{classify, listed_conv};
use super::names::{Fit, Form, fit as fit_form};
use super::parts::{Inverted, Normed, count, square_image, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use super::timm_blocks::{self, Blocks};
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "efficientnet-v2",
    named,
    fit,
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    TIMM,
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.0.block.0.0.weight",
            "features.2.0.block.1.0.weight",
            "features.6.0.block.0.0.weight",
            "classifier.1.weight|classifier.1.#.weight",
        ],
        others: &["features.#.0.weight", "features.#.1.*", "features.#.#.block.*", "classifier.1.*"],
        lacks: &["features.1.0.block.1.fc1.weight"],
    },
];

const TIMM: Form = Form {
    needs: &[
        "conv_stem.weight",
        "blocks.0.0.conv.weight|blocks.0.0.conv_exp.weight",
        "blocks.1.0.conv_exp.weight",
        "blocks.3.0.se.conv_reduce.weight",
        "conv_head.weight",
        "bn2.weight",
        "classifier.weight|classifier.#.weight",
    ],
    others: &[
        "bn1.*",
        "bn2.*",
        "blocks.#.#.conv*.weight",
        "blocks.#.#.bn#.*",
        "blocks.#.#.se.conv_*.*",
        "classifier.*",
    ],
    lacks: &["blocks.0.0.conv_dw.weight"],
};

/// Blocks of each stage, and the network that has them.
const STAGES: [(&[usize], &str); 10] = [
    (&[2, 4, 4, 6, 9, 15], "S"),
    (&[3, 5, 5, 7, 14, 18, 5], "M"),
    (&[4, 7, 7, 10, 19, 25, 7], "L"),
    (&[4, 8, 8, 16, 24, 32, 8], "XL"),
    (&[1, 2, 2, 3, 5, 8], "B0"),
    (&[2, 3, 3, 4, 6, 9], "B1"),
    (&[2, 3, 3, 4, 6, 10], "B2"),
    (&[2, 3, 3, 5, 7, 12], "B3"),
    (&[2, 4, 4, 6, 9, 14], "RW-T"),
    (&[3, 5, 5, 8, 15, 24], "RW-M"),
];

/// Strides of the stages, of which S has the first six.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// torchvision's eps of norms.
const EPS: f32 = 1e-3;

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let timm = arch.strip_prefix("tf_").unwrap_or(&arch).strip_prefix("efficientnetv2_");
    ["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"].contains(&arch.as_str())
        || timm.is_some_and(|size| {
            let sizes = ["s", "m", "l", "xl", "b0", "b1", "b2", "b3", "rw_t", "rw_s", "rw_m"];
            sizes.contains(&size)
        })
}

/// Whether a block begins with a full filter.
fn is_fused(shape: Option<&[usize]>) -> bool {
    matches!(shape, Some(&[_, inner, r, _]) if inner > 1 && r > 1)
}

fn fit(given: &Given) -> Option<Fit> {
    let fused = is_fused(given.source.shape("features.1.0.block.0.0.weight"))
        || given.source.has("blocks.1.0.conv_exp.weight");
    fused.then(|| fit_form(FORMS, given.names))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let timm = given.channels("conv_stem.weight");
    Ok(square_image(384, timm.or(given.channels("features.0.0.weight"))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let chosen = reading.number(BATCH_NORM_EPS)?;
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Silu);
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    let (mut b, x) = start(source, image, reading)?;
    let same = timm_blocks::tensorflow(&b, reading)?;
    let timm = b.has("conv_stem.weight");
    let eps = chosen.unwrap_or(if timm { timm_blocks::usual_eps(same) } else { EPS });
    let depths: Vec<usize> = match timm {
        true => timm_blocks::depths(&b),
        false => (1..)
            .map(|stage| count(&b, &format!("features.{stage}"), "block.0.0.weight"))
            .take_while(|&blocks| blocks > 0)
            .collect(),
    };
    let Some((_, name)) = STAGES.iter().find(|(known, _)| *known == depths) else {
        return Err(Error::config(format!(
            "has stages of {depths:?} blocks, which no EfficientNetV2 that is known here has; strides of others cannot \
             be told"
        )));
    };
    reading.saw(format!("stages of {depths:?} blocks, those of EfficientNetV2-{name}"));
    if reading.arch.is_none() {
        let library = if timm {
            "timm's EfficientNetV2, padded as PyTorch pads"
        } else {
            "torchvision's EfficientNetV2"
        };
        reading.assume(format!("{library}: SiLU, strides as published, eps of its norms {eps:e}"));
    }
    let squeeze = [activation, Activation::Sigmoid];
    if timm {
        let stages: Vec<(usize, usize)> = depths.into_iter().zip(STRIDES).collect();
        let blocks = Blocks { stages: &stages, activation: &|_| activation, squeeze, eps, same, skips: true };
        let x = blocks.compose(&mut b, x, activation)?;
        let x = timm_blocks::last(&mut b, x, activation, eps)?;
        return classify(b, x, reading, "classifier");
    }
    let mut x = listed_conv(&mut b, x, "features.0", 2, activation, eps)?;
    for (i, (&blocks, stride)) in depths.iter().zip(STRIDES).enumerate() {
        for block in 0..blocks {
            let name = format!("features.{}.{block}.block", i + 1);
            let stride = if block == 0 { stride } else { 1 };
            let block = Inverted { stride, activation, squeeze, eps };
            let first = weight(&format!("{name}.0.0"));
            let full = b.side(&first, 1)? > 1 && b.side(&first, 2)? > 1;
            x = if full { fused(&mut b, x, &name, &block)? } else { block.compose(&mut b, x, &name)? };
        }
    }
    x = listed_conv(&mut b, x, &format!("features.{}", depths.len() + 1), 1, activation, eps)?;
    x = b.global_pool(x);
    classify(b, x, reading, "classifier.1")
}

/// A full filter, and where there is one a projection without nonlinearity; the input is added where it has the output's
/// shape.
fn fused(b: &mut Builder, x: NodeId, name: &str, of: &Inverted) -> Result<NodeId> {
    let layer = |k: usize| [format!("{name}.{k}.0"), format!("{name}.{k}.1")];
    let ([filter, norm], [projection, last]) = (layer(0), layer(1));
    let y =
        Normed { conv: &filter, norm: &norm, stride: of.stride, eps: of.eps, same: false }.compose(b, x)?;
    let mut y = b.activation(y, of.activation);
    if b.has(&weight(&projection)) {
        y = Normed { conv: &projection, norm: &last, stride: 1, eps: of.eps, same: false }.compose(b, y)?;
    }
    match of.stride == 1 && b.shape(x) == b.shape(y) {
        true => b.add(y, x),
        false => Ok(y),
    }
}
