//! VGG (Simonyan & Zisserman 2015) as torchvision and timm name it, with and without batch norm. The gaps between the
//! numbers of `features` show where max pooling is.
//!
//! In torchvision's names adaptive pooling brings the image to the size that the first linear layer reads. In timm's the
//! first two layers of the head are filters: an image larger than the first one is seen at several places, of which the
//! last layer reads the mean; a smaller one is brought to its size.
//!
//! ```text
//! features.{i} (convolution, batch norm) | classifier.{0,3,6}, or pre_logits.{fc1,fc2} head.fc
//! features.{i} | classifier, or classifier.{1,4,6}, as they are written for CIFAR, without adaptive pooling
//! ```

use serde_json::json;

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{flatten_exactly, square_image};
use super::reading::Reading;
use super::resnet::{BATCH_NORM_EPS, odd};
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "vgg",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[
    Form {
        needs: &["features.0.weight", "classifier.0.weight", "classifier.6.weight|classifier.6.#.weight"],
        others: &[
            "features.#.*",
            "classifier.0.bias",
            "classifier.3.weight",
            "classifier.3.bias",
            "classifier.6.*",
        ],
        lacks: &[],
    },
    Form {
        needs: &["features.0.weight", "pre_logits.fc1.weight", "head.fc.weight|head.fc.#.weight"],
        others: &["features.#.*", "pre_logits.fc1.bias", "pre_logits.fc2.*", "head.fc.*"],
        lacks: &[],
    },
    Form {
        needs: &["features.0.weight", "classifier.weight"],
        others: &["features.#.*", "classifier.bias"],
        lacks: &["features.0.#.*"],
    },
    Form {
        needs: &["features.0.weight", "classifier.1.weight", "classifier.4.weight", "classifier.6.weight"],
        others: &["features.#.*", "classifier.#.bias"],
        lacks: &[],
    },
];

fn named(arch: &str) -> bool {
    let arch = arch.replace('-', "_");
    let sizes = ["vgg", "vgg#", "vgg#_bn", "vgg_#", "vgg#_w#", "vgg#_bn_w#"];
    let bare = arch.strip_prefix("tv_").unwrap_or(&arch);
    sizes
        .iter()
        .any(|name| ["", "_cifar#", "_cifar"].iter().any(|end| matches(&format!("{name}{end}"), bare)))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    let torchvision = ["classifier.0.weight", "pre_logits.fc1.weight"];
    let side = if torchvision.iter().any(|name| given.source.has(name)) { 224 } else { 32 };
    Ok(square_image(side, given.channels("features.0.weight")))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let number =
        |name: &String| name.strip_prefix("features.")?.strip_suffix(".weight")?.parse::<usize>().ok();
    let mut numbers: Vec<usize> = reading.names.iter().filter_map(number).collect();
    numbers.retain(|i| source.shape(&format!("features.{i}.weight")).is_some_and(|shape| shape.len() == 4));
    numbers.sort_unstable();
    let normed = source.has("features.1.running_mean");
    let plain = if normed { 3 } else { 2 }; // convolution, batch norm, ReLU
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    let eps = reading.number(BATCH_NORM_EPS)?.unwrap_or(1e-5);
    reading.only(&[("global_pool", json!("avg")), ("output_stride", json!(32))])?;
    if reading.arch.is_none() {
        reading.assume("a plain VGG: ReLU, filters padded to keep the image, 2x2 max pooling");
    }

    let (mut b, mut x) = start(source, image, reading)?;
    let mut pools = 0;
    for (at, &i) in numbers.iter().enumerate() {
        let weight = format!("features.{i}.weight");
        let (outputs, kernel) = (rows(&b, &weight)?, b.side(&weight, 2)?);
        let name = format!("features.{i}");
        x = b.conv(x, &name, outputs, Conv::square(odd(kernel, &name)?, 1, kernel / 2))?;
        if normed {
            x = b.batch_norm_with(x, &format!("features.{}", i + 1), eps)?;
        }
        x = b.activation(x, activation);
        match numbers.get(at + 1).map(|next| next - i) {
            Some(gap) if gap == plain => continue,
            None => {}
            Some(gap) if gap == plain + 1 => {}
            Some(gap) => {
                return Err(Error::config(format!(
                    "features.{i} is followed by a gap of {gap}; no VGG has one"
                )));
            }
        }
        x = b.max_pool(x, Window::square(2, 2, 0))?;
        pools += 1;
    }
    reading.saw(format!("{} convolutions, max pooling at {pools} gaps between their numbers", numbers.len()));
    if pools != 5 {
        reading.assume(format!("the {pools} gaps are max pooling, though every VGG has 5 of them"));
    }
    x = match b.has("classifier.weight") || b.has("classifier.4.weight") {
        true => of_all_values(&mut b, x, reading, activation)?,
        false => classifier(&mut b, x, reading, activation)?,
    };
    b.finish(x)
}

/// The head of one linear layer, or of three behind dropout, that reads all values of the map.
fn of_all_values(
    b: &mut Builder,
    x: NodeId,
    reading: &mut Reading,
    activation: Activation,
) -> Result<NodeId> {
    let single = b.has("classifier.weight");
    let mut x = flatten_exactly(b, x, if single { "classifier" } else { "classifier.1" })?;
    for name in ["classifier.1", "classifier.4"].into_iter().filter(|_| !single) {
        let outputs = rows(b, &format!("{name}.weight"))?;
        x = b.linear(x, name, outputs)?;
        x = b.activation(x, activation);
    }
    let last = head(b, reading, &[if single { "classifier" } else { "classifier.6" }])?;
    let classes = rows(b, &format!("{last}.weight"))?;
    b.linear(x, &last, classes)
}

/// The head: three linear layers with the nonlinearity between them.
fn classifier(b: &mut Builder, x: NodeId, reading: &mut Reading, activation: Activation) -> Result<NodeId> {
    let timm = b.has("pre_logits.fc1.weight");
    let [first, second] =
        if timm { ["pre_logits.fc1", "pre_logits.fc2"] } else { ["classifier.0", "classifier.3"] };
    let last = head(b, reading, &[if timm { "head.fc" } else { "classifier.6" }])?;
    let weight = format!("{first}.weight");
    let Shape { h, w, c } = b.shape(x);
    let reads = match timm {
        true => b.side(&weight, 2)? * b.side(&weight, 3)?,
        false => b.side(&weight, 1)? / c.max(1),
    };
    let side = (reads as f64).sqrt().round() as usize;
    let (down, right) = if timm { (side.max(h), side.max(w)) } else { (side, side) };
    let mut x = x;
    if (down, right) != (h, w) {
        if side != 7 {
            reading.assume(format!("adaptive pooling from {h}x{w} to {down}x{right} before `{first}`"));
        }
        x = b.adaptive_pool(x, down, right);
    }
    let widths =
        [rows(b, &weight)?, rows(b, &format!("{second}.weight"))?, rows(b, &format!("{last}.weight"))?];
    if (down, right) == (side, side) {
        x = b.flatten(x);
        x = b.linear(x, first, widths[0])?;
        x = b.activation(x, activation);
        x = b.linear(x, second, widths[1])?;
        x = b.activation(x, activation);
    } else {
        x = b.conv(x, first, widths[0], Conv::square(side, 1, 0))?;
        x = b.activation(x, activation);
        x = b.conv(x, second, widths[1], Conv::square(1, 1, 0))?;
        x = b.activation(x, activation);
        x = b.global_pool(x);
    }
    b.linear(x, &last, widths[2])
}
