//! The comparison of a model with models that were retrained without the forgotten samples.

use std::path::Path;

use pyo3::prelude::*;
use scrubjay::comparison::{Behaviour, Comparison, MEASURES, Sets};
use scrubjay::data::Spec;
use scrubjay::session::fits;
use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::values::{Asked, Device, Samples};
use crate::watched::unlocked;

/// The samples of a choice, ascending.
fn of(asked: &Asked, samples: &Samples) -> scrubjay::Result<Vec<usize>> {
    match asked {
        Asked::Words(text) => Spec::parse(text)?.choose(&samples.0.y),
        Asked::Indices(indices) => Ok(indices.clone()),
    }
}

/// Compares models; the measures, flags and losses of every forgotten sample, as JSON.
#[pyfunction]
#[pyo3(signature = (device, before, after, references, samples, test, forget, retain))]
pub fn compare(
    py: Python<'_>,
    device: &Device,
    before: &Model,
    after: &Model,
    references: Vec<PyRef<'_, Model>>,
    samples: &Samples,
    test: &Samples,
    forget: Asked,
    retain: Option<Asked>,
) -> PyResult<String> {
    let references: Vec<Model> = references.iter().map(|model| (**model).clone()).collect();
    unlocked(py, || {
        let forget = of(&forget, samples)?;
        let retain = retain.map(|retain| of(&retain, samples)).transpose()?;
        let (data, unseen) = (samples.0.clone(), test.0.clone());
        let sets = Sets::new(data, unseen, forget, retain, Path::new("test"))?;
        let behaviour = |(model, what): (&Model, &str)| {
            fits(&model.network, &sets.samples, &format!("{what}: the samples"))?;
            fits(&model.network, &sets.test, &format!("{what}: the test samples"))?;
            Behaviour::of(&device.0, &model.network, &sets)
        };
        let (was, is) = (behaviour((before, "before"))?, behaviour((after, "after"))?);
        let theirs = references.iter().map(|model| behaviour((model, "a reference")));
        let theirs = theirs.collect::<scrubjay::Result<Vec<_>>>()?;
        let (classes, loss) = (before.network.classes(), before.network.loss);
        let found = Comparison::new(&was, &is, &theirs, &sets.unseen, classes, loss)?;
        let by_measure = |value: &dyn Fn(usize) -> Value| -> Map<String, Value> {
            MEASURES.iter().enumerate().map(|(i, measure)| (measure.key.to_string(), value(i))).collect()
        };
        let report = json!({
            "before": found.before,
            "after": found.after,
            "references": found.references,
            "retrained": by_measure(&|i| json!(found.retrained(&MEASURES[i]))),
            "findings": found.findings,
            "remembered": found.remembered,
            "forget": sets.forget,
            "samples": found.samples,
            "definitions": by_measure(&|i| json!(MEASURES[i].text)),
        });
        Ok(report.to_string())
    })
}
