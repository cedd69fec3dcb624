//! Activations on their way from the forward passes to FOCI, in device memory: sums and means over the samples of a
//! request, and columns of f64. The bits are those that the host computes in `observe` and `codec`.
#![allow(unsafe_code)] // launches

use std::ops::Range;

use crate::device::cuda::{Buffer, Cuda, In, Launch, Out, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

use super::rows;

/// `sums` = or (`add`) += `values`; both `[len]`.
///
/// # Errors
/// Lengths that differ, no values, or the device fails.
pub fn add(cuda: &Cuda, sums: Out<'_, f64>, values: In<'_, f32>, add: bool) -> Result<()> {
    same("add_trace", "sums", values.len(), sums.len())?;
    let (launch, len) = (Launch::over("add_trace", sums.len(), tiles::TRACE_THREADS)?, sums.len() as u64);
    // SAFETY: both hold len values.
    unsafe { cuda.add_trace(launch, sums, values, len, u32::from(add)) }
}

/// `out` = `sums` / `over`; both `[len]`.
///
/// # Errors
/// As [`add`].
pub fn mean(cuda: &Cuda, out: Out<'_, f32>, sums: In<'_, f64>, over: usize) -> Result<()> {
    same("mean_trace", "means", sums.len(), out.len())?;
    let (launch, len) = (Launch::over("mean_trace", out.len(), tiles::TRACE_THREADS)?, out.len() as u64);
    // SAFETY: both hold len values.
    unsafe { cuda.mean_trace(launch, out, sums, len, over as f64) }
}

/// The first of the `values` that is not finite, and where it is; 8 bytes are read back, and 4 where there is one.
///
/// # Errors
/// No values, or the device fails.
pub fn not_finite(cuda: &Cuda, values: In<'_, f32>) -> Result<Option<(usize, f32)>> {
    let mut found = cuda.upload(&[u64::MAX])?;
    let launch = Launch::over("not_finite", values.len(), tiles::TRACE_THREADS)?;
    // SAFETY: values hold as many, found one.
    unsafe { cuda.not_finite(launch, found.output(), values, values.len() as u64)? };
    let [at] = cuda.download(&found)?[..] else { return Ok(None) };
    if at == u64::MAX {
        return Ok(None);
    }
    let (at, mut value) = (at as usize, [0.0]);
    cuda.read(&mut value, values.part(at..at + 1))?;
    Ok(Some((at, value[0])))
}

/// These columns of `table` `[n, d]`, one after the other.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn columns(
    cuda: &Cuda,
    table: In<'_, f32>,
    n: usize,
    d: usize,
    range: Range<usize>,
) -> Result<Buffer<f64>> {
    let op = "columns";
    if n.checked_mul(d) != Some(table.len()) || range.is_empty() || range.end > d {
        let found = format!("columns {range:?} of {} values", table.len());
        return Err(Error::shape(op, format!("some columns of {n} rows of {d} values"), found));
    }
    let mut columns = cuda.alloc(n * range.len())?;
    let of = |len: usize| len.div_ceil(tiles::TRACE_TILE as usize);
    let launch = Launch::blocks(op, of(n) * of(range.len()), tiles::TRACE_THREADS)?;
    let [n, d, p] = [rows(op, n)?, rows(op, d)?, range.len() as u32];
    // SAFETY: columns hold p·n values, the table n·d; columns first .. first + p are below d.
    unsafe { cuda.columns(launch, columns.output(), table, n, d, range.start as u32, p)? };
    Ok(columns)
}
