//! Layer norm on CUDA, as [`crate::ops::layer_norm`] (MATH.md, Eq. 8).
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, warps};
use crate::Result;
use crate::device::cuda::{Launch, tiles};
use crate::ops::same;

/// `y` = γ x̂ + β over the channels of each position, and μ and r of each to `saved`; `x` and `y` `[n, c]`, `saved`
/// `[n, 2]`, `gamma` and `beta` `[c]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward(
    cuda: &Cuda,
    y: Out<'_, f32>,
    saved: Out<'_, f32>,
    x: In<'_, f32>,
    gamma: In<'_, f32>,
    beta: In<'_, f32>,
    eps: f32,
) -> Result<()> {
    let (launch, n, c) = positions("layer_norm", y.len(), &[x], saved.len(), gamma.len())?;
    same("layer_norm", "shifts", gamma.len(), beta.len())?;
    // SAFETY: y and x hold n positions of c channels, saved two values a position, gamma and beta c.
    unsafe { cuda.layer_norm(launch, y, saved, x, gamma, beta, n, c, eps) }
}

/// `t` = γ x̂'.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn tangent(
    cuda: &Cuda,
    t: Out<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
) -> Result<()> {
    let (launch, n, c) = positions("layer_norm_tangent", t.len(), &[tx, x], saved.len(), gamma.len())?;
    // SAFETY: as in the forward pass.
    unsafe { cuda.layer_norm_tangent(launch, t, tx, x, saved, gamma, n, c) }
}

/// `dx` += the adjoint of `dy`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
) -> Result<()> {
    let (launch, n, c) = positions("layer_norm_backward", dx.len(), &[dy, x], saved.len(), gamma.len())?;
    // SAFETY: as in the forward pass.
    unsafe { cuda.layer_norm_backward(launch, dx, dy, x, saved, gamma, n, c) }
}

/// `dxt` += the derivative of [`backward`] along `tx` and `dyt`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn tangent_backward(
    cuda: &Cuda,
    dxt: Out<'_, f32>,
    dyt: In<'_, f32>,
    dy: In<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
) -> Result<()> {
    let values = [dyt, dy, tx, x];
    let (launch, n, c) =
        positions("layer_norm_tangent_backward", dxt.len(), &values, saved.len(), gamma.len())?;
    // SAFETY: as in the forward pass.
    unsafe { cuda.layer_norm_tangent_backward(launch, dxt, dyt, dy, tx, x, saved, gamma, n, c) }
}

fn positions(
    op: &'static str,
    len: usize,
    others: &[In<'_, f32>],
    saved: usize,
    c: usize,
) -> Result<(Launch, u32, u32)> {
    others.iter().try_for_each(|other| same(op, "values", len, other.len()))?;
    let sizes = warps(op, len, c, tiles::LAYER_NORM_THREADS)?;
    same(op, "saved values", 2 * (len / c), saved)?;
    Ok(sizes)
}
