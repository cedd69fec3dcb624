//! Single instructions of `kernels/common/gpu.h`, run by one warp: tests compare a GPU and the emulator with plain arithmetic
//! before anything is built on them.
#![allow(unsafe_code)] // launches

use crate::device::cuda::{Buffer, Cuda, Launch, tiles};
use crate::error::Result;

use super::rows;
use crate::ops::same;

/// `values` `[rows, 16]` through asynchronous copies of 4 and of 16 bytes; rows where `keep` `[rows]` is 0 become zeros.
///
/// # Errors
/// No rows, shapes that do not fit, or the device fails.
pub fn copy_async(cuda: &Cuda, values: &Buffer<u32>, keep: &Buffer<u32>) -> Result<Buffer<u32>> {
    let n = rows("copy_async", keep.len())?;
    same("copy_async", "values", 16 * keep.len(), values.len())?;
    let mut out = cuda.alloc(values.len())?;
    let launch = Launch::blocks("copy_async", 1, 32)?;
    // SAFETY: out and values hold 16 words a row, keep one.
    unsafe { cuda.copy_async(launch, out.output(), values.input(), keep.input(), n)? };
    Ok(out)
}

/// What each lane gets of four matrices `[4, 8, 4]` of words, plain and transposed: `[32, 8]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn ldmatrix(cuda: &Cuda, matrices: &Buffer<u32>) -> Result<Buffer<u32>> {
    same("ldmatrix", "words", 128, matrices.len())?;
    let mut out = cuda.alloc(256)?;
    // SAFETY: 128 words are read, 256 written.
    unsafe { cuda.ldmatrix(Launch::blocks("ldmatrix", 1, 32)?, out.output(), matrices.input())? };
    Ok(out)
}

/// d += a bᵀ with a and b rounded to tf32; d `[16, 8]`, a `[16, 8]`, b `[8, 8]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn mma_tf32(cuda: &Cuda, d: &mut Buffer<f32>, a: &Buffer<f32>, b: &Buffer<f32>) -> Result<()> {
    fragments("mma_tf32", d.len(), a.len(), b.len())?;
    // SAFETY: the lengths are those of the fragments.
    unsafe { cuda.mma_tf32(Launch::blocks("mma_tf32", 1, 32)?, d.output(), a.input(), b.input()) }
}

/// d += a bᵀ in bf16, two to a word; d `[16, 8]`, a `[16, 16]`, b `[8, 16]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn mma_bf16(cuda: &Cuda, d: &mut Buffer<f32>, a: &Buffer<u32>, b: &Buffer<u32>) -> Result<()> {
    fragments("mma_bf16", d.len(), a.len(), b.len())?;
    // SAFETY: the lengths are those of the fragments.
    unsafe { cuda.mma_bf16(Launch::blocks("mma_bf16", 1, 32)?, d.output(), a.input(), b.input()) }
}

/// d += a bᵀ in f16, as [`mma_bf16`].
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn mma_f16(cuda: &Cuda, d: &mut Buffer<f32>, a: &Buffer<u32>, b: &Buffer<u32>) -> Result<()> {
    fragments("mma_f16", d.len(), a.len(), b.len())?;
    // SAFETY: the lengths are those of the fragments.
    unsafe { cuda.mma_f16(Launch::blocks("mma_f16", 1, 32)?, d.output(), a.input(), b.input()) }
}

/// Pairs of neighbours of `x` `[64]` rounded to 16 bits, two to a word: `[2, 32]`, in bf16 and in f16.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn halves(cuda: &Cuda, x: &Buffer<f32>) -> Result<Buffer<u32>> {
    same("halves", "values", 64, x.len())?;
    let mut out = cuda.alloc(64)?;
    // SAFETY: 64 values are read, 64 words written.
    unsafe { cuda.halves(Launch::blocks("halves", 1, 32)?, out.output(), x.input())? };
    Ok(out)
}

/// A timing loop: each warp of `out` multiplies fragments of ones `steps` times into each of several sums, in bf16 or tf32.
/// Every value of `out` becomes the total of a thread's sums.
///
/// # Errors
/// Where `out` does not consist of whole blocks, or the device fails.
pub fn peak(cuda: &Cuda, out: &mut Buffer<f32>, steps: u32, bf16: bool) -> Result<()> {
    let blocks = out.len() / tiles::PEAK_THREADS as usize;
    same("peak", "values", blocks * tiles::PEAK_THREADS as usize, out.len())?;
    let launch = Launch::blocks("peak", blocks, tiles::PEAK_THREADS)?;
    // SAFETY: every thread has a value.
    match bf16 {
        true => unsafe { cuda.peak_bf16(launch, out.output(), steps) },
        false => unsafe { cuda.peak_tf32(launch, out.output(), steps) },
    }
}

/// The floating-point operations of [`peak`] with `len` values: each warp, sum and step is one product with 16 by 8 results
/// over 16 (bf16) or 8 (tf32) terms.
pub fn peak_flops(len: usize, steps: u32, bf16: bool) -> f64 {
    let products = len as f64 / 32.0 * f64::from(steps) * f64::from(tiles::PEAK_SUMS);
    products * 2.0 * 16.0 * 8.0 * if bf16 { 16.0 } else { 8.0 }
}

fn fragments(op: &'static str, d: usize, a: usize, b: usize) -> Result<()> {
    same(op, "sums", 128, d)?;
    same(op, "words of a", 128, a)?;
    same(op, "words of b", 64, b)
}
