//! MLFN (Chang et al. 2018) as torchreid names it: bottleneck blocks of grouped filters, whose groups are weighted by gates
//! from the block's input; the gates of all blocks are joined with the features before the classifier.
//!
//! ```text
//! conv1 bn1 | feature.{i}.{fm_conv1 fm_bn1 fm_conv2 fm_bn2 fm_conv3 fm_bn3} [feature.{i}.downsample.{0 1}]
//!     feature.{i}.fsm.{1 2 4 5 7 8} | fc_x.{0 1} | fc_s.{0 1} | classifier
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{Normed, count, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source, Window};
use crate::ops::Bands;

pub(super) const FAMILY: Family = Family {
    name: "mlfn",
    named: |arch| matches("mlfn", arch),
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "conv1.weight",
        "bn1.weight",
        "feature.0.fm_conv1.weight",
        "feature.0.fsm.1.weight",
        "fc_x.0.weight",
        "fc_s.0.weight",
        "classifier.weight",
    ],
    others: &[
        "conv1.bias",
        "bn1.*",
        "feature.#.fm_conv#.weight",
        "feature.#.fm_bn#.*",
        "feature.#.fsm.#.*",
        "feature.#.downsample.#.*",
        "fc_x.#.*",
        "fc_s.#.*",
        "classifier.bias",
    ],
    lacks: &[],
}];

/// The blocks with which a new stage begins, and halves the image, in the published network; the first stage does not.
const HALVING: [usize; 3] = [3, 7, 13];

/// The size that people are cut out at.
fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(Some(Shape::new(256, 128, given.channels("conv1.weight").unwrap_or(3))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    if reading.arch.is_none() {
        reading.assume("torchreid's MLFN: ReLU, strides and pooling as published");
    }
    reading.saw("logits are the classifier's; torchreid gives them in training and the features before them otherwise");
    let (mut b, x) = start(source, image, reading)?;
    let blocks = count(&b, "feature", "fm_conv1.weight");
    if blocks != 16 {
        return Err(Error::config(format!(
            "has {blocks} blocks; where 16 halve the image is known, of others it is not"
        )));
    }
    let mut x = normed(&mut b, x, "conv1", "bn1", 2, eps)?;
    x = b.relu(x);
    x = b.max_pool(x, Window::square(3, 2, 1))?;
    let mut gates = vec![];
    for i in 0..blocks {
        let stride = if HALVING.contains(&i) { 2 } else { 1 };
        let (y, gate) = block(&mut b, x, &format!("feature.{i}"), stride, eps)?;
        x = y;
        gates.push(gate);
    }
    let features = b.global_pool(x);
    let features = projection(&mut b, features, "fc_x", eps)?;
    let gates = b.concat(&gates)?;
    let gates = projection(&mut b, gates, "fc_s", eps)?;
    let sum = b.add(features, gates)?;
    let mean = b.scale(sum, 0.5);
    let head = head(&b, reading, &["classifier"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(mean, &head, classes)?;
    b.finish(x)
}

fn normed(b: &mut Builder, x: NodeId, conv: &str, norm: &str, stride: usize, eps: f32) -> Result<NodeId> {
    Normed { conv, norm, stride, eps, same: false }.compose(b, x)
}

/// A block's output, and its gate of one value for each group of filters.
fn block(b: &mut Builder, x: NodeId, name: &str, stride: usize, eps: f32) -> Result<(NodeId, NodeId)> {
    let mut gate = b.global_pool(x);
    for (at, activation) in [(1, Activation::Relu), (4, Activation::Relu), (7, Activation::Sigmoid)] {
        let [layer, norm] = [format!("{name}.fsm.{at}"), format!("{name}.fsm.{}", at + 1)];
        gate = normed(b, gate, &layer, &norm, 1, eps)?;
        gate = b.activation(gate, activation);
    }
    let mut y = x;
    for k in 1..=3 {
        let [conv, norm] = [format!("{name}.fm_conv{k}"), format!("{name}.fm_bn{k}")];
        y = normed(b, y, &conv, &norm, if k == 2 { stride } else { 1 }, eps)?;
        y = b.relu(y);
        if k == 2 {
            let channels = b.shape(y).c;
            let factors = for_each_of_its_group(b, gate, channels)?;
            y = b.gate(y, factors)?;
        }
    }
    let [conv, norm] = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
    let across = match b.has(&weight(&conv)) {
        true => normed(b, x, &conv, &norm, stride, eps)?,
        false => x,
    };
    let y = b.add(across, y)?;
    Ok((b.relu(y), gate))
}

/// One value for each group, as one for each of `channels`: those of a group are consecutive.
fn for_each_of_its_group(b: &mut Builder, gate: NodeId, channels: usize) -> Result<NodeId> {
    let groups = b.shape(gate).c;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::config(format!(
            "gates {groups} groups of {channels} channels, which are no equal groups"
        )));
    }
    let column = b.transpose(gate)?; // groups as positions
    let each = b.concat(&vec![column; channels / groups])?;
    let as_they_are = Bands { rows: 1, columns: groups, height: 1, down: 0, right: 0 };
    b.reorder(each, as_they_are, false, Shape::new(1, 1, channels))
}

/// A filter of one position, its norm and ReLU.
fn projection(b: &mut Builder, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
    let y = normed(b, x, &format!("{name}.0"), &format!("{name}.1"), 1, eps)?;
    Ok(b.relu(y))
}
