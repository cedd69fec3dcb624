//! Pooling over NHWC images: max with its winners, and the means (window, adaptive grid, global) with their adjoints,
//! which add.

use std::ops::Range;

use super::same;
use crate::ops::{Shape, Window};

/// Along a side of `length`: the positions of it in window `o`.
fn span(o: usize, length: usize, size: usize, stride: usize, padding: usize) -> Range<usize> {
    let start = o * stride;
    start.saturating_sub(padding)..(start + size).saturating_sub(padding).min(length)
}

/// The rows and columns of `from` in a window.
fn field(row: usize, column: usize, from: Shape, window: Window) -> (Range<usize>, Range<usize>) {
    let Window { size, stride, padding, .. } = window;
    (span(row, from.h, size.0, stride, padding.0), span(column, from.w, size.1, stride, padding.1))
}

/// Largest value of each window, and in `winners` the position within the image where it stands; ties go to the first
/// in row-major order. Every window holds something of the image ([`Window::over`]).
pub fn max_pool(
    y: &mut [f32],
    winners: &mut [u32],
    x: &[f32],
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) {
    let c = from.c;
    lengths("max_pool", x.len(), y.len(), n, from, to);
    same("max_pool", y.len(), winners.len());
    for image in 0..n {
        let x = &x[image * from.len()..(image + 1) * from.len()];
        for at in 0..to.positions() {
            let out = (image * to.positions() + at) * c..(image * to.positions() + at + 1) * c;
            let (y, winners) = (&mut y[out.clone()], &mut winners[out]);
            let mut first = true;
            let (rows, columns) = field(at / to.w, at % to.w, from, window);
            for row in rows {
                for column in columns.clone() {
                    let position = row * from.w + column;
                    let x = &x[position * c..(position + 1) * c];
                    for ((y, winner), &x) in y.iter_mut().zip(winners.iter_mut()).zip(x) {
                        if first || x > *y {
                            (*y, *winner) = (x, position as u32);
                        }
                    }
                    first = false;
                }
            }
        }
    }
}

/// y = the values of `x` where the winners stand: the tangent of [`max_pool`].
pub fn gather(y: &mut [f32], winners: &[u32], x: &[f32], n: usize, from: Shape, to: Shape) {
    lengths("max_pool_tangent", x.len(), y.len(), n, from, to);
    same("max_pool_tangent", y.len(), winners.len());
    for image in 0..n {
        let x = &x[image * from.len()..(image + 1) * from.len()];
        let out = image * to.len()..(image + 1) * to.len();
        for (i, (y, &winner)) in y[out.clone()].iter_mut().zip(&winners[out]).enumerate() {
            *y = x[winner as usize * from.c + i % from.c];
        }
    }
}

/// dx += dy where the winners stand: the adjoint of [`gather`].
pub fn scatter(dx: &mut [f32], winners: &[u32], dy: &[f32], n: usize, from: Shape, to: Shape) {
    lengths("max_pool_backward", dx.len(), dy.len(), n, from, to);
    same("max_pool_backward", dy.len(), winners.len());
    for image in 0..n {
        let dx = &mut dx[image * from.len()..(image + 1) * from.len()];
        let out = image * to.len()..(image + 1) * to.len();
        for (i, (&dy, &winner)) in dy[out.clone()].iter().zip(&winners[out]).enumerate() {
            dx[winner as usize * from.c + i % from.c] += dy;
        }
    }
}

/// The mean of each window, which counts zeros of the padding where [`Window::counts_padding`] tells so.
pub fn average_pool(y: &mut [f32], x: &[f32], n: usize, from: Shape, to: Shape, window: Window) {
    means(y, x, n, from, to, &windows(window, from));
}

/// The adjoint of [`average_pool`].
pub fn average_pool_adjoint(dx: &mut [f32], dy: &[f32], n: usize, from: Shape, to: Shape, window: Window) {
    spread(dx, dy, n, from, to, &windows(window, from));
}

/// The mean over the cells of a grid, of which one cell is all positions: cell i of o covers ⌊i·size/o⌋ to ⌈(i+1)·size/o⌉ (PyTorch's rule).
pub fn adaptive_pool(y: &mut [f32], x: &[f32], n: usize, from: Shape, to: Shape) {
    means(y, x, n, from, to, &cells(from, to));
}

/// The adjoint of [`adaptive_pool`].
pub fn adaptive_pool_adjoint(dx: &mut [f32], dy: &[f32], n: usize, from: Shape, to: Shape) {
    spread(dx, dy, n, from, to, &cells(from, to));
}

/// Refuses other lengths than those of `n` images.
#[track_caller]
fn lengths(op: &str, inner: usize, outer: usize, n: usize, from: Shape, to: Shape) {
    same(op, inner, n * from.len());
    same(op, outer, n * to.len());
}

/// The rows and columns that an output position reads, and how many positions its mean divides by.
type Field<'a> = dyn Fn(usize, usize) -> (Range<usize>, Range<usize>, usize) + 'a;

fn windows(window: Window, from: Shape) -> impl Fn(usize, usize) -> (Range<usize>, Range<usize>, usize) {
    let counted = window.counted(from.h, from.w);
    let within = move |o: usize, size: usize, all: usize| size.min(all - o * window.stride);
    move |row, column| {
        let (rows, columns) = field(row, column, from, window);
        let count = match counted {
            Some((h, w)) => within(row, window.size.0, h) * within(column, window.size.1, w),
            None => rows.len() * columns.len(),
        };
        (rows, columns, count)
    }
}

fn cells(from: Shape, to: Shape) -> impl Fn(usize, usize) -> (Range<usize>, Range<usize>, usize) {
    let cell = |i: usize, size: usize, cells: usize| i * size / cells..((i + 1) * size).div_ceil(cells);
    move |row, column| {
        let (rows, columns) = (cell(row, from.h, to.h), cell(column, from.w, to.w));
        let count = rows.len() * columns.len();
        (rows, columns, count)
    }
}

/// Calls `visit(output offset, input offset, weight)` for every output position and every position that it reads.
fn visit(n: usize, from: Shape, to: Shape, field: &Field, mut visit: impl FnMut(usize, usize, f32)) {
    for at in 0..n * to.positions() {
        let (image, position) = (at / to.positions(), at % to.positions());
        let (rows, columns, count) = field(position / to.w, position % to.w);
        let weight = 1.0 / count as f32;
        for row in rows {
            for column in columns.clone() {
                visit(at * to.c, ((image * from.h + row) * from.w + column) * from.c, weight);
            }
        }
    }
}

fn means(y: &mut [f32], x: &[f32], n: usize, from: Shape, to: Shape, field: &Field) {
    lengths("mean_pool", x.len(), y.len(), n, from, to);
    y.fill(0.0);
    visit(n, from, to, field, |out, into, weight| {
        let y = &mut y[out..out + to.c];
        y.iter_mut().zip(&x[into..into + to.c]).for_each(|(y, x)| *y += x * weight);
    });
}

fn spread(dx: &mut [f32], dy: &[f32], n: usize, from: Shape, to: Shape, field: &Field) {
    lengths("mean_pool_backward", dx.len(), dy.len(), n, from, to);
    visit(n, from, to, field, |out, into, weight| {
        let dx = &mut dx[into..into + to.c];
        dx.iter_mut().zip(&dy[out..out + to.c]).for_each(|(dx, dy)| *dx += dy * weight);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_takes_the_first_of_equal_values_and_passes_the_gradient_there() {
        let (from, to) = (Shape::new(3, 3, 1), Shape::new(2, 2, 1));
        let window = Window::square(3, 2, 1);
        let x = [5.0, 5.0, 1.0, 2.0, -3.0, 7.0, -4.0, -2.0, -6.0];
        let (mut y, mut winners) = ([0.0; 4], [0; 4]);
        max_pool(&mut y, &mut winners, &x, 1, from, to, window);
        assert_eq!((y, winners), ([5.0, 7.0, 2.0, 7.0], [0, 5, 3, 5]));
        let mut dx = [0.0; 9];
        scatter(&mut dx, &winners, &[1.0, 2.0, 4.0, 8.0], 1, from, to);
        assert_eq!(dx, [1.0, 0.0, 0.0, 4.0, 0.0, 10.0, 0.0, 0.0, 0.0]);
        let mut t = [0.0; 4];
        gather(&mut t, &winners, &x, 1, from, to);
        assert_eq!(t, y);
    }

    #[test]
    fn means_follow_pytorchs_rules() {
        let x: Vec<f32> = (0..5).map(|i| i as f32).collect();
        let (from, to) = (Shape::new(1, 5, 1), Shape::new(1, 3, 1));
        let mut y = [0.0; 3];
        adaptive_pool(&mut y, &x, 1, from, to); // cells 0..2, 1..4, 3..5
        assert_eq!(y, [0.5, 2.0, 3.5]);
        let mut up = [0.0; 4];
        adaptive_pool(&mut up, &x[2..3], 1, Shape::new(1, 1, 1), Shape::new(2, 2, 1));
        assert_eq!(up, [2.0; 4]);
        let mut y = [0.0; 1];
        average_pool(&mut y, &[8.0], 1, Shape::new(1, 1, 1), Shape::new(1, 1, 1), Window::square(2, 2, 1));
        assert_eq!(y, [2.0]); // three zeros of padding count
        let mut y = [0.0; 1];
        adaptive_pool(&mut y, &x, 1, from, Shape::new(1, 1, from.c));
        assert_eq!(y, [2.0]);
    }

    #[test]
    fn windows_reach_beyond_the_image_as_pytorchs_do() {
        // x[i] = (7i mod 11) - 5 on 5 x 6: max, mean with the padding counted, and without, by PyTorch 2.15.
        let x: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let check = |window: Window, to: (usize, usize), max: &[f32], mean: &[f64]| {
            let from = Shape::new(5, 6, 1);
            assert_eq!(window.over(5, 6), Some(to));
            let to = Shape::new(to.0, to.1, 1);
            let (mut y, mut winners) = (vec![0.0; to.len()], vec![0; to.len()]);
            max_pool(&mut y, &mut winners, &x, 1, from, to, window);
            assert_eq!(y, max);
            average_pool(&mut y, &x, 1, from, to, window);
            for (y, mean) in y.iter().zip(mean) {
                assert!((f64::from(*y) - mean).abs() < 5e-6, "{y} {mean}"); // recorded to six places
            }
        };
        let ceil = |size, stride, padding| Window { ceil: true, ..Window::square(size, stride, padding) };
        let largest = [4.0, 5.0, 5.0, -3.0, 4.0, 5.0, 4.0, 4.0, 5.0, 5.0, 4.0, 2.0];
        let counted = [
            0.111111, 0.444444, 0.0, -1.333333, 0.0, 0.111111, -0.555556, 0.166667, -0.111111, 0.111111,
            -0.333333, 0.333333,
        ];
        let of_the_image =
            [0.25, 0.666667, 0.0, -4.0, 0.0, 0.111111, -0.555556, 0.333333, -0.25, 0.166667, -0.5, 1.0];
        check(ceil(3, 2, 1), (3, 4), &largest, &counted);
        check(Window { counts_padding: false, ..ceil(3, 2, 1) }, (3, 4), &largest, &of_the_image);
        let largest = [-5.0, 5.0, -3.0, 2.0, 5.0, 4.0]; // windows that begin in the padding are left out
        check(ceil(2, 3, 1), (2, 3), &largest, &[-1.25, 0.75, -0.75, 0.5, 2.0, 1.5]);
        let oblong =
            Window { size: (3, 2), padding: (1, 0), counts_padding: false, ..Window::square(3, 2, 0) };
        let largest = [4.0, 5.0, 1.0, 4.0, 5.0, 4.0, 5.0, 3.0, 4.0];
        let mean = [0.25, 0.5, -2.0, 0.0, 1.166667, -1.333333, -0.25, 0.0, 0.25];
        check(oblong, (3, 3), &largest, &mean);
        // Padded below and to the right alone, as TensorFlow does.
        let largest = [4.0, 5.0, 1.0, 2.0, 5.0, 4.0, 5.0, 1.0, 4.0];
        let mean = [0.25, 0.5, -2.0, -1.0, 2.0, -0.5, 0.75, -0.5, 1.0];
        check(Window { further: (1, 1), ..Window::square(2, 2, 0) }, (3, 3), &largest, &mean);
        for nothing in [Window::square(2, 2, 2), Window { further: (3, 0), ..Window::square(2, 2, 0) }] {
            assert_eq!(nothing.over(5, 6), None, "{nothing:?}");
        }
    }

    #[test]
    fn adjoints_are_transposes() {
        let (from, to) = (Shape::new(5, 4, 2), Shape::new(3, 2, 2));
        let window = Window::square(3, 2, 1);
        let x: Vec<f32> = (0..2 * from.len()).map(|i| (i * i % 17) as f32).collect();
        let u: Vec<f32> = (0..2 * to.len()).map(|i| (i * 5 % 7) as f32).collect();
        // All terms are at least 0, so that a plain loop over t of them is off by at most (t + 1) ε/2 of the sum, and
        // a weight that is rounded by another ε/2.
        let check = |x: &[f32], u: &[f32], y: &[f32], dx: &[f32], terms: usize| {
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let (there, back) = (dot(y, u), dot(x, dx));
            let allowed = (terms + 2) as f64 * f64::from(f32::EPSILON) * there;
            assert!(there > 0.0 && (there - back).abs() <= allowed, "{there} {back} {allowed:e}");
        };
        let (mut y, mut dx) = (vec![0.0; u.len()], vec![0.0; x.len()]);
        average_pool(&mut y, &x, 2, from, to, window);
        average_pool_adjoint(&mut dx, &u, 2, from, to, window);
        check(&x, &u, &y, &dx, 9);
        let (mut y, mut dx) = (vec![0.0; u.len()], vec![0.0; x.len()]);
        adaptive_pool(&mut y, &x, 2, from, to);
        adaptive_pool_adjoint(&mut dx, &u, 2, from, to);
        check(&x, &u, &y, &dx, 6);
        let (mut y, mut dx) = (vec![0.0; 2 * from.c], vec![0.0; x.len()]);
        let u = &u[..2 * from.c];
        let one = Shape::new(1, 1, from.c);
        adaptive_pool(&mut y, &x, 2, from, one);
        adaptive_pool_adjoint(&mut dx, u, 2, from, one);
        check(&x, u, &y, &dx, from.positions());
        let (mut y, mut winners, mut dx) = (vec![0.0; 24], vec![0; 24], vec![0.0; x.len()]);
        let u: Vec<f32> = (0..24).map(|i| (i * 5 % 7) as f32).collect();
        max_pool(&mut y, &mut winners, &x, 2, from, to, window);
        scatter(&mut dx, &winners, &u, 2, from, to);
        check(&x, &u, &y, &dx, 0); // whole numbers: exact
    }
}
