//! Where the work runs. The CPU and CUDA are peers behind one set of operations: a [`Device`] is opened once,
//! says what it is and why it was taken, and is handed to every stage.

use std::sync::Arc;

use crate::{Error, Result};

/// The device a user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// CUDA where it is usable, else the CPU; the reason is reported.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error that says why not.
    Cuda,
}

/// An opened device.
#[derive(Clone)]
pub struct Device {
    kind: Kind,
    why: String,
}

#[derive(Clone)]
enum Kind {
    Cpu(Cpu),
}

/// The CPU: a pool of threads of its own, so that a host program's pool is left alone.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
}

impl Device {
    /// Opens the device of `choice`; `threads` = 0 means one per available core.
    pub fn open(choice: Choice, threads: usize) -> Result<Device> {
        let why = match choice {
            Choice::Cpu => "asked for".to_string(),
            Choice::Auto => "no CUDA kernels in this build".to_string(),
            Choice::Cuda => return Err(Error::NoGpu { reason: "no CUDA kernels in this build".into() }),
        };
        Ok(Device { kind: Kind::Cpu(Cpu::new(threads)?), why })
    }

    /// The CPU with one thread per available core.
    pub fn cpu() -> Result<Device> {
        Device::open(Choice::Cpu, 0)
    }

    /// `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Cpu(_) => "cpu",
        }
    }

    /// Why this device was taken.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Name, reason and threads, for a report.
    pub fn report(&self) -> serde_json::Value {
        serde_json::json!({"name": self.name(), "why": self.why(), "threads": self.threads()})
    }

    /// The threads that the host side uses.
    pub fn threads(&self) -> usize {
        self.pool().current_num_threads()
    }

    /// Runs `work` inside the device's own thread pool.
    pub fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool().install(work)
    }

    fn pool(&self) -> &rayon::ThreadPool {
        match &self.kind {
            Kind::Cpu(cpu) => &cpu.pool,
        }
    }
}

impl Cpu {
    fn new(threads: usize) -> Result<Cpu> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("scrubjay-{i}"))
            .build()
            .map_err(|e| Error::Device { op: "thread pool".into(), reason: e.to_string() })?;
        Ok(Cpu { pool: Arc::new(pool) })
    }
}
