//! Pre-activation ResNets and wide ResNets (He et al. 2016b; Zagoruyko & Komodakis 2016) as they are written for CIFAR:
//! norm and ReLU come before each convolution.
//!
//! ```text
//! conv1 | layer{1..}.{i}.{bn1 conv1 bn2 conv2 [bn3 conv3] [shortcut.0]} | linear                (PreAct)
//! conv1 | layer{1..3}.{i}.{bn1 conv1 bn2 conv2 [shortcut.0]} | bn1 linear, filters with biases  (wide, first form)
//! conv1 | block{1..3}.layer.{i}.{bn1 conv1 bn2 conv2 [convShortcut]} | bn1 fc                   (wide, second form)
//! ```
//!
//! The forms differ in more than names. The shortcut's filter reads the normed input, but in the first wide form the input
//! itself. The stride is in the first 3×3 filter, but there in the second. A model of the first wide form's names whose
//! filters have no biases is refused: which of the two it computes cannot be told.

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Fit, Form, fit, head, matches};
use super::parts::{conv, count, square_image, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "preact-resnet",
    named,
    fit: fits,
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const LAYERS: &[&str] = &[
    "conv1.bias",
    "bn1.*",
    "layer#.#.bn#.*",
    "layer#.#.conv#.weight",
    "layer#.#.conv#.bias",
    "layer#.#.shortcut.0.*",
    "linear.*",
    "fc.*",
];

const FORMS: &[Form] = &[
    Form {
        needs: &["conv1.weight", "layer1.0.bn1.weight", "layer1.0.conv2.weight", "linear.weight|fc.weight"],
        others: LAYERS,
        lacks: &["bn1.*", "layer#.#.shortcut.1.*", "layer#.#.downsample.*"],
    },
    Form {
        needs: &[
            "conv1.weight",
            "bn1.weight",
            "layer1.0.bn1.weight",
            "layer1.0.conv2.weight",
            "linear.weight|fc.weight",
        ],
        others: LAYERS,
        lacks: &["layer#.#.shortcut.1.*", "layer#.#.downsample.*"],
    },
    Form {
        needs: &[
            "conv1.weight",
            "bn1.weight",
            "block1.layer.0.bn1.weight",
            "block1.layer.0.conv2.weight",
            "fc.weight",
        ],
        others: &[
            "bn1.*",
            "block#.layer.#.bn#.*",
            "block#.layer.#.conv#.weight",
            "block#.layer.#.convShortcut.weight",
            "fc.bias",
        ],
        lacks: &[],
    },
];

fn named(arch: &str) -> bool {
    const NAMES: [&str; 9] = [
        "preact",
        "preact_resnet#",
        "preactresnet#",
        "preresnet#",
        "wrn",
        "wrn#_#",
        "wrn_#_#",
        "wideresnet*",
        "wide_resnet#_#",
    ];
    let arch = arch.replace('-', "_");
    NAMES
        .iter()
        .any(|name| ["", "_cifar#", "_cifar"].iter().any(|end| matches(&format!("{name}{end}"), &arch)))
}

/// By names, and by the blocks that change the width: their first norm is of the input's, in ResNets of the output's.
fn fits(given: &Given) -> Option<Fit> {
    let mut found = fit(FORMS, given.names);
    let side = |name: &str, axis: usize| given.source.shape(name).and_then(|shape| shape.get(axis)).copied();
    let blocks = given.names.iter().filter_map(|name| name.strip_suffix(".bn1.weight"));
    let widths = blocks.map(|block| {
        let conv = format!("{block}.conv1.weight");
        (side(&format!("{block}.bn1.weight"), 0), side(&conv, 1), side(&conv, 0))
    });
    let changing: Vec<_> = widths.filter(|(_, inputs, outputs)| inputs != outputs).collect();
    found.fits &= !changing.is_empty() && changing.iter().all(|(norm, inputs, _)| norm == inputs);
    Some(found)
}

fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(square_image(32, given.channels("conv1.weight")))
}

/// What all blocks share.
struct Block {
    activation: Activation,
    eps: f32,
    /// The name of the shortcut's filter in a block.
    shortcut: &'static str,
    /// Whether the block is that of the first wide form.
    late: bool,
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    reading.only(&[("global_pool", "avg".into())])?;
    let second = source.has("block1.layer.0.conv1.weight");
    let late = !second && source.has("bn1.weight");
    if late && !source.has("layer1.0.conv1.bias") {
        return Err(Error::config(
            "pre-activation blocks without biases and a last norm `bn1` are published with the stride in the first filter \
             and in the second, and tensors do not tell which; rename the tensors to those of a form in docs/MODELS.md",
        ));
    }
    reading.saw("norms come before the convolutions: a pre-activation ResNet");
    if reading.arch.is_none() {
        let strides = if late { "strides in the second filter of a block" } else { "strides as published" };
        reading.assume(format!(
            "ReLU, a stem of stride 1, {strides}, mean pooling (other networks have the same tensors)"
        ));
    }
    let block = Block { activation, eps, shortcut: if second { "convShortcut" } else { "shortcut.0" }, late };
    let (mut b, x) = start(source, image, reading)?;
    let mut x = conv(&mut b, x, "conv1", 1)?;
    let mut blocks = vec![];
    for stage in 1.. {
        let name = if second { format!("block{stage}.layer") } else { format!("layer{stage}") };
        let found = count(&b, &name, "conv1.weight");
        if found == 0 {
            break;
        }
        for i in 0..found {
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = block.compose(&mut b, x, &format!("{name}.{i}"), stride)?;
        }
        blocks.push(found);
    }
    reading.saw(format!("stages of {blocks:?} blocks"));
    if b.has("bn1.weight") {
        x = b.batch_norm_with(x, "bn1", eps)?;
        x = b.activation(x, activation);
    }
    let x = b.global_pool(x);
    let head = head(&b, reading, &["linear", "fc"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

impl Block {
    fn compose(&self, b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
        let convs = (1..4).take_while(|k| b.has(&format!("{name}.conv{k}.weight"))).count();
        // Two filters of 3x3, or one between two of 1x1.
        let strided = if self.late || convs == 3 { 2 } else { 1 };
        let (mut y, mut normed) = (x, x);
        for k in 1..=convs {
            y = b.batch_norm_with(y, &format!("{name}.bn{k}"), self.eps)?;
            y = b.activation(y, self.activation);
            if k == 1 {
                normed = y;
            }
            y = conv(b, y, &format!("{name}.conv{k}"), if k == strided { stride } else { 1 })?;
        }
        let shortcut = format!("{name}.{}", self.shortcut);
        let across = match b.has(&weight(&shortcut)) {
            true => conv(b, if self.late { x } else { normed }, &shortcut, stride)?,
            false => x,
        };
        if b.shape(y) != b.shape(across) {
            return Err(Error::config(format!("`{name}` changes the shape and has no `{shortcut}`")));
        }
        b.add(y, across)
    }
}
