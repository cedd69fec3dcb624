//! Operations on one chunk of `n` images: outputs before inputs before shapes before scalars. What accumulates says so.
//! [`cpu`] has those of a network on slices, [`cuda`] the same on values in device memory; here is what both share.
//!
//! Those of CODEC and the perturbation are the CUDA side of their steps: they check shapes and launch kernels on
//! buffers in device memory.

pub mod cpu;
pub mod cuda;
mod geometry;
pub mod nearest;
pub mod optimizer;
pub mod perturb;
pub mod philox;
pub mod ptx;
pub mod rank;
pub mod statistic;
pub mod xi;

pub use geometry::{Activation, Conv, Geometry, Precision, Shape, Strided, Window};

use crate::{Error, Result};

/// A number of rows (or columns) as kernels take it.
fn rows(op: &'static str, n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(rows) if (1..=MAX_ROWS).contains(&rows) => Ok(rows),
        _ => Err(Error::shape(op, format!("1 to {MAX_ROWS} rows"), n.to_string())),
    }
}

/// Twice as many fit in 32 bits.
const MAX_ROWS: u32 = 1 << 30;

/// Refuses a buffer of another length than its operands imply.
fn same(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::shape(op, format!("{expected} {what}"), found.to_string())),
    }
}
