//! Memory of a device: allocations, which reuse what dropped buffers left, and tensors that stay on the device because many
//! passes read them. A pass that runs again asks the driver for nothing. Memory that nobody uses counts as free, and is
//! returned to the driver once that refuses more.

use std::sync::Arc;

use bytemuck::Pod;

use super::buffer::{Buffer, Counts, Held, Memory};
use super::launch::lock;
use super::{Cuda, Driver, Resident};
use crate::device::Shared;
use crate::error::{Error, Result};

impl Cuda {
    /// What the device was asked for so far.
    pub fn counts(&self) -> Counts {
        let counts = lock(&self.opened.pool).counts;
        match &self.opened.driver {
            Driver::Gpu(_) => counts,
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => Counts { products: driver.products(), ..counts },
        }
    }

    /// Bytes of device memory that are free: what the driver reports, and what is cached without a use.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub fn free(&self) -> Result<usize> {
        let free = match &self.opened.driver {
            Driver::Gpu(driver) => self.checked("free memory", || driver.free())?,
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => driver.free(),
        };
        let residents: usize = lock(&self.opened.residents)
            .iter()
            .filter(|resident| Arc::strong_count(&resident.buffer) == 1)
            .map(|resident| 4 * resident.buffer.len())
            .sum();
        let idle: usize = lock(&self.opened.pool).idle.iter().map(|held| held.bytes).sum();
        Ok(free + residents + idle)
    }

    /// Memory for `len` values, which are undefined; the emulator fills it with NaN.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is not enough memory.
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let bytes = len * size_of::<T>();
        let idle = lock(&self.opened.pool).take(bytes);
        let held = match idle {
            Some(held) => held.forgotten(),
            None => match self.fresh(bytes) {
                Err(Error::Memory { .. }) => {
                    self.trim();
                    self.fresh(bytes)?
                }
                fresh => fresh?,
            },
        };
        Ok(Buffer::new(held, len, self.opened.pool.clone()))
    }

    /// The device's copy of a tensor: uploaded once, and again only after a change.
    ///
    /// # Errors
    /// Where there is not enough memory.
    pub fn resident(&self, values: &Shared) -> Result<Arc<Buffer<f32>>> {
        {
            let mut residents = lock(&self.opened.residents);
            residents.retain(|resident| resident.of.strong_count() > 0);
            if let Some(found) = residents.iter().find(|resident| values.is(&resident.of)) {
                return Ok(found.buffer.clone());
            }
        }
        let buffer = Arc::new(self.upload(values)?);
        lock(&self.opened.residents).push(Resident { of: values.identity(), buffer: buffer.clone() });
        Ok(buffer)
    }

    /// New memory from the driver.
    fn fresh(&self, bytes: usize) -> Result<Held> {
        lock(&self.opened.pool).counts.allocations += 1;
        let memory = match &self.opened.driver {
            Driver::Gpu(driver) => Memory::Gpu(self.checked("alloc", || driver.alloc(bytes))?),
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => Memory::Emu(self.checked("alloc", || driver.alloc(bytes))?),
        };
        Ok(Held { memory, bytes })
    }

    /// Returns to the driver what nobody uses.
    fn trim(&self) {
        lock(&self.opened.residents).retain(|resident| Arc::strong_count(&resident.buffer) > 1);
        lock(&self.opened.pool).idle.clear();
    }
}
