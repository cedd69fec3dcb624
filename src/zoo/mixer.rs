//! MLP-Mixer (Tolstikhin et al. 2021) as timm names it: patches by a convolution, then blocks of two hidden layers, one over the
//! tokens of each channel and one over the channels of each token. The head reads the mean of all tokens.
//!
//! ```text
//! stem.proj | blocks.{i}.{norm1 mlp_tokens.fc1 mlp_tokens.fc2 norm2 mlp_channels.fc1 mlp_channels.fc2} | norm head
//! ```

use super::family::{Family, Given, Reads, rows, start};
use super::names::{Form, fit, head, matches};
use super::parts::{count, square_image, weight};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, Network, NodeId, Shape, Source};

pub(super) const FAMILY: Family = Family {
    name: "mixer",
    named: |arch| {
        arch == "mixer" || ["s", "b", "l"].iter().any(|size| matches(&format!("mixer_{size}#_#"), arch))
    },
    fit: |given| Some(fit(&[FORM], given.names)),
    reads: Reads::Images { usual: image, any_size: false, compose },
};

const FORM: Form = Form {
    needs: &[
        "stem.proj.weight",
        "blocks.0.norm1.weight",
        "blocks.0.mlp_tokens.fc1.weight",
        "blocks.0.mlp_channels.fc1.weight",
        "norm.weight",
        "head.weight|head.#.weight",
    ],
    others: &[
        "stem.proj.bias",
        "blocks.#.norm#.*",
        "blocks.#.mlp_tokens.fc#.*",
        "blocks.#.mlp_channels.fc#.*",
        "norm.bias",
        "head.*",
    ],
    lacks: &["blocks.#.mlp_tokens.norm.*", "blocks.#.mlp_tokens.gate.*"],
};

/// The square image of as many patches as the first layer over tokens reads.
fn image(given: &Given) -> Result<Option<Shape>> {
    let patches = given.channels("blocks.0.mlp_tokens.fc1.weight");
    let patch = given.source.shape("stem.proj.weight").and_then(|shape| shape.get(2)).copied();
    let sides =
        patches.zip(patch).map(|(patches, patch)| ((patches as f64).sqrt().round() as usize, patches, patch));
    let square = sides.filter(|(side, patches, _)| side * side == *patches);
    Ok(square.and_then(|(side, _, patch)| square_image(side * patch, given.channels("stem.proj.weight"))))
}

fn compose(source: &mut dyn Source, image: Shape, reading: &mut Reading) -> Result<Network> {
    let activation = reading.activation(&["act_layer", "hidden_act"])?.unwrap_or(Activation::Gelu);
    let eps = reading.number(&["layer_norm_eps"])?.unwrap_or(1e-6);
    reading.only(&[("global_pool", "avg".into())])?;
    if reading.arch.is_none() {
        reading.assume("a plain MLP-Mixer: GELU, eps 1e-6, the head behind the mean of all tokens");
    }
    let (mut b, x) = start(source, image, reading)?;
    let stem = weight("stem.proj");
    let (dim, patch) = (rows(&b, &stem)?, b.side(&stem, 2)?);
    let patches = b.side("blocks.0.mlp_tokens.fc1.weight", 1)?;
    let (down, right) = (image.h / patch.max(1), image.w / patch.max(1));
    if down * right != patches || (down * patch, right * patch) != (image.h, image.w) {
        let found = format!("these are {}x{}", image.h, image.w);
        return Err(Error::config(format!(
            "the model takes images of {patches} patches of {patch}x{patch}, {found}"
        )));
    }
    if down != right && reading.image.is_none() {
        reading.assume(format!("{down} rows of {right} patches: their number alone does not tell the shape"));
    }
    reading.saw(format!("{patches} patches of {patch}x{patch}, {dim} channels"));
    let x = b.conv(x, "stem.proj", dim, Conv::square(patch, patch, 0))?;
    let mut x = b.tokens(x);
    for i in 0..count(&b, "blocks", "norm1.weight") {
        let part = |part: &str| format!("blocks.{i}.{part}");
        let y = b.layer_norm(x, &part("norm1"), eps)?;
        let y = b.transpose(y)?;
        let y = hidden(&mut b, y, &part("mlp_tokens"), activation)?;
        let y = b.transpose(y)?;
        x = b.add(x, y)?;
        let y = b.layer_norm(x, &part("norm2"), eps)?;
        let y = hidden(&mut b, y, &part("mlp_channels"), activation)?;
        x = b.add(x, y)?;
    }
    let x = b.layer_norm(x, "norm", eps)?;
    let x = b.global_pool(x);
    let head = head(&b, reading, &["head"])?;
    let classes = rows(&b, &weight(&head))?;
    let x = b.linear(x, &head, classes)?;
    b.finish(x)
}

/// Two layers with a nonlinearity between, back to as many channels.
fn hidden(b: &mut Builder, x: NodeId, name: &str, activation: Activation) -> Result<NodeId> {
    let (first, second) = (format!("{name}.fc1"), format!("{name}.fc2"));
    let (hidden, c) = (rows(b, &weight(&first))?, b.shape(x).c);
    let y = b.linear(x, &first, hidden)?;
    let y = b.activation(y, activation);
    b.linear(y, &second, c)
}
