//! The operations of a network on CUDA: the same functions as beside this folder, on values in device memory.
//!
//! Each checks shapes and launches one kernel or two; nothing is allocated, nothing waits. Values are parts of one arena
//! ([`In`], [`Out`]), so that a plan decides where they stand.

pub mod pool;

pub use crate::device::cuda::{Cuda, In, Out};

use super::Shape;
use crate::{Error, Result};

/// A number that a kernel takes in 32 bits.
fn word(op: &'static str, what: &str, value: usize) -> Result<u32> {
    match u32::try_from(value) {
        Ok(word) if word <= MOST => Ok(word),
        _ => Err(Error::shape(op, format!("at most {MOST} {what}"), value.to_string())),
    }
}

/// A thread's number, up to the end of its block, fits in 32 bits.
const MOST: u32 = 1 << 31;

/// The values of `n` images of this shape, at least one; none of them needs more than 32 bits to number.
fn images(op: &'static str, what: &str, n: usize, shape: Shape, found: usize) -> Result<()> {
    let len = [n, shape.h, shape.w, shape.c].iter().try_fold(1usize, |len, &side| len.checked_mul(side));
    match len {
        Some(len) if len == found && len > 0 => word(op, what, len).map(drop),
        _ => Err(Error::shape(op, format!("{what} of {n} images of {shape:?}"), format!("{found} values"))),
    }
}
