//! The models that `verify` measures, and the samples that it measures them on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scrubjay::block::Block;
use scrubjay::comparison::{Behaviour, Outputs};
use scrubjay::data::tokenizer::Tokenizer;
use scrubjay::data::{Inputs, Samples, check_labels};
use scrubjay::device::Device;
use scrubjay::manifest::Manifest;
use scrubjay::net::{self, Network};
use scrubjay::task::is_convex;
use scrubjay::{Error, hash, loss, zoo};

use crate::cli::model::ChoiceArgs;

/// The samples that all models are measured on.
pub struct Sets {
    pub samples: Samples,
    pub test: Samples,
    pub forget: Vec<usize>,
    pub retain: Vec<usize>,
    /// Indices in the test set of the samples that the forgotten are compared with.
    pub unseen: Vec<usize>,
    /// The class of all forgotten samples, where they have one in common.
    pub class: Option<u32>,
    /// What made token ids of texts.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

/// A model to be measured.
pub struct Candidate<'a> {
    pub path: &'a Path,
    pub network: Network,
    pub family: &'static str,
    pub inputs: zoo::InputConfig,
    pub sha256: String,
    pub folder: PathBuf,
    /// Its `train.json`.
    pub manifest: Option<Manifest>,
}

impl<'a> Candidate<'a> {
    /// Reads it; it has to fit the samples and the test data, which is in the file `test`.
    pub fn open(
        choices: &ChoiceArgs,
        path: &'a Path,
        (data, test): (&Path, &Path),
        sets: &Sets,
    ) -> scrubjay::Result<Candidate<'a>> {
        let checkpoint = choices.checkpoint(path)?;
        let model = choices.open(&checkpoint, Some((data, &sets.samples)))?;
        if let (Some(used), Some(own)) = (&sets.tokenizer, Tokenizer::within(checkpoint.folder())?)
            && !own.reads_alike(used)
        {
            let reason = "has another tokenizer than --before, and texts are read with that one";
            return Err(Error::checkpoint(path, reason));
        }
        check_labels(test, &sets.test.y, model.network.loss, model.network.classes())?;
        Ok(Candidate {
            path,
            network: model.network,
            family: model.family,
            inputs: zoo::inputs(&checkpoint),
            sha256: hash::of_files_at(checkpoint.contents())?,
            folder: checkpoint.folder().into(),
            manifest: Manifest::of(&checkpoint)?,
        })
    }

    /// Its outputs on the sets.
    pub fn behaviour(&self, device: &Device, sets: &Sets) -> scrubjay::Result<Behaviour> {
        let (net, classes, width) = (&self.network, self.network.classes(), self.network.label_width());
        let outputs = |inputs: &dyn Inputs, labels: &[u32]| {
            let trace = net::outputs(device, net, inputs)?;
            if let Some(i) = trace.logits.iter().position(|logit| !logit.is_finite()) {
                let reason = format!("gives a logit of {}", trace.logits[i]);
                return Err(Error::checkpoint(self.path, reason));
            }
            let mut predicted = vec![0; labels.len()];
            net.loss.predict(&mut predicted, &trace.logits, classes)?;
            let surprisals = net::surprisals(net, &trace, labels)?;
            Ok(Outputs {
                losses: surprisals.into_iter().map(f64::from).collect(),
                accuracy: loss::right(&predicted, labels, width) as f64 / trace.m as f64,
                logits: trace.logits,
            })
        };
        let part = |indices: &[usize]| {
            outputs(&sets.samples.subset(indices), sets.samples.y.subset(indices).words())
        };
        // One linear layer has a convex loss, whatever the weight decay.
        let convex = is_convex(&self.network, 1.0);
        Ok(Behaviour {
            forget: part(&sets.forget)?,
            retain: part(&sets.retain)?,
            test: outputs(&sets.test, sets.test.y.words())?,
            weights: if convex { Some(Block::all(&self.network)?.values(&self.network)) } else { None },
        })
    }
}
