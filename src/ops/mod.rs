//! Operations on one chunk of `n` images: outputs before inputs before shapes before scalars. What accumulates says so.
//! [`cpu`] has those of a network on slices, [`cuda`] the same on values in device memory; here is what both share.

pub mod cpu;
pub mod cuda;
mod geometry;
pub mod loss;
pub mod optimizer;
pub mod perturb;
pub mod philox;
pub mod tokens;
mod windows;

pub use geometry::{Activation, Conv, Geometry, InputKind, Precision, Shape, Strided, Window};
pub use windows::{Bands, Windows};

use crate::error::{Error, Result};

/// Refuses a buffer of another length than its operands imply.
fn same(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::shape(op, format!("{expected} {what}"), found.to_string())),
    }
}
