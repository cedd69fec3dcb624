//! VGG-Face (Parkhi et al. 2015) under the names of Caffe: blocks of 3×3 filters, max pooling behind each, three linear
//! layers.
//!
//! ```text
//! conv_{b}_{i}, or conv{b}_{i} | fc6 fc7 fc8
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{conv, flatten_exactly, square_image, weight};
use super::reading::Reading;
use crate::error::Result;
use crate::net::{Activation, Network, Shape, Source, Window};

pub(super) const FAMILY: Family = Family {
    name: "vgg-face",
    named: |arch| {
        ["vgg_face", "vggface", "vgg_face_#"].iter().any(|name| matches(name, &arch.replace('-', "_")))
    },
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: false, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "conv_1_1.weight|conv1_1.weight",
        "conv_2_1.weight|conv2_1.weight",
        "fc6.weight",
        "fc7.weight",
        "fc8.weight",
    ],
    others: &["conv_#_#.*", "conv#_#.*", "fc6.bias", "fc7.bias", "fc8.bias"],
    lacks: &["*.running_mean"],
}];

/// The side that the first linear layer tells, where five times 2x2 pooling comes before.
fn image(given: &Given) -> Result<Option<Shape>> {
    let stem = if given.source.has("conv_1_1.weight") { "conv_1_1.weight" } else { "conv1_1.weight" };
    let last = given.names.iter().filter(|name| name.starts_with("conv_5") || name.starts_with("conv5"));
    let channels = last.filter_map(|name| given.source.shape(name)).map(|shape| shape[0]).next();
    let reads = given.source.shape("fc6.weight").and_then(|shape| shape.get(1));
    let side = channels.zip(reads).map(|(c, reads)| (reads / c.max(1)).isqrt() * 32);
    Ok(square_image(side.unwrap_or(224), given.channels(stem)))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    if reading.arch.is_none() {
        reading
            .assume("a plain VGG: ReLU, filters padded to keep the image, 2x2 max pooling behind each block");
    }
    let (mut b, mut x) = start(source, image, reading)?;
    let mut blocks = vec![];
    for block in 1.. {
        let name = |i: usize| {
            let under = format!("conv_{block}_{i}");
            if reading.names.contains(&weight(&under)) { under } else { format!("conv{block}_{i}") }
        };
        let found = (1..).take_while(|&i| b.has(&weight(&name(i)))).count();
        if found == 0 {
            break;
        }
        for i in 1..=found {
            x = conv(&mut b, x, &name(i), 1)?;
            x = b.activation(x, activation);
        }
        x = b.max_pool(x, Window::square(2, 2, 0))?;
        blocks.push(found);
    }
    reading.saw(format!("blocks of {blocks:?} convolutions"));
    x = flatten_exactly(&mut b, x, "fc6")?;
    for name in ["fc6", "fc7"] {
        let outputs = rows(&b, &weight(name))?;
        x = b.linear(x, name, outputs)?;
        x = b.activation(x, activation);
    }
    let head = head(&b, reading, &["fc8"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}
