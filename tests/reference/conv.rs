//! The oracle of convolutions: plain loops, in the order of a weight row, generic over the number.

use scrubjay::ops::Geometry;

use super::dual::Number;

/// Every product z = W x is made of: for each output value of one image, in the order of its weight row, `each(output,
/// weight, input)`; taps in the padding are left out.
fn products(geometry: &Geometry, mut each: impl FnMut(usize, usize, usize)) {
    let Geometry { input, output, conv } = *geometry;
    let (inner, fan_in) = (input.c / conv.groups, geometry.fan_in());
    let inside = |at: usize, before: usize, size: usize| at.checked_sub(before).filter(|&i| i < size);
    for i in 0..output.len() {
        let (o, column, row) = (i % output.c, i / output.c % output.w, i / output.c / output.w);
        let group = o / (output.c / conv.groups);
        for r in 0..conv.kernel.0 {
            let h = inside(row * conv.stride + r * conv.dilation, conv.padding.0, input.h);
            for s in 0..conv.kernel.1 {
                let w = inside(column * conv.stride + s * conv.dilation, conv.padding.1, input.w);
                let Some((h, w)) = h.zip(w) else { continue };
                let weight = o * fan_in + (r * conv.kernel.1 + s) * inner;
                let x = (h * input.w + w) * input.c + group * inner;
                (0..inner).for_each(|c| each(i, weight + c, x + c));
            }
        }
    }
}

/// W x + b of one image: `x` `[h, w, c]`, `weight` `[o, r·s·c/groups]`, the result `[oh, ow, o]`.
pub fn apply<T: Number>(x: &[T], weight: &[T], bias: Option<&[T]>, geometry: &Geometry) -> Vec<T> {
    let mut y = vec![T::of(0.0); geometry.output.len()];
    products(geometry, |i, w, from| y[i] = y[i] + x[from] * weight[w]);
    if let Some(bias) = bias {
        let o = geometry.output.c;
        y.iter_mut().enumerate().for_each(|(i, y)| *y = *y + bias[i % o]);
    }
    y
}

/// Wᵀ dz of one image.
pub fn data_gradient<T: Number>(dz: &[T], weight: &[T], geometry: &Geometry) -> Vec<T> {
    let mut dx = vec![T::of(0.0); geometry.input.len()];
    products(geometry, |i, w, to| dx[to] = dx[to] + weight[w] * dz[i]);
    dx
}

/// Adds dzᵀ x and Σ dz of one image to `dw` and `db`.
pub fn weight_gradient<T: Number>(dw: &mut [T], db: &mut [T], dz: &[T], x: &[T], geometry: &Geometry) {
    products(geometry, |i, w, from| dw[w] = dw[w] + dz[i] * x[from]);
    let o = geometry.output.c;
    dz.iter().enumerate().for_each(|(i, &dz)| db[i % o] = db[i % o] + dz);
}

/// What the taps of a group read of one image, a row for each output position: `[positions, fan_in]`.
pub fn fields<T: Number>(x: &[T], group: usize, geometry: &Geometry) -> Vec<T> {
    let (o, fan_in) = (geometry.output.c, geometry.fan_in());
    let first = group * (o / geometry.conv.groups); // an output channel of the group
    let mut fields = vec![T::of(0.0); geometry.output.positions() * fan_in];
    products(geometry, |i, w, from| {
        if i % o == first {
            fields[i / o * fan_in + w % fan_in] = x[from];
        }
    });
    fields
}

/// Adds v vᵀ of each row v `[width]` to `sum` `[width, width]`, one after the other.
pub fn moment<T: Number>(sum: &mut [T], rows: &[T], width: usize) {
    for v in rows.chunks_exact(width) {
        for (at, sum) in sum.iter_mut().enumerate() {
            *sum = *sum + v[at / width] * v[at % width];
        }
    }
}
