//! Carrying out a request: in memory ([`Session::scrub`]), or into a folder ([`Session::run`]) with the patched model, the
//! report, and the records from which an interrupted run goes on. Of several ranks, rank 0 alone reads and writes the folder.

mod finish;
mod json;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Delta, Patched, Rounding, Rows, Way};
use crate::data::file::check_folder;
use crate::data::tensors;
use crate::doubt::doubts;
use crate::error::{Error, Result, check_stop};
use crate::hold::hold;
use crate::identity::{identity, is_of_another_version};
use crate::memory::Memory;
use crate::net::Network;
use crate::outcome::{LayerAccount, Outcome, Privacy, Record, removed};
use crate::receipt::Events;
use crate::report::ScrubReport;
use crate::request::Request;
use crate::session::{Level, Progress, Session};
use crate::soft_label::Held;
use crate::stage::Stages;
use crate::task::Task;
use crate::unlearn::unlearn;

use json::report_of;

/// A network after a request, in memory.
#[derive(Clone)]
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
    /// It was carried out, or its rest: what was done, whose records leave their values to the folder, and the network before it is
    /// rounded to the type of the file.
    Now(Box<Outcome>, Box<Network>),
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
        let before = scrubbed.clone();
        self.together(
            |session| session.go_on(request, scrubbed, None, |_| Ok(())),
            |session| session.go_on(request, &mut before.clone(), None, |_| Ok(())),
        )
    }

    /// Rounds the network at random to the type of the model's files, where that was asked for.
    fn round(&self, request: &Request, scrubbed: &mut Scrubbed) -> Result<()> {
        let (Rounding::Stochastic, Some(checkpoint)) = (request.options.rounding, self.checkpoint()) else {
            return Ok(());
        };
        let seed = request.settings.seed;
        let rounded = checkpoint.round_at_random(self.network(), &mut scrubbed.network, seed)?;
        if rounded.changed > 0 {
            scrubbed.notes.push(format!(
                "rounded at random to the type of the files: {} of {} changed values are as before",
                rounded.unchanged, rounded.changed
            ));
        }
        Ok(())
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
            never_touched: request.never_touched(),
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

    /// Removes the batches that `scrubbed` has no record of, and rounds the network as was asked for; `keep` takes each record
    /// before the next batch begins, and `stages` what to go on from within one.
    fn go_on(
        &self,
        request: &Request,
        scrubbed: &mut Scrubbed,
        stages: Option<&Stages>,
        mut keep: impl FnMut(&mut Record) -> Result<()>,
    ) -> Result<()> {
        let batches = request.batches();
        let report = |done: usize, phase| {
            self.report_progress(Progress { done, batches: batches.len(), phase });
            check_stop(self.stop())
        };
        report(scrubbed.records.len(), None)?;
        let memory = Memory::of(self, request)?.kept_bytes;
        for (i, batch) in batches.iter().enumerate().skip(scrubbed.records.len()) {
            let on_phase = |phase| {
                self.report_progress(Progress { done: i, batches: batches.len(), phase: Some(phase) })
            };
            let mut task = Task { stages, ..request.task(self, Some(&on_phase)) };
            task.settings.memory = memory;
            let net = &mut scrubbed.network;
            let mut record = match &request.settings.hold {
                Some(settings) => hold(&task, settings, net, i, batch, Held::of(&scrubbed.records))?,
                None => unlearn(&task, net, i, batch, &removed(&scrubbed.records))?,
            };
            keep(&mut record)?;
            self.log_record(&record);
            scrubbed.records.push(record);
            report(i + 1, None)?;
        }
        self.round(request, scrubbed)
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
        let out = out.as_ref();
        self.together(
            |session| session.run_on(request, out),
            |session| session.run_on(request, out).map(drop),
        )
    }

    /// The same on the device of one rank.
    fn run_on(&self, request: &Request, out: &Path) -> Result<Ended> {
        let started = Instant::now();
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
        let records = ranks.first(|| {
            std::fs::create_dir_all(out).map_err(Error::io(out))?;
            let (opened, records) = Events::open(out, &identity)?;
            events = Some(opened);
            Ok(records)
        })?;
        let replayed = records.into_iter().map(|record| record.replayed(&mut scrubbed.network));
        scrubbed.records = replayed.collect::<Result<_>>()?;
        let (mut kept, stages) = (scrubbed.records.len(), Stages::of(out, &identity).among(ranks));
        let result = self.go_on(request, &mut scrubbed, Some(&stages), |record| {
            ranks.first(|| events.iter_mut().try_for_each(|events| events.write(record)))?;
            record.values = vec![]; // they are on the disk now
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
        let network = Box::new(scrubbed.network.clone());
        if ranks.leads() {
            let outcome =
                ranks.by_itself(|| self.finish(request, scrubbed, checkpoint, out, &identity, started));
            let outcome = ranks.told(outcome)?;
            ranks.first(|| Ok((outcome.removed, outcome.not_removed)))?;
            return Ok(Ended::Now(Box::new(outcome), network));
        }
        let (removed, not_removed) = ranks.first(|| Ok((0, 0)))?; // rank 0's
        let outcome = Outcome { removed, not_removed, ..self.outcome(request, scrubbed, 0.0) };
        Ok(Ended::Now(Box::new(outcome), network))
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

/// Refuses the folder of a model's own files, whatever it is called (a model in memory has none), and one that cannot be written.
///
/// # Errors
/// Where `out` is either.
pub fn check_out(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let folder = checkpoint.folder().canonicalize();
    if !checkpoint.is_in_memory() && matches!((out.canonicalize(), folder), (Ok(a), Ok(b)) if a == b) {
        let reason = "is the folder of the model, which would be overwritten; choose another --out";
        return Err(Error::config(format!("{}: {reason}", out.display())));
    }
    check_folder(out)
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
