//! A solver's vectors on CUDA, in f64, and the way between a vector of the block and the rows of a layer.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, elements, word};
use crate::device::cuda::{Buffer, Launch, tiles};
use crate::error::Result;
use crate::ops::same;

/// y = (b y + a x) / over; all `[len]`. y is not read where b is 0; without x, a is 0.
///
/// # Errors
/// Lengths that differ, or the device fails.
pub fn combine(
    cuda: &Cuda,
    y: Out<'_, f64>,
    b: f64,
    added: Option<(f64, In<'_, f64>)>,
    over: f64,
) -> Result<()> {
    let (a, x) = added.unwrap_or((0.0, y.same()));
    same("combine", "values", y.len(), x.len())?;
    let (launch, len) = elements("combine", y.len(), tiles::VECTOR_THREADS)?;
    // SAFETY: both hold len values; a thread reads its own before it writes it.
    unsafe { cuda.combine(launch, y, x, a, b, over, len) }
}

/// The values of scratch that [`dot`] and [`largest`] take.
pub fn parts(len: usize) -> usize {
    len.div_ceil(CHUNK) + 1
}

const CHUNK: usize = tiles::VECTOR_CHUNK as usize;

/// Σ x y in the last of `scratch` `[parts(len)]`, in one order; x and y `[len]`.
///
/// # Errors
/// Lengths that do not fit, or the device fails.
pub fn dot(cuda: &Cuda, scratch: Out<'_, f64>, x: In<'_, f64>, y: In<'_, f64>) -> Result<()> {
    same("dot", "values", x.len(), y.len())?;
    same("dot", "sums", parts(x.len()), scratch.len())?;
    let (launch, len, chunks) = chunks("dot", x.len())?;
    let (mut sums, total) = scratch.split_at(chunks as usize);
    // SAFETY: a block has one of the sums, x and y hold len values.
    unsafe { cuda.dot(launch, sums.output(), x, Some(y), len, tiles::VECTOR_CHUNK)? };
    // SAFETY: one block writes one value; there are as many sums as chunks.
    unsafe { cuda.dot(one("dot")?, total, sums.input(), None, chunks, chunks) }
}

/// The largest |x| in the last of `scratch` `[parts(len)]`; x `[len]`.
///
/// # Errors
/// Lengths that do not fit, or the device fails.
pub fn largest(cuda: &Cuda, scratch: Out<'_, f64>, x: In<'_, f64>) -> Result<()> {
    same("largest", "parts", parts(x.len()), scratch.len())?;
    let (launch, len, chunks) = chunks("largest", x.len())?;
    let (mut tops, top) = scratch.split_at(chunks as usize);
    // SAFETY: a block has one of the tops, x holds len values.
    unsafe { cuda.largest_value(launch, tops.output(), x, len, tiles::VECTOR_CHUNK)? };
    // SAFETY: one block writes one value; there are as many tops as chunks.
    unsafe { cuda.largest_value(one("largest")?, top, tops.input(), chunks, chunks) }
}

/// Σ x² in the last of `scratch` `[parts(len)]`, in one order; x `[len]`.
///
/// # Errors
/// Lengths that do not fit, or the device fails.
pub fn squares(cuda: &Cuda, scratch: Out<'_, f64>, x: In<'_, f32>) -> Result<()> {
    same("squares", "sums", parts(x.len()), scratch.len())?;
    let (launch, len, chunks) = chunks("squares", x.len())?;
    let (mut sums, total) = scratch.split_at(chunks as usize);
    // SAFETY: a block has one of the sums, x holds len values.
    unsafe { cuda.squares(launch, sums.output(), x, len, tiles::VECTOR_CHUNK)? };
    // SAFETY: one block writes one value; there are as many sums as chunks.
    unsafe { cuda.dot(one("squares")?, total, sums.input(), None, chunks, chunks) }
}

/// One block for each chunk of `len` values, and both numbers.
fn chunks(op: &'static str, len: usize) -> Result<(Launch, u32, u32)> {
    let chunks = len.div_ceil(CHUNK);
    let launch = Launch::blocks(op, chunks, tiles::VECTOR_THREADS)?;
    Ok((launch, word(op, "values", len)?, word(op, "chunks", chunks)?))
}

fn one(op: &'static str) -> Result<Launch> {
    Launch::blocks(op, 1, tiles::VECTOR_THREADS)
}

/// Where the rows of a layer stand in a vector: each of `depth` weights and, behind them, a bias where there is one.
pub struct Places {
    starts: Buffer<u32>,
    depth: usize,
    biased: bool,
    end: usize,
}

impl Places {
    /// Of rows that begin at `starts`, at least one.
    ///
    /// # Errors
    /// Places that are too many to number, or the device fails.
    pub fn new(cuda: &Cuda, starts: &[u32], depth: usize, biased: bool) -> Result<Places> {
        let end = starts.iter().max().map_or(0, |&start| start as usize + depth + usize::from(biased));
        word("places", "values", end)?;
        word("places", "parameters", starts.len() * (depth + 1))?;
        Ok(Places { starts: cuda.upload(starts)?, depth, biased, end })
    }

    /// The launch over all of `weight` and `bias`, which are of these rows, as `v` is of a vector that has them.
    fn launch(&self, weight: usize, bias: Option<usize>, v: usize) -> Result<(Launch, u32, u32)> {
        let (op, count) = ("places", self.starts.len());
        same(op, "weights", count * self.depth, weight)?;
        same(op, "biases", if self.biased { count } else { 0 }, bias.unwrap_or(0))?;
        same(op, "values", v.max(self.end), v)?;
        let launch = Launch::over(op, count * (self.depth + 1), tiles::VECTOR_THREADS)?;
        Ok((launch, word(op, "rows", count)?, word(op, "values", self.depth)?))
    }
}

/// The rows of `weight` `[rows, depth]` and `bias` `[rows]` = those of v / scale, in f32.
///
/// # Errors
/// Lengths that do not fit, or the device fails.
pub fn to_rows(
    cuda: &Cuda,
    weight: Out<'_, f32>,
    bias: Option<Out<'_, f32>>,
    v: In<'_, f64>,
    places: &Places,
    scale: f64,
) -> Result<()> {
    let (launch, count, depth) = places.launch(weight.len(), bias.as_ref().map(Out::len), v.len())?;
    let starts = places.starts.input();
    // SAFETY: weight holds count rows of depth, bias as many values or none, and v reaches the end of every row.
    unsafe { cuda.to_rows(launch, weight, bias, v, starts, count, depth, scale) }
}

/// v at the places of the rows = weight and bias / n · scale; the shapes of [`to_rows`].
///
/// # Errors
/// Lengths that do not fit, or the device fails.
pub fn from_rows(
    cuda: &Cuda,
    v: Out<'_, f64>,
    weight: In<'_, f32>,
    bias: Option<In<'_, f32>>,
    places: &Places,
    n: f64,
    scale: f64,
) -> Result<()> {
    let (launch, count, depth) = places.launch(weight.len(), bias.map(|bias| bias.len()), v.len())?;
    let starts = places.starts.input();
    // SAFETY: as of `to_rows`.
    unsafe { cuda.of_rows(launch, v, weight, bias, starts, count, depth, n, scale) }
}
