//! Units' activations on CUDA (MATH.md, Eq. 6).
#![allow(unsafe_code)] // a launch

use std::ops::Range;

use super::conv::{parts, segments};
use super::{Cuda, In, Out, elements, word};
use crate::device::cuda::tiles;
use crate::error::{Error, Result};
use crate::ops::Geometry;
use crate::ops::same;

/// Adds the mean of z over positions, divided by `uses`, to `columns` of `trace` `[n, d]`; `sums` are those that
/// [`super::conv::forward`] makes of `n` images. They are in f64, added in a fixed order.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn means(
    cuda: &Cuda,
    trace: Out<'_, f32>,
    sums: In<'_, f64>,
    n: usize,
    geometry: &Geometry,
    columns: Range<usize>,
    d: usize,
    uses: usize,
) -> Result<()> {
    let (c, positions) = (geometry.output.c, geometry.output.positions());
    if columns.len() != c || columns.end > d || n.checked_mul(d) != Some(trace.len()) || uses == 0 {
        let expected = format!("{n} rows of {d} columns, {c} of them columns {columns:?}");
        return Err(Error::shape("means", expected, format!("{} values, {uses} uses", trace.len())));
    }
    same("means", "sums", parts(n, geometry), sums.len())?;
    let (launch, _) = elements("means", n * c, tiles::MEANS_THREADS)?;
    let (_, trace) = trace.split_at(columns.start);
    let word = |value: usize| word("means", "columns", value);
    let (images, many) = (word(n)?, word(segments(positions))?);
    word(n * positions)?;
    // SAFETY: sums holds, for every tile of the n images' positions, as many segments of c sums; trace holds, from the
    // first column on, n - 1 rows and these columns of one.
    unsafe {
        cuda.means(launch, trace, sums, images, word(positions)?, word(c)?, many, word(d)?, word(uses)?)
    }
}
