//! The oracle of attention: plain loops, forward and backward, generic over the number.

use scrubjay::net::Shape;

use super::dual::Number;
use super::layers::softmax;

/// The softmax weights of every head, `[heads][t][t]`: over the keys that `mask` `[t]` keeps, 0 for the others.
fn weights<T: Number>(x: &[T], shape: Shape, heads: usize, mask: Option<&[u32]>) -> Vec<Vec<Vec<T>>> {
    let (t, width) = (shape.positions(), shape.c / heads);
    let scale = T::of(1.0 / (width as f64).sqrt());
    let head = |head: usize| {
        let q = |i: usize, j: usize| x[i * 3 * shape.c + head * width + j];
        let k = |i: usize, j: usize| x[i * 3 * shape.c + shape.c + head * width + j];
        let score = |i: usize, l: usize| (0..width).fold(T::of(0.0), |sum, j| sum + q(i, j) * k(l, j));
        let kept: Vec<usize> = (0..t).filter(|&l| mask.is_none_or(|mask| mask[l] != 0)).collect();
        let row = |i: usize| {
            let mut p = vec![T::of(0.0); t];
            let some = softmax(&kept.iter().map(|&l| score(i, l) * scale).collect::<Vec<_>>());
            kept.iter().zip(some).for_each(|(&l, weight)| p[l] = weight);
            p
        };
        (0..t).map(row).collect()
    };
    (0..heads).map(head).collect()
}

/// Attention of one image: `x` `[t, 3c]`, the result `[t, c]`; `mask` `[t]` is 0 at keys without weight.
pub fn attention<T: Number>(x: &[T], shape: Shape, heads: usize, mask: Option<&[u32]>) -> Vec<T> {
    let (t, c) = (shape.positions(), shape.c);
    let p = weights(x, shape, heads, mask);
    let at = |i: usize| {
        let (token, channel) = (i / c, i % c);
        let p = &p[channel / (c / heads)][token];
        (0..t).fold(T::of(0.0), |sum, l| sum + p[l] * x[l * 3 * c + 2 * c + channel])
    };
    (0..t * c).map(at).collect()
}

/// The adjoint of [`attention`] at `d` `[t, c]`, added to `dx` `[t, 3c]`.
pub fn attention_backward<T: Number>(
    dx: &mut [T],
    d: &[T],
    x: &[T],
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
) {
    let (t, c, width) = (shape.positions(), shape.c, shape.c / heads);
    let scale = T::of(1.0 / (width as f64).sqrt());
    for (head, p) in weights(x, shape, heads, mask).iter().enumerate() {
        let index = |part: usize, i: usize, j: usize| i * 3 * c + part * c + head * width + j;
        for i in 0..t {
            let d = |j: usize| d[i * c + head * width + j];
            let along = |l: usize| (0..width).fold(T::of(0.0), |sum, j| sum + d(j) * x[index(2, l, j)]);
            let dp: Vec<T> = (0..t).map(along).collect();
            let mean = (0..t).fold(T::of(0.0), |sum, l| sum + dp[l] * p[i][l]);
            for l in 0..t {
                let ds = p[i][l] * (dp[l] - mean) * scale;
                for j in 0..width {
                    let (q, k, v) = (index(0, i, j), index(1, l, j), index(2, l, j));
                    dx[q] = dx[q] + ds * x[k];
                    dx[k] = dx[k] + ds * x[q];
                    dx[v] = dx[v] + p[i][l] * d(j);
                }
            }
        }
    }
}
