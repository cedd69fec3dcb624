//! Sessions, requests and what they came to.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use scrubjay::data::tensors;
use scrubjay::doubt::doubts;
use scrubjay::options::{Pick, ScrubOptions};
use scrubjay::report::{self, ScrubReport};
use scrubjay::run::Ended;
use scrubjay::session::{Level, Progress};
use scrubjay::{Error, Result, Sources};
use serde::Deserialize;
use serde_json::json;

use crate::errors::{in_python, raised};
use crate::model::{Files, Model, Reading};
use crate::values::{Asked, Device, Samples, labels_of, parsed};
use crate::watched::{unlocked, watched};

/// The files of a session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    model: PathBuf,
    data: PathBuf,
    forget_data: Option<PathBuf>,
    val: Option<PathBuf>,
    earlier: Option<PathBuf>,
    proxy: Option<PathBuf>,
}

/// What a session tells, until Python takes it.
enum Event {
    Progress(Progress),
    Log(Level, String),
}

/// Events in the order in which they came.
#[derive(Default)]
struct Events(Mutex<VecDeque<Event>>);

impl Events {
    fn put(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }

    /// Calls `tell` with all of them: ("progress", done, batches, phase), or ("info" or "warning", message).
    fn pass(&self, tell: &Bound<'_, PyAny>) -> PyResult<()> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for event in taken {
            match event {
                Event::Progress(Progress { done, batches, phase }) => {
                    tell.call1(("progress", done, batches, phase))?
                }
                Event::Log(Level::Info, text) => tell.call1(("info", text))?,
                Event::Log(Level::Warning, text) => tell.call1(("warning", text))?,
            };
        }
        Ok(())
    }
}

/// A device, a model and its data.
#[pyclass(frozen, module = "scrubjay._native")]
pub struct Session {
    session: Arc<scrubjay::Session>,
    model: Model,
    stop: Arc<AtomicBool>,
    events: Arc<Events>,
}

impl Session {
    /// With the flag and the events attached, and samples on pages or not; the model's files are the session's where it has none
    /// of its own.
    fn new(session: scrubjay::Session, thumbnails: bool, model: Option<Model>) -> Session {
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(Events::default()));
        let (progress, log) = (events.clone(), events.clone());
        let session = session
            .with_samples_shown(thumbnails)
            .with_stop(stop.clone())
            .on_progress(move |now| progress.put(Event::Progress(now)))
            .on_log(move |level, text| log.put(Event::Log(level, in_python(text))));
        let session = Arc::new(session);
        let model = model.unwrap_or_else(|| {
            let files = Files::Session(session.clone());
            let facts = session.facts().cloned().unwrap_or_default();
            Model::new(session.network().clone(), files, session.family(), &[], facts)
        });
        Session { session, model, stop, events }
    }

    /// Works, passing on to `tell` what the session tells; and whether Ctrl-C ended it.
    fn working<T: Send>(
        &self,
        tell: &Bound<'_, PyAny>,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> PyResult<(Result<T>, bool)> {
        let stop = || self.stop.store(true, Ordering::Relaxed);
        let (result, interrupted) = watched(tell.py(), stop, || self.events.pass(tell), work)?;
        if !interrupted {
            self.events.pass(tell)?;
        }
        Ok((result, interrupted))
    }
}

#[pymethods]
impl Session {
    /// Opens files: a JSON object of paths.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        device: &Device,
        paths: &str,
        reading: &str,
        thumbnails: bool,
    ) -> PyResult<Session> {
        let (paths, reading) = (parsed::<Paths>(paths)?, parsed::<Reading>(reading)?);
        let sources = Sources {
            model: paths.model,
            data: paths.data,
            forget_data: paths.forget_data,
            validation: paths.val,
            earlier: paths.earlier,
            proxy: paths.proxy,
            ..reading.sources()
        };
        let session = unlocked(py, || scrubjay::Session::open(device.0.clone(), sources))?;
        Ok(Session::new(session, thumbnails, None))
    }

    /// Of values in memory.
    #[staticmethod]
    #[pyo3(signature = (device, model, samples, thumbnails=true, val=None, earlier=None, proxy=None))]
    fn of(
        py: Python<'_>,
        device: &Device,
        model: &Model,
        samples: &Samples,
        thumbnails: bool,
        val: Option<&Samples>,
        earlier: Option<&Model>,
        proxy: Option<&Model>,
    ) -> PyResult<Session> {
        let session = unlocked(py, || {
            let network = (*model.network).clone();
            let mut session = scrubjay::Session::new(device.0.clone(), network, samples.0.clone())?
                .with_names(samples.1.clone())?;
            if let Some(val) = val {
                session = session.with_validation(val.0.clone())?;
            }
            if let Some(earlier) = earlier {
                session = session.with_earlier((*earlier.network).clone())?;
            }
            if let Some(proxy) = proxy {
                session = session.with_proxy((*proxy.network).clone())?;
            }
            Ok(session)
        })?;
        Ok(Session::new(session, thumbnails, Some(model.clone())))
    }

    /// The bytes of the labels of the training data, and of the set beside it, u32 [n, width]; and their width.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
        labels_of(py, self.session.samples())
    }
}

/// A request, worked out and checked.
#[pyclass(frozen, module = "scrubjay._native")]
pub struct Request {
    request: scrubjay::Request,
    session: Py<Session>,
}

#[pymethods]
impl Request {
    /// Of samples; without any, of the set beside the session's data.
    #[new]
    #[pyo3(signature = (session, forget, options))]
    fn new(py: Python<'_>, session: Py<Session>, forget: Option<Asked>, options: &str) -> PyResult<Request> {
        let options = parsed::<ScrubOptions>(options)?;
        let pick = forget.map(Pick::from);
        let of = session.get();
        let request = unlocked(py, || match pick {
            Some(pick) => scrubjay::Request::new(&of.session, pick, &options),
            None => scrubjay::Request::beside(&of.session, &options),
        })?;
        Ok(Request { request, session })
    }

    /// What it will take, as JSON.
    fn estimate(&self, py: Python<'_>) -> PyResult<String> {
        let session = self.session.get();
        unlocked(py, || Ok(json!(session.session.estimate(&self.request)?).to_string()))
    }

    /// The same, and a page of it with what speaks against the request.
    fn planned(&self, py: Python<'_>) -> PyResult<(String, String)> {
        let session = &self.session.get().session;
        unlocked(py, || {
            let (started, doubts) = (Instant::now(), doubts(session, &self.request)?);
            let estimate = session.estimate(&self.request)?;
            let seconds = started.elapsed().as_secs_f64();
            let page = report::planned(session, &self.request, &estimate, &doubts, seconds)?;
            Ok((json!(estimate).to_string(), page))
        })
    }

    /// Carries it out in memory.
    fn scrub(&self, tell: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        let of = self.session.get();
        let started = Instant::now();
        let mut scrubbed = unlocked(tell.py(), || of.session.begin(&self.request))?;
        let (result, interrupted) = of.working(tell, || of.session.scrub_on(&self.request, &mut scrubbed))?;
        match result {
            Ok(()) => {}
            Err(Error::Interrupted { .. }) if interrupted => {}
            Err(error) => return Err(raised(error)),
        }
        unlocked(tell.py(), || {
            if interrupted {
                scrubbed.network = of.session.network().clone();
                scrubbed.records.iter().try_for_each(|record| record.replay(&mut scrubbed.network))?;
            }
            let network = scrubbed.network.clone();
            let done = of.session.outcome(&self.request, scrubbed, started.elapsed().as_secs_f64());
            let text = of.session.report(&self.request, &done).to_string();
            let (session, request, after) = (&of.session, &self.request, Some(&network));
            let report = ScrubReport { session, request, outcome: &done, files: None, after, identity: None };
            let page = report::scrub(&report)?;
            let model = Some(of.model.changed(network));
            Ok(Outcome { report: text, page, model, interrupted, folder: None })
        })
    }

    /// Carries it out into a folder, or the rest of it.
    fn run(&self, folder: PathBuf, tell: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        let of = self.session.get();
        let (result, interrupted) = of.working(tell, || {
            let model = match of.session.run(&self.request, &folder)? {
                Ended::Before(_) => None,
                Ended::Now(_, network) => Some(of.model.changed(*network)),
            };
            let text = |name: &str| tensors::text(&folder.join(name));
            Ok((model, text("report.json")?, text("report.html")?))
        })?;
        let (model, report, page) = result.map_err(raised)?;
        Ok(Outcome { report, page, model, interrupted, folder: Some(folder) })
    }
}

/// What a request came to.
#[pyclass(frozen, module = "scrubjay._native", get_all)]
pub struct Outcome {
    /// The report, as JSON.
    report: String,
    /// The same as a page of HTML.
    page: String,
    /// The model after; none where the run had been finished before.
    model: Option<Model>,
    /// Whether Ctrl-C was pressed, so that later batches were not looked at.
    interrupted: bool,
    /// The folder it was carried out into.
    folder: Option<PathBuf>,
}
