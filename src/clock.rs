//! The clock of a batch: seconds of its phases, each of which is reported when it ends.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::names::names;
use crate::task::OnPhase;

/// A phase of a removal, for its seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Passes of the selection, and the choice.
    Select,
    /// Losses and accuracies before and after.
    Evaluate,
    /// Gradients, and what products keep.
    Curvature,
    /// The solver.
    Solve,
    /// The step's length.
    Length,
    /// The proxy, and the soft labels.
    Proxy,
    /// The hold.
    Hold,
    /// Gradients after.
    Audit,
}

names!(Phase {
    Select = "select",
    Evaluate = "evaluate",
    Curvature = "curvature",
    Solve = "solve",
    Length = "length",
    Proxy = "proxy",
    Hold = "hold",
    Audit = "audit",
});

/// Seconds per phase; a phase that comes again adds up.
pub struct Clock<'a> {
    since: Instant,
    on_phase: Option<&'a OnPhase<'a>>,
    /// What was measured.
    pub seconds: BTreeMap<Phase, f64>,
}

impl<'a> Clock<'a> {
    /// Starts it; `on_phase` is called with the name of each phase that is counted.
    pub fn start(on_phase: Option<&'a OnPhase<'a>>) -> Clock<'a> {
        Clock { since: Instant::now(), on_phase, seconds: BTreeMap::new() }
    }

    /// Counts the time since the last call to `phase`.
    pub fn count(&mut self, phase: Phase) {
        *self.seconds.entry(phase).or_insert(0.0) += self.since.elapsed().as_secs_f64();
        if let Some(on_phase) = self.on_phase {
            on_phase(phase.name());
        }
        self.since = Instant::now();
    }
}
