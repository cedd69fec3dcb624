//! The product of a map with a gate on CUDA, as [`crate::ops::cpu::gate`], whose table says which calls make which pass;
//! `x` and `y` `[n, positions, c]`, `gate` `[n, c]`.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, Scalar, elements, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::same;

/// `y` = `x` ∘ `gate`, or += that; the CPU's bits.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn apply<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    gate: In<'_, T>,
    c: usize,
    accumulate: bool,
) -> Result<()> {
    let (positions, c) = shapes("gate", y.len(), x.len(), gate.len(), c)?;
    let (launch, len) = elements("gate", y.len(), tiles::GATE_THREADS)?;
    // SAFETY: y and x hold len values, this many positions of c channels for every row of c values of the gate.
    unsafe { cuda.gate(launch, y, x, gate, len, positions, c, u32::from(accumulate)) }
}

/// `dgate` += Σ `dy` ∘ `x` over positions, in f64, in one order.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn gradient(cuda: &Cuda, dgate: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, c: usize) -> Result<()> {
    let op = "gate_gradient";
    let images = dgate.len() / c.max(1);
    let (positions, channels) = shapes(op, dy.len(), x.len(), dgate.len(), c)?;
    let launch = Launch::blocks(op, images * c.div_ceil(32), tiles::GATE_THREADS)?;
    // SAFETY: dy and x hold this many positions of c channels for every row of c values of dgate.
    unsafe { cuda.gate_gradient(launch, dgate, dy, x, positions, channels) }
}

/// The positions of an image, and its channels.
fn shapes(op: &'static str, y: usize, x: usize, gate: usize, c: usize) -> Result<(u32, u32)> {
    same(op, "values", y, x)?;
    word(op, "values", x)?;
    if c == 0 || gate == 0 || x == 0 || !gate.is_multiple_of(c) || !x.is_multiple_of(gate) {
        let expected = format!("positions of {c} channels, and as many values an image in the gate");
        return Err(Error::shape(op, expected, format!("{x} values and {gate} in the gate")));
    }
    Ok((word(op, "positions", x / gate)?, word(op, "channels", c)?))
}
