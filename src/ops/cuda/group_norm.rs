//! Group norm on CUDA, as [`crate::ops::cpu::group_norm`] (MATH.md, Eq. 8b). Values are `[n, shape]`,
//! `saved` `[n, groups, 2]`, `gamma` and `beta` `[c]`.
#![allow(unsafe_code)] // launches

use super::chunks::{self, Chunks};
use super::{Cuda, In, Out, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::{Shape, same};

/// `y` = γ x̂ + β, and μ and r of each image and group to `saved`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn forward(
    cuda: &Cuda,
    y: Out<'_, f32>,
    saved: Out<'_, f32>,
    x: In<'_, f32>,
    gamma: In<'_, f32>,
    beta: In<'_, f32>,
    n: usize,
    shape: Shape,
    groups: usize,
    eps: f32,
) -> Result<()> {
    let values = [y.len(), x.len()];
    let (launch, [positions, c, groups]) =
        checked("group_norm", n, shape, groups, &values, saved.len(), &[gamma.len(), beta.len()])?;
    // SAFETY: y and x hold n images of the shape, whose groups divide c; saved two values a group, gamma and beta c.
    unsafe { cuda.group_norm(launch, y, saved, x, gamma, beta, positions, c, groups, eps) }
}

/// `t` = γ x̂'.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn tangent(
    cuda: &Cuda,
    t: Out<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
    n: usize,
    shape: Shape,
    groups: usize,
) -> Result<()> {
    let values = [t.len(), tx.len(), x.len()];
    let (launch, [positions, c, groups]) =
        checked("group_norm_tangent", n, shape, groups, &values, saved.len(), &[gamma.len()])?;
    // SAFETY: as in the forward pass.
    unsafe { cuda.group_norm_tangent(launch, t, tx, x, saved, gamma, positions, c, groups) }
}

/// `dx` += the adjoint of `dy`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn backward(
    cuda: &Cuda,
    dx: Out<'_, f32>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
    n: usize,
    shape: Shape,
    groups: usize,
) -> Result<()> {
    let values = [dx.len(), dy.len(), x.len()];
    let (launch, [positions, c, groups]) =
        checked("group_norm_backward", n, shape, groups, &values, saved.len(), &[gamma.len()])?;
    // SAFETY: as in the forward pass.
    unsafe { cuda.group_norm_backward(launch, dx, dy, x, saved, gamma, positions, c, groups) }
}

/// `dxt` += the derivative of [`backward`] along `tx` and `dyt`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn tangent_backward(
    cuda: &Cuda,
    dxt: Out<'_, f32>,
    dyt: In<'_, f32>,
    dy: In<'_, f32>,
    tx: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    gamma: In<'_, f32>,
    n: usize,
    shape: Shape,
    groups: usize,
) -> Result<()> {
    let values = [dxt.len(), dyt.len(), dy.len(), tx.len(), x.len()];
    let (launch, [positions, c, groups]) =
        checked("group_norm_tangent_backward", n, shape, groups, &values, saved.len(), &[gamma.len()])?;
    // SAFETY: as in the forward pass.
    unsafe {
        cuda.group_norm_tangent_backward(launch, dxt, dyt, dy, tx, x, saved, gamma, positions, c, groups)
    }
}

/// `dgamma` += Σ dy x̂ and `dbeta` += Σ dy over images and positions; both `[c]`. `parts` is scratch of [`gradient_parts`]
/// values. Sums are in f64 within a chunk of positions and over chunks, in a fixed order.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn parameter_gradient(
    cuda: &Cuda,
    dgamma: Out<'_, f32>,
    dbeta: Out<'_, f32>,
    parts: Out<'_, f32>,
    dy: In<'_, f32>,
    x: In<'_, f32>,
    saved: In<'_, f32>,
    n: usize,
    shape: Shape,
    groups: usize,
) -> Result<()> {
    let (op, parameters) = ("group_norm_parameters", [dgamma.len(), dbeta.len()]);
    let (_, [positions, c, groups]) =
        checked(op, n, shape, groups, &[dy.len(), x.len()], saved.len(), &parameters)?;
    same(op, "values in parts", gradient_parts(n, shape), parts.len())?;
    let Chunks { size, count, .. } = by_chunks(n, shape);
    let (mut parts, _) = parts.split_at(count * 2 * shape.c);
    let launch = Launch::blocks(op, blocks(shape.c) * count, tiles::GROUP_NORM_THREADS)?;
    let (all, size) = (word(op, "positions", n * shape.positions())?, word(op, "positions", size)?);
    // SAFETY: dy and x hold n images of the shape, saved two values a group, parts two a channel for every chunk of
    // `size` of all their positions.
    unsafe {
        cuda.group_norm_parameters(launch, parts.output(), dy, x, saved, all, positions, c, groups, size)?
    };
    chunks::add(cuda, op, dgamma, Some(dbeta), parts.read_only(), shape.c, 1, count)
}

/// The values of scratch that [`parameter_gradient`] takes for `n` images; never more for fewer.
pub fn gradient_parts(n: usize, shape: Shape) -> usize {
    by_chunks(n, shape).most * 2 * shape.c
}

fn by_chunks(n: usize, shape: Shape) -> Chunks {
    Chunks::new(n * shape.positions(), blocks(shape.c), 32, 1)
}

/// Blocks that have a thread for each channel.
fn blocks(c: usize) -> usize {
    c.div_ceil(tiles::GROUP_NORM_THREADS as usize)
}

/// Refuses other lengths of values, of what is saved of each group, and of parameters. A block for each group of each
/// image; and positions, channels and groups as kernels take them.
fn checked(
    op: &'static str,
    n: usize,
    shape: Shape,
    groups: usize,
    values: &[usize],
    saved: usize,
    parameters: &[usize],
) -> Result<(Launch, [u32; 3])> {
    if groups == 0 || !shape.c.is_multiple_of(groups) {
        return Err(Error::shape(op, format!("channels in {groups} groups"), format!("{shape:?}")));
    }
    values.iter().try_for_each(|&len| images(op, "values", n, shape, len))?;
    same(op, "saved values", 2 * n * groups, saved)?;
    parameters.iter().try_for_each(|&len| same(op, "parameters", shape.c, len))?;
    let launch = Launch::blocks(op, n * groups, tiles::GROUP_NORM_THREADS)?;
    let sizes = [("positions", shape.positions()), ("channels", shape.c), ("groups", groups)];
    let [positions, c, groups] = sizes.map(|(what, size)| word(op, what, size));
    Ok((launch, [positions?, c?, groups?]))
}
