//! The operations of a network on CUDA: the same functions as beside this folder, on values in device memory.
//!
//! Each checks shapes and launches one kernel or two; nothing is allocated, nothing waits. Values are parts of one
//! arena ([`In`], [`Out`]), so that a plan decides where they stand.

pub mod activation;
pub mod attention;
pub mod batch_norm;
mod chunks;
pub mod conv;
pub mod embedding;
pub mod gate;
pub mod group_norm;
pub mod layer_norm;
pub mod loss;
pub mod means;
pub mod moments;
pub mod optimizer;
pub mod pointwise;
pub mod pool;
pub mod shape;
pub mod vector;

pub use crate::device::cuda::{Cuda, In, Out};

use super::Shape;
use crate::device::cuda::Launch;
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

/// One thread for each of `len` elements, and that number.
fn elements(op: &'static str, len: usize, threads: u32) -> Result<(Launch, u32)> {
    Ok((Launch::over(op, len, threads)?, word(op, "elements", len)?))
}

/// One warp for each row of `width` values, and both numbers.
fn warps(op: &'static str, len: usize, width: usize, threads: u32) -> Result<(Launch, u32, u32)> {
    word(op, "values", len)?;
    if width == 0 || !len.is_multiple_of(width) {
        return Err(Error::shape(op, format!("rows of {width} values"), format!("{len} values")));
    }
    let rows = len / width;
    let launch = Launch::blocks(op, rows.div_ceil(threads as usize / 32), threads)?;
    Ok((launch, word(op, "rows", rows)?, word(op, "values a row", width)?))
}
