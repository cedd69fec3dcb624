//! ResNets as torchvision, timm and Hugging Face name them (He et al. 2016, bottlenecks with the stride in the 3×3
//! filter), with ResNeXt and wide variants. A 7×7 stem has stride 2 and is followed by max pooling; a 3×3 stem, as
//! trained on CIFAR, has neither.
//!
//! ```text
//! conv1 bn1 | layer{1..4}.{i}.{conv1 bn1 conv2 bn2 [conv3 bn3] [downsample.0 downsample.1]} | fc
//! resnet.embedder.embedder | resnet.encoder.stages.{s}.layers.{i}.{[shortcut] layer.{0 1 [2]}} | classifier.1
//! ```
//!
//! In Hugging Face's names every `embedder`, `shortcut` and `layer.{k}` is `convolution` and `normalization`; its
//! configs may set `downsample_in_first_stage`, `downsample_in_bottleneck` (the stride in the first filter) and
//! `hidden_act`, which is the nonlinearity of the stem and at the end of every block; within a block it is ReLU.

use serde_json::Value;

use super::{activation, rows};
use crate::Result;
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source, Window};

/// A convolution's name and its norm's.
type Pair = (String, String);

/// A library's names of the parts. Stages, blocks and their convolutions count from 0.
struct Names {
    stem: [&'static str; 2],
    block: fn(usize, usize) -> String,
    conv: fn(&str, usize) -> Pair,
    shortcut: fn(&str) -> Pair,
    /// Whether the shortcut comes first in module order.
    shortcut_first: bool,
    head: &'static str,
}

const TORCHVISION: Names = Names {
    stem: ["conv1", "bn1"],
    block: |stage, i| format!("layer{}.{i}", stage + 1),
    conv: |block, k| (format!("{block}.conv{}", k + 1), format!("{block}.bn{}", k + 1)),
    shortcut: |block| (format!("{block}.downsample.0"), format!("{block}.downsample.1")),
    shortcut_first: false,
    head: "fc",
};

const HUGGING_FACE: Names = Names {
    stem: ["resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"],
    block: |stage, i| format!("resnet.encoder.stages.{stage}.layers.{i}"),
    conv: |block, k| (format!("{block}.layer.{k}.convolution"), format!("{block}.layer.{k}.normalization")),
    shortcut: |block| (format!("{block}.shortcut.convolution"), format!("{block}.shortcut.normalization")),
    shortcut_first: true,
    head: "classifier.1",
};

fn weight(name: &str) -> String {
    format!("{name}.weight")
}

fn names(source: &dyn Source) -> &'static Names {
    if source.has(&weight(HUGGING_FACE.stem[0])) { &HUGGING_FACE } else { &TORCHVISION }
}

pub(super) fn fits(source: &dyn Source) -> bool {
    let names = names(source);
    let first = (names.conv)(&(names.block)(0, 0), 0).0;
    [names.stem[0], names.stem[1], &first, names.head].iter().all(|name| source.has(&weight(name)))
}

pub(super) fn compose(
    source: &mut dyn Source,
    image: Shape,
    config: &Value,
    _: &[String],
) -> Result<Network> {
    let names = names(source);
    let said = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let block = Block {
        names,
        stride_first: said("downsample_in_bottleneck"),
        activation: activation(config, Activation::Relu)?,
    };
    let (mut b, x) = Builder::new(source, image);
    let stem = weight(names.stem[0]);
    let (width, kernel) = (rows(&b, &stem)?, b.side(&stem, 2)?);
    let stem = if kernel == 7 { Conv::square(7, 2, 3) } else { Conv::square(kernel, 1, kernel / 2) };
    let x = b.conv(x, names.stem[0], width, stem)?;
    let x = b.batch_norm(x, names.stem[1])?;
    let mut x = b.activation(x, block.activation);
    if kernel == 7 {
        x = b.max_pool(x, Window { size: 3, stride: 2, padding: 1 })?;
    }
    for stage in 0..4 {
        for i in 0.. {
            let name = (names.block)(stage, i);
            if !b.has(&weight(&(names.conv)(&name, 0).0)) {
                break;
            }
            let halves = i == 0 && (stage > 0 || said("downsample_in_first_stage"));
            x = block.compose(&mut b, x, &name, if halves { 2 } else { 1 })?;
        }
    }
    let x = b.global_pool(x);
    let classes = rows(&b, &weight(names.head))?;
    let x = b.linear(x, names.head, classes)?;
    b.finish(x)
}

/// What all blocks of a model share.
struct Block {
    names: &'static Names,
    /// Whether a bottleneck's stride is in its first filter.
    stride_first: bool,
    /// The nonlinearity at the end of a block.
    activation: Activation,
}

impl Block {
    fn compose(&self, b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
        let convs: Vec<Pair> =
            (0..3).map(|k| (self.names.conv)(name, k)).take_while(|(conv, _)| b.has(&weight(conv))).collect();
        let strided = if convs.len() == 3 && !self.stride_first { 1 } else { 0 };
        let shortcut_first = self.names.shortcut_first;
        let mut across = if shortcut_first { self.shortcut(b, x, name, stride)? } else { x };
        let mut y = x;
        for (k, (conv, norm)) in convs.iter().enumerate() {
            let weight = weight(conv);
            let (outputs, inner, kernel) = (rows(b, &weight)?, b.side(&weight, 1)?, b.side(&weight, 2)?);
            if k > 0 {
                y = b.relu(y);
            }
            let groups = b.shape(y).c / inner.max(1);
            let stride = if k == strided { stride } else { 1 };
            y = b.conv(y, conv, outputs, Conv { groups, ..Conv::square(kernel, stride, kernel / 2) })?;
            y = b.batch_norm(y, norm)?;
        }
        if !shortcut_first {
            across = self.shortcut(b, x, name, stride)?;
        }
        let y = b.add(y, across)?;
        Ok(b.activation(y, self.activation))
    }

    /// The input itself, or a 1×1 convolution of it.
    fn shortcut(&self, b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
        let (conv, norm) = (self.names.shortcut)(name);
        if !b.has(&weight(&conv)) {
            return Ok(x);
        }
        let outputs = rows(b, &weight(&conv))?;
        let y = b.conv(x, &conv, outputs, Conv::square(1, stride, 0))?;
        b.batch_norm(y, &norm)
    }
}
