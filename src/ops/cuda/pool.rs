//! Pooling on CUDA, with the bits of [`crate::ops::cpu::pool`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, images};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::{Shape, Window};

/// The cells of a grid instead of windows.
const CELLS: Window = Window { size: 0, stride: 1, padding: 0 };

/// Largest value of each window to `y`, and to `winners` the position within the image where it first stands; `x`
/// `[n, from]`, `y` and `winners` `[n, to]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn max_pool(
    cuda: &Cuda,
    y: Out<'_, f32>,
    winners: Out<'_, u32>,
    x: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) -> Result<()> {
    let shapes = Shapes::new("max_pool", n, from, to, window)?;
    shapes.check(x.len(), y.len())?;
    shapes.check(x.len(), winners.len())?;
    let launch = shapes.over(y.len())?;
    let Shapes { n, h, w, c, oh, ow, window, stride, padding, .. } = shapes;
    // SAFETY: x holds n images of from, y and winners of to; every window has a position of the image.
    unsafe { cuda.max_pool(launch, y, winners, x, n, h, w, c, oh, ow, window, stride, padding) }
}

/// `t` = the values of `tx` where the winners stand.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn max_pool_tangent(
    cuda: &Cuda,
    t: Out<'_, f32>,
    winners: In<'_, u32>,
    tx: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
) -> Result<()> {
    let shapes = Shapes::new("max_pool_tangent", n, from, to, CELLS)?;
    shapes.check(tx.len(), t.len())?;
    shapes.check(tx.len(), winners.len())?;
    let launch = shapes.over(t.len())?;
    let Shapes { n, h, w, c, oh, ow, .. } = shapes;
    // SAFETY: tx holds n images of from, t and winners of to; the kernel keeps winners within the image.
    unsafe { cuda.max_pool_tangent(launch, t, winners, tx, n, h, w, c, oh, ow) }
}

/// `dx` += `dy` where the winners stand.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn max_pool_backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    winners: In<'_, u32>,
    dy: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) -> Result<()> {
    let shapes = Shapes::new("max_pool_backward", n, from, to, window)?;
    shapes.check(dx.len(), dy.len())?;
    shapes.check(dx.len(), winners.len())?;
    let launch = shapes.over(dx.len())?;
    let Shapes { n, h, w, c, oh, ow, window, stride, padding, .. } = shapes;
    // SAFETY: dx holds n images of from, dy and winners of to.
    unsafe { cuda.max_pool_backward(launch, dx, winners, dy, n, h, w, c, oh, ow, window, stride, padding) }
}

/// The mean of each window to `y`; zeros of the padding count.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn average_pool(
    cuda: &Cuda,
    y: Out<'_, f32>,
    x: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) -> Result<()> {
    means(cuda, y, x, Shapes::new("average_pool", n, from, to, window)?)
}

/// The adjoint of [`average_pool`], added to `dx`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn average_pool_backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) -> Result<()> {
    spread(cuda, dx, dy, Shapes::new("average_pool_backward", n, from, to, window)?)
}

/// The mean over the cells of a grid of `to.h × to.w` (PyTorch's rule) to `y`; over the whole image where that is 1 × 1.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn adaptive_pool(
    cuda: &Cuda,
    y: Out<'_, f32>,
    x: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
) -> Result<()> {
    means(cuda, y, x, Shapes::new("adaptive_pool", n, from, to, CELLS)?)
}

/// The adjoint of [`adaptive_pool`], added to `dx`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn adaptive_pool_backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
) -> Result<()> {
    spread(cuda, dx, dy, Shapes::new("adaptive_pool_backward", n, from, to, CELLS)?)
}

fn means(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>, shapes: Shapes) -> Result<()> {
    shapes.check(x.len(), y.len())?;
    let launch = shapes.over(y.len())?;
    let Shapes { n, h, w, c, oh, ow, window, stride, padding, .. } = shapes;
    // SAFETY: x holds n images of from, y of to.
    unsafe { cuda.mean_pool(launch, y, x, n, h, w, c, oh, ow, window, stride, padding) }
}

fn spread(cuda: &Cuda, dx: Out<'_, f32>, dy: In<'_, f32>, shapes: Shapes) -> Result<()> {
    shapes.check(dx.len(), dy.len())?;
    let launch = shapes.over(dx.len())?;
    let Shapes { n, h, w, c, oh, ow, window, stride, padding, .. } = shapes;
    // SAFETY: dx holds n images of from, dy of to.
    unsafe { cuda.mean_pool_backward(launch, dx, dy, n, h, w, c, oh, ow, window, stride, padding) }
}

/// Shapes as the kernels take them.
struct Shapes {
    op: &'static str,
    images: usize,
    from: Shape,
    to: Shape,
    n: u32,
    h: u32,
    w: u32,
    c: u32,
    oh: u32,
    ow: u32,
    window: u32,
    stride: u32,
    padding: u32,
}

impl Shapes {
    /// Refuses windows of which one may lie wholly outside the image.
    fn new(op: &'static str, n: usize, from: Shape, to: Shape, window: Window) -> Result<Shapes> {
        let inside = |cells: usize, size: usize| {
            (cells.saturating_sub(1))
                .checked_mul(window.stride)
                .is_some_and(|last| last < size + window.padding)
        };
        let cells = window == CELLS;
        let fits = cells || 2 * window.padding <= window.size && inside(to.h, from.h) && inside(to.w, from.w);
        if from.c != to.c || window.stride == 0 || window.size == 0 && !cells || !fits {
            let expected = format!("{window:?} within {from:?}");
            return Err(Error::shape(op, expected, format!("{to:?}")));
        }
        let word = |value: usize| super::word(op, "positions", value);
        Ok(Shapes {
            op,
            images: n,
            from,
            to,
            n: word(n)?,
            h: word(from.h)?,
            w: word(from.w)?,
            c: word(from.c)?,
            oh: word(to.h)?,
            ow: word(to.w)?,
            window: word(window.size)?,
            stride: word(window.stride)?,
            padding: word(window.padding)?,
        })
    }

    /// Refuses values of other lengths.
    fn check(&self, from: usize, to: usize) -> Result<()> {
        images(self.op, "input", self.images, self.from, from)?;
        images(self.op, "output", self.images, self.to, to)
    }

    /// One thread for each element that is written.
    fn over(&self, elements: usize) -> Result<Launch> {
        Launch::over(self.op, elements, tiles::POOL_THREADS)
    }
}
