//! The comparison of a model with models that were retrained without the forgotten samples.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pyo3::prelude::*;
use scrubjay::net::Network;
use scrubjay::options::Pick;
use scrubjay::report::{self, VerifyReport};
use scrubjay::session::fits;
use scrubjay::verification::{Question, Sets, Verification, compare};
use scrubjay::{Error, Result, Sources};
use serde::Deserialize;

use crate::errors::{in_python, raised};
use crate::model::{Model, Reading};
use crate::values::{Asked, Device, Samples, parsed};
use crate::watched::watched;

/// The report as JSON and as a page, and how files were read.
type Compared = (String, String, Vec<String>);

/// The files of a comparison.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    before: PathBuf,
    after: PathBuf,
    references: Vec<PathBuf>,
    data: PathBuf,
    test: PathBuf,
}

/// Compares, until Ctrl-C is pressed; `work` gets what is called after each model.
fn comparing(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut(usize) -> Result<()>) -> Result<(VerifyReport, Vec<String>)> + Send,
) -> PyResult<Compared> {
    let (started, stop) = (Instant::now(), AtomicBool::new(false));
    let interrupted = || Error::Interrupted { kept: "nothing was changed".into() };
    let mut each = |_| if stop.load(Ordering::Relaxed) { Err(interrupted()) } else { Ok(()) };
    let (found, asked) = watched(py, || stop.store(true, Ordering::Relaxed), || Ok(()), || work(&mut each))?;
    let (mut found, notes) = found.map_err(raised)?;
    if asked {
        return Err(raised(interrupted()));
    }
    found.seconds = started.elapsed().as_secs_f64();
    let json = serde_json::to_value(&found).map_err(|error| raised(Error::config(error.to_string())))?;
    Ok((json.to_string(), report::verify(&found), notes))
}

/// Compares models in memory.
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
) -> PyResult<Compared> {
    let references: Vec<Model> = references.iter().map(|model| (**model).clone()).collect();
    comparing(py, |each| {
        let choose = |pick: Pick| pick.choose(None, &samples.0.y, &samples.1);
        let (forget, retain) =
            (choose(forget.into())?, retain.map(|retain| choose(retain.into())).transpose()?);
        let sets = Sets::new(samples.0.clone(), test.0.clone(), forget, retain)?;
        let retrained: Vec<Network> = references.iter().map(|model| (*model.network).clone()).collect();
        for (network, what) in [(&before.network, "before"), (&after.network, "after")] {
            fits(network, &sets.samples, &format!("{what}: the samples"))?;
            fits(network, &sets.test, &format!("{what}: the test samples"))?;
        }
        let found = compare(&device.0, &before.network, &after.network, &retrained, &sets, each)?;
        Ok((VerifyReport::in_memory(&sets, &found, before.family_name(), &device.0), vec![]))
    })
}

/// Compares models in files: a JSON object of paths, and how they are read.
#[pyfunction]
#[pyo3(signature = (device, paths, reading, forget, retain))]
pub fn compare_files(
    py: Python<'_>,
    device: &Device,
    paths: &str,
    reading: &str,
    forget: Asked,
    retain: Option<Asked>,
) -> PyResult<Compared> {
    let (paths, reading) = (parsed::<Paths>(paths)?, parsed::<Reading>(reading)?);
    let question = Question {
        sources: Sources { model: paths.before, data: paths.data, ..reading.sources() },
        after: paths.after,
        references: paths.references,
        forget: forget.into(),
        retain: retain.map(Pick::from),
        test: paths.test,
    };
    comparing(py, |each| {
        let verification = Verification::open(question)?;
        let found = verification.run(&device.0, each)?;
        let notes = verification.reading.iter().map(|note| in_python(note)).collect();
        Ok((VerifyReport::new(&verification, &found, &device.0), notes))
    })
}
