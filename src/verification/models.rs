//! The models that are compared, and the samples that they are measured on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::Block;
use crate::comparison::{Behaviour, Outputs, UNSEEN};
use crate::data::{self, Inputs, Samples, check_labels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::net::{self, Network};
use crate::relearn::relearned;
use crate::session::{Sources, open_model};
use crate::task::is_convex;
use crate::{hash, loss, zoo};

/// The samples that all models are measured on.
pub struct Sets {
    /// The data that the model before was trained on.
    pub samples: Arc<Samples>,
    /// Samples that no model has seen.
    pub test: Arc<Samples>,
    /// The samples that were to be removed, by index in the training data.
    pub forget: Vec<usize>,
    /// The retained samples that are measured on.
    pub retain: Vec<usize>,
    /// Indices in the test set of the samples that the forgotten are compared with: all, or those of their class.
    pub unseen: Vec<usize>,
    /// The class of all forgotten samples, where they have one in common.
    pub class: Option<u32>,
}

impl Sets {
    /// Of the samples to forget, and of those to retain; by default all others.
    ///
    /// # Errors
    /// Where the test set has inputs of another kind, a sample is to be forgotten and to be retained, none is retained, or
    /// fewer than [`UNSEEN`] test samples can be compared with the forgotten.
    pub fn new(
        samples: impl Into<Arc<Samples>>,
        test: impl Into<Arc<Samples>>,
        forget: Vec<usize>,
        retain: Option<Vec<usize>>,
    ) -> Result<Sets> {
        Sets::of(samples.into(), test.into(), forget, retain, Path::new("the test samples"))
    }

    /// [`Sets::new`] of a test set that lies at `path`.
    pub(super) fn of(
        samples: Arc<Samples>,
        test: Arc<Samples>,
        forget: Vec<usize>,
        retain: Option<Vec<usize>>,
        path: &Path,
    ) -> Result<Sets> {
        let n = samples.y.len();
        if test.kind != samples.kind {
            let reason = format!("has {}, --data has {}", test.kind, samples.kind);
            return Err(Error::data(path, reason));
        }
        if let Some(i) = forget.iter().chain(retain.iter().flatten()).find(|&&i| i >= n) {
            return Err(Error::config(data::beyond(*i, n)));
        }
        let mut forgotten = vec![false; n];
        forget.iter().for_each(|&i| forgotten[i] = true);
        let retain = retain.unwrap_or_else(|| (0..n).filter(|&i| !forgotten[i]).collect());
        if let Some(i) = retain.iter().find(|&&i| forgotten[i]) {
            return Err(Error::config(format!("sample {i} is to be forgotten and to be retained")));
        }
        if retain.is_empty() {
            return Err(Error::config("nothing is left to retain: every sample is to be forgotten"));
        }
        let class = forget.first().and_then(|&i| samples.y.class_of(i));
        let class = class.filter(|&class| forget.iter().all(|&i| samples.y.class_of(i) == Some(class)));
        let like = |&i: &usize| class.is_none() || test.y.class_of(i) == class;
        let unseen: Vec<usize> = (0..test.y.len()).filter(like).collect();
        if unseen.len() < UNSEEN {
            let of =
                class.map_or(String::new(), |class| format!(" of class {class}, like all forgotten ones,"));
            let reason = format!(
                "has {} samples{of} to compare the forgotten with; at least {UNSEEN} are needed",
                unseen.len()
            );
            return Err(Error::data(path, reason));
        }
        Ok(Sets { samples, test, forget, retain, unseen, class })
    }
}

/// A model to be compared.
pub struct Candidate {
    /// Where it lies.
    pub path: PathBuf,
    /// The network, frozen.
    pub network: Network,
    /// Its family.
    pub family: &'static str,
    /// SHA-256 of its files.
    pub sha256: String,
    pub(super) inputs: zoo::InputConfig,
    pub(super) folder: PathBuf,
    pub(super) manifest: Option<Manifest>,
}

impl Candidate {
    /// Reads a model, which has to fit the samples and the test data in the file `test`. Pushes what was assumed of it to
    /// `notes`.
    pub(super) fn open(
        sources: &Sources,
        path: &Path,
        sets: &Sets,
        test: &Path,
        notes: &mut Vec<String>,
    ) -> Result<Candidate> {
        let checkpoint = sources.checkpoint(path)?;
        let model = open_model(&checkpoint, &sources.choices, &sources.data, &sets.samples)?;
        notes.extend(model.facts.notes(checkpoint.path()));
        let network = model.network.freeze();
        check_labels(test, &sets.test.y, network.loss, network.classes())?;
        Ok(Candidate {
            path: path.into(),
            network,
            family: model.family,
            inputs: zoo::inputs(&checkpoint),
            sha256: hash::of_files_at(checkpoint.contents())?,
            folder: checkpoint.folder().into(),
            manifest: Manifest::of(&checkpoint)?,
        })
    }

    /// Its outputs on the sets.
    pub(super) fn behaviour(&self, device: &Device, sets: &Sets) -> Result<Behaviour> {
        behaviour(device, &self.network, sets).map_err(|error| match error {
            Error::Config(reason) => Error::checkpoint(&self.path, reason),
            other => other,
        })
    }
}

/// The outputs of a frozen network on the sets.
///
/// # Errors
/// Where a pass fails, or a logit is not finite.
pub fn behaviour(device: &Device, net: &Network, sets: &Sets) -> Result<Behaviour> {
    let outputs = |inputs: &dyn Inputs, labels: &[u32]| {
        let trace = net::outputs(device, net, inputs)?;
        if let Some(logit) = trace.logits.iter().find(|logit| !logit.is_finite()) {
            return Err(Error::config(format!("gives a logit of {logit}")));
        }
        let mut predicted = vec![0; labels.len()];
        net.loss.predict(&mut predicted, &trace.logits, net.classes())?;
        let surprisals = net::surprisals(net, &trace, labels)?;
        Ok(Outputs {
            losses: surprisals.into_iter().map(f64::from).collect(),
            accuracy: loss::right(&predicted, labels, net.label_width()) as f64 / trace.m as f64,
            logits: trace.logits,
        })
    };
    let part =
        |indices: &[usize]| outputs(&sets.samples.subset(indices), sets.samples.y.subset(indices).words());
    // One linear layer has a convex loss, whatever the weight decay.
    let convex = is_convex(net, 1.0);
    Ok(Behaviour {
        forget: part(&sets.forget)?,
        retain: part(&sets.retain)?,
        test: outputs(&*sets.test, sets.test.y.words())?,
        weights: if convex { Some(Block::all(net)?.values(net)) } else { None },
        relearned: relearned(device, net, &sets.samples, &sets.forget)?,
    })
}
