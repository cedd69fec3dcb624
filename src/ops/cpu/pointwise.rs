//! Sums of values, and frozen batch norm: a scale and a shift by channel.

use super::same;

/// y += x.
pub fn add(y: &mut [f32], x: &[f32]) {
    same("add", y.len(), x.len());
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// y = a + b.
pub fn sum(y: &mut [f32], a: &[f32], b: &[f32]) {
    same("sum", y.len(), b.len());
    y.copy_from_slice(a);
    add(y, b);
}

/// y ∘= scale by channel; `scale` `[c]`.
pub fn scale(y: &mut [f32], scale: &[f32]) {
    same("scale", y.len() % scale.len(), 0);
    y.chunks_exact_mut(scale.len()).for_each(|at| at.iter_mut().zip(scale).for_each(|(y, s)| *y *= s));
}

/// y = scale ∘ y + shift by channel; both `[c]`.
pub fn scale_shift(y: &mut [f32], scale: &[f32], shift: &[f32]) {
    same("scale_shift", y.len() % scale.len(), 0);
    same("scale_shift", scale.len(), shift.len());
    for at in y.chunks_exact_mut(scale.len()) {
        at.iter_mut().zip(scale).zip(shift).for_each(|((y, a), b)| *y = *y * a + b);
    }
}

/// dx += scale ∘ dy by channel; `scale` `[c]`.
pub fn add_scaled(dx: &mut [f32], dy: &[f32], scale: &[f32]) {
    same("add_scaled", dx.len(), dy.len());
    same("add_scaled", dx.len() % scale.len(), 0);
    for (dx, dy) in dx.chunks_exact_mut(scale.len()).zip(dy.chunks_exact(scale.len())) {
        dx.iter_mut().zip(dy).zip(scale).for_each(|((dx, dy), s)| *dx += dy * s);
    }
}
