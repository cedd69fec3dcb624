//! One step of an optimizer on CUDA, with the bits of [`crate::ops::cpu::optimizer`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, elements};
use crate::device::cuda::{Buffer, tiles};
use crate::error::Result;
use crate::ops::optimizer::{BETAS, EPSILON, Memory, Update};
use crate::ops::same;

/// What [`update`] reads of a step from device memory: the factor on a sum of gradients, the rate, and Adam's
/// corrections.
pub fn now(factor: f32, update: &Update) -> [f32; 4] {
    let [first, second] = update.corrections();
    [factor, update.rate, first, second]
}

/// Moves `w` by `gradient`, and what is remembered with it; all `[len]`, `now` is [`now`]'s. Of `step`, momentum and
/// decay alone are read: a launch that was recorded is good for every step.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn update(
    cuda: &Cuda,
    w: Out<'_, f32>,
    memory: &mut Memory<Buffer<f32>>,
    gradient: In<'_, f32>,
    now: In<'_, f32>,
    step: &Update,
) -> Result<()> {
    let op = "optimizer";
    same(op, "gradients", w.len(), gradient.len())?;
    same(op, "numbers of a step", 4, now.len())?;
    let (launch, len) = elements(op, w.len(), tiles::OPTIMIZER_THREADS)?;
    match memory {
        Memory::Sgd(u) => {
            same(op, "values of memory", w.len(), u.len())?;
            // SAFETY: all but now hold len values, now four.
            unsafe { cuda.sgd(launch, w, u.output(), gradient, now, step.momentum, step.decay, len) }
        }
        Memory::Adam(first, second) => {
            same(op, "values of memory", w.len(), first.len())?;
            same(op, "values of memory", w.len(), second.len())?;
            let ([beta1, beta2], [first, second]) = (BETAS, [first.output(), second.output()]);
            // SAFETY: all but now hold len values, now four.
            unsafe {
                cuda.adam(launch, w, first, second, gradient, now, beta1, beta2, EPSILON, step.decay, len)
            }
        }
    }
}
