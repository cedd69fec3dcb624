//! What every family has: what it is recognised by, and how its network begins.

use serde_json::Value;

use super::names::Fit;
use super::reading::Reading;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::net::{Builder, Network, NodeId, Shape, Source};
use crate::ops::InputKind;

/// What a model has beside values: what a family is recognised by.
pub(super) struct Given<'a> {
    pub source: &'a dyn Source,
    pub names: &'a [String],
    pub config: &'a Value,
}

impl Given<'_> {
    /// The channels that a filter bank reads.
    pub fn channels(&self, weight: &str) -> Option<usize> {
        self.source.shape(weight)?.get(1).copied()
    }

    /// The buffers by which the model normalises its inputs.
    pub fn normalisation(&self) -> Option<(String, String)> {
        checkpoint::normalisation(self.names)
    }
}

/// A family of models.
pub(super) struct Family {
    pub name: &'static str,
    /// Whether the name of an architecture, in lower case, belongs to this family.
    pub named: fn(&str) -> bool,
    /// How the tensors compare with this family's; none where they are not even near.
    pub fit: fn(&Given) -> Option<Fit>,
    pub reads: Reads,
}

/// What a family reads.
pub(super) enum Reads {
    Images {
        /// The image shape where neither data nor config give one.
        usual: fn(&Given) -> Result<Option<Shape>>,
        /// Whether images of any size are taken, so that `usual` is only the usual size.
        any_size: bool,
        /// Composes the network.
        compose: fn(&mut dyn Source, Shape, &mut Reading) -> Result<Network>,
    },
    /// What its config says.
    Either {
        /// The texts that a config says; none where it says none.
        said: fn(&Value) -> Result<Option<InputKind>>,
        /// Composes the network.
        compose: fn(&mut dyn Source, InputKind, &mut Reading) -> Result<Network>,
    },
    Texts {
        /// The most tokens that a text may have.
        most: fn(&Given) -> Option<usize>,
        /// Composes the network for texts of this many tokens.
        compose: fn(&mut dyn Source, usize, &mut Reading) -> Result<Network>,
    },
}

impl Family {
    /// The network for these images or texts.
    ///
    /// # Errors
    /// Where the family reads the other of the two, or the tensors do not make it.
    pub fn network(
        &self,
        source: &mut dyn Source,
        input: InputKind,
        reading: &mut Reading,
    ) -> Result<Network> {
        let reads = match (&self.reads, input) {
            (Reads::Images { compose, .. }, InputKind::Image(shape)) => {
                return compose(source, shape, reading);
            }
            (Reads::Texts { compose, .. }, InputKind::Text { tokens }) => {
                return compose(source, tokens, reading);
            }
            (Reads::Either { compose, .. }, input) => return compose(source, input, reading),
            (Reads::Images { .. }, InputKind::Text { .. }) => "images",
            (Reads::Texts { .. }, InputKind::Image(_)) => "texts",
        };
        let reason = format!("is of the family {}, which reads {reads}; the data are {input}", self.name);
        Err(Error::config(reason))
    }
}

/// A network of a family's, begun: with the image, or with the image normalised by the model's own buffers.
pub(super) fn start<'a>(
    source: &'a mut dyn Source,
    image: Shape,
    reading: &mut Reading,
) -> Result<(Builder<'a>, NodeId)> {
    let buffers = checkpoint::normalisation(reading.names);
    let (mut b, x) = Builder::new(source, image);
    match buffers {
        None => Ok((b, x)),
        Some((mean, std)) => {
            reading.saw(format!("the model normalises its inputs itself, by `{mean}` and `{std}`"));
            let x = b.normalise(x, &mean, &std)?;
            Ok((b, x))
        }
    }
}

/// The class count of a head's weight.
pub(super) fn rows(b: &Builder, weight: &str) -> Result<usize> {
    b.side(weight, 0)
}
