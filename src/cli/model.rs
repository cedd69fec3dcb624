//! The options that name a model and its data.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{
    self, CifarLabels, Crop, Interpolation, LoadOptions, Loaded, Normalise, Resize, Samples, Steps,
    TextOptions, TokenizerSource,
};
use scrubjay::net::Network;
use scrubjay::session::{Sources, open_model};
use scrubjay::zoo::{self, Choices, Facts, Stem};

/// Which model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model: a .safetensors, .pth or .onnx file, a directory with such a file and config.json, or from the local caches
    /// hf:ORG/NAME[@REVISION], timm:NAME or torchvision:NAME
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    #[command(flatten)]
    pub choices: ChoiceArgs,
}

/// What the tensors of a model do not tell.
#[derive(clap::Args)]
pub struct ChoiceArgs {
    /// The family of networks, where neither the config nor the names of the tensors show it: mlp, small_cnn, resnet20,
    /// resnet50, vgg16, vit, distilbert, bert .. (docs/MODELS.md lists all)
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    #[command(flatten)]
    tensors: TensorArgs,
}

/// What the tensors of a model do not tell, whatever its family.
#[derive(clap::Args)]
pub struct TensorArgs {
    /// The number of attention heads of a transformer, where its config does not have it
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// How a ResNet begins: with a convolution of stride 1 or 2, and with max pooling behind it or not; by default
    /// stride2+pool where its filter is 7x7, stride1 where it is 3x3
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "stride1|stride1+pool|stride2|stride2+pool"
    )]
    stem: Option<Stem>,
    /// Tensors that play no part in the logits, as 'aux.*'; they are copied unchanged. Can be repeated
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,
    /// The key of the weights in a PyTorch file that has several sets, as state_dict or ema/shadow; . stands for the
    /// tensors outside any of them. Can be repeated: the first that a file has is taken
    #[arg(long, value_name = "KEY")]
    weights: Vec<String>,
}

/// Steps in place of those that the model's config has for pictures.
#[derive(clap::Args)]
pub struct StepArgs {
    /// Of pictures: scale the shorter side to N pixels, or both sides to HxW; by default as the model's config says
    #[arg(long, value_name = "N|HxW|none")]
    resize: Option<Resize>,
    /// Of pictures: cut out N x N or H x W pixels at the centre; by default as the model's config says
    #[arg(long, value_name = "N|HxW|none")]
    crop: Option<Crop>,
    /// How --resize mixes pixels, by Pillow's filters; by default as the model's config says, else bilinear
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "nearest|box|bilinear|hamming|bicubic|lanczos"
    )]
    interpolation: Option<Interpolation>,
    /// Leave out pictures that cannot be read, and report how many; samples are then numbered without them
    #[arg(long)]
    skip_corrupt: bool,
    /// The most memory for the pixels of a set of pictures, in MiB; where a set needs more, they are read and decoded again
    /// whenever they are used
    #[arg(long, value_name = "MIB", default_value_t = data::MEMORY >> 20)]
    inputs_memory: usize,
}

impl StepArgs {
    /// As given.
    pub fn given(&self) -> Steps {
        Steps { resize: self.resize, interpolation: self.interpolation, crop: self.crop }
    }

    /// Writes what is given to the sources of a session.
    pub fn write(&self, sources: &mut Sources) {
        sources.steps = self.given();
        sources.skip_corrupt = self.skip_corrupt;
        sources.memory = Some(self.inputs_memory.saturating_mul(1 << 20));
    }
}

/// How stored values become the inputs that the model was trained on.
#[derive(clap::Args)]
pub struct NormaliseArgs {
    #[command(flatten)]
    steps: StepArgs,
    /// Of images: mean per channel, of pixels in 0..1; else the config's
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Of images: standard deviation per channel; else the config's
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Which labels of CIFAR-100: the 100 classes, or their 20 groups
    #[arg(long, value_enum, default_value_t = CifarLabels::Fine, value_name = "fine|coarse")]
    pub cifar_labels: CifarLabels,
    #[command(flatten)]
    texts: TextArgs,
}

/// How rows of text become the inputs that the model was trained on.
#[derive(clap::Args)]
pub struct TextArgs {
    /// Of texts: the tokenizer, a folder or a file (tokenizer.json, vocab.txt); by default the one beside the model
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Of texts: the most tokens that are kept of each; by default as many as the model takes
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Of texts: the column that has them; by default the one called text, sentence, message, content or the like
    #[arg(long, value_name = "COL")]
    text_column: Option<String>,
    /// Of texts and of tables of pictures: the column of labels, or several columns of 0 and 1; by default the one called
    /// label, labels, class or target
    #[arg(long, value_name = "COL,..", value_delimiter = ',')]
    label_column: Vec<String>,
}

impl TextArgs {
    /// As given.
    pub fn options(&self) -> TextOptions {
        TextOptions {
            tokenizer: self.tokenizer.clone().map_or(TokenizerSource::Missing, TokenizerSource::At),
            most: self.max_tokens,
            text: self.text_column.clone(),
            labels: self.label_column.clone(),
        }
    }
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

    /// Writes what is given to the sources of a session.
    pub fn fill(&self, sources: &mut Sources) {
        sources.choices = self.choices();
        (sources.ignore, sources.weights) = (self.ignore.clone(), self.weights.clone());
    }
}

/// Prints on stderr what nothing says about a model and was assumed.
pub fn print_notes(checkpoint: &Checkpoint, facts: &Facts) {
    facts.notes(checkpoint.path()).iter().for_each(|note| eprintln!("{note}"));
}

impl NormaliseArgs {
    /// Writes what is given to the sources of a session.
    pub fn write(&self, sources: &mut Sources) {
        sources.normalise = Normalise { mean: self.mean.clone(), std: self.std.clone() };
        sources.cifar_labels = self.cifar_labels;
        sources.texts = self.texts.options();
        self.steps.write(sources);
    }

    /// How data of a model are read: by these options, else as its config says.
    pub fn load_options(&self, checkpoint: Option<&Checkpoint>, choices: Choices) -> LoadOptions {
        let mut sources = Sources { choices, ..Sources::default() };
        self.write(&mut sources);
        sources.load_options(checkpoint)
    }
}

/// Reads data, and reports on stderr how, where that was not certain.
pub fn load(path: &Path, options: &LoadOptions) -> scrubjay::Result<Loaded> {
    let loaded = data::load_with(path, options)?;
    loaded.notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
    Ok(loaded)
}

/// How inputs are read that may be normalised already: pixels by the model's config, floats as they are.
pub fn input_options(model: &ModelArgs, texts: &TextArgs, checkpoint: &Checkpoint) -> LoadOptions {
    let sources = Sources { choices: model.choices.choices(), texts: texts.options(), ..Sources::default() };
    LoadOptions { floats_are_inputs: true, ..sources.load_options(Some(checkpoint)) }
}
