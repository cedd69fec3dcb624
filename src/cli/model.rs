//! The options that name a model and its data.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{self, CifarLabels, LoadOptions, Loaded, Normalise, Samples};
use scrubjay::net::Network;
use scrubjay::session::{Sources, open_model};
use scrubjay::zoo;

/// Which model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model: a .safetensors file, or a directory with model.safetensors and config.json
    #[arg(long, value_name = "M")]
    pub model: PathBuf,
    /// The family, where neither config nor tensor names show it: mlp, small_cnn, resnet20, resnet50, vgg16, vit ..
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
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
    /// Which labels of CIFAR-100: the 100 classes, or their 20 groups
    #[arg(long, value_enum, default_value_t = CifarLabels::Fine, value_name = "fine|coarse")]
    cifar_labels: CifarLabels,
}

/// A model's network, frozen, and its family.
pub struct Opened {
    pub network: Network,
    pub family: &'static str,
}

impl ModelArgs {
    /// Reads the checkpoint alone.
    pub fn checkpoint(&self) -> scrubjay::Result<Checkpoint> {
        Checkpoint::open(&self.model)
    }

    /// Reads the model; where data are given, for their image shape.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        open(checkpoint, self.arch.as_deref(), data)
    }
}

/// Reads a model of the family `arch`, or else of the family that its config and tensors show; where data are given,
/// for their image shape.
pub fn open(
    checkpoint: &Checkpoint,
    arch: Option<&str>,
    data: Option<(&Path, &Samples)>,
) -> scrubjay::Result<Opened> {
    let (network, family) = match data {
        Some((path, samples)) => open_model(checkpoint, arch, path, samples)?,
        None => {
            let model = zoo::load(checkpoint, arch, None)?;
            (model.network.freeze(), model.family)
        }
    };
    Ok(Opened { network, family })
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
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> scrubjay::Result<Samples> {
        let (normalise, cifar_labels) = (self.given(), self.cifar_labels);
        let loaded = Sources { normalise, cifar_labels, ..Sources::default() }.load(path, checkpoint)?;
        Ok(reported(path, loaded))
    }
}

/// Reads data, and reports on stderr how, where that was not certain.
pub fn load(path: &Path, options: &LoadOptions) -> scrubjay::Result<Samples> {
    Ok(reported(path, data::load_with(path, options)?))
}

fn reported(path: &Path, loaded: Loaded) -> Samples {
    loaded.notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
    loaded.samples
}
