//! OSNet (Zhou et al. 2019) as torchreid names it: in every block, chains of one to four light filters, each weighted by the
//! same gate. The gate is one layer that is used four times.
//!
//! ```text
//! conv1.{conv bn} | conv{2 3 4}.{i}.{conv1 conv2a conv2b.{0 1} conv2c.{0..2} conv2d.{0..3} gate.{fc1 fc2} conv3
//!     [downsample]} | conv{2 3}.2.0.{conv bn} | conv5.{conv bn} | fc.{0 1} | classifier
//! ```
//!
//! Variants with instance norm (IBN, AIN) have tensors without a place here and are refused.

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{Normed, conv, count, squeeze, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::Result;
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "osnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "conv1.conv.weight",
        "conv2.0.conv2a.conv1.weight",
        "conv2.0.gate.fc1.weight",
        "conv5.conv.weight",
        "fc.0.weight",
        "classifier.weight",
    ],
    others: &[
        "conv#.conv.weight",
        "conv#.bn.*",
        "conv#.#.conv#.conv.weight",
        "conv#.#.conv#.bn.*",
        "conv#.#.conv2a.*",
        "conv#.#.conv2b.#.*",
        "conv#.#.conv2c.#.*",
        "conv#.#.conv2d.#.*",
        "conv#.#.gate.fc#.*",
        "conv#.#.downsample.conv.weight",
        "conv#.#.downsample.bn.*",
        "conv#.#.0.conv.weight",
        "conv#.#.0.bn.*",
        "fc.#.*",
        "classifier.bias",
    ],
    lacks: &["*.IN.*", "conv1.bn.IN.*"],
}];

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    ["osnet", "osnet_x#_#", "osnet_x#_#_#x#"].iter().any(|name| matches(name, &arch))
}

/// The size that people are cut out at.
fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(Some(Shape::new(256, 128, given.channels("conv1.conv.weight").unwrap_or(3))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    if reading.arch.is_none() {
        reading.assume("torchreid's OSNet: ReLU, strides and pooling as published");
    }
    reading.saw("logits are the classifier's; torchreid gives them in training and the features before them otherwise");
    let (mut b, x) = start(source, image, reading)?;
    let mut x = normed(&mut b, x, "conv1", 2, eps)?;
    x = b.relu(x);
    x = b.max_pool(x, Window { size: 3, stride: 2, padding: 1 })?;
    for stage in 2..=4 {
        let name = format!("conv{stage}");
        let blocks = count(&b, &name, "conv1.conv.weight");
        for i in 0..blocks {
            x = block(&mut b, x, &format!("{name}.{i}"), eps)?;
        }
        let between = format!("{name}.{blocks}.0");
        if b.has(&format!("{between}.conv.weight")) {
            x = normed(&mut b, x, &between, 1, eps)?;
            x = b.relu(x);
            x = b.average_pool(x, Window { size: 2, stride: 2, padding: 0 })?;
        }
    }
    x = normed(&mut b, x, "conv5", 1, eps)?;
    x = b.relu(x);
    x = b.global_pool(x);
    let features = rows(&b, "fc.0.weight")?;
    x = b.linear(x, "fc.0", features)?;
    x = b.batch_norm_with(x, "fc.1", eps)?;
    x = b.relu(x);
    let head = head(&b, reading, &["classifier"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

fn normed(b: &mut Builder, x: NodeId, name: &str, stride: usize, eps: f32) -> Result<NodeId> {
    let [conv, norm] = [format!("{name}.conv"), format!("{name}.bn")];
    Normed { conv: &conv, norm: &norm, stride, eps, same: false }.compose(b, x)
}

fn block(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let y = normed(b, x, &format!("{name}.conv1"), 1, eps)?;
    let start = b.relu(y);
    let mut chains = vec![];
    for (chain, length) in ["conv2a", "conv2b", "conv2c", "conv2d"].into_iter().zip(1..) {
        let mut y = start;
        for i in 0..length {
            // The first chain is one filter, the others are lists.
            let part = if length == 1 { String::new() } else { format!(".{i}") };
            y = light(b, y, &format!("{name}.{chain}{part}"), eps)?;
        }
        chains.push(y);
    }
    let mut sum = None;
    for chain in chains {
        let [first, second] = [format!("{name}.gate.fc1"), format!("{name}.gate.fc2")];
        let gated = squeeze(b, chain, [&first, &second], [Activation::Relu, Activation::Sigmoid])?;
        sum = Some(match sum {
            None => gated,
            Some(sum) => b.add(sum, gated)?,
        });
    }
    let y = normed(b, sum.unwrap_or(start), &format!("{name}.conv3"), 1, eps)?;
    let downsample = format!("{name}.downsample");
    let across = match b.has(&format!("{downsample}.conv.weight")) {
        true => normed(b, x, &downsample, 1, eps)?,
        false => x,
    };
    let y = b.add(y, across)?;
    Ok(b.relu(y))
}

/// A 1×1 filter without nonlinearity, then a depthwise one.
fn light(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let x = conv(b, x, &format!("{name}.conv1"), 1)?;
    let [depthwise, norm] = [format!("{name}.conv2"), format!("{name}.bn")];
    let x = Normed { conv: &depthwise, norm: &norm, stride: 1, eps, same: false }.compose(b, x)?;
    Ok(b.relu(x))
}
