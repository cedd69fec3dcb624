//! Buffers in device memory, and the caching allocator that they come from.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::element::{Half, Scalar};
#[cfg(feature = "emu")]
use super::emu;
use super::gpu;
use super::launch::{Argument, Arguments, lock};

/// What a device was asked for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations made by the driver.
    pub allocations: usize,
    /// Bytes copied to the device.
    pub uploaded: usize,
    /// Bytes copied to the host.
    pub downloaded: usize,
    /// Multiplications by tensor cores; only the emulator counts them.
    pub products: u64,
}

/// The caching allocator: memory that no buffer uses, the allocations in use, and the counts.
#[derive(Default)]
pub(super) struct Pool {
    pub idle: Vec<Held>,
    /// The allocation that begins at each address.
    alive: BTreeMap<u64, Allocation>,
    generations: u64,
    pub counts: Counts,
}

/// A range of memory while one buffer has it. No other has the same generation.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Allocation {
    start: u64,
    end: u64,
    generation: u64,
}

/// `len` values of `T` in device memory, of exactly that size.
pub struct Buffer<T> {
    held: Option<Held>, // until it is dropped
    address: u64,
    len: usize,
    pool: Arc<Mutex<Pool>>,
    of: PhantomData<T>,
}

/// Memory of the driver, and its size.
pub(super) struct Held {
    pub memory: Memory,
    pub bytes: usize,
}

pub(super) enum Memory {
    Gpu(gpu::Memory),
    #[cfg(feature = "emu")]
    Emu(emu::Memory),
}

/// `len` values of a buffer that a kernel reads.
pub struct In<'a, T> {
    pub(super) address: u64,
    pub(super) len: usize,
    of: PhantomData<&'a T>,
}

/// `len` values of a buffer that a kernel writes, or reads and writes.
pub struct Out<'a, T> {
    pub(super) address: u64,
    pub(super) len: usize,
    of: PhantomData<&'a mut T>,
}

/// A word that kernels note something in; many may do so at once.
#[derive(Clone, Copy)]
pub struct Flag<'a> {
    pub(super) address: u64,
    of: PhantomData<&'a u32>,
}

impl Pool {
    /// Registers a new buffer in this memory.
    pub fn register(&mut self, held: &Held) {
        let start = held.memory.address();
        self.generations += 1;
        self.alive.insert(
            start,
            Allocation { start, end: start + held.bytes as u64, generation: self.generations },
        );
    }

    /// The allocation that contains an address or ends there.
    pub fn at(&self, address: u64) -> Option<Allocation> {
        let (_, allocation) = self.alive.range(..=address).next_back()?;
        (address <= allocation.end).then_some(*allocation)
    }

    /// Whether its buffer still exists.
    pub fn is_alive(&self, allocation: &Allocation) -> bool {
        self.alive.get(&allocation.start) == Some(allocation)
    }

    /// Memory of exactly this size that no buffer uses.
    pub fn take(&mut self, bytes: usize) -> Option<Held> {
        let at = self.idle.iter().rposition(|held| held.bytes == bytes)?;
        Some(self.idle.swap_remove(at))
    }
}

impl Held {
    /// The same memory, whose values are undefined again.
    pub fn forgotten(self) -> Held {
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
            let mut pool = lock(&self.pool);
            pool.alive.remove(&held.memory.address());
            pool.idle.push(held);
        }
    }
}

impl<T> Buffer<T> {
    pub(super) fn new(held: Held, len: usize, pool: Arc<Mutex<Pool>>) -> Buffer<T> {
        lock(&pool).register(&held);
        Buffer { address: held.memory.address(), held: Some(held), len, pool, of: PhantomData }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, for a kernel to read.
    pub fn input(&self) -> In<'_, T> {
        In { address: self.address, len: self.len, of: PhantomData }
    }

    /// The values, for a kernel to write.
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
    /// Where there are not as many.
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
    /// Where there are not as many.
    pub fn split_at(self, len: usize) -> (Out<'a, T>, Out<'a, T>) {
        assert!(len <= self.len, "{len} of {} values", self.len);
        let rest = self.address + (len * size_of::<T>()) as u64;
        (
            Out { address: self.address, len, of: PhantomData },
            Out { address: rest, len: self.len - len, of: PhantomData },
        )
    }
}

impl<'a, T: Scalar> In<'a, T> {
    /// The same values where they are of this type.
    pub fn of_type<U: Scalar>(self) -> Option<In<'a, U>> {
        (T::ELEMENT == U::ELEMENT).then_some(In { address: self.address, len: self.len, of: PhantomData })
    }
}

impl<'a, T: Scalar> Out<'a, T> {
    /// The same values where they are of this type.
    pub fn of_type<U: Scalar>(self) -> Option<Out<'a, U>> {
        (T::ELEMENT == U::ELEMENT).then_some(Out { address: self.address, len: self.len, of: PhantomData })
    }
}

impl<'a> In<'a, f32> {
    /// The first `len` values of a type that stands in these floats.
    ///
    /// # Panics
    /// Where there are not as many.
    pub(crate) fn holding<T: Scalar>(self, len: usize) -> In<'a, T> {
        assert!(len * size_of::<T>() <= 4 * self.len, "{len} values in {} floats", self.len);
        In { address: self.address, len, of: PhantomData }
    }

    /// The values as the bits that they are.
    pub fn bits(self) -> In<'a, u32> {
        In { address: self.address, len: self.len, of: PhantomData }
    }
}

impl<'a> Out<'a, f32> {
    /// The first `len` values of a type that stands in these floats.
    ///
    /// # Panics
    /// Where there are not as many.
    pub(crate) fn holding<T: Scalar>(self, len: usize) -> Out<'a, T> {
        assert!(len * size_of::<T>() <= 4 * self.len, "{len} values in {} floats", self.len);
        Out { address: self.address, len, of: PhantomData }
    }

    /// The values as the bits that they are.
    pub fn bits(self) -> Out<'a, u32> {
        Out { address: self.address, len: self.len, of: PhantomData }
    }
}

impl<'a, H: Half> In<'a, H> {
    /// The bits of values of 16 bits.
    pub fn words(self) -> In<'a, u16> {
        In { address: self.address, len: self.len, of: PhantomData }
    }
}

impl<'a> Out<'a, u16> {
    /// The values that have these bits.
    pub fn bits_of<H: Half>(self) -> Out<'a, H> {
        Out { address: self.address, len: self.len, of: PhantomData }
    }
}

impl Buffer<u32> {
    /// Its first word, for kernels to note something in.
    ///
    /// # Panics
    /// Where it has none.
    pub fn flag(&self) -> Flag<'_> {
        assert!(self.len > 0, "a flag in an empty buffer");
        Flag { address: self.address, of: PhantomData }
    }
}

impl Argument for Flag<'_> {
    fn push(self, to: &mut Arguments) {
        to.push(&[self.address]);
        to.addresses.push(self.address);
    }
}

impl<T> Argument for In<'_, T> {
    fn push(self, to: &mut Arguments) {
        to.push(&[self.address]);
        to.addresses.push(self.address);
    }
}

impl<T> Argument for Out<'_, T> {
    fn push(self, to: &mut Arguments) {
        self.read_only().push(to);
    }
}
