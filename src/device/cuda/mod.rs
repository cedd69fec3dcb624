//! The CUDA device: memory, launches, timing and recorded launches over one of two drivers, at the level of
//! cuLaunchKernel. `gpu` is NVIDIA's, opened at run time; `emu` (feature `emu`) runs the same kernels on the CPU, so
//! that everything above this line is what runs on a GPU.
//!
//! One stream, not the default one; work is in order on it. Kernels allocate nothing; only copies to the host wait. All
//! copies go through pinned memory (`staging`).
#![allow(unsafe_code)] // the border of safety: addresses become kernel arguments here

mod boxes;
mod buffer;
mod element;
#[cfg(feature = "emu")]
mod emu;
mod foreign;
mod generated;
mod gpu;
mod kernels;
mod launch;
mod memory;
mod open;
mod parameters;
mod recording;
mod staging;
mod tensor_map;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

pub use boxes::{Boxes, Take};
use buffer::Pool;
pub use buffer::{Buffer, Counts, Flag, In, Out};
use bytemuck::Pod;
pub use element::{Element, Half, Scalar};
pub use foreign::Foreign;
pub use generated::tiles;
pub use gpu::list;
pub use kernels::TABLE;
use launch::Arguments;
use launch::lock;
pub use launch::{Launch, Resources, Row};
pub use parameters::{AffineParameters, DataParameters, LayerSizes, PoolSizes, WeightParameters};
pub use recording::Recording;
pub(crate) use recording::Repeats;
pub use tensor_map::TensorMap;

use crate::error::{Error, Result};

/// An opened CUDA device; clones share it.
#[derive(Clone)]
pub struct Cuda {
    opened: Arc<Opened>,
    portable: bool,
}

struct Opened {
    driver: Driver,
    table: &'static [Row],
    pool: Arc<Mutex<Pool>>,
    residents: Mutex<Vec<Resident>>,
    /// The first failure; after it nothing that the device holds can be relied on.
    failed: OnceLock<String>,
    /// Addresses that launches use while they are recorded.
    used: Mutex<Option<Vec<u64>>>,
    /// Kernels that were launched during [`Cuda::listen`].
    heard: Mutex<Option<BTreeSet<usize>>>,
}

/// A tensor on the device; `of` identifies it until it is changed.
struct Resident {
    of: Weak<Vec<f32>>,
    buffer: Arc<Buffer<f32>>,
}

enum Driver {
    Gpu(gpu::Gpu),
    #[cfg(feature = "emu")]
    Emu(emu::Emu),
}

/// Calls the driver in use, whichever it is.
macro_rules! driver {
    ($cuda:expr, $driver:ident => $call:expr) => {
        match &$cuda.opened.driver {
            Driver::Gpu($driver) => $call,
            #[cfg(feature = "emu")]
            Driver::Emu($driver) => $call,
        }
    };
}

/// A kernel that was launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Launched {
    /// Its symbol.
    pub symbol: &'static str,
    /// What the driver says of it; the emulator says nothing.
    #[serde(flatten)]
    pub resources: Option<Resources>,
}

/// A point in the stream's time.
pub struct Event(Moment);

enum Moment {
    Gpu(gpu::Event),
    #[cfg(feature = "emu")]
    Emu(std::time::Instant),
}

impl Cuda {
    /// A device with the kernels of a table.
    fn with(driver: Driver, table: &'static [Row]) -> Cuda {
        let (pool, residents) = (Arc::default(), Mutex::default());
        let (failed, used, heard) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Cuda {
            opened: Arc::new(Opened { driver, table, pool, residents, failed, used, heard }),
            portable: false,
        }
    }

    /// The same device, on which only kernels run that every architecture has.
    pub fn portable(&self) -> Cuda {
        Cuda { portable: true, ..self.clone() }
    }

    /// Whether the kernels for sm_90a run on it.
    pub fn is_sm90(&self) -> bool {
        !self.portable && driver!(self, driver => driver.is_sm90())
    }

    /// How many blocks run at once where each takes a whole multiprocessor.
    ///
    /// # Errors
    /// Where the driver does not say.
    pub fn multiprocessors(&self) -> Result<usize> {
        driver!(self, driver => driver.multiprocessors())
    }

    /// Which GPU it is, in words.
    pub fn describe(&self) -> String {
        driver!(self, driver => driver.describe())
    }

    /// Its UUID as NVML writes it; of the emulator none.
    pub fn uuid(&self) -> Option<&str> {
        driver!(self, driver => driver.uuid())
    }

    /// Bytes of the cache that all multiprocessors share (L2).
    ///
    /// # Errors
    /// Where the driver does not say.
    pub fn cache(&self) -> Result<usize> {
        driver!(self, driver => driver.cache())
    }

    /// Lets the emulator fail in the launch that comes after this many others.
    #[cfg(feature = "emu")]
    pub fn fail_after(&self, launches: usize) {
        if let Driver::Emu(driver) = &self.opened.driver {
            driver.fail_after(launches);
        }
    }

    /// What the driver does for `op`, unless an earlier call failed: a device that failed does nothing more.
    fn checked<R>(&self, op: &str, call: impl FnOnce() -> Result<R>) -> Result<R> {
        if let Some(first) = self.opened.failed.get() {
            let reason = format!("refused, since the device failed before: {first}");
            return Err(Error::Device { op: op.into(), reason });
        }
        call().inspect_err(|error| {
            if matches!(error, Error::Device { .. }) {
                let _ = self.opened.failed.set(error.to_string()); // the first stays
            }
        })
    }

    /// A copy of `values` in device memory.
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.alloc(values.len())?;
        self.write(buffer.output(), values)?;
        Ok(buffer)
    }

    /// The values of a buffer, after all launches before.
    ///
    /// # Errors
    /// Where a launch failed, or the buffer belongs to another device.
    pub fn download<T: Pod>(&self, buffer: &Buffer<T>) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); buffer.len()];
        self.read(&mut values, buffer.input())?;
        Ok(values)
    }

    /// Copies `values` to device memory that is there.
    ///
    /// # Errors
    /// Where there are not as many, or the driver refuses.
    pub fn write<T: Pod>(&self, out: Out<'_, T>, values: &[T]) -> Result<()> {
        if out.len != values.len() {
            return Err(Error::shape("write", format!("{} values", out.len), values.len().to_string()));
        }
        let bytes = bytemuck::cast_slice(values);
        lock(&self.opened.pool).counts.uploaded += bytes.len();
        // SAFETY: as many values stand at that address, and `out` has them alone.
        self.checked("write", || driver!(self, driver => unsafe { driver.write(out.address, bytes) }))
    }

    /// Copies device memory to `values`, after all launches before.
    ///
    /// # Errors
    /// Where there are not as many, or a launch failed.
    pub fn read<T: Pod>(&self, values: &mut [T], from: In<'_, T>) -> Result<()> {
        if from.len != values.len() {
            return Err(Error::shape("read", format!("{} values", from.len), values.len().to_string()));
        }
        let bytes = bytemuck::cast_slice_mut(values);
        lock(&self.opened.pool).counts.downloaded += bytes.len();
        // SAFETY: as many values stand at that address.
        self.checked("read", || driver!(self, driver => unsafe { driver.read(bytes, from.address) }))
    }

    /// Now, in the stream's time.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub fn event(&self) -> Result<Event> {
        match &self.opened.driver {
            Driver::Gpu(driver) => Ok(Event(Moment::Gpu(self.checked("event", || driver.event())?))),
            #[cfg(feature = "emu")]
            Driver::Emu(_) => Ok(Event(Moment::Emu(std::time::Instant::now()))),
        }
    }

    /// What `work` gives, and the kernels that were launched meanwhile, each with what it takes of a multiprocessor.
    ///
    /// # Errors
    /// Those of `work`, and where the driver refuses.
    pub fn listen<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(R, Vec<Launched>)> {
        *lock(&self.opened.heard) = Some(BTreeSet::new());
        let done = work();
        let heard = lock(&self.opened.heard).take().unwrap_or_default();
        let launched = heard.into_iter().map(|kernel| {
            let resources = driver!(self, driver => driver.resources(kernel))?;
            Ok(Launched { symbol: self.opened.table[kernel].symbol, resources })
        });
        Ok((done?, launched.collect::<Result<_>>()?))
    }

    /// Launches row `kernel` of the table.
    ///
    /// # Safety
    /// The arguments are what the kernel declares, and every address is good for what it does there.
    unsafe fn launch(&self, kernel: usize, launch: Launch, mut arguments: Arguments) -> Result<()> {
        self.collect(&arguments);
        if let Some(heard) = lock(&self.opened.heard).as_mut() {
            heard.insert(kernel);
        }
        // SAFETY: as of this function.
        let call = || driver!(self, driver => unsafe { driver.launch(kernel, launch, &mut arguments) });
        self.checked(self.opened.table[kernel].symbol, call)
    }
}

impl Event {
    /// The device time from `start` to this event.
    ///
    /// # Errors
    /// Where the driver refuses, or the events belong to different devices.
    pub fn since(&self, start: &Event) -> Result<Duration> {
        match (&start.0, &self.0) {
            (Moment::Gpu(start), Moment::Gpu(end)) => gpu::elapsed(start, end),
            #[cfg(feature = "emu")]
            (Moment::Emu(start), Moment::Emu(end)) => Ok(end.duration_since(*start)),
            #[cfg(feature = "emu")]
            _ => Err(other_device("event")),
        }
    }
}

#[cfg(feature = "emu")]
fn other_device(op: &str) -> Error {
    Error::Device { op: op.into(), reason: "the memory belongs to another device".into() }
}
