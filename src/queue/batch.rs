//! Carrying out a batch: one run of the pipeline, which gives a version of the model or nothing.
//!
//! Once a run has removed the samples, everything follows from its folder: it becomes the version, the soft labels are kept,
//! `current` moves, each request gets its receipt and leaves the incoming ones, and the batch is over. A batch that fails is
//! tried again request by request; a request that fails alone gets a receipt that says so, and the model stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::receipt::{BatchAccount, Receipt, State};
use super::server::{Server, Turn};
use super::spool::{Entry, Journal};
use crate::audit::Snapshot;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::hash;
use crate::identity::identity;
use crate::options::Pick;
use crate::outcome::{Record, removed};
use crate::receipt::records;
use crate::request::Request;
use crate::run::Finished;
use crate::session::Level;
use crate::soft_label::Held;

/// What a run came to.
struct Tried {
    removed: bool,
    reasons: Vec<String>,
    records: Vec<Record>,
    /// The folder of the run, where it is no version yet.
    folder: Option<PathBuf>,
}

impl Tried {
    /// The run that was finished in a folder, of a batch of these samples.
    fn of(folder: PathBuf, samples: &[usize], is_version: bool) -> Result<Tried> {
        let (records, Finished { not_removed, notes, .. }) = (records(&folder)?, Finished::at(&folder)?);
        let found: BTreeSet<usize> = records.iter().flat_map(|record| record.indices.clone()).collect();
        if !found.iter().eq(samples) {
            let (found, count) = (found.len(), samples.len());
            let reason = format!(
                "is of other samples ({found}) than the batch that is worked off ({count}); restore the spool from a backup as a \
                 whole, or move this folder away so that the batch is run again"
            );
            return Err(Error::data(&folder, reason));
        }
        let reasons = records.iter().flat_map(|record| record.notes.clone()).chain(notes).collect();
        let folder = (!is_version).then_some(folder);
        Ok(Tried { removed: not_removed == 0, reasons, records, folder })
    }

    fn failed(reason: String) -> Tried {
        Tried { removed: false, reasons: vec![reason], records: vec![], folder: None }
    }

    /// Why it was not removed, without what else there is to know.
    fn why(&self) -> String {
        let why: Vec<&str> =
            self.reasons.iter().filter_map(|reason| reason.strip_prefix("not removed: ")).collect();
        if why.is_empty() { self.reasons.join("; ") } else { why.join("; ") }
    }

    /// How the model did before and after.
    fn snapshots(&self) -> Option<(Snapshot, Option<Snapshot>)> {
        let account = &self.records.first()?.account;
        Some((account.before, account.after().copied()))
    }
}

impl Server {
    /// Carries out a batch, or continues it.
    ///
    /// # Errors
    /// Where the file system refuses, the user stops, or the device or the data fail.
    pub(super) fn work(&mut self, journal: Journal) -> Result<Turn> {
        if let [entry] = journal.batch()
            && entry.samples.is_empty()
        {
            return self.pass_over(journal);
        }
        let begun = Instant::now();
        let ids: BTreeSet<String> = journal.batch().iter().map(|entry| entry.submission.id.clone()).collect();
        let (requests, samples) = (journal.batch().len(), samples(&journal));
        let version = journal.version;
        // Once, however often an error is tried again.
        if self.metrics.begin(ids) {
            let count = samples.len();
            let begun = format!("version {version:04}: begun; requests: {requests}, samples: {count}");
            self.session.log(Level::Info, &begun);
        }
        let tried = self.run(&journal, samples)?;
        self.metrics.numbers().last = tried.snapshots();
        let turn = match tried.removed {
            true => self.publish(journal, &tried)?,
            false => self.give_up(journal, &tried)?,
        };
        let took = begun.elapsed();
        self.count(turn, requests, took);
        let what = match turn {
            Turn::Removed(_) => "is current".to_string(),
            Turn::Split => format!("not removed together, now one by one: {}", tried.why()),
            _ => format!("not removed: {}", tried.why()),
        };
        let level = if tried.removed { Level::Info } else { Level::Warning };
        self.session.log(level, &format!("version {version:04}: {what} ({:.1} s)", took.as_secs_f64()));
        Ok(turn)
    }

    /// Counts a batch of this many requests.
    fn count(&self, turn: Turn, requests: usize, took: Duration) {
        let mut numbers = self.metrics.numbers();
        match turn {
            Turn::Removed(_) => {
                numbers.removed += requests as u64;
                numbers.batches_removed += 1;
            }
            Turn::NotRemoved => {
                numbers.not_removed += requests as u64;
                numbers.batches_not_removed += 1;
            }
            Turn::Split => numbers.batches_not_removed += 1,
            Turn::Idle | Turn::Refused => {}
        }
        numbers.batch_time += took;
        numbers.working.clear();
    }

    /// Runs a batch, unless its version is there already.
    fn run(&mut self, journal: &Journal, samples: Vec<usize>) -> Result<Tried> {
        let folder = self.spool.version(journal.version);
        if folder.try_exists().map_err(Error::io(&folder))? {
            return Tried::of(folder, &samples, true);
        }
        let options = self.options_of(journal.version, &samples);
        let class = match journal.batch() {
            [entry] => entry.submission.class().map(Pick::from),
            _ => None,
        };
        let request =
            match Request::new(&self.session, class.unwrap_or(Pick::Indices(samples.clone())), &options) {
                Ok(request) => request,
                Err(error) => return refusal(error),
            };
        let folder = self.spool.attempt(journal.version, &identity(&self.session, &request)?);
        self.spool.clear_attempts(Some(&folder))?;
        self.spool.change("run")?;
        match self.session.run(&request, &folder) {
            Ok(_) => Tried::of(folder, &samples, false),
            Err(error) => refusal(error),
        }
    }

    /// Makes a run a version, and answers its requests.
    fn publish(&mut self, mut journal: Journal, tried: &Tried) -> Result<Turn> {
        let version = journal.version;
        if let Some(folder) = &tried.folder {
            self.spool.publish(folder, version)?;
        }
        let soft_labels = Held::of(&tried.records).soft_labels;
        self.spool.write_held(version, &Held { indices: removed(&tried.records), soft_labels })?;
        self.spool.set_current(version)?;
        let sources = self.session.sources().ok_or_else(|| Error::config("a session without files"))?;
        let written: Checkpoint = sources.checkpoint(&self.model(version))?;
        let sha256 = hash::of_files_at(written.contents())?;
        self.answer(&journal, tried, Some(&sha256))?;
        let requests = journal.batch().len();
        journal.requests.drain(..requests);
        (journal.version, journal.model_sha256) = (version + 1, sha256);
        let gone = removed(&tried.records);
        for Entry { samples, forgotten_before, .. } in &mut journal.requests {
            forgotten_before.extend(samples.iter().filter(|i| gone.contains(i)));
            samples.retain(|i| !gone.contains(i));
        }
        self.spool.keep(&journal)?;
        self.catch_up()?;
        Ok(Turn::Removed(version))
    }

    /// Ends a batch whose samples were forgotten since it began, by a request before it.
    fn pass_over(&mut self, mut journal: Journal) -> Result<Turn> {
        self.refuse_forgotten(&journal.requests[0])?;
        journal.requests.remove(0);
        self.spool.keep(&journal)?;
        Ok(Turn::Refused)
    }

    /// Ends a batch that failed: a request of its own is answered, several are tried one by one.
    fn give_up(&mut self, mut journal: Journal, tried: &Tried) -> Result<Turn> {
        let turn = if journal.batch().len() > 1 {
            journal.alone = true;
            Turn::Split
        } else {
            self.answer(&journal, tried, None)?;
            journal.requests.remove(0);
            Turn::NotRemoved
        };
        self.spool.keep(&journal)?;
        self.spool.clear_attempts(None)?;
        Ok(turn)
    }

    /// Writes the receipts of a batch, and takes its requests out of the incoming ones.
    fn answer(&mut self, journal: &Journal, tried: &Tried, model_sha256: Option<&str>) -> Result<()> {
        let (before, after) = tried.snapshots().map_or((None, None), |(before, after)| (Some(before), after));
        let account = BatchAccount {
            requests: journal.batch().len(),
            samples: samples(journal).len(),
            before,
            after,
            model_sha256_before: journal.model_sha256.clone(),
            model_sha256_after: model_sha256.map(String::from),
        };
        for Entry { submission, samples, forgotten_before, received } in journal.batch() {
            let state = if tried.removed { State::Removed } else { State::NotRemoved };
            let receipt = Receipt {
                request: submission.content(),
                request_sha256: Some(submission.sha256()),
                samples: samples.clone(),
                forgotten_before: forgotten_before.clone(),
                version: tried.removed.then_some(journal.version),
                batch: Some(account.clone()),
                received: Some(*received),
                ..self.receipt(&submission.id, state, tried.reasons.clone())
            };
            self.spool.write_receipt(&submission.id, &receipt)?;
            self.take_out(submission)?;
        }
        Ok(())
    }
}

/// The samples of a batch, ascending, each once.
fn samples(journal: &Journal) -> Vec<usize> {
    let mut all: Vec<usize> = journal.batch().iter().flat_map(|entry| entry.samples.clone()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A failure that is the batch's own, as what it came to; any other as the error that it is. Fewer samples may need less memory.
fn refusal(error: Error) -> Result<Tried> {
    match error {
        Error::Config(_) | Error::Solve { .. } | Error::NegativeCurvature { .. } | Error::Memory { .. } => {
            Ok(Tried::failed(error.to_string()))
        }
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_needs_too_much_memory_fails_and_the_server_goes_on() {
        let memory = Error::Memory { op: "run".into(), bytes: 9, free: 8, remedy: String::new() };
        let tried = refusal(memory).unwrap();
        assert!(!tried.removed && tried.why().contains("9 bytes are needed"), "{:?}", tried.reasons);
        assert!(refusal(Error::Device { op: "run".into(), reason: "lost".into() }).is_err());
    }
}
