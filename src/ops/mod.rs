//! Operations on slices: one chunk of `n` images, outputs before inputs before shapes before scalars. Each is run by
//! one thread; the engine runs many chunks side by side. What accumulates says so.
//!
//! [`cuda`] holds the operations that run on a GPU: they check shapes and launch kernels on device memory.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod cpu;
pub mod cuda;
pub(crate) mod gemm;
mod geometry;
pub mod layer_norm;
pub mod loss;
pub mod optimizer;
pub mod perturb;
pub mod philox;
pub mod pool;
pub mod shape;
pub mod tokens;

pub use geometry::{Activation, Conv, Precision, Shape, Window};

use crate::{Error, Result};

/// Refuses a buffer of another length than its operands imply.
fn same(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::shape(op, format!("{expected} {what}"), found.to_string())),
    }
}
