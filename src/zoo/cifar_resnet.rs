//! The CIFAR ResNets of He et al. (2016), depth 6n + 2: three stages of n blocks, the second and third halving the
//! image; a shortcut across them has no parameters (option A: every second position, zero channels before and behind).
//!
//! ```text
//! conv1 bn1 | layer{1,2,3}.{i}.{conv1 bn1 conv2 bn2} | linear, or fc
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head};
use super::reading::Reading;
use super::resnet::{BATCH_NORM_EPS, named, stem};
use crate::error::Result;
use crate::net::{Activation, Conv, Network, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "resnet-cifar",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer3.0.conv2.weight",
        "linear.weight|linear.#.weight|fc.weight",
    ],
    others: &[
        "bn1.*",
        "layer#.#.conv1.weight",
        "layer#.#.conv2.weight",
        "layer#.#.bn1.*",
        "layer#.#.bn2.*",
        "linear.*",
        "fc.bias",
    ],
    lacks: &["layer4.*", "layer#.#.shortcut.*", "layer#.#.downsample.*", "layer#.#.conv3.*"],
}];

fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(Some(Shape::new(32, 32, given.channels("conv1.weight").unwrap_or(3))))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    reading.only(&[("global_pool", "avg".into())])?;
    reading.saw(
        "three stages; shortcuts across them have no tensors: every second position, zero channels around",
    );
    let (mut b, x) = start(source, image, reading)?;
    let mut x = stem(&mut b, x, reading, ["conv1", "bn1"], activation, eps)?;
    for stage in 1..=3 {
        for block in 0.. {
            let name = |part: &str| format!("layer{stage}.{block}.{part}");
            if !b.has(&name("conv1.weight")) {
                break;
            }
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            let width = rows(&b, &name("conv1.weight"))?;
            let y = b.conv(x, &name("conv1"), width, Conv::square(3, stride, 1))?;
            let y = b.batch_norm_with(y, &name("bn1"), eps)?;
            let y = b.activation(y, activation);
            let y = b.conv(y, &name("conv2"), width, Conv::square(3, 1, 1))?;
            let y = b.batch_norm_with(y, &name("bn2"), eps)?;
            let across = match stride == 1 && width == b.shape(x).c {
                true => x,
                false => b.shortcut(x, stride, width)?,
            };
            let y = b.add(y, across)?;
            x = b.activation(y, activation);
        }
    }
    let x = b.global_pool(x);
    let head = head(&b, reading, &["linear", "fc"])?;
    let classes = rows(&b, &format!("{head}.weight"))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}
