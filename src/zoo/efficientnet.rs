//! EfficientNets B0 to B8 (Tan & Le 2019) as torchvision and timm name them. The number of blocks in each stage tells which, and with
//! it the eps of the norms; strides are those of the paper.
//!
//! ```text
//! features.0.{0 1} | features.{1..7}.{i}.block | features.8.{0 1} | classifier.1
//! ```
//!
//! timm's names are those of `timm_blocks.rs`; the eps of its norms is 1e-5 in all of them, in those named `tf_` 1e-3.

use super::family::{Family, Given, Reads, rows, start};
use super::mobilenet::listed_conv;
use super::names::{Form, fit, head, matches};
use super::parts::{Inverted, count, square_image, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use super::timm_blocks::{self, Blocks};
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "efficientnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.0.block.0.0.weight",
            "features.7.0.block.0.0.weight",
            "features.8.0.weight",
            "classifier.1.weight|classifier.1.#.weight",
        ],
        others: &["features.#.0.weight", "features.#.1.*", "features.#.#.block.*", "classifier.1.*"],
        lacks: &[],
    },
    Form {
        needs: &[
            "conv_stem.weight",
            "blocks.0.0.se.conv_reduce.weight",
            "blocks.1.0.se.conv_reduce.weight",
            "blocks.6.0.conv_pwl.weight",
            "conv_head.weight",
            "bn2.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &[
            "bn1.*",
            "bn2.*",
            "blocks.#.#.conv_*.weight",
            "blocks.#.#.bn#.*",
            "blocks.#.#.se.conv_*.*",
            "classifier.*",
        ],
        lacks: &["conv_head.bias"],
    },
];

/// Blocks of each stage, and the names of the networks that have them.
const DEPTHS: [([usize; 7], &str, f32); 8] = [
    ([1, 2, 2, 3, 3, 4, 1], "B0", 1e-5),
    ([2, 3, 3, 4, 4, 5, 2], "B1 or B2", 1e-5),
    ([2, 3, 3, 5, 5, 6, 2], "B3", 1e-5),
    ([2, 4, 4, 6, 6, 8, 2], "B4", 1e-5),
    ([3, 5, 5, 7, 7, 9, 3], "B5", 1e-3),
    ([3, 6, 6, 8, 8, 11, 3], "B6", 1e-3),
    ([4, 7, 7, 10, 10, 13, 4], "B7", 1e-3),
    ([4, 8, 8, 11, 11, 15, 4], "B8", 1e-3),
];

const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    ["efficientnet", "efficientnet_b#", "efficientnetb#", "tf_efficientnet_b#"]
        .iter()
        .any(|name| matches(name, &arch))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let timm = given.channels("conv_stem.weight");
    Ok(square_image(224, timm.or(given.channels("features.0.0.weight"))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let chosen = reading.number(BATCH_NORM_EPS)?;
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Silu);
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    let (mut b, x) = start(source, image, reading)?;
    let same = timm_blocks::tensorflow(&b, reading)?;
    if b.has("conv_stem.weight") {
        return timm(b, x, reading, activation, chosen, same);
    }
    let depths: Vec<usize> =
        (1..8).map(|stage| count(&b, &format!("features.{stage}"), "block.0.0.weight")).collect();
    let known = DEPTHS.iter().find(|(known, ..)| known[..] == depths);
    let eps = match (known, chosen) {
        (Some((_, name, usual)), chosen) => {
            reading.saw(format!("stages of {depths:?} blocks, those of {name}"));
            chosen.unwrap_or(*usual)
        }
        (None, Some(eps)) => eps,
        (None, None) => {
            return Err(Error::config(format!(
                "has stages of {depths:?} blocks, which no EfficientNet from B0 to B8 has; \"bn_eps\" in config.json says \
                 the eps of its norms"
            )));
        }
    };
    if reading.arch.is_none() {
        reading.assume(format!(
            "torchvision's EfficientNet: SiLU, strides as published, eps of its norms {eps:e}"
        ));
    }
    let mut x = listed_conv(&mut b, x, "features.0", 2, activation, eps)?;
    for (i, (&blocks, stride)) in depths.iter().zip(STRIDES).enumerate() {
        for block in 0..blocks {
            let name = format!("features.{}.{block}.block", i + 1);
            let first = format!("{name}.0.0.weight");
            if b.side(&first, 1)? > 1 && b.side(&first, 2)? > 1 {
                return Err(Error::config(format!(
                    "`{name}` begins with a full filter: the fused blocks of EfficientNetV2 are not known here"
                )));
            }
            let stride = if block == 0 { stride } else { 1 };
            let block = Inverted { stride, activation, squeeze: [activation, Activation::Sigmoid], eps };
            x = block.compose(&mut b, x, &name)?;
        }
    }
    x = listed_conv(&mut b, x, "features.8", 1, activation, eps)?;
    x = b.global_pool(x);
    let head = head(&b, reading, &["classifier.1"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// The network of timm's names.
fn timm(
    mut b: Builder,
    x: NodeId,
    reading: &mut Reading,
    activation: Activation,
    chosen: Option<f32>,
    same: bool,
) -> Result<Network> {
    let eps = chosen.unwrap_or(timm_blocks::usual_eps(same));
    let depths = timm_blocks::depths(&b);
    let Some((_, name, _)) = DEPTHS.iter().find(|(known, ..)| known[..] == depths) else {
        return Err(Error::config(format!(
            "has stages of {depths:?} blocks, which no EfficientNet from B0 to B8 has"
        )));
    };
    reading.saw(format!("stages of {depths:?} blocks, those of {name}"));
    if reading.arch.is_none() {
        reading.assume(format!(
            "timm's EfficientNet: SiLU, strides as published, padding as PyTorch has it, eps of its norms {eps:e}"
        ));
    }
    let stages: Vec<(usize, usize)> = depths.into_iter().zip(STRIDES).collect();
    let squeeze = [activation, Activation::Sigmoid];
    let blocks = Blocks { stages: &stages, activation: &|_| activation, squeeze, eps, same, skips: false };
    let x = blocks.compose(&mut b, x, activation)?;
    let x = timm_blocks::last(&mut b, x, activation, eps)?;
    let head = head(&b, reading, &["classifier"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}
