//! The comparison of a model with models that were retrained without the forgotten samples.

use pyo3::prelude::*;
use scrubjay::comparison::MEASURES;
use scrubjay::data::Spec;
use scrubjay::net::Network;
use scrubjay::session::fits;
use scrubjay::verification::{Sets, compare};
use serde_json::{Map, Value, json};

use crate::model::Model;
use crate::values::{Asked, Device, Samples};
use crate::watched::unlocked;

/// The samples of a choice, ascending.
fn of(asked: &Asked, samples: &Samples) -> scrubjay::Result<Vec<usize>> {
    match asked {
        Asked::Words(text) => Spec::parse(text)?.choose(&samples.0.y, &samples.1),
        Asked::Indices(indices) => Ok(indices.clone()),
    }
}

/// Compares models; the measures, flags and losses of every forgotten sample, as JSON.
#[pyfunction]
#[pyo3(signature = (device, before, after, references, samples, test, forget, retain))]
#[pyo3(name = "compare")]
pub fn compared(
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
        let sets = Sets::new(samples.0.clone(), test.0.clone(), forget, retain)?;
        let retrained: Vec<Network> = references.iter().map(|model| (*model.network).clone()).collect();
        for (network, what) in [(&before.network, "before"), (&after.network, "after")] {
            fits(network, &sets.samples, &format!("{what}: the samples"))?;
            fits(network, &sets.test, &format!("{what}: the test samples"))?;
        }
        let found = compare(&device.0, &before.network, &after.network, &retrained, &sets)?;
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
