//! Launches that were recorded, to be run again as they are.

use super::gpu;
use super::memory::{Life, lock};
use super::{Cuda, Driver, TABLE};
#[cfg(feature = "emu")]
use super::{emu, other_device};
use crate::{Error, Result};

/// Launches that were recorded, and the buffers that they use.
pub struct Recording {
    recorded: Recorded,
    uses: Vec<Life>,
}

enum Recorded {
    Gpu(gpu::Graph),
    #[cfg(feature = "emu")]
    Emu(Vec<emu::Call>),
}

/// Works that come again and again, each under its key: run as they are the first time, recorded and replayed the
/// second, and then replayed.
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
    /// The launches that `work` makes, recorded and not run. `work` neither allocates nor copies.
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
        let shelf = lock(&self.opened.shelf);
        let mut uses: Vec<Life> = used.into_iter().filter_map(|address| shelf.at(address)).collect();
        uses.dedup();
        Ok(Recording { recorded: recorded?, uses })
    }

    /// Runs what was recorded.
    ///
    /// # Errors
    /// Where a buffer that it uses is gone, the driver refuses, or the recording belongs to another device.
    pub fn replay(&self, recording: &Recording) -> Result<()> {
        let shelf = lock(&self.opened.shelf);
        if !recording.uses.iter().all(|life| shelf.is_alive(life)) {
            let reason = "a buffer of the recorded launches is gone".into();
            return Err(Error::Device { op: "replay".into(), reason });
        }
        drop(shelf);
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

    /// Notes the addresses that a launch uses, while launches are recorded.
    pub(super) fn recall(&self, kernel: usize, words: &[u64]) {
        if let Some(used) = lock(&self.opened.used).as_mut() {
            let kinds =
                TABLE[kernel].arguments.iter().map(|(_, kind)| kind.contains("In<") || kind.contains("Out<"));
            used.extend(
                kinds
                    .zip(words)
                    .filter(|(is_address, word)| *is_address && **word != 0)
                    .map(|(_, word)| *word),
            );
        }
    }
}
