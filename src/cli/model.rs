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
    /// The family, where neither config nor tensor names say it: mlp, small_cnn, resnet20, resnet50, vgg16, vit ..
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
}

/// How data become what the model was trained on.
#[derive(clap::Args)]
pub struct NormaliseArgs {
    /// Mean per channel of values from 0 to 1, in place of the config's
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation per channel, in place of the config's
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

    /// Reads the model, for the images of a file where there is one.
    pub fn open(&self, checkpoint: &Checkpoint, data: Option<(&Path, &Samples)>) -> scrubjay::Result<Opened> {
        open(checkpoint, self.arch.as_deref(), data)
    }
}

/// Reads a model of the family `arch`, else of the one it shows, for the images of a file where there is one.
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
