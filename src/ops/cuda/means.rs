//! Units' activations on CUDA (MATH.md, Eq. 6).
#![allow(unsafe_code)] // a launch

use std::ops::Range;

use super::{Cuda, In, Out, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::ops::Shape;
use crate::{Error, Result};

/// Adds the mean over positions of `z` `[n, shape]`, divided by `uses`, to `columns` of `trace` `[n, d]`. Sums are in f64
/// in a fixed order.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn means(
    cuda: &Cuda,
    trace: Out<'_, f32>,
    z: In<'_, f32>,
    n: usize,
    shape: Shape,
    columns: Range<usize>,
    d: usize,
    uses: usize,
) -> Result<()> {
    images("means", "values", n, shape, z.len())?;
    if columns.len() != shape.c || columns.end > d || n.checked_mul(d) != Some(trace.len()) || uses == 0 {
        let expected = format!("{n} rows of {d} columns, {} of them columns {columns:?}", shape.c);
        return Err(Error::shape("means", expected, format!("{} values, {uses} uses", trace.len())));
    }
    let groups = shape.c.div_ceil(tiles::MEANS_CHANNELS as usize);
    let launch = Launch::blocks("means", n * groups, tiles::MEANS_THREADS)?;
    let (_, trace) = trace.split_at(columns.start);
    let word = |value: usize| word("means", "columns", value);
    // SAFETY: z holds n images of the shape; trace holds, from the first column on, n - 1 rows and these columns of one.
    unsafe { cuda.means(launch, trace, z, word(shape.positions())?, word(shape.c)?, word(d)?, word(uses)?) }
}
