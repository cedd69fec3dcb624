//! Operations that only move values on CUDA, as [`crate::ops::cpu::shape`].
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, Scalar, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::{Bands, Shape, Strided};

/// Copies `rows` rows of `len` values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn copy<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    rows: usize,
    len: usize,
    to: Strided,
    from: Strided,
) -> Result<()> {
    move_rows(cuda, y, x, rows, len, to, from, 0)
}

/// Adds `rows` rows of `len` values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    rows: usize,
    len: usize,
    to: Strided,
    from: Strided,
) -> Result<()> {
    move_rows(cuda, y, x, rows, len, to, from, 1)
}

fn move_rows<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    rows: usize,
    len: usize,
    to: Strided,
    from: Strided,
    add: u32,
) -> Result<()> {
    let end = |at: Strided| {
        let last = rows.checked_sub(1)?.checked_mul(at.stride)?;
        last.checked_add(at.first)?.checked_add(len)
    };
    let within = |at: Strided, found: usize| end(at).is_some_and(|end| end <= found);
    if !within(to, y.len()) || !within(from, x.len()) || len == 0 || rows > 1 && to.stride < len {
        let expected = format!("{rows} rows of {len} values at {to:?} and {from:?}");
        return Err(Error::shape("rows", expected, format!("{} and {} values", y.len(), x.len())));
    }
    word("rows", "values", y.len().max(x.len()))?;
    let word = |value: usize| word("rows", "values", value);
    let elements = rows.saturating_mul(len);
    word(elements)?;
    let launch = Launch::over("rows", elements, tiles::SHAPE_THREADS)?;
    let (_, y) = y.split_at(to.first);
    let x = x.part(from.first..x.len());
    // SAFETY: the last row of both ends within its buffer, and rows that are written do not overlap.
    unsafe { cuda.rows(launch, y, x, word(rows)?, word(len)?, word(to.stride)?, word(from.stride)?, add) }
}

/// Adds to `y` `[len]` the sum over `rows` rows of `x`, in order, in f64.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn add_sum(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>, rows: usize, from: Strided) -> Result<()> {
    let (op, len) = ("sum_rows", y.len());
    let last = rows.checked_sub(1).and_then(|last| last.checked_mul(from.stride));
    let end = last.and_then(|last| last.checked_add(from.first)?.checked_add(len));
    if end.is_none_or(|end| end > x.len()) {
        let expected = format!("{rows} rows of {len} values at {from:?}");
        return Err(Error::shape(op, expected, format!("{} values", x.len())));
    }
    let word = |value: usize| word(op, "values", value);
    word(x.len())?;
    let launch = Launch::over(op, len, tiles::SHAPE_THREADS)?;
    let x = x.part(from.first..x.len());
    // SAFETY: y holds len values, and the last row of x ends within it.
    unsafe { cuda.sum_rows(launch, y, x, word(rows)?, word(len)?, word(from.stride)?) }
}

/// `y` = the positions of `x`, `[n, rows, columns, c]`, in the order of bands; `back`, from that order. `add` adds.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn bands<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    n: usize,
    at: Bands,
    c: usize,
    back: bool,
    add: bool,
) -> Result<()> {
    let (op, shape) = ("bands", Shape::new(at.rows, at.columns, c));
    images(op, "input", n, shape, x.len())?;
    images(op, "output", n, shape, y.len())?;
    if at.height == 0 || !at.rows.is_multiple_of(at.height) || at.down >= at.rows || at.right >= at.columns {
        return Err(Error::shape(op, "whole bands and a shift within the image", format!("{at:?}")));
    }
    let launch = Launch::over(op, y.len(), tiles::SHAPE_THREADS)?;
    let word = |value: usize| word(op, "positions", value);
    let [n, rows, columns, c] = [word(n)?, word(at.rows)?, word(at.columns)?, word(c)?];
    let [height, down, right] = [word(at.height)?, word(at.down)?, word(at.right)?];
    let (back, add) = (u32::from(back), u32::from(add));
    // SAFETY: x and y hold n images of rows by columns by c values, and every position of bands is one of the image.
    unsafe { cuda.bands(launch, y, x, n, rows, columns, c, height, down, right, back, add) }
}

/// `y` = every `stride`-th position of `x`, its channels in the middle of `to.c`, zeros around.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn shortcut<T: Scalar>(
    cuda: &Cuda,
    y: Out<'_, T>,
    x: In<'_, T>,
    n: usize,
    from: Shape,
    to: Shape,
    stride: usize,
) -> Result<()> {
    let [n, h, w, c, oh, ow, oc, by] = sampled("shortcut", n, from, to, stride, x.len(), y.len())?;
    let launch = Launch::over("shortcut", y.len(), tiles::SHAPE_THREADS)?;
    // SAFETY: x holds n images of from, y of to, and every sampled position is one of the image.
    unsafe { cuda.shortcut(launch, y, x, n, h, w, c, oh, ow, oc, by) }
}

/// The adjoint of [`shortcut`], added to `dx`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn shortcut_backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    n: usize,
    from: Shape,
    to: Shape,
    stride: usize,
) -> Result<()> {
    let [n, h, w, c, oh, ow, oc, by] = sampled("shortcut_backward", n, from, to, stride, dx.len(), dy.len())?;
    let launch = Launch::over("shortcut_backward", dx.len(), tiles::SHAPE_THREADS)?;
    // SAFETY: dx holds n images of from, dy of to.
    unsafe { cuda.shortcut_backward(launch, dx, dy, n, h, w, c, oh, ow, oc, by) }
}

fn sampled(
    op: &'static str,
    n: usize,
    from: Shape,
    to: Shape,
    stride: usize,
    inner: usize,
    outer: usize,
) -> Result<[u32; 8]> {
    images(op, "input", n, from, inner)?;
    images(op, "output", n, to, outer)?;
    let inside = |to: usize, from: usize| (to - 1).checked_mul(stride).is_some_and(|last| last < from);
    if to.c < from.c || stride == 0 || !inside(to.h, from.h) || !inside(to.w, from.w) {
        let expected = format!("every {stride}th position of {from:?}");
        return Err(Error::shape(op, expected, format!("{to:?}")));
    }
    let word = |value: usize| word(op, "positions", value);
    Ok([
        word(n)?,
        word(from.h)?,
        word(from.w)?,
        word(from.c)?,
        word(to.h)?,
        word(to.w)?,
        word(to.c)?,
        word(stride)?,
    ])
}
