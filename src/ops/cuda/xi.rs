//! The sums of Chatterjee's ξ, as integers; on the CPU they are part of the module `codec`.
#![allow(unsafe_code)] // launches

use super::nearest::sort;
use super::rows;
use crate::device::cuda::{Buffer, Cuda, Launch, tiles};
use crate::error::Result;
use crate::ops::same;

/// The rows of a column of finite values by (value, row), `[n]`.
///
/// # Errors
/// No values, or the device fails.
pub fn order(cuda: &Cuda, column: &Buffer<f64>) -> Result<Vec<u32>> {
    let n = rows("order", column.len())?;
    let size = n.next_power_of_two();
    let (mut values, mut sorted) = (cuda.alloc(size as usize)?, cuda.alloc(size as usize)?);
    sort(cuda, &mut values, &mut sorted, column, 1, n, size)?;
    let mut order = vec![0; column.len()];
    cuda.read(&mut order, sorted.input().part(0..column.len()))?;
    Ok(order)
}

/// Σ |R_{i+1} − R_i| along each of the `orders` `[k, n]`, which are rows by number; `rank` is `[n]`.
///
/// # Errors
/// No whole orders, or the device fails.
pub fn along(cuda: &Cuda, rank: &Buffer<u32>, orders: &Buffer<u32>) -> Result<Vec<u64>> {
    let n = rows("along", rank.len())?;
    let count = orders.len() / rank.len();
    same("along", "rows of whole orders", count * rank.len(), orders.len())?;
    let chunks = n.div_ceil(tiles::XI_CHUNK);
    let mut parts = cuda.alloc(count * chunks as usize)?;
    let launch = Launch::blocks("along", parts.len(), tiles::XI_THREADS)?;
    // SAFETY: parts holds a value for every chunk of every order, rank n; an index beyond the last row is read as the last.
    unsafe { cuda.along(launch, parts.output(), rank.input(), orders.input(), n, chunks)? };
    Ok(cuda.download(&parts)?.chunks_exact(chunks as usize).map(|parts| parts.iter().sum()).collect())
}

/// The sums of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Σ |a − b| over the pairs within it.
    pub within: u128,
    /// Σ |a − b| with a in the run before it and b in the run.
    pub between: u128,
}

/// The sums of all runs: run r is `ranks[runs[r]..runs[r + 1]]`, ascending, and so are the `runs`, from 0 to all ranks.
/// A run whose end is before its start is empty.
///
/// # Errors
/// No run, or the device fails.
pub fn runs(cuda: &Cuda, ranks: &Buffer<u32>, runs: &Buffer<u32>) -> Result<Vec<Run>> {
    let n = rows("runs", ranks.len())?;
    let count = rows("runs", runs.len().saturating_sub(1))?;
    let mut out = cuda.alloc(4 * count as usize)?;
    let launch = Launch::over("runs", 32 * count as usize, tiles::XI_THREADS)?;
    // SAFETY: out holds 4 values a run, runs one more than there are; positions beyond n are read as n, and a start
    // beyond the end of its run as that end.
    unsafe { cuda.runs(launch, out.output(), ranks.input(), runs.input(), n, count)? };
    let wide = |words: &[u64]| u128::from(words[1]) << 64 | u128::from(words[0]);
    let words = cuda.download(&out)?;
    Ok(words.chunks_exact(4).map(|run| Run { within: wide(&run[..2]), between: wide(&run[2..]) }).collect())
}
