//! Opening a device with all kernels of the table.

#[cfg(feature = "emu")]
use super::emu::Emu;
use super::gpu::Gpu;
use super::kernels::TABLE;
use super::{Cuda, Driver};
use crate::error::Result;

impl Cuda {
    /// Opens the GPU of this number, among those that the driver shows, from 0.
    ///
    /// # Errors
    /// [`crate::Error::NoGpu`] with the reason: no kernels in this build, no driver, no such GPU, one that is too old;
    /// and [`crate::Error::Device`] where a kernel does not load.
    pub fn open(ordinal: usize) -> Result<Cuda> {
        Ok(Cuda::with(Driver::Gpu(Gpu::open(ordinal, TABLE)?), TABLE))
    }

    /// The emulator; `seed` decides the order of threads: 0 in order, 1 in reverse, else random.
    #[cfg(feature = "emu")]
    pub fn emulated(seed: u64) -> Cuda {
        Cuda::with(Driver::Emu(Emu::new(seed, TABLE)), TABLE)
    }

    /// The emulator of a device with `bytes` bytes of memory, which reports `reported` bytes as free while it is empty.
    #[cfg(feature = "emu")]
    pub fn emulated_with(seed: u64, bytes: usize, reported: usize) -> Cuda {
        Cuda::with(Driver::Emu(Emu::with(seed, bytes, reported, TABLE)), TABLE)
    }
}
