//! EfficientNetV2 S, M and L (Tan & Le 2021) as torchvision names it: fused blocks, a full filter in place of an expansion
//! and a depthwise one, then the blocks of EfficientNet. The number of blocks in each stage tells which; strides are
//! those of the paper.
//!
//! ```text
//! features.0.{0 1} | features.{1..}.{i}.block.{0 1}.{0 1}, or block as in EfficientNet | features.{7 8}.{0 1} |
//!     classifier.1
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::mobilenet::listed_conv;
use super::names::{Fit, Form, fit as fit_form, head};
use super::parts::{Inverted, Normed, count, square_image, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "efficientnet-v2",
    named,
    fit,
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "features.0.0.weight",
        "features.1.0.block.0.0.weight",
        "features.2.0.block.1.0.weight",
        "features.6.0.block.0.0.weight",
        "classifier.1.weight|classifier.1.#.weight",
    ],
    others: &["features.#.0.weight", "features.#.1.*", "features.#.#.block.*", "classifier.1.*"],
    lacks: &["features.1.0.block.1.fc1.weight"],
}];

/// Blocks of each stage, and the network that has them.
const STAGES: [(&[usize], &str); 3] =
    [(&[2, 4, 4, 6, 9, 15], "S"), (&[3, 5, 5, 7, 14, 18, 5], "M"), (&[4, 7, 7, 10, 19, 25, 7], "L")];

/// Strides of the stages, of which S has the first six.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// torchvision's eps of norms.
const EPS: f32 = 1e-3;

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    ["efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"].contains(&arch.as_str())
}

/// Whether a block begins with a full filter.
fn is_fused(shape: Option<&[usize]>) -> bool {
    matches!(shape, Some(&[_, inner, r, _]) if inner > 1 && r > 1)
}

fn fit(given: &Given) -> Option<Fit> {
    let fused = is_fused(given.source.shape("features.1.0.block.0.0.weight"));
    fused.then(|| fit_form(FORMS, given.names))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(square_image(384, given.channels("features.0.0.weight")))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(EPS);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Silu);
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    let (mut b, x) = start(source, image, reading)?;
    let depths: Vec<usize> = (1..)
        .map(|stage| count(&b, &format!("features.{stage}"), "block.0.0.weight"))
        .take_while(|&blocks| blocks > 0)
        .collect();
    let Some((_, name)) = STAGES.iter().find(|(known, _)| *known == depths) else {
        return Err(Error::config(format!(
            "has stages of {depths:?} blocks, which no EfficientNetV2 of torchvision's has; strides of others cannot \
             be told"
        )));
    };
    reading.saw(format!("stages of {depths:?} blocks, those of EfficientNetV2-{name}"));
    if reading.arch.is_none() {
        reading.assume(format!(
            "torchvision's EfficientNetV2: SiLU, strides as published, eps of its norms {eps:e}"
        ));
    }
    let mut x = listed_conv(&mut b, x, "features.0", 2, activation, eps)?;
    for (i, (&blocks, stride)) in depths.iter().zip(STRIDES).enumerate() {
        for block in 0..blocks {
            let name = format!("features.{}.{block}.block", i + 1);
            let stride = if block == 0 { stride } else { 1 };
            let squeeze = [activation, Activation::Sigmoid];
            let block = Inverted { stride, activation, squeeze, eps };
            let first = weight(&format!("{name}.0.0"));
            let full = b.side(&first, 1)? > 1 && b.side(&first, 2)? > 1;
            x = if full { fused(&mut b, x, &name, &block)? } else { block.compose(&mut b, x, &name)? };
        }
    }
    x = listed_conv(&mut b, x, &format!("features.{}", depths.len() + 1), 1, activation, eps)?;
    x = b.global_pool(x);
    let head = head(&b, reading, &["classifier.1"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// A full filter, and where there is one a projection without nonlinearity; the input is added where it has the output's
/// shape.
fn fused(b: &mut Builder, x: NodeId, name: &str, of: &Inverted) -> Result<NodeId> {
    let layer = |k: usize| [format!("{name}.{k}.0"), format!("{name}.{k}.1")];
    let ([filter, norm], [projection, last]) = (layer(0), layer(1));
    let y = Normed { conv: &filter, norm: &norm, stride: of.stride, eps: of.eps }.compose(b, x)?;
    let mut y = b.activation(y, of.activation);
    if b.has(&weight(&projection)) {
        y = Normed { conv: &projection, norm: &last, stride: 1, eps: of.eps }.compose(b, y)?;
    }
    match of.stride == 1 && b.shape(x) == b.shape(y) {
        true => b.add(y, x),
        false => Ok(y),
    }
}
