//! The oracle of attention: plain loops, forward and backward, generic over the number.

use scrubjay::net::Shape;
use scrubjay::ops::Windows;

use super::dual::Number;
use super::layers::softmax;

/// The softmax weights of every head, `[heads][t][t]`: over the keys that `mask` `[t]` keeps, 0 for the others. `added`
/// `[heads][t][t]` is added to the scores.
fn weights<T: Number>(
    x: &[T],
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
    added: Option<&[T]>,
) -> Vec<Vec<Vec<T>>> {
    let (t, width) = (shape.positions(), shape.c / heads);
    let scale = T::of(1.0 / (width as f64).sqrt());
    let head = |head: usize| {
        let q = |i: usize, j: usize| x[i * 3 * shape.c + head * width + j];
        let k = |i: usize, j: usize| x[i * 3 * shape.c + shape.c + head * width + j];
        let more = |i: usize, l: usize| added.map_or(T::of(0.0), |added| added[(head * t + i) * t + l]);
        let product = |i: usize, l: usize| (0..width).fold(T::of(0.0), |sum, j| sum + q(i, j) * k(l, j));
        let score = |i: usize, l: usize| product(i, l) * scale + more(i, l);
        let kept: Vec<usize> = (0..t).filter(|&l| mask.is_none_or(|mask| mask[l] != 0)).collect();
        let row = |i: usize| {
            let mut p = vec![T::of(0.0); t];
            let some = softmax(&kept.iter().map(|&l| score(i, l)).collect::<Vec<_>>());
            kept.iter().zip(some).for_each(|(&l, weight)| p[l] = weight);
            p
        };
        (0..t).map(row).collect()
    };
    (0..heads).map(head).collect()
}

/// Attention of one image: `x` `[t, 3c]`, the result `[t, c]`; `mask` `[t]` is 0 at keys without weight. Every weight is as `round` makes
/// it.
pub fn attention<T: Number>(
    x: &[T],
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
    round: &dyn Fn(T) -> T,
) -> Vec<T> {
    with_added(x, shape, heads, mask, None, round)
}

fn with_added<T: Number>(
    x: &[T],
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
    added: Option<&[T]>,
    round: &dyn Fn(T) -> T,
) -> Vec<T> {
    let (t, c) = (shape.positions(), shape.c);
    let p = weights(x, shape, heads, mask, added);
    let at = |i: usize| {
        let (token, channel) = (i / c, i % c);
        let p = &p[channel / (c / heads)][token];
        (0..t).fold(T::of(0.0), |sum, l| sum + round(p[l]) * x[l * 3 * c + 2 * c + channel])
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
    backward_with_added(dx, d, x, shape, heads, mask, None);
}

/// The same, and the adjoint of what was added, `[heads][t][t]`.
fn backward_with_added<T: Number>(
    dx: &mut [T],
    d: &[T],
    x: &[T],
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
    added: Option<&[T]>,
) -> Vec<T> {
    let mut dadded = vec![];
    let (t, c, width) = (shape.positions(), shape.c, shape.c / heads);
    let scale = T::of(1.0 / (width as f64).sqrt());
    for (head, p) in weights(x, shape, heads, mask, added).iter().enumerate() {
        let index = |part: usize, i: usize, j: usize| i * 3 * c + part * c + head * width + j;
        for i in 0..t {
            let d = |j: usize| d[i * c + head * width + j];
            let along = |l: usize| (0..width).fold(T::of(0.0), |sum, j| sum + d(j) * x[index(2, l, j)]);
            let dp: Vec<T> = (0..t).map(along).collect();
            let mean = (0..t).fold(T::of(0.0), |sum, l| sum + dp[l] * p[i][l]);
            for l in 0..t {
                dadded.push(p[i][l] * (dp[l] - mean));
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
    dadded
}

/// Row and column of a token of a window, and the part of the image that it was in before the shift: of rows, and of columns,
/// the last windows hold two.
fn token(at: Windows, window: usize, i: usize) -> [usize; 4] {
    let (row, column) = (i % at.side, i / at.side);
    let part = |at: usize, size: usize, side: usize, shift: usize| match at {
        at if shift > 0 && at >= size - shift => 2,
        at if at >= size - side => 1,
        _ => 0,
    };
    let (down, right) = (window / at.columns * at.side + row, window % at.columns * at.side + column);
    let down = part(down, at.rows * at.side, at.side, at.down);
    [row, column, down, part(right, at.columns * at.side, at.side, at.right)]
}

/// Calls `each(added, table)` with the places of what is added and of its value in the table.
fn pairs(at: Windows, heads: usize, mut each: impl FnMut(usize, usize)) {
    let (t, width) = (at.side * at.side, 2 * at.side - 1);
    for head in 0..heads {
        for (i, l) in (0..t).flat_map(|i| (0..t).map(move |l| (i, l))) {
            let ([row, column, ..], [key_row, key_column, ..]) = (token(at, 0, i), token(at, 0, l));
            let offset = (row + at.side - 1 - key_row) * width + column + at.side - 1 - key_column;
            each((head * t + i) * t + l, offset * heads + head);
        }
    }
}

fn added<T: Number>(table: &[T], at: Windows, window: usize, heads: usize) -> Vec<T> {
    let t = at.side * at.side;
    let mut added = vec![T::of(0.0); heads * t * t];
    pairs(at, heads, |i, j| added[i] = table[j]);
    for (i, added) in added.iter_mut().enumerate() {
        let [query, key] = [i / t % t, i % t].map(|i| token(at, window, i));
        if query[2..] != key[2..] {
            *added = *added - T::of(100.0);
        }
    }
    added
}

/// Attention within the windows of one image, rows of `shape`; the table is `[(2 side - 1)², heads]`. Every
/// weight is as `round` makes it.
pub fn windowed<T: Number>(
    x: &[T],
    shape: Shape,
    heads: usize,
    table: &[T],
    at: Windows,
    round: &dyn Fn(T) -> T,
) -> Vec<T> {
    let one = Shape { h: 1, ..shape };
    let windows = x.chunks_exact(3 * one.len()).enumerate();
    let window = |(i, x)| with_added(x, one, heads, None, Some(&added(table, at, i, heads)), round);
    windows.flat_map(window).collect()
}

/// The adjoint of [`windowed`], added to `dx` and to `dtable`.
pub fn windowed_backward<T: Number>(
    [dx, dtable]: [&mut [T]; 2],
    d: &[T],
    x: &[T],
    shape: Shape,
    heads: usize,
    table: &[T],
    at: Windows,
) {
    let one = Shape { h: 1, ..shape };
    let windows = dx.chunks_exact_mut(3 * one.len()).zip(d.chunks_exact(one.len()));
    for (i, ((dx, d), x)) in windows.zip(x.chunks_exact(3 * one.len())).enumerate() {
        let dadded = backward_with_added(dx, d, x, one, heads, None, Some(&added(table, at, i, heads)));
        pairs(at, heads, |i, j| dtable[j] = dtable[j] + dadded[i]);
    }
}
