//! The loss at the logits on CUDA: [`crate::loss::Loss`], function by function (MATH.md, Eq. 5). Labels and predictions are
//! `[n, width]` words, as there. A label out of range reads nothing: its loss is NaN.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, elements, warps, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::loss::{LogitProduct, Loss};
use crate::ops::same;

/// The loss of each row of `logits` `[n, classes]`, to `losses` `[n]`; labels `[n, width]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn values(
    cuda: &Cuda,
    losses: Out<'_, f32>,
    logits: In<'_, f32>,
    labels: In<'_, u32>,
    loss: Loss,
) -> Result<()> {
    let (launch, n, classes) = rows("loss", losses.len(), &[logits], logits.len())?;
    labelled("loss", loss, labels, n, classes)?;
    match loss {
        // SAFETY: logits holds n rows of classes, losses and labels n values.
        Loss::CrossEntropy { smoothing } => unsafe {
            cuda.cross_entropy(launch, losses, logits, labels, n, classes, smoothing)
        },
        // SAFETY: logits and labels hold n rows of classes, losses n values.
        Loss::BinaryCrossEntropy => unsafe {
            cuda.binary_cross_entropy(launch, losses, logits, labels, n, classes)
        },
    }
}

/// δ = ∂f/∂z of each of `n` rows, to `d` `[n, classes]`; labels `[n, width]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn gradient(
    cuda: &Cuda,
    d: Out<'_, f32>,
    logits: In<'_, f32>,
    labels: In<'_, u32>,
    n: usize,
    loss: Loss,
) -> Result<()> {
    let (launch, n, classes) = rows("loss_gradient", n, &[logits], d.len())?;
    labelled("loss_gradient", loss, labels, n, classes)?;
    match loss {
        // SAFETY: d and logits hold n rows of classes, labels n values.
        Loss::CrossEntropy { smoothing } => unsafe {
            cuda.cross_entropy_gradient(launch, d, logits, labels, n, classes, smoothing)
        },
        Loss::BinaryCrossEntropy => {
            let (launch, len) = elements("loss_gradient", d.len(), tiles::LOSS_THREADS)?;
            // SAFETY: all hold n rows of classes, len values.
            unsafe { cuda.binary_cross_entropy_gradient(launch, d, logits, labels, len, classes) }
        }
    }
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

/// The product of a matrix at the logits with t, for each of `n` rows, to `back`; all `[n, classes]`, labels `[n, width]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn product(
    cuda: &Cuda,
    back: Out<'_, f32>,
    t: In<'_, f32>,
    logits: In<'_, f32>,
    labels: In<'_, u32>,
    n: usize,
    matrix: LogitProduct,
    loss: Loss,
) -> Result<()> {
    let len = back.len();
    let (launch, n, classes) = rows("loss_product", n, &[t, logits], len)?;
    labelled("loss_product", loss, labels, n, classes)?;
    match (matrix, loss) {
        // SAFETY: all hold n rows of classes.
        (LogitProduct::Curvature, Loss::CrossEntropy { .. }) => unsafe {
            cuda.cross_entropy_curvature(launch, back, t, logits, n, classes)
        },
        (LogitProduct::Curvature, Loss::BinaryCrossEntropy) => {
            let (launch, len) = elements("loss_product", len, tiles::LOSS_THREADS)?;
            // SAFETY: all hold n rows of classes, len values.
            unsafe { cuda.binary_cross_entropy_curvature(launch, back, t, logits, len, classes) }
        }
        // SAFETY: back, t and logits hold n rows of classes, labels n values.
        (LogitProduct::Fisher, Loss::CrossEntropy { smoothing }) => unsafe {
            cuda.cross_entropy_fisher(launch, back, t, logits, labels, n, classes, smoothing)
        },
        // SAFETY: all hold n rows of classes.
        (LogitProduct::Fisher, Loss::BinaryCrossEntropy) => unsafe {
            cuda.binary_cross_entropy_fisher(launch, back, t, logits, labels, n, classes)
        },
    }
}

/// For each of `n` rows of `logits` a draw to `d`, as [`Loss::draw`] has it, of (seed, `first` + row). Of the same logits
/// class and signs are the same and the values but for their last digits, unless the draw of a class falls within
/// rounding in f64 of the border between two.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn draw(
    cuda: &Cuda,
    d: Out<'_, f32>,
    logits: In<'_, f32>,
    n: usize,
    seed: u64,
    first: usize,
    loss: Loss,
) -> Result<()> {
    let (launch, n, classes) = rows("draw_curvature", n, &[logits], d.len())?;
    let first = word("draw_curvature", "inputs", first)?;
    match loss {
        // SAFETY: d and logits hold n rows of classes.
        Loss::CrossEntropy { .. } => unsafe {
            cuda.draw_curvature(launch, d, logits, n, classes, seed, first)
        },
        Loss::BinaryCrossEntropy => {
            let (launch, len) = elements("draw_curvature", d.len(), tiles::LOSS_THREADS)?;
            // SAFETY: both hold n rows of classes, len values.
            unsafe { cuda.binary_draw(launch, d, logits, len, classes, seed, first) }
        }
    }
}

/// What the model says of each row of `logits` `[n, classes]`, to `predicted` `[n, width]`, as [`Loss::predict`].
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn predict(cuda: &Cuda, predicted: Out<'_, u32>, logits: In<'_, f32>, loss: Loss) -> Result<()> {
    match loss {
        Loss::CrossEntropy { .. } => {
            let (launch, n, classes) = rows("largest", predicted.len(), &[logits], logits.len())?;
            // SAFETY: logits holds n rows of classes, predicted n values.
            unsafe { cuda.largest(launch, predicted, logits, n, classes) }
        }
        Loss::BinaryCrossEntropy => {
            same("above_zero", "logits", predicted.len(), logits.len())?;
            let (launch, len) = elements("above_zero", logits.len(), tiles::LOSS_THREADS)?;
            // SAFETY: both hold len values.
            unsafe { cuda.above_zero(launch, predicted, logits, len) }
        }
    }
}

/// The sum of `losses` `[n]` and the number of rows of `predicted` that are `labels` in every word, to `scores` `[2]`;
/// both `[n, width]`.
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
    same("score", "words of label", predicted.len(), labels.len())?;
    let n = losses.len();
    let width = labels.len().checked_div(n).unwrap_or(0).max(1);
    same("score", "words of label", n * width, labels.len())?;
    word("score", "words of label", labels.len())?;
    let (launch, n) = (Launch::blocks("score", 1, tiles::LOSS_THREADS)?, word("score", "values", n)?);
    let width = word("score", "labels", width)?;
    // SAFETY: scores holds two values, losses n, the others n rows of width.
    unsafe { cuda.score(launch, scores, losses, predicted, labels, n, width) }
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

/// Refuses labels that are not `[n, width]`.
fn labelled(op: &'static str, loss: Loss, labels: In<'_, u32>, n: u32, classes: u32) -> Result<()> {
    same(op, "words of label", n as usize * loss.label_width(classes as usize), labels.len())
}
