//! What the queue has done, as Prometheus text and as a word on its health.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::audit::Snapshot;

/// The numbers, shared between the server and who asks for them. Totals are of this process.
#[derive(Default)]
pub struct Metrics(Mutex<Numbers>);

/// The numbers as they are.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Whether the model and the data are still read; the other numbers do not count until then.
    pub starting: bool,
    /// Ids of the batch that is worked off.
    pub working: BTreeSet<String>,
    /// Requests whose samples were removed.
    pub removed: u64,
    /// Requests that were tried and not accepted.
    pub not_removed: u64,
    /// Files that were refused.
    pub refused: u64,
    /// Batches that gave a version.
    pub batches_removed: u64,
    /// Batches that did not.
    pub batches_not_removed: u64,
    /// Time of all batches.
    pub batch_time: Duration,
    /// Samples that the newest version has forgotten.
    pub forgotten: usize,
    /// The newest version.
    pub version: u32,
    /// How the model did before and after the last batch.
    pub last: Option<(Snapshot, Option<Snapshot>)>,
    /// Errors that were tried again.
    pub errors: u64,
    /// The one that the server tries again now.
    pub error: Option<String>,
}

impl Metrics {
    /// Those of a server that is yet to be opened.
    pub fn starting() -> Metrics {
        Metrics(Mutex::new(Numbers { starting: true, ..Numbers::default() }))
    }

    /// Whether the server is yet to be opened.
    pub fn is_starting(&self) -> bool {
        self.numbers().starting
    }

    /// Sets the batch that is running; whether it is another one than before. An error before it is then over.
    pub(super) fn begin(&self, ids: BTreeSet<String>) -> bool {
        let mut numbers = self.numbers();
        let new = numbers.working != ids;
        if new {
            (numbers.working, numbers.error) = (ids, None);
        }
        new
    }

    /// The numbers, to read or to change.
    pub fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error that the server tries again after; nothing where there is none.
    pub fn trouble(&self) -> Option<String> {
        self.numbers().error.clone()
    }

    /// How the server is, as a line: `ok`, or what it tries again after.
    pub fn health(&self) -> String {
        self.trouble().map_or("ok\n".into(), |error| format!("retrying: {error}\n"))
    }

    /// The numbers in Prometheus's text format; requests that wait are counted in the folder `incoming`.
    pub fn text(&self, incoming: &Path, now: SystemTime) -> String {
        let numbers = self.numbers().clone();
        let (waiting, age) = waiting(incoming, &numbers.working, now);
        let mut page = Page(String::new());
        page.family("scrubjay_requests", "gauge", "Requests that have no receipt yet, by state.");
        page.value("scrubjay_requests{state=\"waiting\"}", waiting as f64);
        page.value("scrubjay_requests{state=\"working\"}", numbers.working.len() as f64);
        page.family("scrubjay_queue_age_seconds", "gauge", "How long the oldest waiting request has waited.");
        page.value("scrubjay_queue_age_seconds", age.as_secs_f64());
        page.family("scrubjay_requests_total", "counter", "Requests that got a receipt, by state.");
        for (state, count) in
            [("removed", numbers.removed), ("not-removed", numbers.not_removed), ("refused", numbers.refused)]
        {
            page.value(&format!("scrubjay_requests_total{{state=\"{state}\"}}"), count as f64);
        }
        page.family(
            "scrubjay_batches_total",
            "counter",
            "Batches that were tried, by whether a version came of them.",
        );
        page.value("scrubjay_batches_total{state=\"removed\"}", numbers.batches_removed as f64);
        page.value("scrubjay_batches_total{state=\"not-removed\"}", numbers.batches_not_removed as f64);
        page.family("scrubjay_batch_seconds", "summary", "Seconds that batches took.");
        page.value("scrubjay_batch_seconds_sum", numbers.batch_time.as_secs_f64());
        page.value(
            "scrubjay_batch_seconds_count",
            (numbers.batches_removed + numbers.batches_not_removed) as f64,
        );
        page.family("scrubjay_samples_forgotten", "gauge", "Samples that the newest version has forgotten.");
        page.value("scrubjay_samples_forgotten", numbers.forgotten as f64);
        page.family(
            "scrubjay_version",
            "gauge",
            "The newest version; 0 is the model that the spool began with.",
        );
        page.value("scrubjay_version", f64::from(numbers.version));
        page.family(
            "scrubjay_accuracy",
            "gauge",
            "Share of right predictions before and after the last batch.",
        );
        if let Some((before, after)) = &numbers.last {
            page.accuracies("before", before);
            after.iter().for_each(|after| page.accuracies("after", after));
        }
        page.family("scrubjay_errors_total", "counter", "Errors after which the server tried again.");
        page.value("scrubjay_errors_total", numbers.errors as f64);
        page.family("scrubjay_last_error", "gauge", "1 while the server tries again after this error.");
        if let Some(error) = &numbers.error {
            page.value(&format!("scrubjay_last_error{{reason=\"{}\"}}", escaped(error)), 1.0);
        }
        page.0
    }
}

/// Requests in a folder, as plain files, that are not worked off, and how long the oldest has waited.
fn waiting(incoming: &Path, working: &BTreeSet<String>, now: SystemTime) -> (usize, Duration) {
    let (mut count, mut age) = (0, Duration::ZERO);
    for entry in std::fs::read_dir(incoming).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_suffix(".json").filter(|id| !id.starts_with('.')) else { continue };
        let Ok(meta) = entry.metadata() else { continue }; // of a link itself; it was taken away
        if meta.is_file() && !working.contains(id) {
            count += 1;
            age =
                age.max(meta.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default());
        }
    }
    (count, age)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A page of metrics.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes all
    }

    fn value(&mut self, name: &str, value: f64) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn accuracies(&mut self, when: &str, snapshot: &Snapshot) {
        let validation = snapshot.validation.map(|set| ("validation", set.accuracy));
        let sets = [("forgotten", snapshot.forget.accuracy), ("retained", snapshot.retain.accuracy)];
        for (set, accuracy) in sets.into_iter().chain(validation) {
            self.value(&format!("scrubjay_accuracy{{set=\"{set}\",when=\"{when}\"}}"), accuracy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_requests_and_errors_are_in_the_text() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "b.json", "c.json", ".d.json", "e.part"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        std::fs::create_dir(folder.path().join("folder.json")).unwrap(); // refused, and stays
        let metrics = Metrics::starting();
        assert!(metrics.is_starting());
        metrics.numbers().starting = false;
        metrics.numbers().error = Some("of the batch before".into());
        assert!(metrics.begin(BTreeSet::from(["b".into()])));
        assert_eq!(metrics.trouble(), None);
        metrics.numbers().error = Some("a \"disk\"\nis full".into());
        let later = SystemTime::now() + Duration::from_secs(100);
        let text = metrics.text(folder.path(), later);
        for line in [
            "scrubjay_requests{state=\"waiting\"} 2",
            "scrubjay_requests{state=\"working\"} 1",
            "scrubjay_last_error{reason=\"a \\\"disk\\\"\\nis full\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let age = text.lines().find_map(|line| line.strip_prefix("scrubjay_queue_age_seconds "));
        assert!((99.0..110.0).contains(&age.unwrap().parse::<f64>().unwrap()), "{text}");
        // The same batch, tried again.
        assert!(!metrics.begin(BTreeSet::from(["b".into()])));
        assert!(metrics.trouble().is_some());
    }
}
