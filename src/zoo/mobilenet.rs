//! MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019) as torchvision and timm name them. Tensors do not
//! tell strides and nonlinearities, so that only the published sequences of blocks are read, of any width.
//!
//! ```text
//! features.{0}.{0 1} | features.{1..17}.conv | features.18.{0 1} | classifier.1                     (V2)
//! features.{0}.{0 1} | features.{1..n}.block | features.{n+1}.{0 1} | classifier.{0 3}    (V3, n = 11 or 15)
//! ```
//!
//! timm's names are those of `timm_blocks.rs`; eps of V3's norms is 1e-3 in torchvision and in timm's named `tf_`, else 1e-5.

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{Inverted, Normed, square_image, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use super::timm_blocks::{self, Blocks};
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

use Activation::{HardSigmoid, HardSwish, Relu, Relu6};

pub(super) const FAMILY_2: Family = Family {
    name: "mobilenet-v2",
    named: named_2,
    fit: |given| Some(fit(FORMS_2, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose: compose_2 },
};

pub(super) const FAMILY_3: Family = Family {
    name: "mobilenet-v3",
    named: named_3,
    fit: |given| Some(fit(FORMS_3, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose: compose_3 },
};

const FORMS_2: &[Form] = &[
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.17.conv.2.weight",
            "features.18.0.weight",
            "classifier.1.weight|classifier.1.#.weight",
        ],
        others: &["features.#.#.weight", "features.#.1.*", "features.#.conv.*", "classifier.1.*"],
        lacks: &["features.19.*"],
    },
    Form {
        needs: &[
            "conv_stem.weight",
            "blocks.0.0.conv_dw.weight",
            "blocks.6.0.conv_pwl.weight",
            "conv_head.weight",
            "bn2.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &["bn1.*", "bn2.*", "blocks.#.#.conv_*.weight", "blocks.#.#.bn#.*", "classifier.*"],
        lacks: &["blocks.#.#.se.*", "conv_head.bias"],
    },
];

const FORMS_3: &[Form] = &[
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.block.0.0.weight",
            "features.12.0.weight|features.16.0.weight",
            "classifier.0.weight",
            "classifier.3.weight|classifier.3.#.weight",
        ],
        others: &[
            "features.#.0.weight",
            "features.#.1.*",
            "features.#.block.*",
            "classifier.0.bias",
            "classifier.3.*",
        ],
        lacks: &["features.#.#.block.*"],
    },
    Form {
        needs: &[
            "conv_stem.weight",
            "blocks.0.0.conv_dw.weight",
            "blocks.5.0.conv.weight|blocks.6.0.conv.weight",
            "conv_head.weight",
            "conv_head.bias",
            "classifier.weight|classifier.#.weight",
        ],
        others: &[
            "bn1.*",
            "blocks.#.#.conv*.weight",
            "blocks.#.#.bn#.*",
            "blocks.#.#.se.conv_*.*",
            "classifier.*",
        ],
        lacks: &["bn2.*"],
    },
];

fn named_2(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    ["mobilenet_v2", "mobilenetv2", "mobilenetv2_#"].iter().any(|name| matches(name, &arch))
}

fn named_3(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    [
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "mobilenetv3",
        "mobilenetv3_large_#",
        "mobilenetv3_small_#",
        "tf_mobilenetv3_large_#",
        "tf_mobilenetv3_small_#",
    ]
    .iter()
    .any(|name| matches(name, &arch))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let timm = given.channels("conv_stem.weight");
    Ok(square_image(224, timm.or(given.channels("features.0.0.weight"))))
}

/// Strides of V2's 17 blocks.
const STRIDES_2: [usize; 17] = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];

/// A block of V3: the side of its depthwise filter, whether it has a squeeze, its nonlinearity, its stride.
type Block = (usize, bool, Activation, usize);

const SMALL: [Block; 11] = [
    (3, true, Relu, 2),
    (3, false, Relu, 2),
    (3, false, Relu, 1),
    (5, true, HardSwish, 2),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 2),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 1),
];

const LARGE: [Block; 15] = [
    (3, false, Relu, 1),
    (3, false, Relu, 2),
    (3, false, Relu, 1),
    (5, true, Relu, 2),
    (5, true, Relu, 1),
    (5, true, Relu, 1),
    (3, false, HardSwish, 2),
    (3, false, HardSwish, 1),
    (3, false, HardSwish, 1),
    (3, false, HardSwish, 1),
    (3, true, HardSwish, 1),
    (3, true, HardSwish, 1),
    (5, true, HardSwish, 2),
    (5, true, HardSwish, 1),
    (5, true, HardSwish, 1),
];

/// A convolution of the list with its norm and a nonlinearity.
pub(super) fn listed_conv(
    b: &mut Builder,
    x: NodeId,
    name: &str,
    stride: usize,
    activation: Activation,
    eps: f32,
) -> Result<NodeId> {
    let (conv, norm) = (format!("{name}.0"), format!("{name}.1"));
    let x = Normed { conv: &conv, norm: &norm, stride, eps, same: false }.compose(b, x)?;
    Ok(b.activation(x, activation))
}

fn compose_2(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Relu6);
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    reading.saw("17 inverted residuals, the published sequence of MobileNetV2");
    if reading.arch.is_none() {
        reading.assume(
            "torchvision's MobileNetV2: ReLU6, strides as published (other networks have the same tensors)",
        );
    }
    let (mut b, x) = start(source, image, reading)?;
    if b.has("conv_stem.weight") {
        let stages = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)];
        let (squeeze, same) = ([activation; 2], false);
        let blocks =
            Blocks { stages: &stages, activation: &|_| activation, squeeze, eps, same, skips: false };
        let x = blocks.compose(&mut b, x, activation)?;
        let x = timm_blocks::last(&mut b, x, activation, eps)?;
        return classify(b, x, reading, "classifier");
    }
    let mut x = listed_conv(&mut b, x, "features.0", 2, activation, eps)?;
    for (i, stride) in STRIDES_2.into_iter().enumerate() {
        let block = Inverted { stride, activation, squeeze: [activation; 2], eps };
        x = block.compose(&mut b, x, &format!("features.{}.conv", i + 1))?;
    }
    x = listed_conv(&mut b, x, "features.18", 1, activation, eps)?;
    x = b.global_pool(x);
    classify(b, x, reading, "classifier.1")
}

/// The network with its last layer.
pub(super) fn classify(mut b: Builder, x: NodeId, reading: &mut Reading, name: &str) -> Result<Network> {
    let head = head(&b, reading, &[name])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

fn compose_3(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let timm = source.has("conv_stem.weight");
    let chosen = reading.number(BATCH_NORM_EPS)?;
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    let (mut b, x) = start(source, image, reading)?;
    let same = timm_blocks::tensorflow(&b, reading)?;
    let eps = chosen.unwrap_or(if timm { timm_blocks::usual_eps(same) } else { 1e-3 });
    let large = b.has("features.16.0.weight") || b.has("blocks.6.0.conv.weight");
    let blocks: &[Block] = if large { &LARGE } else { &SMALL };
    let size = if large { "large" } else { "small" };
    if reading.arch.as_deref().is_some_and(|arch| arch.contains(if large { "small" } else { "large" })) {
        return Err(Error::config(format!(
            "has {} blocks, those of the {size} MobileNetV3, and the architecture names another",
            blocks.len()
        )));
    }
    reading.saw(format!(
        "{} inverted residuals, the published sequence of the {size} MobileNetV3",
        blocks.len()
    ));
    if reading.arch.is_none() {
        reading.assume(format!(
            "MobileNetV3: strides and nonlinearities as published, eps of its norms {eps:e}"
        ));
    }
    if timm {
        let x = timm_3(&mut b, x, large, eps, same)?;
        return classify(b, x, reading, "classifier");
    }
    let mut x = listed_conv(&mut b, x, "features.0", 2, HardSwish, eps)?;
    for (i, &(kernel, squeezes, activation, stride)) in blocks.iter().enumerate() {
        let name = format!("features.{}.block", i + 1);
        check(&b, &name, kernel, squeezes)?;
        let block = Inverted { stride, activation, squeeze: [Relu, HardSigmoid], eps };
        x = block.compose(&mut b, x, &name)?;
    }
    x = listed_conv(&mut b, x, &format!("features.{}", blocks.len() + 1), 1, HardSwish, eps)?;
    x = b.global_pool(x);
    let outputs = rows(&b, "classifier.0.weight")?;
    x = b.linear(x, "classifier.0", outputs)?;
    x = b.activation(x, HardSwish);
    classify(b, x, reading, "classifier.3")
}

/// V3 up to its last layer, of timm's names.
fn timm_3(b: &mut Builder, x: NodeId, large: bool, eps: f32, same: bool) -> Result<NodeId> {
    let stages: &[(usize, usize)] = match large {
        true => &[(1, 1), (2, 2), (3, 2), (4, 2), (2, 1), (3, 2), (1, 1)],
        false => &[(1, 2), (2, 2), (3, 2), (2, 1), (3, 2), (1, 1)],
    };
    let first_hard = if large { 3 } else { 2 };
    let activation = |stage: usize| if stage < first_hard { Relu } else { HardSwish };
    let squeeze = [Relu, HardSigmoid];
    let blocks = Blocks { stages, activation: &activation, squeeze, eps, same, skips: false };
    let x = blocks.compose(b, x, HardSwish)?;
    timm_blocks::last(b, x, HardSwish, eps)
}

/// Checks what a block's tensors do tell against the published sequence.
fn check(b: &Builder, name: &str, kernel: usize, squeezes: bool) -> Result<()> {
    let depthwise = (0..2).find(|k| b.side(&format!("{name}.{k}.0.weight"), 1).is_ok_and(|inner| inner == 1));
    let side = depthwise.and_then(|k| b.side(&format!("{name}.{k}.0.weight"), 2).ok());
    let found = (1..3).any(|k| b.has(&format!("{name}.{k}.fc1.weight")));
    match (side == Some(kernel), found == squeezes) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::config(format!(
            "`{name}` has no depthwise filter of {kernel}x{kernel}, as the published MobileNetV3 has there"
        ))),
        (_, false) => Err(Error::config(format!(
            "`{name}` has {} squeeze, unlike the published MobileNetV3",
            if found { "a" } else { "no" }
        ))),
    }
}
