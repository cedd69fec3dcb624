//! Taking requests in: what is no request gets its receipt at once, and so does what was answered before.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::incoming::{Incoming, name_of};
use super::policy::Waiting;
use super::receipt::{Receipt, State, VERSION};
use super::server::Server;
use super::spool::{Entry, Journal};
use super::submission::Submission;
use crate::error::{Error, Result};
use crate::hash;
use crate::session::Level;

/// What is wrong with a file that came in, and the request where it is one.
struct Wrong {
    reason: String,
    submission: Option<Box<Submission>>,
}

impl Server {
    /// Reads what came in since the last time: the requests that wait, oldest first, and the first error of the file system at a
    /// file, which holds no other one up.
    ///
    /// # Errors
    /// Where the folder cannot be read, or the user stops.
    pub(super) fn take_in(&mut self) -> Result<(Vec<Waiting>, Option<Error>)> {
        let files = self.spool.list()?;
        let mut known = std::mem::take(&mut self.known);
        let (mut waiting, mut failed) = (vec![], None);
        for file in files {
            let waits = match known.remove(&file.name) {
                Some((found, waits)) if found == file => Some(waits),
                _ => match self.read(&file) {
                    Err(error @ Error::Io { .. }) => {
                        failed.get_or_insert(error);
                        continue;
                    }
                    waits => waits?,
                },
            };
            if let Some(waits) = waits {
                waiting.push(waits.clone());
                self.known.insert(file.name.clone(), (file, waits));
            }
        }
        Ok((waiting, failed))
    }

    /// Reads a file; nothing where it does not wait, because it was refused or answered.
    fn read(&mut self, file: &Incoming) -> Result<Option<Waiting>> {
        let name = name_of(&file.name);
        let bytes = match self.spool.read_incoming(file) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(Error::Config(reason)) => {
                self.refuse(file, &name, Wrong { reason, submission: None })?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match self.checked(file, &bytes) {
            Ok(submission) => match self.answered(&name)? {
                None => Ok(Some(Waiting { submission, received: file.stamp.0 })),
                Some(receipt) if receipt.request_sha256.as_ref() == Some(&submission.sha256()) => {
                    self.session.log(Level::Info, &format!("request {name}: has its receipt already"));
                    self.take_out(&submission)?;
                    Ok(None)
                }
                Some(_) => {
                    let reason = "another request of this id has its receipt already; take a new id".into();
                    let wrong = Wrong { reason, submission: Some(Box::new(submission)) };
                    self.refuse(file, &name, wrong)?;
                    Ok(None)
                }
            },
            Err(wrong) => {
                self.refuse(file, &name, wrong)?;
                Ok(None)
            }
        }
    }

    /// The receipt of an id, where its samples were removed or tried. One that is damaged is told of and moved aside: what was forgotten
    /// stands in `held/`, so that the request can be looked at anew.
    fn answered(&mut self, id: &str) -> Result<Option<Receipt>> {
        loop {
            match self.spool.answered(id) {
                Err(error @ Error::Data { .. }) => {
                    let Error::Data { path, .. } = &error else { return Err(error) };
                    let aside = self.spool.set_damaged_aside(path)?;
                    let text =
                        format!("{error}; moved to {}, and request {id} is looked at anew", aside.display());
                    self.session.log(Level::Warning, &text);
                }
                found => return found,
            }
        }
    }

    /// A request, where the bytes of a file are one and its samples are known.
    fn checked(&self, file: &Incoming, bytes: &[u8]) -> std::result::Result<Submission, Wrong> {
        let wrong = |reason: String, submission| Wrong { reason, submission };
        let name = name_of(&file.name);
        if file.name != format!("{name}.json") {
            return Err(wrong(
                "is not called ID.json, an id being up to 100 letters, digits, - and _".into(),
                None,
            ));
        }
        let submission = Submission::parse(&name, bytes).map_err(|e| wrong(e.to_string(), None))?;
        match submission.samples(&self.session.samples().y, self.session.names()) {
            Ok(_) => Ok(submission),
            Err(error) => Err(wrong(error.to_string(), Some(Box::new(submission)))),
        }
    }

    /// Refuses a file: writes the receipt `NAME.json`, or `NAME.conflict.json` where the id has one of a removal, and moves the
    /// file beside it. What is no plain file stays where it is.
    fn refuse(&mut self, file: &Incoming, name: &str, wrong: Wrong) -> Result<()> {
        let conflict = self.answered(name)?.is_some();
        let name = &if conflict { format!("{name}.conflict") } else { name.to_string() };
        let received = file.stamp.0.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        let id =
            if name_of(&file.name).starts_with("name-") { file.name.clone() } else { name_of(&file.name) };
        let receipt = Receipt {
            request: wrong.submission.as_deref().map_or(Value::Null, Submission::content),
            request_sha256: wrong.submission.as_deref().map(Submission::sha256),
            received,
            ..self.receipt(&id, State::Refused, vec![wrong.reason])
        };
        let new = self.spool.write_receipt(name, &receipt)?;
        if new {
            self.count_refused(&receipt);
        }
        if file.is_file { self.spool.set_aside(file, name) } else { Ok(()) }
    }

    /// A receipt with nothing but this.
    pub(super) fn receipt(&self, id: &str, state: State, reasons: Vec<String>) -> Receipt {
        Receipt {
            receipt: VERSION,
            scrubjay: env!("CARGO_PKG_VERSION").into(),
            id: id.into(),
            state,
            reasons,
            request: Value::Null,
            request_sha256: None,
            samples: vec![],
            forgotten_before: vec![],
            version: None,
            batch: None,
            received: None,
            finished: self.seconds(),
        }
    }

    fn count_refused(&self, receipt: &Receipt) {
        self.metrics.numbers().refused += 1;
        let reasons = receipt.reasons.join("; ");
        self.session.log(Level::Warning, &format!("request {}: refused: {reasons}", receipt.id));
    }

    /// Begins a batch of these requests; none where every one is refused because its samples were forgotten before.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn begin(&mut self, waiting: &[Waiting]) -> Result<Option<Journal>> {
        let mut requests = vec![];
        for Waiting { submission, received } in waiting {
            let all = submission.samples(&self.session.samples().y, self.session.names())?;
            let forgotten = self.session.forgotten();
            let (forgotten_before, samples): (Vec<usize>, Vec<usize>) =
                all.into_iter().partition(|i| forgotten.binary_search(i).is_ok());
            let received = received.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let entry = Entry { submission: submission.clone(), samples, forgotten_before, received };
            if entry.samples.is_empty() {
                self.refuse_forgotten(&entry)?;
            } else {
                requests.push(entry);
            }
        }
        if requests.is_empty() {
            return Ok(None);
        }
        let checkpoint = self.session.checkpoint().ok_or_else(|| Error::config("a session without files"))?;
        let model_sha256 = hash::of_files_at(checkpoint.contents())?;
        let journal = Journal { version: self.version + 1, model_sha256, alone: false, requests };
        self.spool.keep(&journal)?;
        Ok(Some(journal))
    }

    /// Refuses a request whose samples were all forgotten before.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn refuse_forgotten(&mut self, entry: &Entry) -> Result<()> {
        let Entry { submission, forgotten_before, received, .. } = entry;
        let count = forgotten_before.len();
        let receipt = Receipt {
            request: submission.content(),
            request_sha256: Some(submission.sha256()),
            forgotten_before: forgotten_before.clone(),
            version: Some(self.version),
            received: Some(*received),
            ..self.receipt(
                &submission.id,
                State::Refused,
                vec![format!("all {count} samples were forgotten before")],
            )
        };
        if self.spool.write_receipt(&submission.id, &receipt)? {
            self.count_refused(&receipt);
        }
        self.take_out(submission)
    }

    /// Takes a request that has its receipt out of the incoming ones. What is left under its name is read again.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub(super) fn take_out(&mut self, submission: &Submission) -> Result<()> {
        self.known.remove(&format!("{}.json", submission.id));
        self.spool.take_out(&submission.id, &submission.sha256())
    }
}
