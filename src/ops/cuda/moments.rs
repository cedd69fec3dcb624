//! The second moments that K-FAC makes of an affine layer on CUDA (MATH.md, Eq. 11b), as [`crate::ops::cpu::conv`]'s
//! `input_moment` and `output_moment`. Pixels are summed in f32 by chunks, and chunks in f64, in an order that the shapes
//! alone decide.
#![allow(unsafe_code)] // launches

use super::chunks::{self, Chunks};
use super::conv::{Layer, tiles_of};
use super::{Cuda, In, Out, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::error::{Error, Result};
use crate::ops::Geometry;
use crate::ops::same;

/// What the 1 behind the taps is read from.
pub const ONE: [f32; 4] = [1.0, 0.0, 0.0, 0.0];

/// `a` `[sets, width, width]` += Σ x̄ x̄ᵀ over images and positions for each of the groups `sets` (below the number of
/// groups): x̄ `[width]` is what the group's taps read of `x` `[n, input]`, followed by 1 where `width` is one more than a
/// weight row. `one` is [`ONE`]; `parts` is scratch for [`input_parts`] values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn input(
    cuda: &Cuda,
    a: Out<'_, f32>,
    parts: Out<'_, f32>,
    x: In<'_, f32>,
    one: In<'_, f32>,
    sets: In<'_, u32>,
    width: usize,
    n: usize,
    geometry: &Geometry,
) -> Result<()> {
    let (op, fan_in, count) = ("input_moment", geometry.fan_in(), sets.len());
    let whole = geometry.output.c * fan_in;
    let layer = Layer::new(op, n, geometry, x.len(), n * geometry.output.len(), whole, None)?;
    if width != fan_in && width != fan_in + 1 || count == 0 || count > geometry.conv.groups {
        let expected = format!("some of {} groups, and {fan_in} taps and a 1 at most", geometry.conv.groups);
        return Err(Error::shape(op, expected, format!("{count} groups of {width}")));
    }
    same(op, "values behind the taps", ONE.len(), one.len())?;
    same(op, "values in parts", input_parts(n, count, width, geometry), parts.len())?;
    let by = by_chunks(n, count, width, geometry);
    let (mut parts, _) = parts.split_at(by.count * count * width * width);
    let launch = Launch::blocks(op, by.count * count * pairs(width), tiles::GEMM_THREADS)?;
    let word = |value: usize| word(op, "values", value);
    let (pixels, size, wide) = (layer.pixels[0], word(by.size)?, word(width)?);
    let of = word(count)?;
    let out = parts.output();
    // SAFETY: x holds n images of the input, one 4 values, sets `count`; parts holds, for every chunk of `size` output
    // pixels, a square of `width` for each of these. Taps outside the image are not read, and what is no group is taken
    // for the last one.
    unsafe { cuda.input_moment(launch, out, x, one, sets, of, pixels, layer.sizes, wide, size)? };
    add(cuda, op, a, parts.read_only(), count * width * width, by.count)
}

/// `g` `[k, width]` += Σ δ δᵀ over images and positions: δ is `dz` `[n, output]` at `rows` `[k]` (ascending, below o; all
/// of them where there is none), and a row of g has the rows of its own group, zeros behind them up to `width`, the most of
/// a group. `parts` is scratch for [`output_parts`] values.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn output(
    cuda: &Cuda,
    g: Out<'_, f32>,
    parts: Out<'_, f32>,
    dz: In<'_, f32>,
    rows: Option<In<'_, u32>>,
    width: usize,
    n: usize,
    geometry: &Geometry,
) -> Result<()> {
    let (op, o, groups) = ("output_moment", geometry.output.c, geometry.conv.groups);
    images(op, "output", n, geometry.output, dz.len())?;
    let count = rows.map_or(o, |rows| rows.len());
    let most = o.checked_div(groups).unwrap_or(0);
    if count == 0 || count > o || most * groups != o || width == 0 || width > most {
        let expected = format!("1 to {o} rows in {groups} groups, 1 to {most} of each");
        return Err(Error::shape(op, expected, format!("{count} rows, {width} of a group")));
    }
    same(op, "values in parts", output_parts(n, count, width, geometry), parts.len())?;
    let by = by_chunks(n, groups, width, geometry);
    let (mut parts, _) = parts.split_at(by.count * count * width);
    let launch = Launch::blocks(op, by.count * groups * pairs(width), tiles::GEMM_THREADS)?;
    let word = |value: usize| word(op, "values", value);
    let (pixels, size) = (word(n * geometry.output.positions())?, word(by.size)?);
    let (out, of, o, groups, wide) = (parts.output(), word(count)?, word(o)?, word(groups)?, word(width)?);
    // SAFETY: dz holds n images of the output; rows hold `count` channels, which ascend, and one that is none is taken for
    // the last; parts holds, for every chunk of `size` pixels, `width` values for each of them.
    unsafe { cuda.output_moment(launch, out, dz, rows, of, pixels, o, groups, wide, size)? };
    add(cuda, op, g, parts.read_only(), count * width, by.count)
}

/// The values of scratch that [`input`] takes; never more for fewer images.
pub fn input_parts(n: usize, sets: usize, width: usize, geometry: &Geometry) -> usize {
    by_chunks(n, sets, width, geometry).most * sets * width * width
}

/// The values of scratch that [`output`] takes for `rows` rows; never more for fewer images.
pub fn output_parts(n: usize, rows: usize, width: usize, geometry: &Geometry) -> usize {
    by_chunks(n, geometry.conv.groups, width, geometry).most * rows * width
}

fn by_chunks(n: usize, sets: usize, width: usize, geometry: &Geometry) -> Chunks {
    Chunks::new(n * geometry.output.positions(), sets * pairs(width), 128, tiles::GEMM_DEPTH as usize)
}

/// Tiles of a square on and below its diagonal.
fn pairs(width: usize) -> usize {
    let side = tiles_of(width);
    side * (side + 1) / 2
}

/// `sum` += parts `[chunks, len]`, in order.
fn add(
    cuda: &Cuda,
    op: &'static str,
    sum: Out<'_, f32>,
    parts: In<'_, f32>,
    len: usize,
    chunks: usize,
) -> Result<()> {
    same(op, "sums", len, sum.len())?;
    let (none, sum) = sum.split_at(0);
    chunks::add(cuda, op, none, Some(sum), parts, len, 0, chunks)
}
