//! AlexNet (Krizhevsky 2014) as torchvision names it.
//!
//! ```text
//! features.{0 3 6 8 10} (3x3 max pooling of stride 2 after 0, 3 and 10) | 6x6 means | classifier.{1 4 6}
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{square_image, weight};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Conv, Network, Shape, Source, Window};

/// The number of a convolution, the side of its filter, its stride and padding, and whether pooling follows.
const CONVS: [(usize, usize, usize, usize, bool); 5] =
    [(0, 11, 4, 2, true), (3, 5, 1, 2, true), (6, 3, 1, 1, false), (8, 3, 1, 1, false), (10, 3, 1, 1, true)];

pub(super) const FAMILY: Family = Family {
    name: "alexnet",
    named,
    fit: |given| Some(fit(FORMS, given.names)),
    reads: Reads::Images { usual: image, any_size: true, compose },
};

const FORMS: &[Form] = &[Form {
    needs: &[
        "features.0.weight",
        "features.3.weight",
        "features.6.weight",
        "features.8.weight",
        "features.10.weight",
        "classifier.1.weight",
        "classifier.4.weight",
        "classifier.6.weight",
    ],
    others: &["features.#.bias", "classifier.#.bias"],
    lacks: &["features.11.*", "features.2.*", "features.13.*"],
}];

fn named(arch: &str) -> bool {
    ["alexnet", "tv_alexnet"].iter().any(|name| matches(name, arch))
}

fn image(given: &Given) -> Result<Option<Shape>> {
    Ok(square_image(224, given.channels("features.0.weight")))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Relu);
    reading.only(&[("global_pool", "avg".into())])?;
    if reading.arch.is_none() {
        reading.assume("torchvision's AlexNet: ReLU, strides, padding and pooling as published");
    }
    let (mut b, mut x) = start(source, image, reading)?;
    for (i, kernel, stride, padding, pools) in CONVS {
        let name = format!("features.{i}");
        let found = b.side(&weight(&name), 2)?;
        if found != kernel {
            return Err(Error::config(format!(
                "`{name}` has filters of {found}x{found}, those of torchvision's AlexNet are {kernel}x{kernel}; strides and \
                 padding of another one cannot be told"
            )));
        }
        let outputs = rows(&b, &weight(&name))?;
        x = b.conv(x, &name, outputs, Conv::square(kernel, stride, padding))?;
        x = b.activation(x, activation);
        if pools {
            x = b.max_pool(x, Window::square(3, 2, 0))?;
        }
    }
    x = b.adaptive_pool(x, 6, 6);
    x = b.flatten(x);
    for name in ["classifier.1", "classifier.4"] {
        let outputs = rows(&b, &weight(name))?;
        x = b.linear(x, name, outputs)?;
        x = b.activation(x, activation);
    }
    let head = head(&b, reading, &["classifier.6"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}
