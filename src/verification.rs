//! Verification: is it forgotten? A model before and after unlearning, beside models retrained without the samples.
//!
//! [`Verification::open`] reads the files and refuses what cannot be compared; [`Verification::run`] measures. Networks and
//! samples in memory go through [`Sets::new`] and [`compare`]:
//!
//! ```
//! # use scrubjay::{Device, data, verification::{Sets, compare}, zoo};
//! # fn main() -> scrubjay::Result<()> {
//! # let digits = data::digits()?;
//! # let (samples, test) = (digits.part(0..60), digits.part(60..100));
//! # let of = |seed| Ok::<_, scrubjay::Error>(zoo::create("mlp:4", digits.shape(), 10, seed)?.network.freeze());
//! # let (before, after, retrained) = (of(0)?, of(1)?, [of(2)?, of(3)?, of(4)?]);
//! let sets = Sets::new(samples, test, vec![3, 14, 15], None)?;
//! let found = compare(&Device::cpu()?, &before, &after, &retrained, &sets)?;
//! println!("{} flags; mean gap {:?} points", found.findings.len(), found.after.average_gap);
//! # assert_eq!(found.references.len(), 3);
//! # Ok(())
//! # }
//! ```

mod checks;
mod models;

use std::path::PathBuf;

pub use models::{Candidate, Sets, behaviour};

use crate::comparison::{Comparison, SHADOWS};
use crate::data::{self, Loaded};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hash;
use crate::net::Network;
use crate::session::Sources;

/// The files of a verification.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The model before, the data that it was trained on, and how models and data are read.
    pub sources: Sources,
    /// The model after.
    pub after: PathBuf,
    /// Models trained without the samples.
    pub references: Vec<PathBuf>,
    /// The samples that were to be removed, as [`data::choose`] reads them.
    pub forget: String,
    /// The retained samples to measure on; by default all others.
    pub retain: Option<String>,
    /// Test data that no model has seen.
    pub test: PathBuf,
}

/// The models and samples of a verification, read and checked.
pub struct Verification {
    /// What was asked.
    pub question: Question,
    /// The samples.
    pub sets: Sets,
    /// The model before.
    pub before: Candidate,
    /// The model after.
    pub after: Candidate,
    /// The retrained models.
    pub references: Vec<Candidate>,
    /// How the files were read, where that was not certain: a sentence each.
    pub reading: Vec<String>,
    /// How many samples were to be removed, and the first few.
    pub forgotten: String,
    notes: Vec<String>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The measures and flags.
    pub comparison: Comparison,
    /// Remarks on the models and the data.
    pub notes: Vec<String>,
}

impl Verification {
    /// Reads models and data.
    ///
    /// # Errors
    /// Where a file cannot be read, models are not alike or not distinct, a retrained model has seen samples to forget by its
    /// `train.json`, the model before has not, or as [`Sets::new`].
    pub fn open(question: Question) -> Result<Verification> {
        let sources = &question.sources;
        let checkpoint = sources.checkpoint(&sources.model)?;
        let (mut reading, mut notes) = (vec![], vec![]);
        let mut read = |path: &PathBuf| -> Result<_> {
            let loaded = sources.load(path, &checkpoint)?;
            reading.extend(loaded.notes.iter().map(|note| format!("{}: {note}", path.display())));
            Ok(loaded)
        };
        let (Loaded { samples, names, .. }, test) = (read(&sources.data)?, read(&question.test)?.samples);
        let choose = |text: &str| data::choose(text, &sources.data, &samples.y, &names);
        let forget = choose(&question.forget)?;
        let retain = question.retain.as_deref().map(choose).transpose()?;
        let forgotten = data::listing(&forget, &samples.y, &names);
        let sets = Sets::of(samples.into(), test.into(), forget, retain, &question.test)?;
        let mut open = |path: &PathBuf| Candidate::open(sources, path, &sets, &question.test, &mut reading);
        let (before, after) = (open(&sources.model)?, open(&question.after)?);
        let references = question.references.iter().map(open).collect::<Result<Vec<_>>>()?;
        references.iter().chain([&after]).try_for_each(|other| checks::check_alike(&before, other))?;
        checks::check_distinct(&before, &after, &references)?;
        let data = hash::of_files(&sources.data)?;
        checks::check_before(&before, &data, &sets, &mut notes)?;
        for reference in &references {
            checks::check_reference(reference, &before, &data, &sets, &mut notes)?;
        }
        checks::check_receipt(&before, &after, &sets, &mut notes)?;
        checks::check_test(&question.test, &sets, &mut notes);
        Ok(Verification { question, sets, before, after, references, reading, forgotten, notes })
    }

    /// Measures all models; `measured` is called after each.
    ///
    /// # Errors
    /// Where a pass fails or a logit is not finite, and as [`Comparison::new`].
    pub fn run(&self, device: &Device, mut measured: impl FnMut()) -> Result<Verified> {
        let mut behaviour = |model: &Candidate| {
            let found = model.behaviour(device, &self.sets);
            measured();
            found
        };
        let theirs = self.references.iter().map(&mut behaviour).collect::<Result<Vec<_>>>()?;
        let (was, is) = (behaviour(&self.before)?, behaviour(&self.after)?);
        let net = &self.before.network;
        let comparison = Comparison::new(&was, &is, &theirs, &self.sets.unseen, net.classes(), net.loss)?;
        let mut notes = self.notes.clone();
        if !comparison.remembered {
            notes.push(
                "the model before shows no memory of these samples either: there was little to forget".into(),
            );
        }
        if self.references.len() < SHADOWS {
            notes.push(format!(
                "{} of {SHADOWS} references that a likelihood ratio and a spread need at least: train --seeds 5 makes five",
                self.references.len()
            ));
        }
        Ok(Verified { comparison, notes })
    }
}

/// Compares networks in memory, all frozen.
///
/// # Errors
/// Where they differ in inputs or classes, a pass fails or a logit is not finite, and as [`Comparison::new`].
pub fn compare(
    device: &Device,
    before: &Network,
    after: &Network,
    references: &[Network],
    sets: &Sets,
) -> Result<Comparison> {
    for other in references.iter().chain([after]) {
        if other.input() != before.input() || other.classes() != before.classes() || other.loss != before.loss
        {
            return Err(Error::config(
                "the models differ in inputs, classes or loss: they cannot be compared",
            ));
        }
    }
    let behaviour = |net| behaviour(device, net, sets);
    let theirs = references.iter().map(behaviour).collect::<Result<Vec<_>>>()?;
    Comparison::new(
        &behaviour(before)?,
        &behaviour(after)?,
        &theirs,
        &sets.unseen,
        before.classes(),
        before.loss,
    )
}
