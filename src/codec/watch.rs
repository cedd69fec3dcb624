//! Progress of a selection, and its end on request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The progress of a selection, which another thread may read, and a request to end it.
#[derive(Debug, Default)]
pub struct Watch {
    stop: AtomicBool,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Watch {
    /// Ends the selection soon; the steps completed so far are kept.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the end was requested.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Parts of the current step that are done, and how many it has.
    pub fn progress(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(super) fn begin(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, parts: usize) {
        self.done.fetch_add(parts, Ordering::Relaxed);
    }
}
