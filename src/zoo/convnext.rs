//! ConvNeXt (Liu et al. 2022) as torchvision, timm and Hugging Face name it: depthwise 7×7 filters, layer norms over channels,
//! and a layer scale at the end of every block, which training leaves as it is.
//!
//! ```text
//! features.0.{0 1} | features.{1 3 5 7}.{i}.{block.{0 2 3 5} layer_scale} | features.{2 4 6}.{0 1} | classifier.{0 2}
//! stem.{0 1} | stages.{s}.{downsample.{0 1} blocks.{i}.{conv_dw norm mlp.fc1 mlp.fc2 gamma}} | head.{norm fc}
//! convnext.embeddings.{patch_embeddings layernorm} | convnext.encoder.stages.{s}.{downsampling_layer.{0 1}
//!     layers.{i}.{dwconv layernorm pwconv1 pwconv2 layer_scale_parameter}} | convnext.layernorm | classifier
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{conv, count, square_image, weight};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};

/// A library's names.
struct Names {
    stem: [&'static str; 2],
    /// The norm and the filter before stage `s`, from 1 on.
    halving: fn(usize) -> [String; 2],
    /// What the blocks of stage `s`, from 0 on, are in.
    stage: fn(usize) -> String,
    /// Depthwise filter, norm, both layers, scale.
    block: [&'static str; 5],
    norm: &'static str,
    heads: &'static [&'static str],
    /// The eps of the last norm.
    eps: f32,
}

const TORCHVISION: Names = Names {
    stem: ["features.0.0", "features.0.1"],
    halving: |s| [0, 1].map(|part| format!("features.{}.{part}", 2 * s)),
    stage: |s| format!("features.{}", 2 * s + 1),
    block: ["block.0", "block.2", "block.3", "block.5", "layer_scale"],
    norm: "classifier.0",
    heads: &["classifier.2"],
    eps: 1e-6,
};

const TIMM: Names = Names {
    stem: ["stem.0", "stem.1"],
    halving: |s| [0, 1].map(|part| format!("stages.{s}.downsample.{part}")),
    stage: |s| format!("stages.{s}.blocks"),
    block: ["conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"],
    norm: "head.norm",
    heads: &["head.fc"],
    eps: 1e-6,
};

const HUGGING_FACE: Names = Names {
    stem: ["convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"],
    halving: |s| [0, 1].map(|part| format!("convnext.encoder.stages.{s}.downsampling_layer.{part}")),
    stage: |s| format!("convnext.encoder.stages.{s}.layers"),
    block: ["dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"],
    norm: "convnext.layernorm",
    heads: &["classifier"],
    eps: 1e-12,
};

pub(super) const FAMILY: Family = Family {
    name: "convnext",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
        needs: &[
            "features.0.0.weight",
            "features.1.0.block.0.weight",
            "features.1.0.layer_scale",
            "classifier.0.weight",
            "classifier.2.weight|classifier.2.#.weight",
        ],
        others: &[
            "features.#.#.weight",
            "features.#.#.bias",
            "features.#.#.block.#.*",
            "features.#.#.layer_scale",
            "classifier.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &[
            "stem.0.weight",
            "stem.1.weight",
            "stages.0.blocks.0.conv_dw.weight",
            "stages.0.blocks.0.mlp.fc1.weight",
            "head.norm.weight",
            "head.fc.weight|head.fc.#.weight",
        ],
        others: &["stem.#.bias", "stages.#.downsample.#.*", "stages.#.blocks.#.*", "head.*"],
        lacks: &["stages.#.blocks.#.mlp.grn.*", "stages.#.blocks.#.shortcut.*"],
    },
    Form {
        needs: &[
            "convnext.embeddings.patch_embeddings.weight",
            "convnext.encoder.stages.0.layers.0.dwconv.weight",
            "classifier.weight|classifier.#.weight",
        ],
        others: &[
            "convnext.embeddings.*",
            "convnext.encoder.stages.#.*",
            "convnext.layernorm.*",
            "classifier.*",
        ],
        lacks: &[],
    },
];

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let sizes = ["atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge", "xxlarge"];
    ["convnext", "convnextforimageclassification"].contains(&arch.as_str())
        || sizes.iter().any(|size| matches(&format!("convnext_{size}"), &arch))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(square_image(224, given.channels(&weight(names(given.source).stem[0]))))
}

fn names(source: &dyn Source) -> &'static Names {
    let known = [&TORCHVISION, &TIMM, &HUGGING_FACE];
    known.into_iter().find(|names| source.has(&weight(names.stem[0]))).unwrap_or(&TORCHVISION)
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let names = names(source);
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Gelu);
    let eps = reading.number(&["layer_norm_eps"])?.unwrap_or(names.eps);
    // Hugging Face's key is about the last norm alone.
    let inner = if reading.is_hugging_face() || names.eps < 1e-6 { 1e-6 } else { eps };
    reading.only(&[
        ("global_pool", "avg".into()),
        ("output_stride", 32.into()),
        ("conv_mlp", false.into()),
    ])?;
    if reading.arch.is_none() {
        reading.assume("a plain ConvNeXt: GELU, strides as published, the norm behind the pooling");
    }
    let (mut b, x) = start(source, image, reading)?;
    let mut x = patches(&mut b, x, names.stem[0])?;
    x = b.layer_norm(x, names.stem[1], inner)?;
    let mut blocks = vec![];
    for stage in 0.. {
        let name = (names.stage)(stage);
        let found = count(&b, &name, &weight(names.block[0]));
        if found == 0 {
            break;
        }
        if stage > 0 {
            let [norm, halving] = (names.halving)(stage);
            x = b.layer_norm(x, &norm, inner)?;
            x = patches(&mut b, x, &halving)?;
        }
        for i in 0..found {
            x = block(&mut b, x, &names.block.map(|part| format!("{name}.{i}.{part}")), activation, inner)?;
        }
        blocks.push(found);
    }
    reading.saw(format!("stages of {blocks:?} blocks"));
    let x = b.global_pool(x);
    let x = b.layer_norm(x, names.norm, eps)?;
    let head = head(&b, reading, names.heads)?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// A filter whose stride is its side.
fn patches(b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
    let (outputs, side) = (rows(b, &weight(name))?, b.side(&weight(name), 2)?);
    b.conv(x, name, outputs, Conv::square(side, side, 0))
}

fn block(
    b: &mut Builder,
    x: NodeId,
    [depthwise, norm, first, second, scale]: &[String; 5],
    activation: Activation,
    eps: f32,
) -> Result<NodeId> {
    let y = conv(b, x, depthwise, 1)?;
    if b.shape(y) != b.shape(x) {
        return Err(Error::config(format!("`{depthwise}` changes the shape, which no ConvNeXt's does")));
    }
    let y = b.layer_norm(y, norm, eps)?;
    let widths = [rows(b, &weight(first))?, rows(b, &weight(second))?];
    let y = b.linear(y, first, widths[0])?;
    let y = b.activation(y, activation);
    let mut y = b.linear(y, second, widths[1])?;
    if b.has(scale) {
        y = b.layer_scale(y, scale)?;
    }
    b.add(y, x)
}
