//! Where the work runs. The CPU and CUDA are peers behind one set of operations: a [`Device`] is opened once,
//! reports what it is and why it was chosen, and is passed to every stage.
//!
//! CUDA runs the steps of CODEC, ξ and FOCI, the perturbation, K-FAC, the passes of a network and its training
//! ([`crate::ops`]). What has no CUDA path, such as the eigenvectors of K-FAC, runs on the host threads that every device
//! has.

mod choice;
#[doc(hidden)] // kernels and memory: for tests and benches
pub mod cuda;
mod listing;
pub mod memory;
pub mod nvml;
mod several;
mod shared;

use std::sync::Arc;

pub use choice::Choice;
pub use cuda::{Cuda, Foreign};
pub use listing::Listing;
pub use shared::Shared;

use crate::communicator::Communicator;
use crate::error::{Error, Result};

/// A device as a report states it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// `cpu` or `cuda`.
    pub name: &'static str,
    /// Why it was chosen, or which GPU it is.
    pub why: String,
    /// Host threads.
    pub threads: usize,
}

/// An opened device.
#[derive(Clone)]
pub struct Device {
    cuda: Option<Cuda>,
    pool: Arc<rayon::ThreadPool>, // of its own, so that a host program's pool is left alone
    why: String,
    ranks: Communicator,
    /// Where it is several GPUs, each of them with its number; else none.
    several: Arc<[(usize, Device)]>,
}

impl Device {
    /// Opens the device of `choice`; `threads` = 0 means one per available core. Several GPUs share them.
    ///
    /// # Errors
    /// [`Error::NoGpu`] with the reason where CUDA was asked for and cannot be used, or the threads cannot be started; of several
    /// GPUs as [`Device::several`].
    pub fn open(choice: Choice, threads: usize) -> Result<Device> {
        let (cuda, why) = match choice {
            Choice::Cpu => (None, "asked for".to_string()),
            Choice::Cuda => (Some(Cuda::open(0)?), String::new()),
            Choice::Gpus(numbers) => return Device::on_gpus(&numbers, threads),
            Choice::Auto => match Cuda::open(0) {
                Ok(cuda) => (Some(cuda), String::new()),
                Err(Error::NoGpu { reason }) => (None, reason),
                Err(error) => return Err(error),
            },
        };
        let why = cuda.as_ref().map_or(why, Cuda::describe);
        Ok(Device::of(cuda, pool(threads)?, why))
    }

    /// Opens the GPU of this number, among those that the driver shows, from 0; `threads` as of [`Device::open`].
    ///
    /// # Errors
    /// [`Error::NoGpu`] where it cannot be used, or the threads cannot be started.
    pub fn on_gpu(ordinal: usize, threads: usize) -> Result<Device> {
        let cuda = Cuda::open(ordinal)?;
        let why = cuda.describe();
        Ok(Device::of(Some(cuda), pool(threads)?, why))
    }

    /// The CPU with `threads` threads (0: one per available core); `why` is reported as the reason.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    pub fn on_cpu(threads: usize, why: &str) -> Result<Device> {
        Ok(Device::of(None, pool(threads)?, why.into()))
    }

    /// The CPU with one thread per available core.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    pub fn cpu() -> Result<Device> {
        Device::open(Choice::Cpu, 0)
    }

    /// CUDA run by the emulator, for tests; `seed` decides the order of threads: 0 in order, 1 in reverse, else random.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    #[cfg(feature = "emu")]
    pub fn emulated(seed: u64) -> Result<Device> {
        let cuda = Cuda::emulated(seed);
        let why = cuda.describe();
        Ok(Device::of(Some(cuda), pool(0)?, why))
    }

    /// [`Device::emulated`] with `bytes` bytes of memory, which reports `reported` bytes as free while it is empty.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    #[cfg(feature = "emu")]
    pub fn emulated_with(seed: u64, bytes: usize, reported: usize) -> Result<Device> {
        let cuda = Cuda::emulated_with(seed, bytes, reported);
        let why = cuda.describe();
        Ok(Device::of(Some(cuda), pool(0)?, why))
    }

    fn of(cuda: Option<Cuda>, pool: Arc<rayon::ThreadPool>, why: String) -> Device {
        Device { cuda, pool, why, ranks: Communicator::alone(), several: Arc::default() }
    }

    /// One of several ranks that share the work of every pass.
    ///
    /// # Errors
    /// Where the ranks do not all have such a device: other kinds of processors round differently; where two have the same GPU.
    pub fn among(self, ranks: Communicator) -> Result<Device> {
        if ranks.size() > 1 {
            let several = self.several.len();
            if several > 1 {
                let reason = "each rank takes one GPU; leave the numbers out (--device cuda)";
                return ranks.told(Err(Error::config(format!("{several} GPUs for each rank: {reason}"))));
            }
            let which = self.cuda.as_ref().map_or_else(|| "the CPU".into(), Cuda::describe);
            ranks.compare(&[("the device".to_string(), which)])?;
            let uuid = self.cuda.as_ref().and_then(Cuda::uuid).unwrap_or_default();
            check_distinct(&ranks.gather(Ok(uuid.as_bytes().to_vec()))?)?;
        }
        Ok(Device { ranks, ..self })
    }

    /// The ranks that this device is one of; alone by default.
    pub fn ranks(&self) -> &Communicator {
        &self.ranks
    }

    /// The same device, for work that this rank does by itself.
    pub fn alone(&self) -> Device {
        Device { ranks: Communicator::alone(), ..self.clone() }
    }

    /// `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        if self.cuda.is_some() { "cuda" } else { "cpu" }
    }

    /// Why this device was chosen, or which GPU it is.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Name, reason and threads, for a report.
    pub fn report(&self) -> Report {
        Report { name: self.name(), why: self.why().into(), threads: self.threads() }
    }

    /// What the GPU is doing, where there is one and NVML reports it.
    pub fn reading(&self) -> Option<nvml::Reading> {
        nvml::read(self.cuda.as_ref()?.uuid()?).ok()
    }

    /// The GPU, where this is one.
    pub fn cuda(&self) -> Option<&Cuda> {
        self.cuda.as_ref()
    }

    /// The threads that the host side uses.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` in the device's own thread pool.
    pub fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

fn pool(threads: usize) -> Result<Arc<rayon::ThreadPool>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("scrubjay-{i}"))
        .build()
        .map(Arc::new)
        .map_err(|e| Error::Device { op: "thread pool".into(), reason: e.to_string() })
}

/// Refuses ranks that have the same GPU, by the UUIDs of all; an emulated one has none.
fn check_distinct(uuids: &[Vec<u8>]) -> Result<()> {
    for (rank, uuid) in uuids.iter().enumerate().filter(|(_, uuid)| !uuid.is_empty()) {
        if let Some(other) = uuids[..rank].iter().position(|other| other == uuid) {
            return Err(Error::config(format!(
                "ranks {other} and {rank} have the same GPU, {}: start one rank for each GPU",
                String::from_utf8_lossy(uuid)
            )));
        }
    }
    Ok(())
}
