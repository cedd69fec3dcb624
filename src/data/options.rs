//! The options by which labelled data are read.

use std::sync::Arc;

use super::normalise::Normalise;
use super::pipeline::{Pipeline, Steps};
use super::text_options::{TextOptions, TokenizerSource};
use super::tokenizer::Tokenizer;

/// How labelled data are read, where the file leaves it open.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Asked for: applied whatever the values are.
    pub normalise: Normalise,
    /// From the model's config, for values from 0 to 1; used where `normalise` gives nothing.
    pub config: Normalise,
    /// Which labels of CIFAR-100.
    pub labels: CifarLabels,
    /// From the model's config: the steps before pixels become numbers.
    pub preprocess: Preprocess,
    /// Asked for in place of these.
    pub steps: Steps,
    /// The most bytes that the pixels of a set of pictures take in memory; a larger one is read again whenever it is used. By default
    /// [`MEMORY`]. Pixels become numbers whenever they are used, but for sets that are small, or all with `usize::MAX`.
    pub memory: Option<usize>,
    /// Whether pictures that cannot be read are left out, and counted in a note.
    pub skip_corrupt: bool,
    /// How rows of text become token ids.
    pub texts: TextOptions,
    /// What the data are for.
    pub expected: Expected,
    /// Whether floats are inputs already, so that the config's mean and std are for pixels alone.
    pub floats_are_inputs: bool,
}

/// The default of [`LoadOptions::memory`], in bytes.
pub const MEMORY: usize = 4 << 30;

impl LoadOptions {
    /// For further data that belong to some that were loaded: of these classes, and by this tokenizer.
    pub fn go_on(&mut self, classes: Option<&Vec<String>>, tokenizer: Option<&Arc<Tokenizer>>) {
        if let Some(classes) = classes {
            self.expected.classes = Some(classes.clone());
        }
        if let Some(tokenizer) = tokenizer {
            self.texts.tokenizer = TokenizerSource::Ready(tokenizer.clone());
        }
    }
}

/// The steps that a model's config has for pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Preprocess {
    /// None.
    #[default]
    None,
    /// For pictures of any size. Pixels in arrays have their size already.
    Pictures(Pipeline),
    /// For pixels in arrays too, which the model was trained on in this way.
    Pixels(Pipeline),
    /// Some that cannot be followed, for this reason.
    Unknown(String),
}

impl Preprocess {
    /// What is done to pictures.
    ///
    /// # Errors
    /// Where the config's steps cannot be followed and `steps` do not replace them, in words.
    pub(super) fn of_pictures(&self, steps: &Steps) -> Result<Pipeline, String> {
        match self {
            Preprocess::None => Ok(Pipeline::default().with(steps)),
            Preprocess::Pictures(own) | Preprocess::Pixels(own) => Ok(own.with(steps)),
            Preprocess::Unknown(_) if steps.resize.is_some() && steps.crop.is_some() => {
                Ok(Pipeline::default().with(steps))
            }
            Preprocess::Unknown(reason) => Err(reason.clone()),
        }
    }

    /// What is done to pixels in arrays.
    pub(super) fn of_pixels(&self, steps: &Steps) -> Pipeline {
        match self {
            Preprocess::Pixels(own) => own.with(steps),
            _ => Pipeline::default().with(steps),
        }
    }
}

/// What a model, or the training data, expect of data that are read for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Channels of an image, to which pictures are converted.
    pub channels: Option<usize>,
    /// Outputs of the model.
    pub outputs: Option<usize>,
    /// The names of classes by number: those of folders and words of a manifest are looked up here.
    pub classes: Option<Vec<String>>,
    /// The most tokens of a text.
    pub positions: Option<usize>,
}

/// The labels of CIFAR-100, which has two for each image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CifarLabels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 groups of them.
    Coarse,
}

crate::names::names!(CifarLabels {
    Fine = "fine": "the 100 classes",
    Coarse = "coarse": "the 20 groups of them",
});
