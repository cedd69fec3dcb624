//! OSNet (Zhou et al. 2019) as torchreid names it: in every block, chains of one to four light filters, each weighted by the
//! same gate. The gate is one layer that is used four times.
//!
//! ```text
//! conv1.{conv bn} | conv{2 3 4}.{i}.{conv1 conv2a conv2b.{0 1} conv2c.{0..2} conv2d.{0..3} gate.{fc1 fc2} conv3
//!     [downsample] [IN]} | conv{2 3}.2.0.{conv bn} | conv5.{conv bn} | fc.{0 1} | classifier
//! ```
//!
//! Instance norm is group norm of one channel each. In `osnet_ibn` it follows the sum of some blocks, and the first filter in
//! place of batch norm. In `osnet_ain`, whose chains are `conv2.{0..3}.layers.{i}` and whose filters between stages are
//! `pool{2 3}.0`, it stands in some blocks in place of the last batch norm.

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{Normed, conv, count, squeeze, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "osnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
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
            "conv#.#.IN.weight|conv#.#.IN.bias",
            "conv#.#.0.conv.weight",
            "conv#.#.0.bn.*",
            "fc.#.*",
            "classifier.bias",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "conv1.conv.weight",
            "conv2.0.conv2.0.layers.0.conv1.weight",
            "conv2.0.gate.fc1.weight",
            "pool2.0.conv.weight",
            "conv5.conv.weight",
            "fc.0.weight",
            "classifier.weight",
        ],
        others: &[
            "conv#.conv.weight",
            "conv#.bn.*",
            "conv#.#.conv#.conv.weight",
            "conv#.#.conv#.bn.*",
            "conv#.#.conv2.#.layers.#.*",
            "conv#.#.gate.fc#.*",
            "conv#.#.downsample.conv.weight",
            "conv#.#.downsample.bn.*",
            "conv#.#.IN.weight|conv#.#.IN.bias",
            "pool#.0.conv.weight",
            "pool#.0.bn.*",
            "fc.#.*",
            "classifier.bias",
        ],
        lacks: &[],
    },
];

/// Instance norm's, which nothing in torchreid changes.
const INSTANCE_NORM_EPS: f32 = 1e-5;

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let names = ["osnet", "osnet_x#_#", "osnet_x#_#_#x#", "osnet_ibn_x#_#", "osnet_ain_x#_#"];
    names.iter().any(|name| matches(name, &arch))
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
    agrees(&b, reading)?;
    let mut x = match b.has("conv1.bn.running_mean") {
        true => normed(&mut b, x, "conv1", 2, eps)?,
        false => {
            reading.saw("`conv1.bn` has no running mean: it is instance norm");
            let x = conv(&mut b, x, "conv1.conv", 2)?;
            instance_norm(&mut b, x, "conv1.bn")?
        }
    };
    x = b.relu(x);
    x = b.max_pool(x, Window::square(3, 2, 1))?;
    for stage in 2..=4 {
        let name = format!("conv{stage}");
        let blocks = count(&b, &name, "conv1.conv.weight");
        for i in 0..blocks {
            x = block(&mut b, x, &format!("{name}.{i}"), eps)?;
        }
        let pool = format!("pool{stage}.0");
        let between =
            if b.has(&weight(&format!("{pool}.conv"))) { pool } else { format!("{name}.{blocks}.0") };
        if b.has(&format!("{between}.conv.weight")) {
            x = normed(&mut b, x, &between, 1, eps)?;
            x = b.relu(x);
            x = b.average_pool(x, Window::square(2, 2, 0))?;
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

/// Refuses the name of another variant than the tensors make.
fn agrees(b: &Builder, reading: &Reading) -> Result<()> {
    let Some(arch) = &reading.arch else { return Ok(()) };
    let (ain, normed) = (b.has("pool2.0.conv.weight"), !b.has("conv1.bn.running_mean"));
    let (found, fits) = match (ain, normed) {
        (true, _) => ("osnet_ain", arch.contains("ain")),
        (false, true) => ("osnet_ibn", arch.contains("ibn")),
        (false, false) => ("osnet", !arch.contains("ibn") && !arch.contains("ain")),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::config(format!(
            "has the tensors of {found}, and its architecture names another, {arch}"
        ))),
    }
}

fn instance_norm(b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
    let channels = b.shape(x).c;
    b.group_norm(x, name, channels, INSTANCE_NORM_EPS)
}

fn block(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let y = normed(b, x, &format!("{name}.conv1"), 1, eps)?;
    let start = b.relu(y);
    let mut ends = vec![];
    for chain in chains(b, name) {
        ends.push(chain.iter().try_fold(start, |y, part| light(b, y, part, eps))?);
    }
    let mut sum = None;
    for y in ends {
        let [first, second] = [format!("{name}.gate.fc1"), format!("{name}.gate.fc2")];
        let gated = squeeze(b, y, [&first, &second], [Activation::Relu, Activation::Sigmoid])?;
        sum = Some(match sum {
            None => gated,
            Some(sum) => b.add(sum, gated)?,
        });
    }
    let (last, norm) = (format!("{name}.conv3"), format!("{name}.IN"));
    let has_norm = b.has(&weight(&norm));
    let inside = has_norm && !b.has(&weight(&format!("{last}.bn")));
    let y = match inside {
        true => {
            let y = conv(b, sum.unwrap_or(start), &format!("{last}.conv"), 1)?;
            instance_norm(b, y, &norm)?
        }
        false => normed(b, sum.unwrap_or(start), &last, 1, eps)?,
    };
    let downsample = format!("{name}.downsample");
    let across = match b.has(&format!("{downsample}.conv.weight")) {
        true => normed(b, x, &downsample, 1, eps)?,
        false => x,
    };
    let mut y = b.add(y, across)?;
    if has_norm && !inside {
        y = instance_norm(b, y, &norm)?;
    }
    Ok(b.relu(y))
}

/// The light filters of each chain of a block.
fn chains(b: &Builder, name: &str) -> Vec<Vec<String>> {
    if b.has(&format!("{name}.conv2.0.layers.0.conv1.weight")) {
        let chains = (0..count(b, &format!("{name}.conv2"), "layers.0.conv1.weight")).map(|chain| {
            let layers = format!("{name}.conv2.{chain}.layers");
            (0..count(b, &layers, "conv1.weight")).map(|i| format!("{layers}.{i}")).collect()
        });
        return chains.collect();
    }
    let chain = |(letter, length): (&str, usize)| match length {
        1 => vec![format!("{name}.conv2{letter}")], // a filter, where the others are lists
        _ => (0..length).map(|i| format!("{name}.conv2{letter}.{i}")).collect(),
    };
    ["a", "b", "c", "d"].into_iter().zip(1..).map(chain).collect()
}

/// A 1×1 filter without nonlinearity, then a depthwise one.
fn light(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let x = conv(b, x, &format!("{name}.conv1"), 1)?;
    let [depthwise, norm] = [format!("{name}.conv2"), format!("{name}.bn")];
    let x = Normed { conv: &depthwise, norm: &norm, stride: 1, eps, same: false }.compose(b, x)?;
    Ok(b.relu(x))
}
