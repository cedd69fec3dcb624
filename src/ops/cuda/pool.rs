//! Pooling on CUDA, with the bits of [`crate::ops::cpu::pool`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, Scalar, images};
use crate::device::cuda::{Launch, PoolSizes, tiles};
use crate::error::{Error, Result};
use crate::ops::{Shape, Window};

/// The cells of a grid instead of windows.
const CELLS: Window = Window::square(0, 1, 0);

/// Largest value of each window to `y`, and to `winners`, where they are wanted, the position within the image where it first stands; `x`
/// `[n, from]`, `y` and `winners` `[n, to]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn max_pool<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    winners: Option<Out<'_, u32>>,
    x: In<'_, T>,
    n: usize,
    from: Shape,
    to: Shape,
    window: Window,
) -> Result<()> {
    let shapes = Shapes::new("max_pool", n, from, to, window)?;
    shapes.check(x.len(), y.len())?;
    if let Some(winners) = &winners {
        shapes.check(x.len(), winners.len())?;
    }
    let launch = shapes.over(y.len())?;
    // SAFETY: x holds n images of from, y and winners of to; every window has a position of the image.
    unsafe { cuda.max_pool(launch, y, winners, x, shapes.sizes) }
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
    let [n, h, w, c, oh, ow, ..] = shapes.sizes.0;
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
    // SAFETY: dx holds n images of from, dy and winners of to.
    unsafe { cuda.max_pool_backward(launch, dx, winners, dy, shapes.sizes) }
}

/// The mean of each window to `y`; zeros of the padding count.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn average_pool<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
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
pub fn adaptive_pool<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
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

fn means<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, x: In<'_, T>, shapes: Shapes) -> Result<()> {
    shapes.check(x.len(), y.len())?;
    let launch = shapes.over(y.len())?;
    // SAFETY: x holds n images of from, y of to.
    unsafe { cuda.mean_pool(launch, y, x, shapes.sizes) }
}

fn spread(cuda: &Cuda, dx: Out<'_, f32>, dy: In<'_, f32>, shapes: Shapes) -> Result<()> {
    shapes.check(dx.len(), dy.len())?;
    let launch = shapes.over(dx.len())?;
    // SAFETY: dx holds n images of from, dy of to.
    unsafe { cuda.mean_pool_backward(launch, dx, dy, shapes.sizes) }
}

/// Shapes, and as the kernels take them.
struct Shapes {
    op: &'static str,
    images: usize,
    from: Shape,
    to: Shape,
    sizes: PoolSizes,
}

impl Shapes {
    /// Refuses windows of which one may hold nothing of the image.
    fn new(op: &'static str, n: usize, from: Shape, to: Shape, window: Window) -> Result<Shapes> {
        let cells = window == CELLS;
        if from.c != to.c || !cells && window.over(from.h, from.w) != Some((to.h, to.w)) {
            let expected = format!("{window:?} within {from:?}");
            return Err(Error::shape(op, expected, format!("{to:?}")));
        }
        let counted = window.counted(from.h, from.w).filter(|_| !cells).unwrap_or_default();
        let Window { size, stride, padding, .. } = window;
        let images = [n, from.h, from.w, from.c, to.h, to.w];
        let windows = [size.0, size.1, stride, padding.0, padding.1, counted.0, counted.1];
        let mut sizes = PoolSizes([0; 13]);
        for (size, value) in sizes.0.iter_mut().zip(images.into_iter().chain(windows)) {
            *size = super::word(op, "positions", value)?;
        }
        Ok(Shapes { op, images: n, from, to, sizes })
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
