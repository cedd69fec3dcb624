//! Operations that only move values: rows, bands of images, and the option-A shortcut.

use super::same;
use crate::ops::{Bands, Shape, Strided};

/// Copies `rows` rows of `len` values.
pub fn copy(y: &mut [f32], x: &[f32], rows: usize, len: usize, to: Strided, from: Strided) {
    move_rows(y, x, rows, len, to, from, |y, x| y.copy_from_slice(x));
}

/// Adds `rows` rows of `len` values.
pub fn add(y: &mut [f32], x: &[f32], rows: usize, len: usize, to: Strided, from: Strided) {
    move_rows(y, x, rows, len, to, from, |y, x| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
}

fn move_rows(
    y: &mut [f32],
    x: &[f32],
    rows: usize,
    len: usize,
    to: Strided,
    from: Strided,
    each: impl Fn(&mut [f32], &[f32]),
) {
    for row in 0..rows {
        let (to, from) = (to.first + row * to.stride, from.first + row * from.stride);
        each(&mut y[to..to + len], &x[from..from + len]);
    }
}

/// Adds to `y` `[len]` the first values of each of `rows` rows of `x`.
pub fn add_sum(y: &mut [f32], x: &[f32], rows: usize, from: Strided) {
    let (len, whole) = (y.len(), Strided { first: 0, stride: 0 });
    add(y, x, rows, len, whole, from);
}

/// `y` = the positions of `x`, `[n, rows, columns, c]`, in the order of bands; `back`, from that order. `add` adds.
pub fn bands(y: &mut [f32], x: &[f32], bands: Bands, c: usize, back: bool, add: bool) {
    same("bands", y.len(), x.len());
    let image = bands.rows * bands.columns * c;
    for (y, x) in y.chunks_exact_mut(image).zip(x.chunks_exact(image)) {
        for i in 0..image / c {
            let (place, i) = (bands.place(i) * c, i * c);
            let (to, from) = if back { (place, i) } else { (i, place) };
            let (y, x) = (&mut y[to..to + c], &x[from..from + c]);
            match add {
                true => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
                false => y.copy_from_slice(x),
            }
        }
    }
}

/// `y` = every `stride`-th position of `x` (`[n, h, w, c]`), its channels in the middle of `to.c`, zeros around.
pub fn shortcut(y: &mut [f32], x: &[f32], n: usize, from: Shape, to: Shape, stride: usize) {
    same("shortcut", y.len(), n * to.len());
    same("shortcut", x.len(), n * from.len());
    y.fill(0.0);
    for (to_at, from_at) in sampled(n, from, to, stride) {
        y[to_at..to_at + from.c].copy_from_slice(&x[from_at..from_at + from.c]);
    }
}

/// The adjoint of [`shortcut`].
pub fn shortcut_adjoint(dx: &mut [f32], dy: &[f32], n: usize, from: Shape, to: Shape, stride: usize) {
    same("shortcut_adjoint", dx.len(), n * from.len());
    same("shortcut_adjoint", dy.len(), n * to.len());
    for (to_at, from_at) in sampled(n, from, to, stride) {
        let dx = &mut dx[from_at..from_at + from.c];
        dx.iter_mut().zip(&dy[to_at..to_at + from.c]).for_each(|(dx, dy)| *dx += dy);
    }
}

/// Where the channels of each sampled position stand in the output and in the input.
fn sampled(n: usize, from: Shape, to: Shape, stride: usize) -> impl Iterator<Item = (usize, usize)> {
    let before = (to.c - from.c) / 2;
    (0..n * to.positions()).map(move |at| {
        let (image, at_image) = (at / to.positions(), at % to.positions());
        let (row, column) = (at_image / to.w * stride, at_image % to.w * stride);
        (at * to.c + before, ((image * from.h + row) * from.w + column) * from.c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortcut_takes_every_second_position_and_pads_channels_on_both_sides() {
        let (from, to) = (Shape::new(3, 2, 1), Shape::new(2, 1, 3));
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut y = [9.0; 6];
        shortcut(&mut y, &x, 1, from, to, 2);
        assert_eq!(y, [0.0, 1.0, 0.0, 0.0, 5.0, 0.0]);
    }

    #[test]
    fn adjoints_are_transposes() {
        let (row, more) = (Shape::new(1, 3, 2), Shape::new(1, 4, 2));
        let (from, to) = (Shape::new(3, 2, 1), Shape::new(2, 1, 3));
        type Map<'a> = &'a dyn Fn(&mut [f32], &[f32]);
        let check = |from: Shape, to: Shape, map: Map, adjoint: Map| {
            let x: Vec<f32> = (0..2 * from.len()).map(|i| (i * i % 7) as f32).collect();
            let u: Vec<f32> = (0..2 * to.len()).map(|i| (i * 3 % 5) as f32).collect();
            let (mut y, mut dx) = (vec![0.0; u.len()], vec![0.0; x.len()]);
            map(&mut y, &x);
            adjoint(&mut dx, &u);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!(dot(&y, &u) != 0.0);
            assert_eq!(dot(&y, &u), dot(&x, &dx));
        };
        let at = |first: usize, stride: usize| Strided { first, stride };
        let moved = |from: Shape, to: Shape, rows: usize, len: usize, at_from: Strided, at_to: Strided| {
            let map = |y: &mut [f32], x: &[f32]| {
                y.fill(0.0);
                copy(y, x, rows, len, at_to, at_from);
            };
            check(from, to, &map, &|d, u| add(d, u, rows, len, at_from, at_to));
        };
        moved(row, more, 2, 6, at(0, 6), at(2, 8)); // behind a token of zeros
        for (count, first) in [(1, 1), (2, 1), (3, 0)] {
            let some = Shape::new(1, count, 2);
            moved(row, some, 2, 2 * count, at(2 * first, 6), at(0, 2 * count));
        }
        let wide = Shape::new(1, 3, 5);
        moved(row, wide, 6, 2, at(0, 2), at(1, 5));
        check(from, to, &|y, x| shortcut(y, x, 2, from, to, 2), &|d, u| {
            shortcut_adjoint(d, u, 2, from, to, 2)
        });
    }
}
