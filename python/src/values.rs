//! Devices, arrays and samples.

use std::sync::{Arc, OnceLock};

use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use scrubjay::bench::Ceilings;
use scrubjay::data::{self, Elements, Labels, Names, Normalise, View};
use scrubjay::device::Choice;
use scrubjay::inspection::SetInspection;
use scrubjay::options::Pick;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::errors::refused;
use crate::watched::unlocked;

/// A value of the library from JSON text; its names are the library's own.
pub fn parsed<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| {
        let text = error.to_string();
        // The place in the text means nothing to who gave keyword arguments.
        refused(text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason))
    })
}

/// A name of the library.
pub fn named<T: DeserializeOwned>(what: &str, name: &str) -> PyResult<T> {
    serde_json::from_value(name.into()).map_err(|error| refused(format!("{what}: {error}")))
}

/// Numbers as the bytes of an array that Python owns.
pub fn bytes<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    values: &[T],
    to: impl Fn(T) -> [u8; N],
) -> PyResult<Bound<'py, PyByteArray>> {
    PyByteArray::new_with(py, N * values.len(), |out| {
        out.chunks_exact_mut(N).zip(values).for_each(|(out, &value)| out.copy_from_slice(&to(value)));
        Ok(())
    })
}

/// The sides of an array, and its values in the order of C.
pub fn array<T: Element>(py: Python<'_>, buffer: &PyBuffer<T>) -> PyResult<(Vec<usize>, Vec<T>)> {
    Ok((buffer.shape().to_vec(), buffer.to_vec(py)?))
}

/// Where the work runs, and its peak rates, once they were measured.
#[pyclass(frozen, module = "scrubjay._native")]
pub struct Device(pub scrubjay::Device, pub OnceLock<Ceilings>);

#[pymethods]
impl Device {
    #[new]
    fn new(py: Python<'_>, kind: &str, threads: usize) -> PyResult<Device> {
        let choice = named::<Choice>("device", kind)?;
        unlocked(py, || Ok(Device(scrubjay::Device::open(choice, threads)?, OnceLock::new())))
    }
}

/// A choice of samples, in words or by index.
#[derive(FromPyObject)]
pub enum Asked {
    /// As on the command line.
    Words(String),
    /// By index, ascending, each once.
    Indices(Vec<usize>),
}

impl From<Asked> for Pick {
    fn from(asked: Asked) -> Pick {
        match asked {
            Asked::Words(text) => Pick::Spec(text),
            Asked::Indices(indices) => Pick::Indices(indices),
        }
    }
}

/// Labelled images or texts, and what their files call classes and samples.
#[pyclass(frozen, module = "scrubjay._native")]
pub struct Samples(pub Arc<data::Samples>, pub Names);

fn labels(py: Python<'_>, y: &PyBuffer<u32>) -> PyResult<Labels> {
    let (sides, words) = array(py, y)?;
    match sides[..] {
        [_] => Ok(Labels::Classes(words)),
        [_, labels] if labels > 0 => Ok(Labels::Multi { labels, rows: words }),
        _ => Err(refused(format!("labels of shape {sides:?}, where [n] or [n, labels] was expected"))),
    }
}

/// The bytes of the labels of samples, u32 [n, width], and their width.
pub fn labels_of<'py>(
    py: Python<'py>,
    samples: &data::Samples,
) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
    Ok((bytes(py, samples.y.words(), u32::to_ne_bytes)?, samples.y.width()))
}

#[pymethods]
impl Samples {
    /// Of images f32 [n, c, h, w] or [n, features], and labels u32 [n] or [n, labels].
    #[staticmethod]
    fn of_images(py: Python<'_>, x: PyBuffer<f32>, y: PyBuffer<u32>) -> PyResult<Samples> {
        let (sides, values) = array(py, &x)?;
        let labels = labels(py, &y)?;
        let mut strides = vec![1; sides.len()];
        (1..sides.len()).rev().for_each(|i| strides[i - 1] = strides[i] * sides[i]);
        let samples = unlocked(py, || View::new(Elements::F32(&values), &sides, &strides)?.samples(labels))?;
        Ok(Samples(samples.into(), Names::default()))
    }

    /// Of texts: token ids and mask u32 [n, t].
    #[staticmethod]
    fn of_texts(
        py: Python<'_>,
        ids: PyBuffer<u32>,
        mask: PyBuffer<u32>,
        y: PyBuffer<u32>,
    ) -> PyResult<Samples> {
        let ((sides, ids), (_, mask), labels) = (array(py, &ids)?, array(py, &mask)?, labels(py, &y)?);
        let &[_, tokens] = &sides[..] else {
            return Err(refused(format!("token ids of shape {sides:?}, where [n, tokens] was expected")));
        };
        let samples = unlocked(py, || data::Samples::of_texts(&ids, &mask, tokens, labels))?;
        Ok(Samples(samples.into(), Names::default()))
    }

    fn __len__(&self) -> usize {
        self.0.y.len()
    }

    /// What they hold, as JSON and as the command's text.
    fn inspect(&self) -> (String, String) {
        let found = SetInspection::of(&self.0, self.1.classes.as_deref(), None, &Normalise::default());
        (json!(found).to_string(), found.text())
    }

    /// The bytes of the labels, u32 [n, width], and their width.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
        labels_of(py, &self.0)
    }
}

/// The digits that ship with scrubjay: f32 [1797, 64] and u32 [1797], as bytes.
#[pyfunction]
pub fn digits(py: Python<'_>) -> PyResult<(Bound<'_, PyByteArray>, Bound<'_, PyByteArray>)> {
    let digits = unlocked(py, data::digits)?;
    Ok((bytes(py, &digits.x, f32::to_ne_bytes)?, bytes(py, digits.y.words(), u32::to_ne_bytes)?))
}
