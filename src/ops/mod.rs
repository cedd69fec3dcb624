//! Operations on slices: one chunk of `n` images, outputs before inputs before shapes before scalars. Each is run by
//! one thread; the engine runs many chunks side by side. What accumulates says so.
//!
//! Those of CODEC and the perturbation are the CUDA side of their steps: they check shapes and launch kernels on
//! buffers in device memory. [`cuda`] holds that side of a network's operations.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod cuda;
pub(crate) mod gemm;
mod geometry;
pub mod layer_norm;
pub mod loss;
pub mod nearest;
pub mod optimizer;
pub mod perturb;
pub mod philox;
pub mod pool;
pub mod ptx;
pub mod rank;
pub mod shape;
pub mod statistic;
pub mod tokens;
pub mod xi;

pub use geometry::{Activation, Conv, Precision, Shape, Window};

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
