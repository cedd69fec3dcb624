//! The report of a verification (docs/REPORT.md), from which the JSON is written and the page is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::comparison::{Definition, Finding, MEASURES, Row, Sample, Spread};
use crate::device::{self, Device};
use crate::options::Pick;
use crate::verification::{Candidate, Question, Sets, Verification, Verified};

/// A value for each measure, by key.
type ByMeasure<T> = BTreeMap<&'static str, T>;

/// The report of a verification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The version of the program.
    pub scrubjay: &'static str,
    /// `verify`.
    pub report: &'static str,
    /// The command, for a shell; none where a program called the library.
    pub command: Option<String>,
    /// The family of the models.
    pub family: &'static str,
    /// Where it ran.
    pub device: device::Report,
    /// The samples.
    pub sets: SetsReport,
    /// The model before.
    pub before: ModelReport,
    /// The model after.
    pub after: ModelReport,
    /// The retrained models, each against the others.
    pub references: Vec<ModelReport>,
    /// Their mean and standard deviation.
    pub retrained: ByMeasure<Option<Spread>>,
    /// How far the models before and after are from that mean.
    pub gaps: ByMeasure<Gap>,
    /// The flags.
    pub findings: Vec<Finding>,
    /// Whether the model before remembers the samples, by the same rules; if not, there was little to forget.
    pub remembered: bool,
    /// Remarks on the models and the data.
    pub notes: Vec<String>,
    /// Every forgotten sample.
    pub samples: Vec<SampleReport>,
    /// What the measures are.
    pub definitions: ByMeasure<&'static str>,
    /// The time that it took.
    pub seconds: f64,
}

/// The samples of a verification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetsReport {
    /// The training data; none in memory.
    pub data: Option<PathBuf>,
    /// The forgotten samples.
    pub forget: Forgotten,
    /// The retained samples that were measured on; all others, where nothing was chosen.
    pub retain: Chosen,
    /// The test data.
    pub test: TestSet,
    /// How many test samples the forgotten are compared with.
    pub unseen: usize,
}

/// The forgotten samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forgotten {
    /// As they were chosen; none by index.
    pub spec: Option<String>,
    /// How many.
    pub n: usize,
    /// The class of all, where they have one in common.
    pub class: Option<u32>,
}

/// The retained samples that were measured on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// As they were chosen; none by index, and of all others.
    pub spec: Option<String>,
    /// How many.
    pub n: usize,
}

/// Samples that no model has seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestSet {
    /// The file; none in memory.
    pub data: Option<PathBuf>,
    /// How many.
    pub n: usize,
}

/// A model that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Where it lies; none in memory.
    pub path: Option<PathBuf>,
    /// SHA-256 of its files.
    pub sha256: Option<String>,
    /// Its measures.
    pub measures: Row,
}

/// The differences to the retrained models' mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// Of the model before.
    pub before: Option<f64>,
    /// Of the model after.
    pub after: Option<f64>,
}

/// A forgotten sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleReport {
    /// Its index in the training data.
    pub index: usize,
    /// Its label.
    pub label: Label,
    /// The models' losses on it.
    #[serde(flatten)]
    pub losses: Sample,
}

/// The label of a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Label {
    /// A class.
    Class(u32),
    /// Several labels, 0 or 1 each.
    Several(Vec<u32>),
}

impl VerifyReport {
    /// Of what a verification of files found on a device; without a command and with 0 seconds.
    pub fn new(verification: &Verification, found: &Verified, device: &Device) -> VerifyReport {
        let Verification { question, sets, before, after, references, .. } = verification;
        let Question { sources, forget, retain, test, .. } = question;
        let mut report = VerifyReport::in_memory(sets, found, before.family, device);
        report.sets.data = Some(sources.data.clone());
        report.sets.forget.spec = forget.text().map(String::from);
        report.sets.retain.spec = retain.as_ref().and_then(Pick::text).map(String::from);
        report.sets.test.data = Some(test.clone());
        let name = |of: &mut ModelReport, model: &Candidate| {
            of.path = Some(model.path.clone());
            of.sha256 = Some(model.sha256.clone());
        };
        name(&mut report.before, before);
        name(&mut report.after, after);
        report.references.iter_mut().zip(references).for_each(|(of, model)| name(of, model));
        report
    }

    /// Of what [`compare`](crate::verification::compare) found of networks in memory, which are of this family; without files,
    /// a command and with 0 seconds.
    pub fn in_memory(sets: &Sets, found: &Verified, family: &'static str, device: &Device) -> VerifyReport {
        let comparison = &found.comparison;
        let model = |row: &Row| ModelReport { path: None, sha256: None, measures: row.clone() };
        let label = |i| match sets.samples.y.class_of(i) {
            Some(class) => Label::Class(class),
            None => Label::Several(sets.samples.y.of(i).to_vec()),
        };
        let samples = sets.forget.iter().zip(&comparison.samples);
        VerifyReport {
            scrubjay: env!("CARGO_PKG_VERSION"),
            report: "verify",
            command: None,
            family,
            device: device.report(),
            sets: SetsReport {
                data: None,
                forget: Forgotten { spec: None, n: sets.forget.len(), class: sets.class },
                retain: Chosen { spec: None, n: sets.retain.len() },
                test: TestSet { data: None, n: sets.test.y.len() },
                unseen: sets.unseen.len(),
            },
            before: model(&comparison.before),
            after: model(&comparison.after),
            references: comparison.references.iter().map(model).collect(),
            retrained: by_measure(|measure| comparison.retrained(measure)),
            gaps: by_measure(|measure| Gap {
                before: comparison.gap(measure, &comparison.before),
                after: comparison.gap(measure, &comparison.after),
            }),
            findings: comparison.findings.clone(),
            remembered: comparison.remembered,
            notes: found.notes.clone(),
            samples: samples
                .map(|(&index, losses)| SampleReport { index, label: label(index), losses: losses.clone() })
                .collect(),
            definitions: by_measure(|measure| measure.text),
            seconds: 0.0,
        }
    }
}

fn by_measure<T>(value: impl Fn(&Definition) -> T) -> ByMeasure<T> {
    MEASURES.iter().map(|measure| (measure.key, value(measure))).collect()
}
