//! Operations on CUDA, on values in device memory. Each checks shapes and launches its kernels.
//!
//! Those of a network allocate nothing and never wait: their values are parts of one arena ([`In`], [`Out`]), and a plan
//! decides where they lie. Those of CODEC ([`rank`], [`nearest`], [`statistic`], [`trace`], [`xi`]) return buffers of their own;
//! [`ptx`] and [`ptx_sm90`] run single instructions, to be held to plain
//! arithmetic.

pub mod activation;
pub mod attention;
pub mod batch_norm;
mod chunks;
pub mod conv;
pub mod conv_sm90;
pub mod embedding;
pub mod gate;
pub mod group_norm;
pub mod layer_norm;
pub mod loss;
pub mod means;
pub mod moments;
pub mod nearest;
pub mod optimizer;
pub mod pointwise;
pub mod pool;
pub mod ptx;
pub mod ptx_sm90;
pub mod rank;
pub mod shape;
pub mod statistic;
pub mod trace;
pub mod vector;
pub mod xi;

pub use crate::device::cuda::{Cuda, Element, Half, In, Out, Scalar};

use super::Shape;
use crate::device::cuda::Launch;
use crate::error::{Error, Result};

/// A number of rows (or columns) as kernels take it.
fn rows(op: &'static str, n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(rows) if (1..=MAX_ROWS).contains(&rows) => Ok(rows),
        _ => Err(Error::shape(op, format!("1 to {MAX_ROWS} rows"), n.to_string())),
    }
}

/// Twice as many fit in 32 bits.
const MAX_ROWS: u32 = 1 << 30;

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
