//! DenseNets (Huang et al. 2017) as torchvision and timm name them, and as common CIFAR code does: every layer reads all
//! values before it, and adds some channels.
//!
//! ```text
//! features.{conv0 norm0} | features.denseblock{b}.denselayer{i}.{norm1 conv1 norm2 conv2} |
//!     features.transition{b}.{norm conv} | features.norm5 | classifier
//! conv1 | dense{b}.{i}.{bn1 conv1 bn2 conv2} | trans{b}.{bn conv} | bn linear
//! ```
//!
//! Files of torchvision's first version have `norm.1` and `conv.1` for `norm1` and `conv1`. In the CIFAR code new channels
//! come before the old ones, and the stem has neither norm nor pooling.

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{conv, square_image, weight};
use super::reading::Reading;
use super::resnet::{BATCH_NORM_EPS, stem};
use crate::error::Result;
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "densenet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
        needs: &[
            "features.conv0.weight",
            "features.norm0.weight",
            "features.denseblock1.denselayer1.conv1.weight|features.denseblock1.denselayer1.conv.1.weight",
            "features.norm5.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &[
            "features.norm0.*",
            "features.norm5.*",
            "features.denseblock#.denselayer#.norm#.*",
            "features.denseblock#.denselayer#.norm.#.*",
            "features.denseblock#.denselayer#.conv#.weight",
            "features.denseblock#.denselayer#.conv.#.weight",
            "features.transition#.norm.*",
            "features.transition#.conv.weight",
            "classifier.*",
        ],
        lacks: &["features.conv1.*", "features.transition#.pool.*"],
    },
    Form {
        needs: &[
            "conv1.weight",
            "dense1.0.bn1.weight",
            "dense1.0.conv2.weight",
            "bn.weight",
            "linear.weight",
        ],
        others: &[
            "dense#.#.bn#.*",
            "dense#.#.conv#.weight",
            "trans#.bn.*",
            "trans#.conv.weight",
            "bn.*",
            "linear.*",
        ],
        lacks: &[],
    },
];

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let bare = arch.strip_prefix("tv_").unwrap_or(&arch);
    ["densenet", "densenet#", "densenet_cifar", "densenet#_cifar#", "densenet#_cifar", "cifar_densenet#"]
        .iter()
        .any(|name| matches(name, bare))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let cifar = given.source.has("dense1.0.conv1.weight");
    let first = if cifar { "conv1.weight" } else { "features.conv0.weight" };
    Ok(square_image(if cifar { 32 } else { 224 }, given.channels(first)))
}

/// The nonlinearity and eps of all layers.
struct Dense {
    activation: Activation,
    eps: f32,
    cifar: bool,
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let cifar = source.has("dense1.0.conv1.weight");
    let dense = Dense {
        activation: reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu),
        eps: reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5),
        cifar,
    };
    reading.only(&[("global_pool", "avg".into())])?;
    if reading.arch.is_none() {
        reading.assume("a plain DenseNet: ReLU, transitions that halve the image by 2x2 means");
    }
    let (mut b, x) = start(source, image, reading)?;
    let mut x = match cifar {
        true => conv(&mut b, x, "conv1", 1)?,
        false => stem(&mut b, x, reading, ["features.conv0", "features.norm0"], dense.activation, dense.eps)?,
    };
    let mut blocks = vec![];
    for block in 1.. {
        let mut layers = 0;
        while let Some(convs) = dense.layer_names(&b, block, layers) {
            x = dense.layer(&mut b, x, &convs)?;
            layers += 1;
        }
        if layers == 0 {
            break;
        }
        blocks.push(layers);
        let name = if cifar { format!("trans{block}") } else { format!("features.transition{block}") };
        if b.has(&format!("{name}.conv.weight")) {
            let norm = if cifar { "bn" } else { "norm" };
            x = dense.normed_conv(&mut b, x, &format!("{name}.{norm}"), &format!("{name}.conv"))?;
            x = b.average_pool(x, Window::square(2, 2, 0))?;
        }
    }
    reading.saw(format!("blocks of {blocks:?} dense layers"));
    x = b.batch_norm_with(x, if cifar { "bn" } else { "features.norm5" }, dense.eps)?;
    x = b.activation(x, dense.activation);
    let x = b.global_pool(x);
    let head = head(&b, reading, &[if cifar { "linear" } else { "classifier" }])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

impl Dense {
    /// The norms and convolutions of layer `i` of a block, if there is one.
    fn layer_names(&self, b: &Builder, block: usize, i: usize) -> Option<[String; 4]> {
        let names = match self.cifar {
            true => ["bn1", "conv1", "bn2", "conv2"].map(|part| format!("dense{block}.{i}.{part}")),
            false => {
                let layer = format!("features.denseblock{block}.denselayer{}", i + 1);
                let dot = if b.has(&format!("{layer}.conv.1.weight")) { "." } else { "" };
                [("norm", 1), ("conv", 1), ("norm", 2), ("conv", 2)]
                    .map(|(part, k)| format!("{layer}.{part}{dot}{k}"))
            }
        };
        b.has(&weight(&names[1])).then_some(names)
    }

    /// A dense layer: its output beside its input.
    fn layer(
        &self,
        b: &mut Builder,
        x: NodeId,
        [norm1, conv1, norm2, conv2]: &[String; 4],
    ) -> Result<NodeId> {
        let y = self.normed_conv(b, x, norm1, conv1)?;
        let y = self.normed_conv(b, y, norm2, conv2)?;
        b.concat(&if self.cifar { [y, x] } else { [x, y] })
    }

    fn normed_conv(&self, b: &mut Builder, x: NodeId, norm: &str, name: &str) -> Result<NodeId> {
        let x = b.batch_norm_with(x, norm, self.eps)?;
        let x = b.activation(x, self.activation);
        conv(b, x, name, 1)
    }
}
