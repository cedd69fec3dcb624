//! The options that name a model and its data.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{self, Inputs, Normalise, Samples};
use scrubjay::net::Network;
use scrubjay::zoo::{self, Choices, Facts, Stem};

/// Which model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model: a .safetensors file, or a directory with model.safetensors and config.json
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    #[command(flatten)]
    pub choices: ChoiceArgs,
}

/// What the tensors of a model do not tell.
#[derive(clap::Args)]
pub struct ChoiceArgs {
    /// The family, where neither config nor tensor names show it: mlp, small_cnn, resnet20, resnet50, vgg16, vit ..
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// The number of attention heads of a ViT, where its config does not say it
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// How a ResNet begins: stride1, stride1+pool, stride2 or stride2+pool (by default 7x7: stride2+pool, 3x3: stride1)
    #[arg(long, value_name = "STEM")]
    stem: Option<Stem>,
    /// Tensors that play no part in the logits, as 'aux.*'; they are written unchanged. May be given several times
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,
}

/// How stored values become the inputs that the model was trained on.
#[derive(clap::Args)]
pub struct NormaliseArgs {
    /// Mean per channel, subtracted from values from 0 to 1; by default the config's
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation per channel, to divide by; by default the config's
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    std: Option<Vec<f32>>,
}

/// A model's network, frozen, and its family.
pub struct Opened {
    pub network: Network,
    pub family: &'static str,
    /// What is known from where.
    pub facts: Facts,
}

impl ModelArgs {
    /// Reads the checkpoint alone.
    pub fn checkpoint(&self) -> scrubjay::Result<Checkpoint> {
        self.choices.checkpoint(&self.model)
    }

    /// Reads the model; where data are given, for their image shape.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        self.choices.open(checkpoint, data)
    }
}

impl ChoiceArgs {
    /// Reads a checkpoint without the ignored tensors.
    pub fn checkpoint(&self, path: &Path) -> scrubjay::Result<Checkpoint> {
        Checkpoint::open_without(path, &self.ignore)
    }

    /// The choices for the registry.
    pub fn choices(&self) -> Choices {
        Choices { arch: self.arch.clone(), heads: self.heads, stem: self.stem }
    }

    /// Reads a model; where data are given, for their image shape. What had to be assumed is printed.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        let shape = data.map(|(_, samples)| samples.shape());
        let model = zoo::load_as(checkpoint, &self.choices(), shape)?;
        print_assumed(checkpoint, &model.facts);
        let network = model.network.freeze();
        if let Some((path, samples)) = data {
            data::check_classes(path, &samples.y, network.classes())?;
        }
        Ok(Opened { network, family: model.family, facts: model.facts })
    }
}

/// Prints what nothing says about a model and was assumed.
pub fn print_assumed(checkpoint: &Checkpoint, facts: &Facts) {
    let path = checkpoint.path().display();
    facts.assumed.iter().for_each(|fact| eprintln!("assumed: {path}: {fact}"));
}

impl NormaliseArgs {
    /// Reads data, normalised by the options, else by the model's config.
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> scrubjay::Result<Samples> {
        let config = zoo::inputs(checkpoint);
        let normalise =
            Normalise { mean: self.mean.clone().or(config.mean), std: self.std.clone().or(config.std) };
        data::load(path, &normalise)
    }
}
