//! Softmax cross-entropy on CUDA, as [`crate::ops::cpu::loss`] (MATH.md, Eq. 5). A label that is no class reads
//! nothing: its loss is NaN.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, elements, warps, word};
use crate::device::cuda::{Launch, tiles};
use crate::ops::same;
use crate::{Error, Result};

/// The loss of each row of `logits` `[n, classes]`, to `losses` `[n]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn cross_entropy(
    cuda: &Cuda,
    losses: Out<'_, f32>,
    logits: In<'_, f32>,
    labels: In<'_, u32>,
) -> Result<()> {
    same("cross_entropy", "labels", losses.len(), labels.len())?;
    let (launch, n, classes) = rows("cross_entropy", labels.len(), &[logits], logits.len())?;
    // SAFETY: logits holds n rows of classes, losses and labels n values.
    unsafe { cuda.cross_entropy(launch, losses, logits, labels, n, classes) }
}

/// δ = p − onehot(label) of each row, to `d` `[n, classes]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn gradient(cuda: &Cuda, d: Out<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>) -> Result<()> {
    let (launch, n, classes) = rows("cross_entropy_gradient", labels.len(), &[logits], d.len())?;
    // SAFETY: d and logits hold n rows of classes, labels n values.
    unsafe { cuda.cross_entropy_gradient(launch, d, logits, labels, n, classes) }
}

/// Multiplies row i of `d` `[n, classes]` by `weights[i]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn weigh(cuda: &Cuda, d: Out<'_, f32>, weights: In<'_, f32>) -> Result<()> {
    let (launch, _) = elements("weigh", d.len(), tiles::LOSS_THREADS)?;
    let (_, n, classes) = rows("weigh", weights.len(), &[], d.len())?;
    // SAFETY: d holds n rows of classes, weights n values.
    unsafe { cuda.weigh(launch, d, weights, n, classes) }
}

/// (diag(p) − ppᵀ) t of each row, to `back`; all `[n, classes]` with `n` rows.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn curvature(
    cuda: &Cuda,
    back: Out<'_, f32>,
    t: In<'_, f32>,
    logits: In<'_, f32>,
    n: usize,
) -> Result<()> {
    let (launch, n, classes) = rows("cross_entropy_curvature", n, &[t, logits], back.len())?;
    // SAFETY: all hold n rows of classes.
    unsafe { cuda.cross_entropy_curvature(launch, back, t, logits, n, classes) }
}

/// δ (δ·t) of each row, to `back`; `[n, classes]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn fisher(
    cuda: &Cuda,
    back: Out<'_, f32>,
    t: In<'_, f32>,
    logits: In<'_, f32>,
    labels: In<'_, u32>,
) -> Result<()> {
    let (launch, n, classes) = rows("cross_entropy_fisher", labels.len(), &[t, logits], back.len())?;
    // SAFETY: back, t and logits hold n rows of classes, labels n values.
    unsafe { cuda.cross_entropy_fisher(launch, back, t, logits, labels, n, classes) }
}

/// For each row of `logits` `[n, classes]` a draw to `d`, as [`crate::ops::cpu::loss::draw_curvature`] has it, of (seed,
/// `first` + row). Of the same logits the class is the same and the values but for their last digits, unless a draw falls
/// within rounding in f64 of the border between two classes.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn draw_curvature(
    cuda: &Cuda,
    d: Out<'_, f32>,
    logits: In<'_, f32>,
    n: usize,
    seed: u64,
    first: usize,
) -> Result<()> {
    let (launch, n, classes) = rows("draw_curvature", n, &[logits], d.len())?;
    let first = word("draw_curvature", "inputs", first)?;
    // SAFETY: d and logits hold n rows of classes.
    unsafe { cuda.draw_curvature(launch, d, logits, n, classes, seed, first) }
}

/// The first of the largest logits of each row, to `predicted` `[n]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn largest(cuda: &Cuda, predicted: Out<'_, u32>, logits: In<'_, f32>) -> Result<()> {
    let (launch, n, classes) = rows("largest", predicted.len(), &[logits], logits.len())?;
    // SAFETY: logits holds n rows of classes, predicted n values.
    unsafe { cuda.largest(launch, predicted, logits, n, classes) }
}

/// The sum of `losses` and the number of `predicted` that are `labels`, to `scores` `[2]`; the others `[n]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn score(
    cuda: &Cuda,
    scores: Out<'_, f64>,
    losses: In<'_, f32>,
    predicted: In<'_, u32>,
    labels: In<'_, u32>,
) -> Result<()> {
    same("score", "scores", 2, scores.len())?;
    [predicted, labels].iter().try_for_each(|other| same("score", "values", losses.len(), other.len()))?;
    let (launch, n) =
        (Launch::blocks("score", 1, tiles::LOSS_THREADS)?, word("score", "values", losses.len())?);
    // SAFETY: scores holds two values, the others n.
    unsafe { cuda.score(launch, scores, losses, predicted, labels, n) }
}

/// A warp for each of `n` rows of `len` values in all.
fn rows(op: &'static str, n: usize, others: &[In<'_, f32>], len: usize) -> Result<(Launch, u32, u32)> {
    others.iter().try_for_each(|other| same(op, "values", len, other.len()))?;
    word(op, "rows", n)?;
    match len.checked_div(n) {
        Some(classes) if classes * n == len => warps(op, len, classes, tiles::LOSS_THREADS),
        _ => Err(Error::shape(op, format!("{n} rows of logits"), format!("{len} values"))),
    }
}
