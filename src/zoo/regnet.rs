//! RegNetX and RegNetY (Radosavovic et al. 2020) as torchvision and timm name them: groups are read off the filters, and every
//! stage halves the image.
//!
//! ```text
//! stem.{0 1} | trunk_output.block{s}.block{s}-{i}.{[proj.{0 1}] f.{a b c}.{0 1} [f.se.{fc1 fc2}]} | fc
//! stem.{conv bn} | s{s}.b{i}.{conv1 conv2 [se.{fc1 fc2}] conv3 [downsample]}.{conv bn} | head.fc
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{Normed, count_by, square_image, squeeze, weight};
use super::reading::Reading;
use super::resnet::BATCH_NORM_EPS;
use crate::error::Result;
use crate::net::{Activation, Builder, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "regnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
        needs: &[
            "stem.0.weight",
            "stem.1.weight",
            "trunk_output.block1.block1-0.f.a.0.weight",
            "fc.weight|fc.#.weight",
        ],
        others: &[
            "stem.1.*",
            "trunk_output.block#.block#-#.proj.0.weight",
            "trunk_output.block#.block#-#.proj.1.*",
            "trunk_output.block#.block#-#.f.*",
            "fc.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "stem.conv.weight",
            "stem.bn.weight",
            "s1.b1.conv1.conv.weight",
            "s1.b1.conv3.conv.weight",
            "head.fc.weight|head.fc.#.weight",
        ],
        others: &[
            "stem.bn.*",
            "s#.b#.conv#.conv.weight",
            "s#.b#.conv#.bn.*",
            "s#.b#.se.fc#.*",
            "s#.b#.downsample.conv.weight",
            "s#.b#.downsample.bn.*",
            "head.fc.*",
        ],
        lacks: &[],
    },
];

/// A library's names.
struct Names {
    /// A filter and its norm behind the name of a part.
    pair: [&'static str; 2],
    /// Block `i`, from 0 on, of stage `s`, from 1 on.
    block: fn(usize, usize) -> String,
    convs: [&'static str; 3],
    squeeze: &'static str,
    shortcut: &'static str,
    /// Whether the shortcut comes first in module order.
    shortcut_first: bool,
    head: &'static str,
}

const TORCHVISION: Names = Names {
    pair: ["0", "1"],
    block: |s, i| format!("trunk_output.block{s}.block{s}-{i}"),
    convs: ["f.a", "f.b", "f.c"],
    squeeze: "f.se",
    shortcut: "proj",
    shortcut_first: true,
    head: "fc",
};

const TIMM: Names = Names {
    pair: ["conv", "bn"],
    block: |s, i| format!("s{s}.b{}", i + 1),
    convs: ["conv1", "conv2", "conv3"],
    squeeze: "se",
    shortcut: "downsample",
    shortcut_first: false,
    head: "head.fc",
};

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    ["regnet", "regnet_x_*", "regnet_y_*", "regnetx_#", "regnety_#"].iter().any(|name| matches(name, &arch))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let timm = given.channels("stem.conv.weight");
    Ok(square_image(224, timm.or(given.channels("stem.0.weight"))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    reading.only(&[("global_pool", "avg".into()), ("output_stride", 32.into())])?;
    if reading.arch.is_none() {
        reading.assume("a plain RegNet: ReLU, stride 2 in the stem and at the start of each stage");
    }
    let names = if source.has("stem.conv.weight") { &TIMM } else { &TORCHVISION };
    let (mut b, x) = start(source, image, reading)?;
    let x = names.normed(&mut b, x, "stem", 2, eps)?;
    let mut x = b.activation(x, activation);
    let mut blocks = vec![];
    for stage in 1.. {
        let first =
            |i: usize| format!("{}.{}.{}.weight", (names.block)(stage, i), names.convs[0], names.pair[0]);
        let found = count_by(&b, first);
        if found == 0 {
            break;
        }
        for i in 0..found {
            let stride = if i == 0 { 2 } else { 1 };
            x = names.bottleneck(&mut b, x, &(names.block)(stage, i), stride, activation, eps)?;
        }
        blocks.push(found);
    }
    reading.saw(format!("stages of {blocks:?} blocks"));
    let x = b.global_pool(x);
    let head = head(&b, reading, &[names.head])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

impl Names {
    /// A filter and its norm.
    fn normed(&self, b: &mut Builder, x: NodeId, name: &str, stride: usize, eps: f32) -> Result<NodeId> {
        let [conv, norm] = self.pair.map(|part| format!("{name}.{part}"));
        Normed { conv: &conv, norm: &norm, stride, eps, same: false }.compose(b, x)
    }

    /// A bottleneck: the stride is in its second filter.
    fn bottleneck(
        &self,
        b: &mut Builder,
        x: NodeId,
        name: &str,
        stride: usize,
        activation: Activation,
        eps: f32,
    ) -> Result<NodeId> {
        let part = |part: &str| format!("{name}.{part}");
        let shortcut =
            |b: &mut Builder| match b.has(&format!("{name}.{}.{}.weight", self.shortcut, self.pair[0])) {
                true => self.normed(b, x, &part(self.shortcut), stride, eps),
                false => Ok(x),
            };
        let mut across = if self.shortcut_first { shortcut(b)? } else { x };
        let mut y = x;
        for (k, conv) in self.convs.into_iter().enumerate() {
            y = self.normed(b, y, &part(conv), if k == 1 { stride } else { 1 }, eps)?;
            if k < 2 {
                y = b.activation(y, activation);
            }
            if k == 1 && b.has(&part(&format!("{}.fc1.weight", self.squeeze))) {
                let names = ["fc1", "fc2"].map(|layer| part(&format!("{}.{layer}", self.squeeze)));
                y = squeeze(b, y, [&names[0], &names[1]], [activation, Activation::Sigmoid])?;
            }
        }
        if !self.shortcut_first {
            across = shortcut(b)?;
        }
        let y = b.add(y, across)?;
        Ok(b.activation(y, activation))
    }
}
