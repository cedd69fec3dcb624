//! Training: in memory, and from files into a folder.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use scrubjay::Error;
use scrubjay::options::Pick;
use scrubjay::training::{EpochReport, Start, TrainOptions, Trained as Made, Training};
use scrubjay::zoo::{self, Choices};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::{in_python, raised};
use crate::model::{Files, Model, Reading};
use crate::values::{Asked, Device, Samples, parsed};
use crate::watched::{unlocked, watched};

/// The files of a training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    model: Option<PathBuf>,
    data: PathBuf,
    val: Option<PathBuf>,
}

/// Trains until Ctrl-C is pressed; `work` gets what is called after every epoch, whose JSON `tell` gets.
fn training<T: Send>(
    tell: &Bound<'_, PyAny>,
    stop: &AtomicBool,
    work: impl FnOnce(&mut dyn FnMut(&EpochReport) -> scrubjay::Result<()>) -> scrubjay::Result<T> + Send,
) -> PyResult<T> {
    let reports: Mutex<Vec<EpochReport>> = Mutex::default();
    let pass = || {
        let taken = std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner));
        taken.iter().try_for_each(|report| tell.call1((json!(report).to_string(),)).map(drop))
    };
    let mut each = |report: &EpochReport| {
        reports.lock().unwrap_or_else(PoisonError::into_inner).push(*report);
        Ok(())
    };
    let (made, interrupted) =
        watched(tell.py(), || stop.store(true, Ordering::Relaxed), pass, || work(&mut each))?;
    if interrupted {
        return Err(raised(Error::Interrupted { kept: "nothing of this training is kept".into() }));
    }
    pass()?;
    made.map_err(raised)
}

/// A model that was trained.
#[pyclass(frozen, module = "scrubjay._native")]
pub struct Trained {
    made: Made,
    model: Model,
    new: bool,
}

#[pymethods]
impl Trained {
    /// The epochs, as JSON.
    #[getter]
    fn epochs(&self) -> String {
        json!(self.made.epochs).to_string()
    }

    /// The model.
    #[getter]
    fn model(&self) -> Model {
        self.model.clone()
    }

    /// Writes the files of a new model, with its tokenizer; whether it is one, so that this was done.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<bool> {
        if self.new {
            unlocked(py, || self.made.save(&folder))?;
        }
        Ok(self.new)
    }
}

/// The model of a training of values or files: one that existed keeps the layout of its files.
fn of(made: Made, before: Option<&Model>, kind: scrubjay::data::InputKind) -> scrubjay::Result<Trained> {
    let model = match before {
        Some(model) => model.changed(made.network.freeze()),
        None => {
            let checkpoint = made.checkpoint()?;
            let read = zoo::load_as(&checkpoint, &Choices::default(), Some(kind))?;
            Model::new(read.network.freeze(), Files::Own(checkpoint.into()), read.family, &[], read.facts)
        }
    };
    Ok(Trained { made, new: before.is_none(), model })
}

/// Trains a model in memory, or a new one of a description.
#[pyfunction]
#[pyo3(signature = (device, arch, model, samples, val, exclude, options, tell))]
pub fn train(
    device: &Device,
    arch: Option<String>,
    model: Option<&Model>,
    samples: &Samples,
    val: Option<&Samples>,
    exclude: Option<Asked>,
    options: &str,
    tell: &Bound<'_, PyAny>,
) -> PyResult<Trained> {
    let options = parsed::<TrainOptions>(options)?;
    let (seed, stop) = (options.seed, Arc::new(AtomicBool::new(false)));
    training(tell, &stop, |each| {
        let start = match (arch, model) {
            (Some(arch), _) => Start::New(arch),
            (None, Some(model)) => Start::Network(Box::new(model.network.thaw()), Value::Null),
            (None, None) => return Err(Error::config("--arch or --model says what to train")),
        };
        let validation = val.map(|val| val.0.clone());
        let (device, exclude) = (device.0.clone(), exclude.map(Pick::from));
        let training = Training::new(device, start, samples.0.clone(), validation, exclude, options)?
            .with_stop(stop.clone());
        of(training.train(seed, each)?, model, samples.0.kind)
    })
}

/// Trains from files: in memory, or into a folder, whose `train.json` is given as text; and notes on how files were read.
#[pyfunction]
#[pyo3(signature = (device, paths, reading, arch, exclude, options, out, keep, tell))]
pub fn train_files(
    device: &Device,
    paths: &str,
    reading: &str,
    arch: Option<&str>,
    exclude: Option<Asked>,
    options: &str,
    out: Option<PathBuf>,
    keep: Vec<usize>,
    tell: &Bound<'_, PyAny>,
) -> PyResult<(Option<Trained>, Option<String>, Vec<String>)> {
    let (paths, reading) = (parsed::<Paths>(paths)?, parsed::<Reading>(reading)?);
    let options = parsed::<TrainOptions>(options)?;
    let sources = scrubjay::Sources {
        model: paths.model.unwrap_or_default(),
        data: paths.data,
        validation: paths.val,
        ..reading.sources()
    };
    let (seed, stop) = (options.seed, Arc::new(AtomicBool::new(false)));
    training(tell, &stop, |each| {
        let exclude = exclude.map(Pick::from);
        let training =
            Training::open(device.0.clone(), sources, arch, exclude, options)?.with_stop(stop.clone());
        let notes = training.notes().iter().map(|note| in_python(note)).collect();
        match &out {
            Some(folder) => {
                let manifest = training.run(seed, folder, &keep, each)?;
                Ok((None, Some(manifest.to_string()), notes))
            }
            None => {
                let kind = training.kind();
                Ok((Some(of(training.train(seed, each)?, None, kind)?), None, notes))
            }
        }
    })
}
