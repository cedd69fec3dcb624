//! Files into files: delta files, and models as graphs.

use std::path::PathBuf;

use pyo3::prelude::*;
use scrubjay::checkpoint::{Checkpoint, Rows, Way};
use scrubjay::run::take_delta;
use scrubjay::{Sources, zoo};

use crate::model::Reading;
use crate::values::parsed;
use crate::watched::unlocked;

/// Writes the model that a delta file makes of a model's files: the files, and the tensors, rows and values that changed.
#[pyfunction]
pub fn take(
    py: Python<'_>,
    model: PathBuf,
    delta: PathBuf,
    back: bool,
    out: PathBuf,
) -> PyResult<(Vec<PathBuf>, [usize; 3])> {
    let way = if back { Way::Revert } else { Way::Apply };
    unlocked(py, || {
        let (files, Rows { tensors, rows, values }) = take_delta(&model, &delta, way, &out)?;
        Ok((files, [tensors, rows, values]))
    })
}

/// Writes a model's files as a safetensors file and a graph: the two files.
#[pyfunction]
pub fn export(py: Python<'_>, model: PathBuf, out: PathBuf, reading: &str) -> PyResult<Vec<PathBuf>> {
    let Sources { choices, ignore, weights, .. } = parsed::<Reading>(reading)?.sources();
    unlocked(py, || {
        let checkpoint = Checkpoint::open_with(&model, &ignore, &weights)?;
        Ok(zoo::export(&zoo::load_as(&checkpoint, &choices, None)?, &out)?.into())
    })
}
