//! When a batch begins, and which requests are in it.
//!
//! Requests are taken in the order in which they came. A batch is due once there are `count` of them, or once the oldest has
//! waited for `age`. A class is a batch of its own, because L-CODEC calibrates a class in another way than other samples;
//! requests after it wait for the batch after.

use std::time::{Duration, SystemTime};

use super::submission::Submission;

/// When a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests of a batch at most; this many waiting ones are due.
    pub count: usize,
    /// How long a request waits at most for others.
    pub age: Duration,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The request.
    pub submission: Submission,
    /// When its file was written.
    pub received: SystemTime,
}

impl Policy {
    /// How many of the requests, which are sorted by age, are the next batch; 0 where none is due. `all` makes every request
    /// due.
    pub fn batch(&self, waiting: &[Waiting], now: SystemTime, all: bool) -> usize {
        let Some(oldest) = waiting.first() else { return 0 };
        let waited = now.duration_since(oldest.received).unwrap_or_default();
        if !all && waiting.len() < self.count && waited < self.age {
            return 0;
        }
        if oldest.submission.class().is_some() {
            return 1;
        }
        let others = waiting.iter().take_while(|waiting| waiting.submission.class().is_none());
        others.take(self.count.max(1)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_due_by_count_or_by_age_and_a_class_goes_alone() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let of = |forget: &str, seconds: u64| {
            let text = format!("{{\"version\": 1, \"id\": \"x\", \"forget\": \"{forget}\"}}");
            let submission = Submission::parse("x", text.as_bytes()).unwrap();
            Waiting { submission, received: at(seconds) }
        };
        let policy = Policy { count: 3, age: Duration::from_secs(60) };
        let waiting = [of("1", 0), of("2", 10), of("3", 20), of("class:1", 30), of("4", 40), of("5", 41)];
        for (from, to, now, all, expected) in [
            (0, 0, 0, true, 0),
            (0, 2, 0, false, 0),
            (0, 2, 59, false, 0),
            (0, 2, 60, false, 2),
            (0, 2, 59, true, 2),
            (0, 3, 20, false, 3),
            (0, 6, 45, false, 3),
            (2, 6, 45, false, 1), // up to the class
            (3, 6, 45, false, 1),
            (4, 6, 45, false, 0),
            (4, 6, 100, false, 2),
        ] {
            let found = policy.batch(&waiting[from..to], at(now), all);
            assert_eq!(found, expected, "{from}..{to} at {now}");
        }
        // A clock that was set back is no reason to begin.
        assert_eq!(policy.batch(&waiting[4..5], start, false), 0);
    }
}
