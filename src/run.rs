//! Carrying out a request: in memory ([`Session::scrub`]), or into a folder ([`Session::run`]) with the patched model, the
//! report, and the records from which an interrupted run goes on. Of several ranks, rank 0 alone reads and writes the folder.

mod finish;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Delta, Patched, Rows, Way};
use crate::data::{shown, tensors};
use crate::doubt::doubts;
use crate::error::{Error, Result, check_stop};
use crate::hash;
use crate::hold::hold;
use crate::identity::{identity, is_of_another_version};
use crate::net::Network;
use crate::options::Pick;
use crate::outcome::{LayerAccount, Outcome, Privacy, Record, removed};
use crate::receipt::Events;
use crate::report::ScrubReport;
use crate::request::Request;
use crate::session::{Level, Progress, Session};
use crate::soft_label::Held;
use crate::stage::Stages;
use crate::task::{HoldSettings, Procedure, Task};
use crate::unlearn::unlearn;

/// What a request leaves as it is, in words.
fn never_touched(request: &Request) -> &'static str {
    match request.settings.hold.as_ref().map(|hold| hold.block) {
        Some(None) => "none; a hold trains every parameter on",
        None | Some(Some(_)) => "batch-norm statistics and affines, layer norms, embeddings, class tokens",
    }
}

/// A network after a request, in memory.
pub struct Scrubbed {
    /// The network.
    pub network: Network,
    /// One record per batch.
    pub records: Vec<Record>,
    /// What is to be known of the request, the model and the data.
    pub notes: Vec<String>,
}

/// How a run in a folder ended.
pub enum Ended {
    /// It was carried out, or its rest.
    Now(Box<Outcome>),
    /// It had been finished before; nothing was changed.
    Before(Finished),
}

/// A run that had been finished before.
#[derive(Serialize, Deserialize)]
pub struct Finished {
    /// Samples that were not removed then.
    pub not_removed: usize,
    /// What was to be known then.
    pub notes: Vec<String>,
    /// Its `report.json`.
    pub report: PathBuf,
}

impl Session {
    /// Carries out a request in memory; nothing is written.
    ///
    /// # Errors
    /// Where a stage fails or the user stops.
    pub fn scrub(&self, request: &Request) -> Result<Scrubbed> {
        let mut scrubbed = self.begin(request)?;
        self.scrub_on(request, &mut scrubbed)?;
        Ok(scrubbed)
    }

    /// [`Session::scrub`] that goes on after the records of `scrubbed`. Where it ends early, these have every batch that was
    /// done, and [`Record::replay`] makes the network from them.
    ///
    /// # Errors
    /// As [`Session::scrub`].
    pub fn scrub_on(&self, request: &Request, scrubbed: &mut Scrubbed) -> Result<()> {
        self.go_on(request, scrubbed, None, |_| Ok(()))
    }

    /// What a request that was carried out in memory came to; changed values are those of the network, and none is lost to
    /// a file's type.
    pub fn outcome(&self, request: &Request, scrubbed: Scrubbed, seconds: f64) -> Outcome {
        let removed = removed(&scrubbed.records).len();
        let pairs = self.network().params.iter().zip(&scrubbed.network.params);
        let differ =
            |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        Outcome {
            removed,
            not_removed: request.forget.len() - removed,
            privacy: Privacy::spent(&scrubbed.records, request.settings.certificate),
            never_touched: never_touched(request),
            notes: [request.warnings.clone(), scrubbed.notes].concat(),
            written: None,
            changed_values: pairs.map(|(before, after)| differ(&before.value, &after.value)).sum(),
            lost_updates: 0,
            layers: LayerAccount::all(self.network(), &scrubbed.network, &scrubbed.records),
            files: vec![],
            records: scrubbed.records,
            seconds,
        }
    }

    /// The report of a request that was carried out in memory: that of [`Session::run`], where `identity` and `model` are
    /// null because no file was written.
    pub fn report(&self, request: &Request, outcome: &Outcome) -> Value {
        report_of(&ScrubReport { session: self, request, outcome, files: None, after: None, identity: None })
    }

    /// A request before its first batch, for [`Session::scrub_on`]; tells what there is to doubt.
    ///
    /// # Errors
    /// Where the request, the model or the data make the removal a poor one, and the request does not say to go on.
    pub fn begin(&self, request: &Request) -> Result<Scrubbed> {
        let notes = doubts(self, request)?;
        notes.iter().for_each(|note| self.log(Level::Warning, note));
        Ok(Scrubbed { network: self.network().clone(), records: vec![], notes })
    }

    /// Removes the batches that `scrubbed` has no record of; `keep` takes each record before the next batch begins, and
    /// `stages` what to go on from within one.
    fn go_on(
        &self,
        request: &Request,
        scrubbed: &mut Scrubbed,
        stages: Option<&Stages>,
        mut keep: impl FnMut(&Record) -> Result<()>,
    ) -> Result<()> {
        let batches = request.batches();
        let report = |done: usize, phase| {
            self.report_progress(Progress { done, batches: batches.len(), phase });
            check_stop(self.stop())
        };
        report(scrubbed.records.len(), None)?;
        for (i, batch) in batches.iter().enumerate().skip(scrubbed.records.len()) {
            let on_phase = |phase| {
                self.report_progress(Progress { done: i, batches: batches.len(), phase: Some(phase) })
            };
            let task = Task { stages, ..request.task(self, Some(&on_phase)) };
            let net = &mut scrubbed.network;
            let record = match &request.settings.hold {
                Some(settings) => hold(&task, settings, net, i, batch, Held::of(&scrubbed.records))?,
                None => unlearn(&task, net, i, batch, &removed(&scrubbed.records))?,
            };
            keep(&record)?;
            self.log_record(&record);
            scrubbed.records.push(record);
            report(i + 1, None)?;
        }
        Ok(())
    }

    /// Tells what became of a batch.
    fn log_record(&self, record: &Record) {
        let (number, count) = (record.batch, record.indices.len());
        let what = if record.removed() { "removed" } else { "not removed" };
        self.log(Level::Info, &format!("batch {number}: {count} samples {what}"));
        record.notes.iter().for_each(|note| self.log(Level::Info, &format!("batch {number}: {note}")));
    }

    /// Carries out a request into a folder: the model under its own name with only the touched values changed, config
    /// files beside it, `report.json`, `report.html`, and `events.jsonl` with one record per batch. A run that was
    /// interrupted goes on after its last complete record; one that is finished is left as it is.
    ///
    /// # Errors
    /// Where the folder is the model's or holds another run or other files, the session was not opened from files, a stage
    /// fails, or the user stops.
    pub fn run(&self, request: &Request, out: impl AsRef<Path>) -> Result<Ended> {
        let (started, out) = (Instant::now(), out.as_ref());
        let identity = identity(self, request)?;
        let Some(checkpoint) = self.checkpoint() else {
            return Err(Error::config("a session of values in memory has no files to write"));
        };
        let ranks = self.device().ranks();
        if let Some(before) = ranks.first(|| self.before(request, checkpoint, out, &identity))? {
            return Ok(Ended::Before(before));
        }
        let mut scrubbed = self.begin(request)?;
        let mut events = None; // of rank 0
        scrubbed.records = ranks.first(|| {
            std::fs::create_dir_all(out).map_err(Error::io(out))?;
            let (opened, records) = Events::open(out, &identity)?;
            events = Some(opened);
            Ok(records)
        })?;
        let Scrubbed { network, records, .. } = &mut scrubbed;
        records.iter().try_for_each(|record| record.replay(network))?;
        let (mut kept, stages) = (scrubbed.records.len(), Stages::of(out, &identity).among(ranks));
        let result = self.go_on(request, &mut scrubbed, Some(&stages), |record| {
            ranks.first(|| events.iter_mut().try_for_each(|events| events.write(record)))?;
            kept += 1;
            stages.clear()
        });
        result.map_err(|error| match error {
            Error::Interrupted { .. } => Error::Interrupted {
                kept: format!(
                    "{kept} of {} batches are in {}; the same command goes on from there",
                    request.batches().len(),
                    out.display()
                ),
            },
            other => other,
        })?;
        stages.clear()?; // of a run that was stopped between a record and this
        if ranks.leads() {
            let outcome =
                ranks.by_itself(|| self.finish(request, scrubbed, checkpoint, out, &identity, started));
            let outcome = ranks.told(outcome)?;
            ranks.first(|| Ok((outcome.removed, outcome.not_removed)))?;
            return Ok(Ended::Now(Box::new(outcome)));
        }
        let (removed, not_removed) = ranks.first(|| Ok((0, 0)))?; // rank 0's
        let outcome = Outcome { removed, not_removed, ..self.outcome(request, scrubbed, 0.0) };
        Ok(Ended::Now(Box::new(outcome)))
    }

    /// The run that was finished in a folder, if one was.
    fn before(
        &self,
        request: &Request,
        checkpoint: &Checkpoint,
        out: &Path,
        identity: &str,
    ) -> Result<Option<Finished>> {
        self.check_out(out)?;
        let report_file = out.join("report.json");
        if report_file.exists() {
            let before = finished(out, report_file, identity)?;
            if request.options.delta_file.is_some() && !out.join(DELTA).exists() {
                let reason = "was finished without a delta file; choose another --out";
                return Err(Error::config(format!("{}: {reason}", out.display())));
            }
            return Ok(Some(before));
        }
        for name in checkpoint.file_names() {
            if out.join(name).exists() && !out.join("events.jsonl").exists() {
                let reason = "is there already, and no run of scrub began it; choose another --out";
                return Err(Error::config(format!("{}: {reason}", out.join(name).display())));
            }
        }
        Ok(None)
    }

    /// Goes on with a run that was begun in a folder; [`Session::run`] would begin one where there is none.
    ///
    /// # Errors
    /// As [`Session::run`]; where no run was begun in the folder.
    pub fn resume(&self, request: &Request, out: impl AsRef<Path>) -> Result<Ended> {
        let out = out.as_ref();
        if !out.join("events.jsonl").exists() {
            return Err(Error::config(format!("{}: no run was begun here", out.display())));
        }
        self.run(request, out)
    }

    /// Refuses the folder of the model itself, whatever it is called.
    ///
    /// # Errors
    /// Where `out` is that folder, or a file.
    pub fn check_out(&self, out: &Path) -> Result<()> {
        self.checkpoint().map_or(Ok(()), |checkpoint| check_out(checkpoint, out))
    }
}

/// The name of a delta file in a run's folder.
pub const DELTA: &str = "delta.safetensors";

/// The model in a run's folder, as a path that opens it.
fn written_at<'a>(checkpoint: &Checkpoint, patched: &'a Patched, out: &'a Path) -> &'a Path {
    let file = patched.files.first().filter(|_| !checkpoint.path().is_dir());
    file.map_or(out, PathBuf::as_path)
}

/// Refuses the folder of a model's own files, whatever it is called (a model in memory has none), and a file.
///
/// # Errors
/// Where `out` is that folder, or a file.
pub fn check_out(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let folder = checkpoint.folder().canonicalize();
    if !checkpoint.is_in_memory() && matches!((out.canonicalize(), folder), (Ok(a), Ok(b)) if a == b) {
        let reason = "is the folder of the model, which would be overwritten; choose another --out";
        return Err(Error::config(format!("{}: {reason}", out.display())));
    }
    match out.is_file() {
        true => Err(Error::io(out)(std::io::Error::other("is a file; --out takes a folder"))),
        false => Ok(()),
    }
}

/// The part of a report that is read.
#[derive(Deserialize)]
struct Header {
    identity: String,
    not_removed: usize,
    notes: Vec<String>,
}

impl Finished {
    /// The run that was finished in a folder, whatever its inputs and options.
    ///
    /// # Errors
    /// Where there is no report of a scrub.
    pub fn at(folder: &Path) -> Result<Finished> {
        Finished::read(folder.join("report.json")).map(|(_, finished)| finished)
    }

    /// A finished run by its report, and its identity.
    fn read(report: PathBuf) -> Result<(String, Finished)> {
        let Header { identity, not_removed, notes } = serde_json::from_slice(&tensors::read(&report)?)
            .map_err(|e| Error::data(&report, format!("is not a report of a scrub: {e}")))?;
        Ok((identity, Finished { not_removed, notes, report }))
    }
}

/// Writes to a folder, which is made if need be, the model that a delta file makes of a model's files: the files that were
/// written, and what changed.
///
/// # Errors
/// Where a file cannot be read or written, the folder is the model's own, and as [`Delta::take`].
pub fn take_delta(model: &Path, delta: &Path, way: Way, out: &Path) -> Result<(Vec<PathBuf>, Rows)> {
    let delta = Delta::open(delta)?;
    let checkpoint = Checkpoint::open_with(model, &[], delta.weights())?;
    check_out(&checkpoint, out)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    delta.take(&checkpoint, way, out)
}

/// A finished folder: the same request again changes nothing, another is refused.
fn finished(out: &Path, report: PathBuf, identity: &str) -> Result<Finished> {
    let (found, finished) = Finished::read(report)?;
    if is_of_another_version(&found) {
        let reason = "was finished by another version of scrubjay, whose runs cannot be compared with this one's; choose \
                      another --out, or remove it";
        return Err(Error::config(format!("{}: {reason}", out.display())));
    }
    if found != identity {
        let reason =
            "was made with another model, data, request or options; choose another --out, or remove it";
        return Err(Error::config(format!("{}: {reason}", out.display())));
    }
    Ok(finished)
}

/// `report.json` (docs/REPORT.md).
fn report_of(report: &ScrubReport) -> Value {
    let ScrubReport { session, request, outcome, files, identity, .. } = report;
    json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "report": "scrub",
        "command": session.command(),
        "identity": identity,
        "family": session.family(),
        "device": session.device().report(),
        "gpu": session.device().reading(),
        "options": options(session, request),
        "request": {
            "samples": request.forget,
            "first": shown(&request.forget, &session.samples().y, session.names()),
            "sha256": hash::of_parts(request.forget.iter().map(|i| i.to_le_bytes())),
            "n": request.n,
            "forgotten_before": session.forgotten().len(),
            "batch": request.batch,
        },
        "retained": {
            "used": request.retained.len(),
            "held_out": request.held_out.len(),
            "chosen": request.retained_by,
        },
        "removed": outcome.removed,
        "not_removed": outcome.not_removed,
        "written": outcome.written.as_ref().map(|written| json!({"before": written.before, "after": written.after})),
        "privacy": outcome.privacy,
        "notes": outcome.notes,
        "never_touched": outcome.never_touched,
        "model": files,
        "layers": outcome.layers,
        "records": outcome.records.iter().map(without_values).collect::<Vec<_>>(),
        "seconds": outcome.seconds,
    })
}

/// The options of a report: as they were asked for, with the defaults that were worked out.
fn options(session: &Session, request: &Request) -> Value {
    let (settings, sources) = (&request.settings, session.sources());
    let texts = session.network().vocabulary().is_some();
    json!({
        "model": sources.map(|sources| &sources.model),
        "data": sources.map(|sources| &sources.data),
        "forget": request.asked.as_ref().and_then(Pick::text),
        "forget_data": sources.and_then(|sources| sources.forget_data.as_ref()),
        "retain": request.options.retain.as_ref().and_then(Pick::text),
        "val": sources.and_then(|sources| sources.validation.as_ref()),
        "method": if settings.hold.is_some() { Procedure::Hold } else { Procedure::Lcodec },
        "hold": settings.hold.as_ref().map(|HoldSettings { proxy, recipe, epochs, block }| json!({
            "proxy": proxy,
            "model": sources.and_then(|sources| sources.proxy.as_ref()),
            "recipe": recipe,
            "epochs": epochs,
            "block": block,
        })),
        "selection": settings.selection.method,
        "perturbations": settings.selection.perturbations,
        "sigma": (!texts).then_some(settings.selection.sigma),
        "replace": texts.then_some(settings.selection.replace),
        "max_units": settings.selection.max_units,
        "share": settings.selection.share,
        "precision": settings.selection.precision,
        "curvature": settings.curvature,
        "earlier": sources.and_then(|sources| sources.earlier.as_ref()),
        "precondition": settings.precondition,
        "damping": settings.damping,
        "l2": settings.l2,
        "update": settings.rule,
        "length": settings.calibration,
        "target": settings.target,
        "stages": settings.stages,
        "iterations": settings.iterations,
        "tolerance": settings.limits.tolerance,
        "products": settings.limits.products,
        "gate": settings.gate,
        "if_empty": settings.if_empty,
        "epsilon": settings.certificate.map(|spec| spec.epsilon),
        "delta": settings.certificate.map(|spec| spec.delta),
        "noise": settings.noise(),
        "delta_file": request.options.delta_file,
        "despite": request.options.despite.as_deref().unwrap_or_default(),
        "seed": settings.seed,
    })
}

fn without_values(record: &Record) -> Value {
    json!({
        "batch": record.batch,
        "indices": record.indices,
        "removed": record.removed(),
        "fate": record.fate,
        "notes": record.notes,
        "units": record.units,
        "account": record.account,
    })
}
