//! What of the files of a training is read and refused.

use serde_json::{Value, json};

use super::options::TrainOptions;
use crate::checkpoint::Checkpoint;
use crate::data::Samples;
use crate::error::{Error, Result};
use crate::net::Network;
use crate::session::Sources;
use crate::zoo;

/// Refuses what contradicts itself.
pub(super) fn check_sources(
    sources: &Sources,
    arch: Option<&str>,
    model: bool,
    options: &TrainOptions,
) -> Result<()> {
    match (arch, model) {
        (Some(_), true) => Err(Error::config("--arch describes a new model, and --model is one that exists")),
        (None, false) => Err(Error::config("--arch or --model says what to train")),
        (Some(_), false) if tells_how_to_read(sources) => {
            Err(Error::config("--heads, --stem, --ignore and --weights are for --model"))
        }
        (None, true) if options.label_smoothing.is_some() => {
            Err(Error::config("--label-smoothing is for a new model; one that exists has its own loss"))
        }
        _ => Ok(()),
    }
}

/// Whether the caller tells what the tensors of a model do not.
pub(super) fn tells_how_to_read(sources: &Sources) -> bool {
    let Sources { choices, ignore, weights, .. } = sources;
    choices.heads.is_some() || choices.stem.is_some() || !ignore.is_empty() || !weights.is_empty()
}

/// A model that exists, read for the samples; what was assumed of it becomes notes.
pub(super) fn existing_model(
    checkpoint: &Checkpoint,
    sources: &Sources,
    samples: &Samples,
    notes: &mut Vec<String>,
) -> Result<(Network, Value)> {
    let model = zoo::load_for(checkpoint, &sources.choices, &sources.data, samples.kind)?;
    notes.extend(model.facts.notes(checkpoint.path()));
    let config = checkpoint.config().cloned();
    let config = config.unwrap_or_else(|| json!({"architecture": model.family}));
    Ok((model.network, config))
}

/// The samples that are not excluded.
pub(super) fn rest(samples: &Samples, excluded: &[usize], what: &str) -> Result<Vec<usize>> {
    let mut used = vec![true; samples.y.len()];
    excluded.iter().for_each(|&i| used[i] = false);
    let indices: Vec<usize> = (0..samples.y.len()).filter(|&i| used[i]).collect();
    match (indices.is_empty(), excluded.is_empty()) {
        (false, _) => Ok(indices),
        (true, true) => Err(Error::config(format!("{what}: holds no samples"))),
        (true, false) => Err(Error::config(format!("{what}: --exclude leaves no samples to train on"))),
    }
}
