//! Launches that are recorded once and replayed.

use super::buffer::Allocation;
#[cfg(feature = "emu")]
use super::emu;
use super::gpu;
use super::launch::{Arguments, lock};
#[cfg(feature = "emu")]
use super::other_device;
use super::{Cuda, Driver};
use crate::error::{Error, Result};

/// Recorded launches, and the allocations they use.
pub struct Recording {
    recorded: Recorded,
    uses: Vec<Allocation>,
}

enum Recorded {
    Gpu(gpu::Graph),
    #[cfg(feature = "emu")]
    Emu(Vec<emu::Call>),
}

/// Work that is repeated, each piece under its key: run directly the first time, recorded and replayed the second time, and
/// replayed from then on.
pub(crate) struct Repeats<K>(Vec<(K, Option<Recording>)>);

impl<K> Default for Repeats<K> {
    fn default() -> Repeats<K> {
        Repeats(vec![])
    }
}

impl<K: PartialEq> Repeats<K> {
    /// Runs `work`, which neither allocates nor copies and launches the same under the same key.
    ///
    /// # Errors
    /// Those of `work`, and where the driver cannot record or replay it.
    pub fn run(&mut self, cuda: &Cuda, key: K, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(at) = self.0.iter().position(|(other, _)| *other == key) else {
            self.0.push((key, None));
            return work();
        };
        let recording = match self.0[at].1.take() {
            Some(recording) => recording,
            None => cuda.record(work)?,
        };
        let done = cuda.replay(&recording).map_err(|error| error.during("recorded launches"));
        self.0[at].1 = Some(recording);
        done
    }
}

impl Cuda {
    /// Records the launches of `work` without running them. `work` neither allocates nor copies.
    ///
    /// # Errors
    /// Those of `work`, and where the driver cannot record it.
    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Recording> {
        *lock(&self.opened.used) = Some(vec![]);
        let recorded = match &self.opened.driver {
            Driver::Gpu(driver) => driver.record(work).map(Recorded::Gpu),
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => driver.record(work).map(Recorded::Emu),
        };
        let mut used = lock(&self.opened.used).take().unwrap_or_default();
        used.sort_unstable();
        used.dedup();
        let pool = lock(&self.opened.pool);
        let mut uses: Vec<Allocation> = used.into_iter().filter_map(|address| pool.at(address)).collect();
        uses.dedup();
        Ok(Recording { recorded: recorded?, uses })
    }

    /// Runs recorded launches.
    ///
    /// # Errors
    /// Where a buffer that it uses is gone, the driver refuses, or the recording belongs to another device.
    pub fn replay(&self, recording: &Recording) -> Result<()> {
        let pool = lock(&self.opened.pool);
        if !recording.uses.iter().all(|allocation| pool.is_alive(allocation)) {
            let reason = "a buffer of the recorded launches is gone".into();
            return Err(Error::Device { op: "replay".into(), reason });
        }
        drop(pool);
        self.checked("replay", || match (&self.opened.driver, &recording.recorded) {
            // SAFETY: launching them was sound, their buffers are there, and all work is in order on one stream.
            (Driver::Gpu(driver), Recorded::Gpu(graph)) => unsafe { driver.replay(graph) },
            #[cfg(feature = "emu")]
            // SAFETY: as above.
            (Driver::Emu(driver), Recorded::Emu(calls)) => unsafe { driver.replay(calls) },
            #[cfg(feature = "emu")]
            _ => Err(other_device("replay")),
        })
    }

    /// While launches are recorded, collects the addresses that a launch uses.
    pub(super) fn collect(&self, arguments: &Arguments) {
        if let Some(used) = lock(&self.opened.used).as_mut() {
            used.extend(&arguments.addresses);
        }
    }
}
