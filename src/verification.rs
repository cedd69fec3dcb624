//! Verification: is it forgotten? A model before and after unlearning, beside models retrained without the samples.
//!
//! [`Verification::open`] reads the files and refuses what cannot be compared; [`Verification::run`] measures. Networks and
//! samples in memory go through [`Sets::new`] and [`compare`]:
//!
//! ```
//! # use scrubjay::{Device, data, verification::{Sets, compare}, zoo};
//! # fn main() -> scrubjay::Result<()> {
//! # let digits = data::digits()?;
//! # let (samples, test) = (digits.part(0..60)?, digits.part(60..100)?);
//! # let of = |seed| Ok::<_, scrubjay::Error>(zoo::create("mlp:4", digits.shape(), 10, seed)?.network.freeze());
//! # let (before, after, retrained) = (of(0)?, of(1)?, [of(2)?, of(3)?, of(4)?]);
//! let sets = Sets::new(samples, test, vec![3, 14, 15], None)?;
//! let found = compare(&Device::cpu()?, &before, &after, &retrained, &sets, |_| Ok(()))?.comparison;
//! println!("{} flags; mean gap {:?} points", found.findings.len(), found.after.average_gap);
//! # assert_eq!(found.references.len(), 3);
//! # Ok(())
//! # }
//! ```

mod checks;
mod models;

use std::path::{Path, PathBuf};

pub use models::{Candidate, Sets, behaviour};

use crate::comparison::{Behaviour, Comparison, SHADOWS};
use crate::data::{self, Loaded, pad_alike};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::hash;
use crate::net::Network;
use crate::options::Pick;
use crate::session::Sources;

/// The files of a verification.
#[derive(Clone, Debug)]
pub struct Question {
    /// The model before, the data that it was trained on, and how models and data are read.
    pub sources: Sources,
    /// The model after.
    pub after: PathBuf,
    /// Models trained without the samples.
    pub references: Vec<PathBuf>,
    /// The samples that were to be removed.
    pub forget: Pick,
    /// The retained samples to measure on; by default all others.
    pub retain: Option<Pick>,
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
        let (mut reading, mut notes, mut headers) = (vec![], vec![], vec![]);
        let mut options = sources.load_options(Some(&checkpoint));
        let mut read = |path: &PathBuf| -> Result<_> {
            let loaded = data::load_with(path, &options)?;
            reading.extend(loaded.notes.iter().map(|note| format!("{}: {note}", path.display())));
            options.go_on(loaded.names.classes.as_ref(), loaded.tokenizer.as_ref());
            Ok(loaded)
        };
        let (loaded, mut test) = (read(&sources.data)?, read(&question.test)?.samples);
        let Loaded { mut samples, mut names, tokenizer, .. } = loaded;
        names.classes = names.classes.or(options.expected.classes);
        pad_alike(&mut [&mut samples, &mut test]);
        let choose = |pick: &Pick| pick.choose(Some(&sources.data), &samples.y, &names);
        let forget = choose(&question.forget)?;
        let retain = question.retain.as_ref().map(choose).transpose()?;
        for pick in [Some(&question.forget), question.retain.as_ref()].into_iter().flatten() {
            headers.extend(pick.header(&names)?);
        }
        let forgotten = data::listing(&forget, &samples.y, &names);
        reading.extend(headers);
        let sets = Sets::of(samples.into(), test.into(), forget, retain, &question.test)?;
        let mut open = |path: &PathBuf| -> Result<Candidate> {
            let candidate = Candidate::open(sources, path, &sets, &question.test, &mut reading)?;
            checks::check_tokenizer(&candidate, tokenizer.as_deref())?;
            Ok(candidate)
        };
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
        notes.extend(checks::seen_before(&question.test, &sets)?);
        Ok(Verification { question, sets, before, after, references, reading, forgotten, notes })
    }

    /// Measures all models; `measured` is called with how many are, after each, and may end it.
    ///
    /// # Errors
    /// Where a pass fails or a logit is not finite, as [`Comparison::new`], and as `measured`.
    pub fn run(&self, device: &Device, measured: impl FnMut(usize) -> Result<()>) -> Result<Verified> {
        let models: Vec<&Candidate> = self.references.iter().chain([&self.before, &self.after]).collect();
        let behaviour = |model: &Candidate| model.behaviour(device, &self.sets);
        let comparison = compared(&models, behaviour, &self.before.network, &self.sets, measured)?;
        let notes = [self.notes.clone(), remarks(&comparison)].concat();
        Ok(Verified { comparison, notes })
    }
}

/// Compares networks in memory, all frozen; `measured` as in [`Verification::run`].
///
/// # Errors
/// Where they differ in inputs or classes, a retrained network has the parameters of another one, a pass fails or a logit is not
/// finite, as [`Comparison::new`], and as `measured`.
pub fn compare(
    device: &Device,
    before: &Network,
    after: &Network,
    references: &[Network],
    sets: &Sets,
    measured: impl FnMut(usize) -> Result<()>,
) -> Result<Verified> {
    for other in references.iter().chain([after]) {
        if other.input() != before.input() || other.classes() != before.classes() || other.loss != before.loss
        {
            return Err(Error::config(
                "the models differ in inputs, classes or loss: they cannot be compared",
            ));
        }
    }
    checks::check_networks(before, after, references)?;
    let models: Vec<&Network> = references.iter().chain([before, after]).collect();
    let comparison = compared(&models, |net| behaviour(device, net, sets), before, sets, measured)?;
    let seen = checks::seen_before(Path::new("the test samples"), sets)?;
    Ok(Verified { notes: seen.into_iter().chain(remarks(&comparison)).collect(), comparison })
}

/// Compares models by their behaviour: the retrained ones, then that before, `net`, and that after.
fn compared<M: ?Sized>(
    models: &[&M],
    behaviour: impl Fn(&M) -> Result<Behaviour>,
    net: &Network,
    sets: &Sets,
    mut measured: impl FnMut(usize) -> Result<()>,
) -> Result<Comparison> {
    let mut found = vec![];
    for &model in models {
        found.push(behaviour(model)?);
        measured(found.len())?;
    }
    match &found[..] {
        [theirs @ .., was, is] => Comparison::new(was, is, theirs, &sets.unseen, net.classes(), net.loss),
        _ => Err(Error::config("a comparison needs a model before and one after")),
    }
}

/// What a comparison says of itself.
fn remarks(comparison: &Comparison) -> Vec<String> {
    let mut notes = vec![];
    if !comparison.remembered {
        notes.push(
            "the model before shows no memory of these samples either: there was little to forget".into(),
        );
    }
    let references = comparison.references.len();
    if references < SHADOWS {
        notes.push(format!(
            "{references} of {SHADOWS} references: a likelihood ratio and a spread need at least {SHADOWS} (train --seeds 5 makes five)",
        ));
    }
    notes
}
