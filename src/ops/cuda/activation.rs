//! Pointwise nonlinearities on CUDA, as [`crate::ops::cpu::activation`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, Scalar, elements};
use crate::device::cuda::{Launch, tiles};
use crate::error::Result;
use crate::ops::{Activation, same};

/// `y` = f(`x`), of values of any type.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, x: In<'_, T>, kind: Activation) -> Result<()> {
    same("activation", "values", y.len(), x.len())?;
    let (launch, len) = elements("activation", y.len(), tiles::ACTIVATION_THREADS)?;
    // SAFETY: both hold len values.
    unsafe { cuda.activation(launch, y, x, kind as u32, len) }
}

/// `y` = f(`y`).
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward_in_place<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, kind: Activation) -> Result<()> {
    let x = y.same();
    forward(cuda, y, x, kind)
}

/// `dx` = f'(`a`) ∘ `dy`: backward of an adjoint, or forward of a tangent.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    a: In<'_, f32>,
    kind: Activation,
) -> Result<()> {
    let (launch, len) = each("activation_backward", dx.len(), &[dy, a])?;
    // SAFETY: all hold len values.
    unsafe { cuda.activation_backward(launch, dx, dy, a, kind as u32, len, 0) }
}

/// `d` ∘= f'(`a`).
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn backward_in_place(cuda: &Cuda, d: Out<'_, f32>, a: In<'_, f32>, kind: Activation) -> Result<()> {
    let dy = d.same();
    backward(cuda, d, dy, a, kind)
}

/// `dx` += f'(`a`) ∘ `dy`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add_backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    a: In<'_, f32>,
    kind: Activation,
) -> Result<()> {
    let (launch, len) = each("activation_backward", dx.len(), &[dy, a])?;
    // SAFETY: all hold len values.
    unsafe { cuda.activation_backward(launch, dx, dy, a, kind as u32, len, 1) }
}

/// `dxt` = f'(`a`) `dyt` + f''(`a`) `at` `dy`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn tangent_backward(
    cuda: &Cuda,
    dxt: Out<'_, f32>,
    dyt: In<'_, f32>,
    dy: In<'_, f32>,
    at: In<'_, f32>,
    a: In<'_, f32>,
    kind: Activation,
) -> Result<()> {
    let (launch, len) = each("activation_tangent_backward", dxt.len(), &[dyt, dy, at, a])?;
    // SAFETY: all hold len values.
    unsafe { cuda.activation_tangent_backward(launch, dxt, dyt, dy, at, a, kind as u32, len, 0) }
}

/// `dxt` += f'(`a`) `dyt` + f''(`a`) `at` `dy`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add_tangent_backward(
    cuda: &Cuda,
    dxt: Out<'_, f32>,
    dyt: In<'_, f32>,
    dy: In<'_, f32>,
    at: In<'_, f32>,
    a: In<'_, f32>,
    kind: Activation,
) -> Result<()> {
    let (launch, len) = each("activation_tangent_backward", dxt.len(), &[dyt, dy, at, a])?;
    // SAFETY: all hold len values.
    unsafe { cuda.activation_tangent_backward(launch, dxt, dyt, dy, at, a, kind as u32, len, 1) }
}

/// A thread for each element of values that all have `len`.
fn each(op: &'static str, len: usize, others: &[In<'_, f32>]) -> Result<(Launch, u32)> {
    others.iter().try_for_each(|other| same(op, "values", len, other.len()))?;
    elements(op, len, tiles::ACTIVATION_THREADS)
}
