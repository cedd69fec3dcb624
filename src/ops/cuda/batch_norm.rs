//! Batch norm with the statistics of the batch on CUDA, as `net::train` has it on the CPU (MATH.md, Eq. 10b). Values are
//! `[n, c]` over the positions of all images; `moments` is mean and biased variance, `[2, c]`.
#![allow(unsafe_code)] // launches

use super::chunks::Chunks;
use super::{Cuda, In, Out, elements, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

/// Mean and variance of `x`, to `moments`; two passes, in f64, in one order. `parts` is scratch for [`parts`] values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn moments(
    cuda: &Cuda,
    moments: Out<'_, f64>,
    mut parts: Out<'_, f64>,
    x: In<'_, f32>,
    c: usize,
) -> Result<()> {
    let at = Shapes::new("batch_norm", x.len(), c)?;
    same(at.op, "moments", 2 * c, moments.len())?;
    same(at.op, "values in parts", self::parts(at.positions, c), parts.len())?;
    let (mut mean, mut var) = moments.split_at(c);
    let (launch, Shapes { n, c: channels, size, .. }) = (at.launch()?, at);
    // SAFETY: x holds n positions of c channels, parts at least c values for each chunk of `size` of them.
    unsafe { cuda.batch_norm_sums(launch, parts.output(), x, None, n, channels, size)? };
    at.fold(cuda, mean.output(), parts.input(), f64::from(n))?;
    // SAFETY: the same, and a mean for each channel.
    unsafe { cuda.batch_norm_sums(launch, parts.output(), x, Some(mean.input()), n, channels, size)? };
    at.fold(cuda, var.output(), parts.input(), f64::from(n))
}

/// `y` = γ x̂ + β; `gamma` and `beta` `[c]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward(
    cuda: &Cuda,
    y: Out<'_, f32>,
    x: In<'_, f32>,
    moments: In<'_, f64>,
    gamma: In<'_, f32>,
    beta: In<'_, f32>,
    eps: f32,
) -> Result<()> {
    let at = Shapes::new("batch_norm", y.len(), gamma.len())?;
    same(at.op, "values", y.len(), x.len())?;
    same(at.op, "shifts", gamma.len(), beta.len())?;
    same(at.op, "moments", 2 * gamma.len(), moments.len())?;
    // SAFETY: y and x hold n positions of c channels, moments two values a channel, gamma and beta one.
    unsafe { cuda.batch_norm(at.launch()?, y, x, moments, gamma, beta, at.n, at.c, at.size, eps) }
}

/// Σ dy and Σ dy x̂ of each channel, to `sums` `[2, c]`; in f64, in one order. `parts` is scratch for [`parts`] values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn sums(
    cuda: &Cuda,
    sums: Out<'_, f64>,
    mut parts: Out<'_, f64>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    moments: In<'_, f64>,
    eps: f32,
) -> Result<()> {
    let c = sums.len() / 2;
    let at = Shapes::new("batch_norm_backward", dy.len(), c)?;
    same(at.op, "values", dy.len(), x.len())?;
    same(at.op, "sums", 2 * c, sums.len())?;
    same(at.op, "moments", 2 * c, moments.len())?;
    same(at.op, "values in parts", self::parts(at.positions, c), parts.len())?;
    let (launch, Shapes { n, c, size, .. }) = (at.launch()?, at);
    // SAFETY: dy and x hold n positions of c channels, moments two values a channel, parts as many for each chunk.
    unsafe { cuda.batch_norm_backward_sums(launch, parts.output(), dy, x, moments, n, c, size, eps)? };
    at.fold(cuda, sums, parts.input(), 1.0)
}

/// `dx` += the adjoint of `dy`; `sums` are those of [`sums`].
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    moments: In<'_, f64>,
    sums: In<'_, f64>,
    gamma: In<'_, f32>,
    eps: f32,
) -> Result<()> {
    let at = Shapes::new("batch_norm_backward", dx.len(), gamma.len())?;
    [dy, x].iter().try_for_each(|other| same(at.op, "values", dx.len(), other.len()))?;
    [moments, sums].iter().try_for_each(|two| same(at.op, "moments", 2 * gamma.len(), two.len()))?;
    let (launch, Shapes { n, c, size, .. }) = (at.launch()?, at);
    // SAFETY: dx, dy and x hold n positions of c channels, moments and sums two values a channel, gamma one.
    unsafe { cuda.batch_norm_backward(launch, dx, dy, x, moments, sums, gamma, n, c, size, eps) }
}

/// `gradient` `[c]` += `sums` `[c]`: dβ of Σ dy, dγ of Σ dy x̂.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add_gradient(cuda: &Cuda, gradient: Out<'_, f32>, sums: In<'_, f64>) -> Result<()> {
    same("batch_norm_gradient", "sums", gradient.len(), sums.len())?;
    let (launch, c) = elements("batch_norm_gradient", gradient.len(), tiles::BATCH_NORM_THREADS)?;
    // SAFETY: both hold c values.
    unsafe { cuda.batch_norm_gradient(launch, gradient, sums, c) }
}

/// `running` `[c]` += momentum · (factor · `moment` − running), with the CPU's bits.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn move_running(
    cuda: &Cuda,
    running: Out<'_, f32>,
    moment: In<'_, f64>,
    factor: f64,
    momentum: f32,
) -> Result<()> {
    same("batch_norm_running", "moments", running.len(), moment.len())?;
    let (launch, c) = elements("batch_norm_running", running.len(), tiles::BATCH_NORM_THREADS)?;
    // SAFETY: both hold c values.
    unsafe { cuda.batch_norm_running(launch, running, moment, c, factor, momentum) }
}

/// The values of scratch that sums over `n` positions of `c` channels take; never more for fewer positions.
pub fn parts(n: usize, c: usize) -> usize {
    by_chunks(n, c).most * 2 * c
}

fn by_chunks(n: usize, c: usize) -> Chunks {
    Chunks::new(n, blocks(c), 64, tiles::BATCH_NORM_THREADS as usize / 32)
}

/// Blocks that have a lane for each channel.
fn blocks(c: usize) -> usize {
    c.div_ceil(32)
}

/// Shapes as the kernels take them.
#[derive(Clone, Copy)]
struct Shapes {
    op: &'static str,
    positions: usize,
    chunks: usize,
    n: u32,
    c: u32,
    size: u32,
}

impl Shapes {
    fn new(op: &'static str, len: usize, c: usize) -> Result<Shapes> {
        if c == 0 || len == 0 || !len.is_multiple_of(c) {
            return Err(Error::shape(op, format!("positions of {c} channels"), format!("{len} values")));
        }
        word(op, "values", len)?;
        let (positions, word) = (len / c, |value: usize| word(op, "values", value));
        let Chunks { size, count, .. } = by_chunks(positions, c);
        Ok(Shapes { op, positions, chunks: count, n: word(positions)?, c: word(c)?, size: word(size)? })
    }

    /// A block for 32 channels of each chunk.
    fn launch(&self) -> Result<Launch> {
        Launch::blocks(self.op, blocks(self.c as usize) * self.chunks, tiles::BATCH_NORM_THREADS)
    }

    /// out = the sums over chunks / over, of as many sums a chunk as out has values.
    fn fold(&self, cuda: &Cuda, out: Out<'_, f64>, parts: In<'_, f64>, over: f64) -> Result<()> {
        let (c, chunks) = (word(self.op, "channels", out.len())?, word(self.op, "chunks", self.chunks)?);
        let warps = tiles::BATCH_NORM_THREADS as usize / 32;
        let launch = Launch::blocks(self.op, out.len().div_ceil(warps), tiles::BATCH_NORM_THREADS)?;
        // SAFETY: the callers' check: parts holds as many values as out for every chunk.
        unsafe { cuda.batch_norm_fold(launch, out, parts, c, chunks, over) }
    }
}
