//! The files that a session is opened from, and how their data are read.

use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::data::{self, CifarLabels, LoadOptions, Loaded, Normalise, Steps, TextOptions, TokenizerSource};
use crate::error::Result;
use crate::zoo::{self, Choices};

/// Tokens of a new vocabulary at most, for texts without a model.
const NEW_VOCABULARY: usize = 8000;

/// The files of a session.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The model: a `.safetensors` file, one of torch.save's, or a directory with such a file and `config.json`.
    pub model: PathBuf,
    /// What the tensors of the model do not tell.
    pub choices: Choices,
    /// Patterns of tensors that play no part in the logits, as `aux.*`; they are written unchanged.
    pub ignore: Vec<String>,
    /// Keys of the weights in PyTorch files that have several, as `state_dict`: the first that a file has is taken.
    pub weights: Vec<String>,
    /// The training data, or the part of it that is left.
    pub data: PathBuf,
    /// Mean and standard deviation in place of the config's.
    pub normalise: Normalise,
    /// Steps in place of those that the config has for pictures.
    pub steps: Steps,
    /// The most bytes of the inputs of a set in memory, as [`LoadOptions::memory`].
    pub memory: Option<usize>,
    /// Whether pictures that cannot be read are left out.
    pub skip_corrupt: bool,
    /// Which labels of CIFAR-100.
    pub cifar_labels: CifarLabels,
    /// How rows of text are read; where no tokenizer is given, it is the one in the model's folder, and without a model a new
    /// one that is made of them.
    pub texts: TextOptions,
    /// A set to remove that is not among the data.
    pub forget_data: Option<PathBuf>,
    /// Validation data: calibration, and the gate.
    pub validation: Option<PathBuf>,
    /// The model of an earlier epoch, for finite differences.
    pub earlier: Option<PathBuf>,
    /// A model that has not seen the samples to remove, as a hold's proxy.
    pub proxy: Option<PathBuf>,
}

impl Sources {
    /// A model and its training data, and nothing else.
    pub fn new(model: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Sources {
        Sources { model: model.into(), data: data.into(), ..Sources::default() }
    }

    /// Reads a model's files.
    pub(crate) fn checkpoint(&self, model: &Path) -> Result<Checkpoint> {
        Checkpoint::open_with(model, &self.ignore, &self.weights)
    }

    /// How data are read: as is chosen here, and as the configs of a model say.
    pub fn load_options(&self, checkpoint: Option<&Checkpoint>) -> LoadOptions {
        let config = checkpoint.map(zoo::inputs).unwrap_or_default();
        let mut texts = self.texts.clone();
        if matches!(texts.tokenizer, TokenizerSource::Missing) {
            texts.tokenizer = match checkpoint {
                Some(checkpoint) => TokenizerSource::Beside(checkpoint.folder().into()),
                None => TokenizerSource::Made(NEW_VOCABULARY),
            };
        }
        LoadOptions {
            normalise: self.normalise.clone(),
            config: Normalise { mean: config.mean, std: config.std },
            labels: self.cifar_labels,
            preprocess: config.preprocess,
            steps: self.steps,
            memory: self.memory,
            skip_corrupt: self.skip_corrupt,
            texts,
            expected: checkpoint.map(|model| zoo::expected(model, &self.choices)).unwrap_or_default(),
            ..LoadOptions::default()
        }
    }

    /// Reads data of a model.
    ///
    /// # Errors
    /// As [`data::load_with`].
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> Result<Loaded> {
        data::load_with(path, &self.load_options(Some(checkpoint)))
    }
}
