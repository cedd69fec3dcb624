//! Device memory between its uses. A buffer that ends leaves its memory on a shelf for the next of its size, and tensors
//! that many passes read stay, so that a pass that is run again asks the driver for nothing. What nobody uses counts as
//! free and is given back once the driver refuses more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytemuck::Pod;

use super::{Buffer, Cuda, Driver, Held, Memory};
use crate::device::Shared;
use crate::{Error, Result};

/// What was asked of a device so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often the driver was asked for memory.
    pub allocations: usize,
    /// Bytes copied to the device.
    pub uploaded: usize,
    /// Multiplications that tensor cores were given; the emulator counts them, a GPU does not.
    pub products: u64,
}

/// Memory without a buffer, and the counts.
#[derive(Default)]
pub(super) struct Shelf {
    idle: Vec<Held>,
    /// What begins at each address.
    alive: BTreeMap<u64, Life>,
    lives: u64,
    pub counts: Counts,
}

/// A buffer's life, unlike every other.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Life {
    start: u64,
    end: u64,
    number: u64,
}

/// A tensor on the device; `of` says which, as long as nobody changes it.
pub(super) struct Resident {
    of: Weak<Vec<f32>>,
    buffer: Arc<Buffer<f32>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// A buffer begins in this memory.
    pub fn begin(&mut self, held: &Held) {
        let start = held.memory.address();
        self.lives += 1;
        self.alive.insert(start, Life { start, end: start + held.bytes as u64, number: self.lives });
    }

    /// The buffer in which an address lies, or at whose end.
    pub fn at(&self, address: u64) -> Option<Life> {
        let (_, life) = self.alive.range(..=address).next_back()?;
        (address <= life.end).then_some(*life)
    }

    /// Whether that buffer is still there.
    pub fn is_alive(&self, life: &Life) -> bool {
        self.alive.get(&life.start) == Some(life)
    }

    fn take(&mut self, bytes: usize) -> Option<Held> {
        let at = self.idle.iter().rposition(|held| held.bytes == bytes)?;
        Some(self.idle.swap_remove(at))
    }
}

impl Cuda {
    /// What was asked of the device so far.
    pub fn counts(&self) -> Counts {
        let counts = lock(&self.opened.shelf).counts;
        match &self.opened.driver {
            Driver::Gpu(_) => counts,
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => Counts { products: driver.products(), ..counts },
        }
    }

    /// Bytes of device memory that are free: what the driver says, and what is kept without a use.
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
        let idle: usize = lock(&self.opened.shelf).idle.iter().map(|held| held.bytes).sum();
        Ok(free + residents + idle)
    }

    /// Memory for `len` values. What it holds is not defined; the emulator fills it with NaN.
    ///
    /// # Errors
    /// [`Error::Memory`] where the memory is not there.
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let bytes = len * size_of::<T>();
        let idle = lock(&self.opened.shelf).take(bytes);
        let held = match idle {
            Some(held) => held.forgotten(),
            None => match self.fresh(bytes) {
                Err(Error::Memory { .. }) => {
                    self.give_back();
                    self.fresh(bytes)?
                }
                fresh => fresh?,
            },
        };
        Ok(Buffer::new(held, len, self.opened.shelf.clone()))
    }

    /// The device's copy of a tensor: brought there once, and again only where somebody changed it.
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn resident(&self, values: &Shared) -> Result<Arc<Buffer<f32>>> {
        {
            let mut residents = lock(&self.opened.residents);
            residents.retain(|resident| resident.of.strong_count() > 0);
            if let Some(found) = residents.iter().find(|resident| values.is(&resident.of)) {
                return Ok(found.buffer.clone());
            }
        }
        let buffer = Arc::new(self.upload(values)?);
        lock(&self.opened.residents).push(Resident { of: values.known(), buffer: buffer.clone() });
        Ok(buffer)
    }

    /// Memory that the driver finds.
    fn fresh(&self, bytes: usize) -> Result<Held> {
        lock(&self.opened.shelf).counts.allocations += 1;
        let memory = match &self.opened.driver {
            Driver::Gpu(driver) => Memory::Gpu(self.checked("alloc", || driver.alloc(bytes))?),
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => Memory::Emu(self.checked("alloc", || driver.alloc(bytes))?),
        };
        Ok(Held { memory, bytes })
    }

    /// Gives back what nobody uses.
    fn give_back(&self) {
        lock(&self.opened.residents).retain(|resident| Arc::strong_count(&resident.buffer) > 1);
        lock(&self.opened.shelf).idle.clear();
    }
}

impl Held {
    /// The same memory, with values that nobody may rely on.
    fn forgotten(self) -> Held {
        #[cfg(feature = "emu")]
        if let Memory::Emu(memory) = &self.memory {
            memory.forget();
        }
        self
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let mut shelf = lock(&self.shelf);
            shelf.alive.remove(&held.memory.address());
            shelf.idle.push(held);
        }
    }
}
