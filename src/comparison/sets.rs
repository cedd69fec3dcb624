//! The samples that all models of a comparison are measured on, and what a model does on them.

use std::path::Path;
use std::sync::Arc;

use super::{Behaviour, Outputs, UNSEEN};
use crate::block::Block;
use crate::data::{Inputs, Samples};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::loss;
use crate::net::{self, Network};
use crate::task::is_convex;

/// The samples that all models are measured on.
pub struct Sets {
    /// The training data.
    pub samples: Arc<Samples>,
    /// Samples that no model has seen.
    pub test: Arc<Samples>,
    /// The forgotten of the training data.
    pub forget: Vec<usize>,
    /// The retained of the training data.
    pub retain: Vec<usize>,
    /// Indices in the test set of the samples that the forgotten are compared with.
    pub unseen: Vec<usize>,
    /// The class of all forgotten samples, where they have one in common.
    pub class: Option<u32>,
}

impl Sets {
    /// The sets of a comparison; without `retain` all samples that are not forgotten are retained. `name` is what an error calls
    /// the test data.
    ///
    /// # Errors
    /// Where the two kinds of data are not alike, a sample is in both sets, nothing is retained, or fewer than [`UNSEEN`] test
    /// samples can stand for the forgotten.
    pub fn new(
        samples: Arc<Samples>,
        test: Arc<Samples>,
        forget: Vec<usize>,
        retain: Option<Vec<usize>>,
        name: &Path,
    ) -> Result<Sets> {
        let mut forgotten = vec![false; samples.y.len()];
        forget.iter().for_each(|&i| forgotten[i] = true);
        let retain = retain.unwrap_or_else(|| (0..samples.y.len()).filter(|&i| !forgotten[i]).collect());
        if let Some(i) = retain.iter().find(|&&i| forgotten[i]) {
            return Err(Error::config(format!("sample {i} is to be forgotten and to be retained")));
        }
        if retain.is_empty() {
            return Err(Error::config("nothing is left to retain: every sample is to be forgotten"));
        }
        let class = forget.first().and_then(|&i| samples.y.class_of(i));
        let class = class.filter(|&class| forget.iter().all(|&i| samples.y.class_of(i) == Some(class)));
        let unseen: Vec<usize> =
            (0..test.y.len()).filter(|&i| class.is_none() || test.y.class_of(i) == class).collect();
        if unseen.len() < UNSEEN {
            let of =
                class.map_or(String::new(), |class| format!(" of class {class}, like all forgotten ones,"));
            let reason = format!(
                "holds {} samples{of} to tell the forgotten from; membership inference needs {UNSEEN}",
                unseen.len()
            );
            return Err(Error::data(name, reason));
        }
        Ok(Sets { samples, test, forget, retain, unseen, class })
    }
}

impl Behaviour {
    /// What a network does on the sets.
    ///
    /// # Errors
    /// Where the network does not take the samples, or gives a logit that is not finite.
    pub fn of(device: &Device, net: &Network, sets: &Sets) -> Result<Behaviour> {
        let (classes, width) = (net.classes(), net.label_width());
        let outputs = |inputs: &dyn Inputs, labels: &[u32]| {
            let trace = net::outputs(device, net, inputs)?;
            if let Some(i) = trace.logits.iter().position(|logit| !logit.is_finite()) {
                return Err(Error::config(format!("gives a logit of {}", trace.logits[i])));
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
        let convex = is_convex(net, 1.0);
        Ok(Behaviour {
            forget: part(&sets.forget)?,
            retain: part(&sets.retain)?,
            test: outputs(&*sets.test, sets.test.y.words())?,
            weights: if convex { Some(Block::all(net)?.values(net)) } else { None },
        })
    }
}
