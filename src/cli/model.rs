//! The options that name a model and its data.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{self, CifarLabels, Labels, LoadOptions, Loaded, Names, Normalise, Samples};
use scrubjay::net::Network;
use scrubjay::session::{Sources, open_model};
use scrubjay::zoo::{self, Choices, Facts, Stem};

/// Which model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model: a .safetensors or .pth file, or a directory with such a file and config.json
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    #[command(flatten)]
    pub choices: ChoiceArgs,
}

/// What the tensors of a model do not tell.
#[derive(clap::Args)]
pub struct ChoiceArgs {
    /// The family, where neither config nor tensor names show it: mlp, small_cnn, resnet20, resnet50, vgg16, vit,
    /// distilbert, bert ..
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    #[command(flatten)]
    tensors: TensorArgs,
}

/// What the tensors of a model do not tell, whatever its family.
#[derive(clap::Args)]
pub struct TensorArgs {
    /// The number of attention heads of a transformer, where its config does not say it
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// How a ResNet begins: stride1, stride1+pool, stride2 or stride2+pool (by default 7x7: stride2+pool, 3x3: stride1)
    #[arg(long, value_enum, hide_possible_values = true, value_name = "STEM")]
    stem: Option<Stem>,
    /// Tensors that play no part in the logits, as 'aux.*'; they are written unchanged. May be given several times
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,
    /// The key of the weights in a PyTorch file that has several sets, as state_dict or ema/shadow, or . for its own
    /// tensors. May be given several times: the first that a file has is taken
    #[arg(long, value_name = "KEY")]
    weights: Vec<String>,
}

/// How stored values become the inputs that the model was trained on.
#[derive(clap::Args)]
pub struct NormaliseArgs {
    /// Of images: mean per channel, subtracted from values from 0 to 1; by default the config's
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Of images: standard deviation per channel, to divide by; by default the config's
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Which labels of CIFAR-100: the 100 classes, or their 20 groups
    #[arg(long, value_enum, default_value_t = CifarLabels::Fine, value_name = "fine|coarse")]
    cifar_labels: CifarLabels,
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

    /// Reads the model; where data are given, for their images or texts.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        self.choices.open(checkpoint, data)
    }
}

impl ChoiceArgs {
    /// Reads a checkpoint without the ignored tensors.
    pub fn checkpoint(&self, path: &Path) -> scrubjay::Result<Checkpoint> {
        self.tensors.checkpoint(path)
    }

    /// The choices for the registry.
    pub fn choices(&self) -> Choices {
        Choices { arch: self.arch.clone(), ..self.tensors.choices() }
    }

    /// Keys of the weights in PyTorch files.
    pub fn weights(&self) -> Vec<String> {
        self.tensors.weights.clone()
    }

    /// The patterns of tensors that play no part.
    pub fn ignored(&self) -> Vec<String> {
        self.tensors.ignore.clone()
    }

    /// Reads a model; where data are given, for their images or texts. What had to be assumed is printed.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        let model = match data {
            Some((path, samples)) => open_model(checkpoint, &self.choices(), path, samples)?,
            None => zoo::load_as(checkpoint, &self.choices(), None)?,
        };
        print_notes(checkpoint, &model.facts);
        Ok(Opened { network: model.network.freeze(), family: model.family, facts: model.facts })
    }

    /// Reads a model without its values, which stay 0.
    pub fn outline(&self, checkpoint: &Checkpoint) -> scrubjay::Result<Opened> {
        let model = zoo::outline(checkpoint, &self.choices())?;
        print_notes(checkpoint, &model.facts);
        Ok(Opened { network: model.network.freeze(), family: model.family, facts: model.facts })
    }
}

impl TensorArgs {
    /// Reads a checkpoint without the ignored tensors.
    pub fn checkpoint(&self, path: &Path) -> scrubjay::Result<Checkpoint> {
        Checkpoint::open_with(path, &self.ignore, &self.weights)
    }

    /// The choices for the registry.
    pub fn choices(&self) -> Choices {
        Choices { arch: None, heads: self.heads, stem: self.stem }
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.choices() == Choices::default() && self.ignore.is_empty() && self.weights.is_empty()
    }

    /// What is given, as `train.json` has it.
    pub fn given(&self) -> serde_json::Value {
        serde_json::json!({
            "heads": self.heads, "stem": self.stem, "ignore": self.ignore, "weights": self.weights,
        })
    }

    /// Writes what was chosen to the `config.json` of a model that was read by it.
    pub fn write(&self, config: &mut serde_json::Map<String, serde_json::Value>) {
        self.heads
            .iter()
            .for_each(|heads| drop(config.insert("num_attention_heads".into(), (*heads).into())));
        self.stem.iter().for_each(|stem| drop(config.insert("stem".into(), stem.name().into())));
    }
}

/// Prints on stderr what nothing says about a model and was assumed.
pub fn print_notes(checkpoint: &Checkpoint, facts: &Facts) {
    facts.notes(checkpoint.path()).iter().for_each(|note| eprintln!("{note}"));
}

impl NormaliseArgs {
    /// As given.
    pub fn given(&self) -> Normalise {
        Normalise { mean: self.mean.clone(), std: self.std.clone() }
    }

    /// Which labels of CIFAR-100.
    pub fn cifar_labels(&self) -> CifarLabels {
        self.cifar_labels
    }

    /// Reads data, normalised by the options, else by the model's config; reports on stderr how, where that was not
    /// certain.
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> scrubjay::Result<Loaded> {
        let (normalise, cifar_labels) = (self.given(), self.cifar_labels);
        let loaded = Sources { normalise, cifar_labels, ..Sources::default() }.load(path, checkpoint)?;
        Ok(reported(path, loaded))
    }
}

/// Reads data, and reports on stderr how, where that was not certain.
pub fn load(path: &Path, options: &LoadOptions) -> scrubjay::Result<Loaded> {
    Ok(reported(path, data::load_with(path, options)?))
}

/// The samples that a choice takes of the data of a file, which are `what` to the user; the first few are listed on stderr.
pub fn chosen(
    what: &str,
    text: &str,
    path: &Path,
    labels: &Labels,
    names: &Names,
) -> scrubjay::Result<Vec<usize>> {
    let chosen = data::choose(text, path, labels, names)?;
    eprintln!("{what}: {}", data::listing(&chosen, labels, names));
    Ok(chosen)
}

fn reported(path: &Path, loaded: Loaded) -> Loaded {
    loaded.notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
    loaded
}
