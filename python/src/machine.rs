//! Devices of the machine, and how fast single kernels are.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use scrubjay::bench::{CASES, case, ceilings, measured};
use scrubjay::device::Listing;
use serde_json::{Value, json};

use crate::values::Device;
use crate::watched::unlocked;

/// The devices as JSON.
#[pyfunction]
pub fn devices(py: Python<'_>) -> PyResult<String> {
    unlocked(py, || Ok(Listing::new()?.json().to_string()))
}

/// The cases as JSON.
#[pyfunction]
pub fn bench_cases() -> String {
    Value::from(CASES.iter().map(|case| case.json()).collect::<Vec<_>>()).to_string()
}

/// Checks and times a case at sizes of its axes, which have their defaults where nothing is given; what it came to, as JSON.
#[pyfunction]
pub fn bench(
    py: Python<'_>,
    device: &Device,
    name: &str,
    sizes: BTreeMap<String, usize>,
) -> PyResult<String> {
    unlocked(py, || {
        let case = case(name)?;
        let of = |(axis, size): &(&str, usize)| sizes.get(*axis).copied().unwrap_or(*size);
        let sizes: Vec<usize> = case.axes.iter().map(of).collect();
        case.check(&device.0, &sizes)?;
        let ceilings = match device.1.get() {
            Some(known) => known,
            None => {
                let found = ceilings(&device.0)?;
                device.1.get_or_init(|| found)
            }
        };
        let mut report = json!(measured(&device.0, case, &sizes, ceilings)?);
        report["ceilings"] = json!(ceilings);
        Ok(report.to_string())
    })
}
