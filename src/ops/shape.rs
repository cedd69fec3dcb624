//! Operations that only move values: a class token's place, some tokens out of all, channels side by side, the option-A
//! shortcut. Each has its adjoint, which adds.

use super::Shape;

/// `y` = `x` behind one empty token per image; `from` `[t, c]`, `to` `[t + 1, c]`.
pub fn prepend(y: &mut [f32], x: &[f32], from: Shape, to: Shape) {
    for (y, x) in y.chunks_exact_mut(to.len()).zip(x.chunks_exact(from.len())) {
        y[..to.c].fill(0.0);
        y[to.c..].copy_from_slice(x);
    }
}

/// The adjoint of [`prepend`].
pub fn prepend_adjoint(dx: &mut [f32], dy: &[f32], from: Shape, to: Shape) {
    for (dx, dy) in dx.chunks_exact_mut(from.len()).zip(dy.chunks_exact(to.len())) {
        dx.iter_mut().zip(&dy[to.c..]).for_each(|(dx, dy)| *dx += dy);
    }
}

/// `y` = the tokens of `x` from token `i` on, as many as `to` has.
pub fn tokens(y: &mut [f32], x: &[f32], i: usize, from: Shape, to: Shape) {
    for (y, x) in y.chunks_exact_mut(to.len()).zip(x.chunks_exact(from.len())) {
        y.copy_from_slice(&x[i * from.c..][..to.len()]);
    }
}

/// The adjoint of [`tokens`].
pub fn tokens_adjoint(dx: &mut [f32], dy: &[f32], i: usize, from: Shape, to: Shape) {
    for (dx, dy) in dx.chunks_exact_mut(from.len()).zip(dy.chunks_exact(to.len())) {
        dx[i * from.c..][..to.len()].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
    }
}

/// Channels `first..first + c` of every position of `y` = `x`, whose positions have `c` channels.
pub fn join(y: &mut [f32], x: &[f32], first: usize, c: usize, to: Shape) {
    for (y, x) in y.chunks_exact_mut(to.c).zip(x.chunks_exact(c)) {
        y[first..first + c].copy_from_slice(x);
    }
}

/// The adjoint of [`join`].
pub fn join_adjoint(dx: &mut [f32], dy: &[f32], first: usize, c: usize, to: Shape) {
    for (dx, dy) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(to.c)) {
        dx.iter_mut().zip(&dy[first..first + c]).for_each(|(dx, dy)| *dx += dy);
    }
}

/// `y` = every `stride`-th position of `x` (`[n, h, w, c]`), its channels in the middle of `to.c`, zeros around.
pub fn shortcut(y: &mut [f32], x: &[f32], n: usize, from: Shape, to: Shape, stride: usize) {
    y.fill(0.0);
    for (to_at, from_at) in sampled(n, from, to, stride) {
        y[to_at..to_at + from.c].copy_from_slice(&x[from_at..from_at + from.c]);
    }
}

/// The adjoint of [`shortcut`].
pub fn shortcut_adjoint(dx: &mut [f32], dy: &[f32], n: usize, from: Shape, to: Shape, stride: usize) {
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
        check(row, more, &|y, x| prepend(y, x, row, more), &|d, u| prepend_adjoint(d, u, row, more));
        for (count, first) in [(1, 1), (2, 1), (3, 0)] {
            let some = Shape::new(1, count, 2);
            check(row, some, &|y, x| tokens(y, x, first, row, some), &|d, u| {
                tokens_adjoint(d, u, first, row, some)
            });
        }
        let wide = Shape::new(1, 3, 5);
        let part = |y: &mut [f32], x: &[f32]| {
            y.fill(0.0);
            join(y, x, 1, 2, wide);
        };
        check(row, wide, &part, &|d, u| join_adjoint(d, u, 1, 2, wide));
        check(from, to, &|y, x| shortcut(y, x, 2, from, to, 2), &|d, u| {
            shortcut_adjoint(d, u, 2, from, to, 2)
        });
    }
}
