//! Outcomes: what a request came to, as fields, as the report's JSON, and as a model.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use scrubjay::Record;
use scrubjay::audit::Performance;
use scrubjay::net::Network;

use crate::device::c_text;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::model::{Model, count};
use crate::raw::{Info, Out, versioned};
use crate::status::{Failure, Outcome};

/// `sj_outcome`.
pub struct OutcomeObject {
    done: Done,
    report: CString,
    page: Page,
    notes: Vec<Vec<CString>>,
}

impl Object for OutcomeObject {
    const NAME: &'static str = "outcome";
}

/// What a run came to.
pub enum Done {
    /// It was carried out, and gave this model.
    Now(Box<scrubjay::Outcome>, Model),
    /// It had been finished before.
    Before {
        /// Samples that were removed then.
        removed: usize,
        /// Samples that were not.
        not_removed: usize,
    },
}

/// Makes the page of what was done, and of the network after.
type MakePage = dyn Fn(&scrubjay::Outcome, &Network) -> Outcome<CString> + Send + Sync;

/// The report as a page.
pub enum Page {
    /// Of a run's folder.
    Read(CString),
    /// Of a run in memory: made when it is asked for.
    Made(Box<MakePage>, OnceLock<CString>),
}

impl OutcomeObject {
    /// With the report's text.
    pub fn new(done: Done, report: &str, page: Page) -> Outcome<OutcomeObject> {
        let texts = |record: &Record| record.notes.iter().map(|note| c_text(note)).collect::<Outcome<_>>();
        let notes = match &done {
            Done::Now(outcome, _) => outcome.records.iter().map(texts).collect::<Outcome<_>>()?,
            Done::Before { .. } => vec![],
        };
        Ok(OutcomeObject { report: c_text(report)?, page, done, notes })
    }

    fn page(&self) -> Outcome<&CString> {
        let (make, page) = match &self.page {
            Page::Read(page) => return Ok(page),
            Page::Made(make, page) => (make, page),
        };
        match (page.get(), &self.done) {
            (Some(page), _) => Ok(page),
            (None, Done::Now(outcome, after)) => {
                let made = make(outcome, &after.network)?;
                Ok(page.get_or_init(|| made))
            }
            (None, Done::Before { .. }) => {
                Err(Failure::argument("the run was finished before, and left no page"))
            }
        }
    }

    fn record(&self, batch: u64) -> Outcome<&Record> {
        let records = match &self.done {
            Done::Now(outcome, _) => &outcome.records[..],
            Done::Before { .. } => &[],
        };
        let found = records.get(count(batch, "batch")?);
        found.ok_or_else(|| Failure::argument(format!("batch {batch} of {}", records.len())))
    }
}

versioned! {
    /// `sj_outcome_info`.
    OutcomeInfo as "sj_outcome_info" {
        removed: u64 = 0,
        not_removed: u64 = 0,
        batches: u64 = 0,
        finished_before: u64 = 0,
        changed_values: u64 = 0,
        lost_updates: u64 = 0,
        seconds: f64 = 0.0,
    }
}

versioned! {
    /// `sj_receipt`.
    Receipt as "sj_receipt" {
        batch: u64 = 0,
        samples: u64 = 0,
        removed: u64 = 0,
        units: u64 = 0,
        parameters: u64 = 0,
        notes: u64 = 0,
        forget_loss_before: f64 = f64::NAN,
        forget_loss_after: f64 = f64::NAN,
        forget_accuracy_before: f64 = f64::NAN,
        forget_accuracy_after: f64 = f64::NAN,
        retain_loss_before: f64 = f64::NAN,
        retain_loss_after: f64 = f64::NAN,
        retain_accuracy_before: f64 = f64::NAN,
        retain_accuracy_after: f64 = f64::NAN,
        validation_loss_before: f64 = f64::NAN,
        validation_loss_after: f64 = f64::NAN,
        validation_accuracy_before: f64 = f64::NAN,
        validation_accuracy_after: f64 = f64::NAN,
        length: f64 = f64::NAN,
        step_norm: f64 = f64::NAN,
        gradient_share_removed: f64 = f64::NAN,
        seconds: f64 = 0.0,
    }
}

impl Receipt {
    fn of(record: &Record) -> Receipt {
        let (account, step) = (&record.account, record.account.step.as_ref());
        let none = Performance { loss: f64::NAN, accuracy: f64::NAN };
        let (before, after) = (&account.before, account.after());
        let [forget, retain] =
            [after.map_or(none, |after| after.forget), after.map_or(none, |after| after.retain)];
        let validation =
            [before.validation, after.and_then(|after| after.validation)].map(|of| of.unwrap_or(none));
        Receipt {
            batch: record.batch as u64,
            samples: record.indices.len() as u64,
            removed: record.removed().into(),
            units: record.units.len() as u64,
            parameters: step.map_or(0, |step| step.parameters) as u64,
            notes: record.notes.len() as u64,
            forget_loss_before: before.forget.loss,
            forget_loss_after: forget.loss,
            forget_accuracy_before: before.forget.accuracy,
            forget_accuracy_after: forget.accuracy,
            retain_loss_before: before.retain.loss,
            retain_loss_after: retain.loss,
            retain_accuracy_before: before.retain.accuracy,
            retain_accuracy_after: retain.accuracy,
            validation_loss_before: validation[0].loss,
            validation_loss_after: validation[1].loss,
            validation_accuracy_before: validation[0].accuracy,
            validation_accuracy_after: validation[1].accuracy,
            length: step.map_or(f64::NAN, |step| step.length.scale),
            step_norm: step.map_or(f64::NAN, |step| step.step_norm),
            gradient_share_removed: step.map_or(f64::NAN, |step| step.gradient_share_removed),
            seconds: account.seconds.values().sum(),
            ..Receipt::EMPTY
        }
    }
}

entry! {
    /// What a run came to.
    fn sj_outcome_get_info(outcome: Handle<OutcomeObject>, info: Info<OutcomeInfo>) {
        let outcome = outcome.get()?;
        info.put(match &outcome.done {
            Done::Now(done, _) => OutcomeInfo {
                removed: done.removed as u64,
                not_removed: done.not_removed as u64,
                batches: done.records.len() as u64,
                changed_values: done.changed_values as u64,
                lost_updates: done.lost_updates as u64,
                seconds: done.seconds,
                ..OutcomeInfo::EMPTY
            },
            Done::Before { removed, not_removed } => OutcomeInfo {
                removed: *removed as u64,
                not_removed: *not_removed as u64,
                finished_before: 1,
                ..OutcomeInfo::EMPTY
            },
        })
    }

    /// What became of a batch.
    fn sj_outcome_get_receipt(outcome: Handle<OutcomeObject>, batch: u64, receipt: Info<Receipt>) {
        let outcome = outcome.get()?;
        receipt.put(Receipt::of(outcome.record(batch)?))
    }

    /// Notes on a batch.
    fn sj_outcome_get_note(outcome: Handle<OutcomeObject>, batch: u64, number: u64, text: Out<*const c_char>) {
        let (outcome, place) = (outcome.get()?, text.open("text")?);
        outcome.record(batch)?;
        let notes = &outcome.notes[count(batch, "batch")?];
        let note = notes.get(count(number, "note")?);
        place.write(note.ok_or_else(|| Failure::argument(format!("note {number} of {}", notes.len())))?.as_ptr());
        Ok(())
    }

    /// The samples of a batch.
    fn sj_outcome_get_samples(outcome: Handle<OutcomeObject>, batch: u64, samples: Out<u64>, size: u64) {
        let outcome = outcome.get()?;
        let indices: Vec<u64> = outcome.record(batch)?.indices.iter().map(|&index| index as u64).collect();
        samples.put_list(&indices, count(size, "size")?, "samples")
    }

    /// The report.
    fn sj_outcome_get_report(outcome: Handle<OutcomeObject>, json: Out<*const c_char>) {
        let (outcome, place) = (outcome.get()?, json.open("text")?);
        place.write(outcome.report.as_ptr());
        Ok(())
    }

    /// The report as a page.
    fn sj_outcome_get_page(outcome: Handle<OutcomeObject>, html: Out<*const c_char>) {
        let (outcome, place) = (outcome.get()?, html.open("text")?);
        place.write(outcome.page()?.as_ptr());
        Ok(())
    }

    /// The model after the run.
    fn sj_outcome_get_model(outcome: Handle<OutcomeObject>, model: NewHandle<Model>) {
        model.open()?;
        match &outcome.get()?.done {
            Done::Now(_, after) => model.put(after.changed(after.network.clone())?),
            Done::Before { .. } => Err(Failure::argument(
                "the run had been finished before and was not carried out again; open the model in its folder",
            )),
        }
    }

    /// Ends a handle.
    fn sj_outcome_free(outcome: Handle<OutcomeObject>) {
        outcome.free()
    }
}
