//! ResNets as torchvision, timm, Hugging Face and the usual CIFAR code name them (He et al. 2016, bottlenecks with the
//! stride in the 3×3 filter), with ResNeXt and wide variants.
//!
//! ```text
//! conv1 bn1 | layer{1..4}.{i}.{conv1 bn1 conv2 bn2 [conv3 bn3] [downsample.0 downsample.1]} | fc
//! the same with shortcut.0 shortcut.1 for downsample, and with linear for fc
//! resnet.embedder.embedder | resnet.encoder.stages.{s}.layers.{i}.{[shortcut] layer.{0 1 [2]}} | classifier.1
//! ```
//!
//! Tensors do not tell the stem. Where neither `--stem` nor `"stem"` of the config does, a 7×7 stem has stride 2 and is
//! followed by max pooling, as published, and a 3×3 stem, as trained on CIFAR, has neither; both are assumed, and
//! reported so. A filter of another size needs one of the two.
//!
//! In Hugging Face's names every `embedder`, `shortcut` and `layer.{k}` is `convolution` and `normalization`; its
//! configs may set `downsample_in_first_stage`, `downsample_in_bottleneck` (the stride in the first filter) and
//! `hidden_act`, which is the nonlinearity of the stem and at the end of every block; within a block it is ReLU. timm's
//! `act_layer` is the nonlinearity everywhere.

use serde_json::json;

use super::choices::Stem;
use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "resnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

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
    heads: &'static [&'static str],
    /// The side of the images that such models are usually trained on.
    side: usize,
}

const TORCHVISION: Names = Names {
    stem: ["conv1", "bn1"],
    block: |stage, i| format!("layer{}.{i}", stage + 1),
    conv: |block, k| (format!("{block}.conv{}", k + 1), format!("{block}.bn{}", k + 1)),
    shortcut: |block| (format!("{block}.downsample.0"), format!("{block}.downsample.1")),
    shortcut_first: false,
    heads: &["fc", "linear"],
    side: 224,
};

const CIFAR: Names = Names {
    shortcut: |block| (format!("{block}.shortcut.0"), format!("{block}.shortcut.1")),
    side: 32,
    ..TORCHVISION
};

const HUGGING_FACE: Names = Names {
    stem: ["resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"],
    block: |stage, i| format!("resnet.encoder.stages.{stage}.layers.{i}"),
    conv: |block, k| (format!("{block}.layer.{k}.convolution"), format!("{block}.layer.{k}.normalization")),
    shortcut: |block| (format!("{block}.shortcut.convolution"), format!("{block}.shortcut.normalization")),
    shortcut_first: true,
    heads: &["classifier.1"],
    side: 224,
};

const FORMS: &[Form] = &[
    Form {
        needs: &[
            "conv1.weight",
            "bn1.weight",
            "layer1.0.conv1.weight",
            "fc.weight|fc.#.weight|linear.weight|linear.#.weight",
        ],
        others: &[
            "bn1.*",
            "layer#.#.conv#.weight",
            "layer#.#.bn#.*",
            "layer#.#.downsample.0.weight",
            "layer#.#.downsample.1.*",
            "layer#.#.shortcut.0.weight",
            "layer#.#.shortcut.1.*",
            "fc.*",
            "linear.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "resnet.embedder.embedder.convolution.weight",
            "resnet.embedder.embedder.normalization.weight",
            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
            "classifier.1.weight",
        ],
        others: &[
            "resnet.embedder.embedder.normalization.*",
            "resnet.encoder.stages.#.layers.#.layer.#.convolution.weight",
            "resnet.encoder.stages.#.layers.#.layer.#.normalization.*",
            "resnet.encoder.stages.#.layers.#.shortcut.convolution.weight",
            "resnet.encoder.stages.#.layers.#.shortcut.normalization.*",
            "classifier.1.bias",
        ],
        lacks: &[],
    },
];

/// Names of architectures that this family computes. Many others have the same tensors (`resnetaa50`, `resnetblur50`).
const ARCHITECTURES: [&str; 7] = [
    "resnet",
    "resnet#",
    "resnet_#",
    "resnext#_#x#d",
    "wide_resnet#_#",
    "resnetforimageclassification",
    "resnet_cifar",
];

/// What publishers put before a name, and what is put behind it for a data set or a width.
const BEFORE: [&str; 8] = ["tv_", "ssl_", "swsl_", "ig_", "gluon_", "cifar_", "cifar10_", "cifar100_"];
const BEHIND: [&str; 5] = ["", "_cifar#", "_cifar", "_imagenet", "_w#"];

pub(super) fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let bare = BEFORE.iter().find_map(|before| arch.strip_prefix(before)).unwrap_or(&arch);
    let known = |name: &str| BEHIND.iter().any(|behind| matches(&format!("{name}{behind}"), bare));
    ARCHITECTURES.iter().any(|name| known(name))
}

/// The names of batch norm's eps in configs.
pub(super) const BATCH_NORM_EPS: &[&str] = &["batch_norm_eps", "bn_eps"];

fn weight(name: &str) -> String {
    format!("{name}.weight")
}

fn names(source: &dyn Source, all: &[String]) -> &'static Names {
    if source.has(&weight(HUGGING_FACE.stem[0])) {
        &HUGGING_FACE
    } else if all.iter().any(|name| matches("layer#.#.shortcut.0.weight", name)) {
        &CIFAR
    } else {
        &TORCHVISION
    }
}

/// The published size, with the channels that the stem reads.
fn image(given: &Given) -> Result<Option<Shape>> {
    let names = names(given.source, given.names);
    let channels = given.channels(&weight(names.stem[0])).unwrap_or(3);
    Ok(Some(Shape::new(names.side, names.side, channels)))
}

/// The first convolution with its norm and nonlinearity, and max pooling where the stem has it.
pub(super) fn stem(
    b: &mut Builder,
    x: NodeId,
    reading: &mut Reading,
    [conv, norm]: [&str; 2],
    activation: Activation,
    eps: f32,
) -> Result<NodeId> {
    let (width, kernel) = (rows(b, &weight(conv))?, b.side(&weight(conv), 2)?);
    let (channels, image) = (b.side(&weight(conv), 1)?, b.shape(x));
    if channels != image.c {
        let reason = format!("the model takes images of {channels} channels, these have {}", image.c);
        return Err(Error::config(reason));
    }
    reading.saw(format!("a stem of {width} filters of {kernel}x{kernel}"));
    let stem = match (reading.stem()?, kernel) {
        (Some(stem), _) => stem,
        (None, 7) => {
            if reading.arch.is_none() {
                reading.assume("the 7x7 stem has stride 2 and max pooling follows (--stem says otherwise)");
            }
            Stem::Stride2Pool
        }
        (None, 3) => {
            let published = reading.arch.as_deref().is_some_and(has_small_stem);
            if !published {
                reading
                    .assume("the 3x3 stem has stride 1 and no max pooling follows (--stem says otherwise)");
            }
            Stem::Stride1
        }
        (None, _) => {
            return Err(Error::config(format!(
                "a stem of {kernel}x{kernel} does not tell its stride and pooling; --stem, or \"stem\" in \
                 config.json, says stride1, stride1+pool, stride2 or stride2+pool"
            )));
        }
    };
    let x = b.conv(x, conv, width, Conv::square(odd(kernel, conv)?, stem.stride(), kernel / 2))?;
    let x = b.batch_norm_with(x, norm, eps)?;
    let x = b.activation(x, activation);
    match stem.pool() {
        true => b.max_pool(x, Window::square(3, 2, 1)),
        false => Ok(x),
    }
}

/// Whether an architecture is one that He et al. published for CIFAR, of depth 6n + 2.
fn has_small_stem(arch: &str) -> bool {
    let depth = arch.rsplit("resnet").next().and_then(|depth| depth.parse::<usize>().ok());
    arch == "resnet-cifar" || depth.is_some_and(|depth| [20, 32, 44, 56, 110, 1202].contains(&depth))
}

/// The side of a filter, which must be odd: PyTorch's padding of an even one cannot be told.
pub(super) fn odd(kernel: usize, name: &str) -> Result<usize> {
    match kernel % 2 {
        1 => Ok(kernel),
        _ => Err(Error::config(format!(
            "`{name}` has filters of {kernel}x{kernel}; their padding cannot be told"
        ))),
    }
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let names = names(source, reading.names);
    let hugging_face = names.shortcut_first;
    let everywhere = reading.activation(&["act_layer"])?;
    let at_ends = reading.activation(&["hidden_act"])?;
    if !hugging_face && at_ends.is_some_and(|kind| kind != Activation::Relu) {
        return Err(Error::config(
            "config.json: \"hidden_act\" is the nonlinearity of Hugging Face's ResNets at the ends of blocks; with \
             these tensor names \"act_layer\" says one for all",
        ));
    }
    let halves_first = reading.flag("downsample_in_first_stage")?;
    let block = Block {
        names,
        stride_first: reading.flag("downsample_in_bottleneck")?,
        inner: everywhere.unwrap_or(Activation::Relu),
        activation: everywhere.or(at_ends).unwrap_or(Activation::Relu),
        eps: reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5),
        bottleneck: reading.word("layer_type")?.map(|word| word == "bottleneck"),
    };
    reading.only(&[("global_pool", json!("avg")), ("output_stride", json!(32))])?;
    if reading.arch.is_none() {
        reading.assume(
            "a plain ResNet: ReLU, strides and padding as published, no dilation, no anti-aliasing (other networks have \
             the same tensors)",
        );
    }
    let (mut b, x) = start(source, image, reading)?;
    let mut x = stem(&mut b, x, reading, names.stem, block.activation, block.eps)?;
    let mut blocks = [0; 4];
    for (stage, blocks) in blocks.iter_mut().enumerate() {
        for i in 0.. {
            let name = (names.block)(stage, i);
            if !b.has(&weight(&(names.conv)(&name, 0).0)) {
                break;
            }
            let halves = i == 0 && (stage > 0 || halves_first);
            x = block.compose(&mut b, x, &name, if halves { 2 } else { 1 })?;
            *blocks += 1;
        }
    }
    reading.saw(format!("stages of {blocks:?} blocks"));
    let x = b.global_pool(x);
    let head = head(&b, reading, names.heads)?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// What all blocks of a model share.
struct Block {
    names: &'static Names,
    /// Whether a bottleneck's stride is in its first filter.
    stride_first: bool,
    /// The nonlinearity within a block.
    inner: Activation,
    /// The nonlinearity at the end of a block.
    activation: Activation,
    eps: f32,
    /// Whether the config says that blocks have three convolutions.
    bottleneck: Option<bool>,
}

impl Block {
    fn compose(&self, b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
        let convs: Vec<Pair> =
            (0..3).map(|k| (self.names.conv)(name, k)).take_while(|(conv, _)| b.has(&weight(conv))).collect();
        if self.bottleneck.is_some_and(|bottleneck| bottleneck != (convs.len() == 3)) {
            return Err(Error::config(format!(
                "config.json: \"layer_type\" does not fit `{name}` of {} convolutions",
                convs.len()
            )));
        }
        let strided = if convs.len() == 3 && !self.stride_first { 1 } else { 0 };
        let shortcut_first = self.names.shortcut_first;
        let mut across = if shortcut_first { self.shortcut(b, x, name, stride)? } else { x };
        let mut y = x;
        for (k, (conv, norm)) in convs.iter().enumerate() {
            let weight = weight(conv);
            let (outputs, inner, kernel) = (rows(b, &weight)?, b.side(&weight, 1)?, b.side(&weight, 2)?);
            if k > 0 {
                y = b.activation(y, self.inner);
            }
            let groups = b.shape(y).c / inner.max(1);
            let stride = if k == strided { stride } else { 1 };
            let square = Conv::square(odd(kernel, conv)?, stride, kernel / 2);
            y = b.conv(y, conv, outputs, Conv { groups, ..square })?;
            y = b.batch_norm_with(y, norm, self.eps)?;
        }
        if !shortcut_first {
            across = self.shortcut(b, x, name, stride)?;
        }
        if b.shape(y) != b.shape(across) {
            let reason = format!("`{name}` changes the shape and has no `{}`", (self.names.shortcut)(name).0);
            return Err(Error::config(reason));
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
        b.batch_norm_with(y, &norm, self.eps)
    }
}
