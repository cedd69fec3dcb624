//! The CUDA device: memory, launches, timing and recorded launches over one of two drivers, at the level of
//! cuLaunchKernel. `gpu` is NVIDIA's, opened at run time; `emu` (feature `emu`) runs the same kernels on the CPU, so
//! that everything above this line is what runs on a GPU.
//!
//! One stream, not the default one; work is in order on it. Kernels allocate nothing; only downloads wait.
#![allow(unsafe_code)] // the border of safety: addresses become kernel arguments here

#[cfg(feature = "emu")]
mod emu;
mod gpu;
mod kernels;
mod memory;
mod recording;

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytemuck::Pod;

pub use gpu::list;
pub use kernels::{Row, TABLE};
pub use memory::Counts;
use memory::{Resident, Shelf, lock};
pub use recording::Recording;
pub(crate) use recording::Repeats;

use crate::{Error, Result};

/// The launch shapes that kernels and host share, made of `kernels/tiles.h`.
pub mod tiles {
    include!(concat!(env!("OUT_DIR"), "/tiles.rs"));
}

/// What build.rs compiled.
mod fatbins {
    include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
}

/// An opened CUDA device; clones share it.
#[derive(Clone)]
pub struct Cuda {
    opened: Arc<Opened>,
}

struct Opened {
    driver: Driver,
    shelf: Arc<Mutex<Shelf>>,
    residents: Mutex<Vec<Resident>>,
    /// What failed first: from then on nothing that the device holds can be relied on.
    failed: OnceLock<String>,
    /// Addresses that are used while launches are recorded.
    used: Mutex<Option<Vec<u64>>>,
    /// Kernels that were launched while somebody listens.
    heard: Mutex<Option<BTreeSet<usize>>>,
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

/// `len` values of `T` in device memory, of exactly that size.
pub struct Buffer<T> {
    held: Option<Held>, // until it ends
    address: u64,
    len: usize,
    shelf: Arc<Mutex<Shelf>>,
    of: PhantomData<T>,
}

/// Memory of the driver, and how much was asked for.
struct Held {
    memory: Memory,
    bytes: usize,
}

enum Memory {
    Gpu(gpu::Memory),
    #[cfg(feature = "emu")]
    Emu(emu::Memory),
}

/// `len` values of a buffer that a kernel reads.
pub struct In<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a T>,
}

/// `len` values of a buffer that a kernel writes, or reads and writes.
pub struct Out<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a mut T>,
}

/// Blocks and threads of a launch, in one dimension.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    blocks: u32,
    threads: u32,
}

/// What a kernel takes of a multiprocessor, as it was assembled for the GPU at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resources {
    /// Of a thread.
    pub registers: u32,
    /// Bytes of shared memory, of a block.
    pub shared: u32,
    /// Bytes of local memory, of a thread: registers that were spilled, and arrays.
    pub local: u32,
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
    /// Opens the first GPU.
    ///
    /// # Errors
    /// [`Error::NoGpu`] with the reason: no kernels in this build, no driver, no GPU, one that is too old; and
    /// [`Error::Device`] where a kernel does not load.
    pub fn open() -> Result<Cuda> {
        Ok(Cuda::with(Driver::Gpu(gpu::Gpu::open()?)))
    }

    fn with(driver: Driver) -> Cuda {
        let (shelf, residents) = (Arc::default(), Mutex::default());
        let (failed, used, heard) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Cuda { opened: Arc::new(Opened { driver, shelf, residents, failed, used, heard }) }
    }

    /// The emulator; `seed` decides the order of threads: 0 in order, 1 in reverse, else random.
    #[cfg(feature = "emu")]
    pub fn emulated(seed: u64) -> Cuda {
        Cuda::with(Driver::Emu(emu::Emu::new(seed)))
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

    /// The emulator of a device of `bytes` bytes of memory that says that `said` are free before anything is there.
    #[cfg(feature = "emu")]
    pub fn emulated_with(seed: u64, bytes: usize, said: usize) -> Cuda {
        Cuda::with(Driver::Emu(emu::Emu::with(seed, bytes, said)))
    }

    /// Lets the emulator fail in the launch that comes after so many others.
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
        let mut values = vec![T::zeroed(); buffer.len];
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
        lock(&self.opened.shelf).counts.uploaded += bytes.len();
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
            Ok(Launched { symbol: TABLE[kernel].symbol, resources })
        });
        Ok((done?, launched.collect::<Result<_>>()?))
    }

    /// Launches row `kernel` of the table.
    ///
    /// # Safety
    /// The arguments are what the kernel declares, and every address is good for what it does there.
    unsafe fn launch(&self, kernel: usize, launch: Launch, words: &mut [u64]) -> Result<()> {
        // SAFETY: as of this function.
        self.recall(kernel, words);
        if let Some(heard) = lock(&self.opened.heard).as_mut() {
            heard.insert(kernel);
        }
        let call = || driver!(self, driver => unsafe { driver.launch(kernel, launch, words) });
        self.checked(TABLE[kernel].symbol, call)
    }
}

impl<T> Buffer<T> {
    fn new(held: Held, len: usize, shelf: Arc<Mutex<Shelf>>) -> Buffer<T> {
        lock(&shelf).begin(&held);
        Buffer { address: held.memory.address(), held: Some(held), len, shelf, of: PhantomData }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As what a kernel reads.
    pub fn input(&self) -> In<'_, T> {
        In { address: self.address, len: self.len, of: PhantomData }
    }

    /// As what a kernel writes.
    pub fn output(&mut self) -> Out<'_, T> {
        Out { address: self.address, len: self.len, of: PhantomData }
    }
}

impl Memory {
    fn address(&self) -> u64 {
        match self {
            Memory::Gpu(memory) => memory.address(),
            #[cfg(feature = "emu")]
            Memory::Emu(memory) => memory.address(),
        }
    }
}

impl<T> Clone for In<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<'_, T> {}

impl<'a, T> In<'a, T> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// These of the values, as of a slice.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn part(self, range: Range<usize>) -> In<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        In {
            address: self.address + (range.start * size_of::<T>()) as u64,
            len: range.len(),
            of: PhantomData,
        }
    }
}

impl<'a, T> Out<'a, T> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As what a kernel reads.
    pub fn input(&self) -> In<'_, T> {
        In { address: self.address, len: self.len, of: PhantomData }
    }

    /// The same values once more, for a kernel that reads each element before the same thread writes it.
    pub(crate) fn same(&self) -> In<'a, T> {
        In { address: self.address, len: self.len, of: PhantomData }
    }

    /// The same values, for one use of many.
    pub fn output(&mut self) -> Out<'_, T> {
        Out { address: self.address, len: self.len, of: PhantomData }
    }

    /// As what kernels read from now on.
    pub fn read_only(self) -> In<'a, T> {
        self.same()
    }

    /// The first `len` values and the rest, as of a slice.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn split_at(self, len: usize) -> (Out<'a, T>, Out<'a, T>) {
        assert!(len <= self.len, "{len} of {} values", self.len);
        let rest = self.address + (len * size_of::<T>()) as u64;
        (
            Out { address: self.address, len, of: PhantomData },
            Out { address: rest, len: self.len - len, of: PhantomData },
        )
    }
}

impl<'a> In<'a, f32> {
    /// The values as the bits that they are.
    pub fn bits(self) -> In<'a, u32> {
        In { address: self.address, len: self.len, of: PhantomData }
    }
}

impl<'a> Out<'a, f32> {
    /// The values as the bits that they are.
    pub fn bits(self) -> Out<'a, u32> {
        Out { address: self.address, len: self.len, of: PhantomData }
    }
}

impl Launch {
    /// Blocks of `threads` so that every one of `items` has its thread.
    ///
    /// # Errors
    /// Where that is more blocks than a launch can have.
    pub fn over(op: &'static str, items: usize, threads: u32) -> Result<Launch> {
        Launch::blocks(op, items.div_ceil(threads as usize), threads)
    }

    /// So many blocks.
    ///
    /// # Errors
    /// Where that is more than a launch can have, or none.
    pub fn blocks(op: &'static str, blocks: usize, threads: u32) -> Result<Launch> {
        match i32::try_from(blocks) {
            Ok(blocks) if blocks > 0 => Ok(Launch { blocks: blocks as u32, threads }),
            _ => Err(Error::shape(op, "1 to 2147483647 blocks of threads", blocks.to_string())),
        }
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

/// A kernel argument as the 8 bytes that hold it; narrower ones are in the low bytes.
trait Argument {
    fn word(self) -> u64;
}

impl<T> Argument for In<'_, T> {
    fn word(self) -> u64 {
        self.address
    }
}

impl<T> Argument for Out<'_, T> {
    fn word(self) -> u64 {
        self.address
    }
}

/// None is a null pointer.
impl<T: Argument> Argument for Option<T> {
    fn word(self) -> u64 {
        self.map_or(0, T::word)
    }
}

impl Argument for u32 {
    fn word(self) -> u64 {
        u64::from(self)
    }
}

impl Argument for u64 {
    fn word(self) -> u64 {
        self
    }
}

impl Argument for f32 {
    fn word(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Argument for f64 {
    fn word(self) -> u64 {
        self.to_bits()
    }
}

/// The array of argument addresses that a launch takes.
fn pointers(words: &mut [u64]) -> Vec<*mut c_void> {
    words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect()
}
