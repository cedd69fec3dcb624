//! The rank statistic's sum A = Σ_i s_i/c_i on CUDA (MATH.md, Eq. 1), in whole numbers: the same in any order and on any
//! device. On the CPU it is part of [`crate::codec`].
#![allow(unsafe_code)] // launches

use crate::Result;
use crate::device::cuda::{Cuda, Launch, tiles};

use super::nearest::Nearest;
use super::{rows, same};

/// A as a whole part and a sum of fractions in units of 2⁻⁶⁴, each fraction rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Σ ⌊s/c⌋.
    pub whole: u64,
    /// Σ ⌊2⁶⁴ (s mod c)/c⌋.
    pub fraction: u128,
}

/// A of each column, of n rows each.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn statistic(cuda: &Cuda, nearest: &Nearest, n: usize) -> Result<Vec<Sum>> {
    let rows = rows("statistic", n)?;
    let p = nearest.sum.len() / n;
    same("statistic", "sums", p * n, nearest.sum.len())?;
    same("statistic", "counts", p * n, nearest.count.len())?;
    let mut out = cuda.alloc::<u64>(3 * p)?;
    let launch = Launch::blocks("statistic", p, tiles::STATISTIC_THREADS)?;
    // SAFETY: out holds 3·p values, sum and count p·n; every count is above zero, as `nearest` wrote it.
    unsafe { cuda.statistic(launch, out.output(), nearest.sum.input(), nearest.count.input(), rows)? };
    let sum =
        |three: &[u64]| Sum { whole: three[0], fraction: u128::from(three[2]) << 64 | u128::from(three[1]) };
    Ok(cuda.download(&out)?.chunks_exact(3).map(sum).collect())
}
