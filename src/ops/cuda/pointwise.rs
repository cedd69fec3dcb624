//! Sums of values and frozen batch norm on CUDA, with the bits of the CPU's passes.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, Scalar, elements};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

/// `y` = `a` + `b`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn sum<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, a: In<'_, T>, b: In<'_, T>) -> Result<()> {
    same("sum", "values", y.len(), a.len())?;
    same("sum", "values", y.len(), b.len())?;
    let (launch, len) = elements("sum", y.len(), tiles::POINTWISE_THREADS)?;
    // SAFETY: all hold len values.
    unsafe { cuda.sum(launch, y, a, b, len) }
}

/// `y` += `x`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, x: In<'_, T>) -> Result<()> {
    let a = y.same();
    sum(cuda, y, a, x)
}

/// `y` = scale ∘ `x` + shift by channel; `scale` and `shift` `[c]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn scale_shift<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    scale: In<'_, f32>,
    shift: In<'_, f32>,
) -> Result<()> {
    let (launch, len, c) = channels("scale_shift", y.len(), x.len(), scale.len())?;
    same("scale_shift", "shifts", scale.len(), shift.len())?;
    // SAFETY: y and x hold len values, scale and shift c.
    unsafe { cuda.scale_shift(launch, y, x, scale, shift, len, c) }
}

/// `y` = scale ∘ `y` + shift by channel.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn scale_shift_in_place<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    scale: In<'_, f32>,
    shift: In<'_, f32>,
) -> Result<()> {
    let x = y.same();
    scale_shift(cuda, y, x, scale, shift)
}

/// `y` = scale ∘ `x` by channel.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn scale(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>, scale: In<'_, f32>) -> Result<()> {
    let (launch, len, c) = channels("scale", y.len(), x.len(), scale.len())?;
    // SAFETY: y and x hold len values, scale c.
    unsafe { cuda.scale(launch, y, x, scale, len, c, 0) }
}

/// `y` ∘= scale by channel.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn scale_in_place(cuda: &Cuda, y: Out<'_, f32>, by: In<'_, f32>) -> Result<()> {
    let x = y.same();
    scale(cuda, y, x, by)
}

/// `y` += scale ∘ `x` by channel.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add_scaled(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>, scale: In<'_, f32>) -> Result<()> {
    let (launch, len, c) = channels("add_scaled", y.len(), x.len(), scale.len())?;
    // SAFETY: y and x hold len values, scale c.
    unsafe { cuda.scale(launch, y, x, scale, len, c, 1) }
}

fn channels(op: &'static str, y: usize, x: usize, c: usize) -> Result<(Launch, u32, u32)> {
    same(op, "values", y, x)?;
    if c == 0 || !y.is_multiple_of(c) {
        return Err(Error::shape(op, format!("positions of {c} channels"), format!("{y} values")));
    }
    let (launch, len) = elements(op, y, tiles::POINTWISE_THREADS)?;
    Ok((launch, len, super::word(op, "channels", c)?))
}
