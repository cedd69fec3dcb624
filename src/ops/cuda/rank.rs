//! Ranks of values on CUDA (MATH.md, Eq. 1); on the CPU they are part of [`crate::codec`].
#![allow(unsafe_code)] // launches

use crate::device::cuda::{Buffer, Cuda, Launch, tiles};
use crate::error::Result;

use super::rows;

/// Ranks of n values, from 1; each `[n]`.
pub struct Ranks {
    /// R_i = #{j : v_j ≤ v_i}.
    pub upper: Buffer<u32>,
    /// L_i = #{j : v_j ≥ v_i}.
    pub lower: Buffer<u32>,
    /// The position in a stable ascending sort.
    pub position: Buffer<u32>,
}

/// Ranks of `values` `[n]`, which are finite.
///
/// # Errors
/// No values, more than 2³⁰, or the device fails.
pub fn rank(cuda: &Cuda, values: &Buffer<f64>) -> Result<Ranks> {
    let len = values.len();
    let n = rows("rank", len)?;
    let mut ranks = Ranks { upper: cuda.alloc(len)?, lower: cuda.alloc(len)?, position: cuda.alloc(len)? };
    let launch = Launch::over("rank", len, tiles::RANK_THREADS)?;
    let Ranks { upper, lower, position } = &mut ranks;
    // SAFETY: all four buffers hold n values.
    unsafe { cuda.rank(launch, upper.output(), lower.output(), position.output(), values.input(), n)? };
    Ok(ranks)
}
