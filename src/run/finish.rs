//! The end of a run: the model's files, what they do, and the report.

use std::path::Path;
use std::time::Instant;

use super::json::report_of;
use super::{DELTA, Scrubbed, written_at};
use crate::audit::{Snapshot, is_unmoved, judged};
use crate::checkpoint::{Checkpoint, Patched, Rounding};
use crate::data::{file::StoredFile, tensors};
use crate::error::{Error, Result};
use crate::hash;
use crate::net::Network;
use crate::options::DeltaValues;
use crate::outcome::{Outcome, Written, removed};
use crate::report::{self, ModelFiles, ScrubReport};
use crate::request::Request;
use crate::session::Session;

impl Session {
    /// Writes the model, and the report of a run that `started` then.
    ///
    /// # Errors
    /// Where a file cannot be written, or read again.
    pub(super) fn finish(
        &self,
        request: &Request,
        mut scrubbed: Scrubbed,
        checkpoint: &Checkpoint,
        out: &Path,
        identity: &str,
        started: Instant,
    ) -> Result<Outcome> {
        let report_file = out.join("report.json");
        let patched = checkpoint.write_patched(self.network(), &scrubbed.network, out)?;
        let (written, stored) =
            self.measure_written(request, &mut scrubbed, checkpoint, &patched, out)?.unzip();
        if let Some(values) = request.options.delta_file {
            let path = written_at(checkpoint, &patched, out);
            self.write_delta(path, values == DeltaValues::Both, &out.join(DELTA))?;
        }
        let mut outcome = Outcome {
            changed_values: patched.changed,
            lost_updates: patched.vanished,
            files: patched.files.clone(),
            written,
            ..self.outcome(request, scrubbed, 0.0)
        };
        if outcome.written.as_ref().is_some_and(|written| !written.removed) {
            (outcome.removed, outcome.not_removed) = (0, request.forget.len());
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        let files = Some(model_files(checkpoint, &patched)?);
        let report = ScrubReport {
            session: self,
            request,
            outcome: &outcome,
            files,
            after: stored.as_ref(),
            identity: Some(identity),
        };
        tensors::write_whole(&out.join("report.html"), report::scrub(&report)?.as_bytes())?;
        let text = serde_json::to_string_pretty(&report_of(&report));
        let text = text.map_err(|e| Error::data(&report_file, e.to_string()))?;
        tensors::write_whole(&report_file, text.as_bytes())?;
        Ok(outcome)
    }

    /// How the files that were written do, and their network: a type of 16 bits loses small changes. Says so in the notes where it
    /// matters.
    fn measure_written(
        &self,
        request: &Request,
        scrubbed: &mut Scrubbed,
        checkpoint: &Checkpoint,
        patched: &Patched,
        out: &Path,
    ) -> Result<Option<(Written, Network)>> {
        let gone = removed(&scrubbed.records);
        if gone.is_empty() {
            return Ok(None);
        }
        let stored = self.reopened(written_at(checkpoint, patched, out))?;
        let (task, forgotten) = (request.task(self, None), self.samples().subset(&gone));
        let judged = judged(&task, &gone, &mut vec![]);
        let judged = self.validation().filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
        let of = |net: &Network| Snapshot::of(&task, net, &forgotten, judged.as_ref());
        let (before, after) = (of(self.network())?, of(&stored)?);
        let mut removed = true;
        if stored != scrubbed.network {
            let whole = of(&scrubbed.network)?;
            let lost = is_unmoved(&before, &after) && !is_unmoved(&before, &whole);
            removed = !lost;
            scrubbed.notes.push(format!(
                "{}rounded to the type of the file, {} of {} changed values are as before: the loss of the forgotten is {:.4} \
                 as written, {:.4} before rounding and {:.4} before removal",
                if lost { "not removed: " } else { "" },
                patched.vanished,
                patched.changed + patched.vanished,
                after.forget.loss,
                whole.forget.loss,
                before.forget.loss
            ));
        } else if request.options.rounding == Rounding::Stochastic && is_unmoved(&before, &after) {
            removed = false;
            scrubbed.notes.push("not removed: rounding to the type of the file undid the change".into());
        }
        Ok(Some((Written { before, after, removed }, stored)))
    }
}

/// The model's files, as they were written.
fn model_files(checkpoint: &Checkpoint, patched: &Patched) -> Result<ModelFiles> {
    let written = patched.files.iter().map(|file| StoredFile::open(file)).collect::<Result<Vec<_>>>()?;
    let names = patched.files.iter().filter_map(|file| file.file_name());
    Ok(ModelFiles {
        files: names.map(|name| name.to_string_lossy().into_owned()).collect(),
        changed_values: patched.changed,
        updates_lost_in_stored_type: patched.vanished,
        sha256_before: hash::of_files_at(checkpoint.contents())?,
        sha256_after: hash::of_files_at(written.iter().map(StoredFile::whole))?,
    })
}
