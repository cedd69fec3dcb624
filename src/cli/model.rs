//! The options that name a model and its data.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::{Normalise, Samples};
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

    /// Reads data, normalised by the options, else by the model's config.
    pub fn load(&self, path: &Path, checkpoint: &Checkpoint) -> scrubjay::Result<Samples> {
        Sources { normalise: self.given(), ..Sources::default() }.load(path, checkpoint)
    }
}
