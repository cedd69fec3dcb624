//! Launches as both drivers take them.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Blocks and threads of a launch, in one dimension.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub(super) blocks: u32,
    pub(super) threads: u32,
}

impl Launch {
    /// Blocks of `threads` threads, so that each of `items` has a thread.
    ///
    /// # Errors
    /// Where that is more blocks than a launch can have.
    pub fn over(op: &'static str, items: usize, threads: u32) -> Result<Launch> {
        Launch::blocks(op, items.div_ceil(threads as usize), threads)
    }

    /// This many blocks.
    ///
    /// # Errors
    /// Where that is more than a launch can have, or zero.
    pub fn blocks(op: &'static str, blocks: usize, threads: u32) -> Result<Launch> {
        match i32::try_from(blocks) {
            Ok(blocks) if blocks > 0 => Ok(Launch { blocks: blocks as u32, threads }),
            _ => Err(Error::shape(op, "1 to 2147483647 blocks of threads", blocks.to_string())),
        }
    }
}

/// What a kernel takes of a multiprocessor, as it was assembled for this GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resources {
    /// Of a thread.
    pub registers: u32,
    /// Bytes of shared memory, of a block.
    pub shared: u32,
    /// Bytes of local memory, of a thread: registers that were spilled, and arrays.
    pub local: u32,
}

/// A row of the kernel table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The operation.
    pub name: &'static str,
    /// The kernel's symbol.
    pub symbol: &'static str,
    /// Names and types of its arguments, in order.
    pub arguments: &'static [(&'static str, &'static str)],
    /// Of a kernel for sm_90a alone, its bytes of dynamic shared memory.
    pub sm90: Option<u32>,
    /// The kernel in the emulated build.
    #[cfg(feature = "emu")]
    pub(super) emulated: Emulated,
}

/// A kernel in the emulated build: takes grid, block, shared memory, arguments and seed; returns an error text or null.
#[cfg(feature = "emu")]
pub(super) type Emulated =
    unsafe extern "C" fn(*const u32, *const u32, u32, *mut *mut c_void, u64) -> *const std::ffi::c_char;

/// The lock of a mutex, also after a panic of another thread that held it: no value here is left half written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The arguments of a launch: their bytes in words of 8, where each begins, and the device memory that they point to.
#[derive(Clone, Default)]
pub(super) struct Arguments {
    words: Vec<u64>,
    starts: Vec<usize>,
    pub addresses: Vec<u64>,
}

impl Arguments {
    /// Adds an argument of these words; narrower ones are in the low bytes.
    pub fn push(&mut self, words: &[u64]) {
        self.starts.push(self.words.len());
        self.words.extend_from_slice(words);
    }

    /// The array of addresses that a launch takes.
    pub fn pointers(&mut self) -> Vec<*mut c_void> {
        let words = self.words.as_mut_ptr();
        self.starts.iter().map(|&start| words.wrapping_add(start).cast()).collect()
    }
}

/// What a kernel can take.
pub(super) trait Argument {
    /// Adds it to the arguments of a launch.
    fn push(self, to: &mut Arguments);
}

/// None is a null pointer.
impl<T: Argument> Argument for Option<T> {
    fn push(self, to: &mut Arguments) {
        match self {
            Some(argument) => argument.push(to),
            None => to.push(&[0]),
        }
    }
}

impl Argument for u32 {
    fn push(self, to: &mut Arguments) {
        to.push(&[u64::from(self)]);
    }
}

impl Argument for u64 {
    fn push(self, to: &mut Arguments) {
        to.push(&[self]);
    }
}

impl Argument for f32 {
    fn push(self, to: &mut Arguments) {
        to.push(&[u64::from(self.to_bits())]);
    }
}

impl Argument for f64 {
    fn push(self, to: &mut Arguments) {
        to.push(&[self.to_bits()]);
    }
}
