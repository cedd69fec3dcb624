//! The oracle of convolutions: plain loops, in the order of a weight row, generic over the number.

use scrubjay::ops::conv::Geometry;

use super::dual::Number;

/// W x + b of one image: `x` `[h, w, c]`, `weight` `[o, r·s·c/groups]`, the result `[oh, ow, o]`.
pub fn apply<T: Number>(x: &[T], weight: &[T], bias: Option<&[T]>, geometry: &Geometry) -> Vec<T> {
    let Geometry { input, output, conv } = *geometry;
    let inner = input.c / conv.groups;
    let mut y = vec![T::of(0.0); output.len()];
    for (i, y) in y.iter_mut().enumerate() {
        let (o, column, row) = (i % output.c, i / output.c % output.w, i / output.c / output.w);
        let group = o / (output.c / conv.groups);
        for k in 0..geometry.fan_in() {
            let (tap, c) = (k / inner, k % inner);
            let h = row * conv.stride + tap / conv.kernel.1 * conv.dilation;
            let w = column * conv.stride + tap % conv.kernel.1 * conv.dilation;
            let inside = |at: usize, before: usize, size: usize| at.checked_sub(before).filter(|&i| i < size);
            let place = inside(h, conv.padding.0, input.h).zip(inside(w, conv.padding.1, input.w));
            if let Some((h, w)) = place {
                let x = x[(h * input.w + w) * input.c + group * inner + c];
                *y = *y + x * weight[o * geometry.fan_in() + k];
            }
        }
        if let Some(bias) = bias {
            *y = *y + bias[o];
        }
    }
    y
}
