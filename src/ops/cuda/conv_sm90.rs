//! The forward pass of an affine layer on sm_90a: both operands are rounded to 16 bits into scratch of the caller's, then
//! copied by TMA and multiplied by wgmma.
#![allow(unsafe_code)] // launches

use super::{Cuda, In, Out, word};
use crate::device::cuda::{AffineParameters, Boxes, Launch, Take, TensorMap, tiles};
use crate::error::Result;
use crate::ops::{Geometry, Precision, same};

/// Values of 16 bits that a pass over `n` images takes as scratch; 0 where the kernels of all architectures run: on
/// another device, at f32 or tf32, with groups, with channels that are fewer than 32 or not a multiple of 8, or where TMA
/// does not reach.
pub fn scratch(cuda: &Cuda, n: usize, geometry: &Geometry, precision: Precision) -> usize {
    let Geometry { input, conv, .. } = *geometry;
    let half = matches!(precision, Precision::Bf16 | Precision::F16);
    // Half of a step's depth is filled at least, and a row begins on 16 bytes.
    let channels =
        conv.groups == 1 && input.c.is_multiple_of(8) && input.c >= tiles::SM90_BLOCK_K as usize / 2;
    let reach = |taps: usize| conv.dilation * (taps - 1) < 128;
    let near = reach(conv.kernel.0)
        && reach(conv.kernel.1)
        && (conv.padding.0 + conv.further.0).max(conv.padding.1 + conv.further.1) < 128;
    let fits = channels && near && (1..=8).contains(&conv.stride) && input.h.max(input.w) < 1 << 16;
    match half && fits && cuda.is_sm90() {
        true => weights(geometry) + n * input.len(),
        false => 0,
    }
}

/// Values of the weights in 16 bits; x begins behind them, on 128 bytes.
fn weights(geometry: &Geometry) -> usize {
    (geometry.output.c * geometry.fan_in()).next_multiple_of(64)
}

/// The pass over `n` images that `p` describes, in 16 bits, with `halves` of as many values as of [`scratch`], at least one.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub(super) fn launch(
    cuda: &Cuda,
    p: AffineParameters<'_>,
    n: usize,
    geometry: &Geometry,
    precision: Precision,
    halves: Out<'_, u16>,
) -> Result<()> {
    same("conv", "values of scratch", scratch(cuda, n, geometry, precision), halves.len())?;
    let f16 = precision == Precision::F16;
    let (mut weight, mut x) = halves.split_at(weights(geometry));
    narrow(cuda, weight.output(), p.weight, f16)?;
    narrow(cuda, x.output(), p.x, f16)?;
    let (x, weight) = (images(cuda, x.input(), n, geometry)?, filters(cuda, weight.input(), geometry)?);
    let pixels = (n * geometry.output.positions()).div_ceil(tiles::SM90_BLOCK_M as usize);
    let blocks = pixels * geometry.output.c.div_ceil(tiles::SM90_BLOCK_N as usize);
    let launch = Launch::blocks("conv", blocks.min(cuda.multiprocessors()?), tiles::SM90_THREADS)?;
    // SAFETY: the maps reach no further than their tensors; y and the residual hold n images of the output, bias, scale and
    // shift o values; parts is as long as of `conv::parts`.
    match f16 {
        true => unsafe { cuda.conv_f16_sm90(launch, &x, &weight, p) },
        false => unsafe { cuda.conv_bf16_sm90(launch, &x, &weight, p) },
    }
}

/// The map of x: rows of a matrix where pixels of the output are those of the input, else pixels of images under one tap.
fn images(cuda: &Cuda, x: In<'_, u16>, n: usize, geometry: &Geometry) -> Result<TensorMap> {
    let (input, conv) = (geometry.input, geometry.conv);
    let matrix =
        conv.kernel == (1, 1) && conv.stride == 1 && (conv.padding, conv.further) == ((0, 0), (0, 0));
    let (channels, pixels) = (tiles::SM90_BLOCK_K, tiles::SM90_BLOCK_M);
    let boxes = match matrix {
        true => Boxes {
            dims: vec![input.c, n * input.positions()],
            pitches: vec![input.c],
            take: Take::Tile(vec![channels, pixels]),
            swizzle: 128,
        },
        false => {
            let ((r, s), (above, left)) = (conv.kernel, conv.padding);
            let before = |padding: usize| -(padding as i32);
            let after = |padding: usize, taps: usize| padding as i32 - (conv.dilation * (taps - 1)) as i32;
            let (below, beside) = (above + conv.further.0, left + conv.further.1);
            Boxes {
                dims: vec![input.c, input.w, input.h, n],
                pitches: vec![input.c, input.w * input.c, input.len()],
                take: Take::Pixels {
                    channels,
                    pixels,
                    lower: [before(left), before(above)],
                    upper: [after(beside, s), after(below, r)],
                    step: [conv.stride as u32; 2],
                },
                swizzle: 128,
            }
        }
    };
    cuda.tensor_map(x, &boxes)
}

/// The map of the weights `[o, taps, c]`: channels under one tap, of several rows.
fn filters(cuda: &Cuda, weight: In<'_, u16>, geometry: &Geometry) -> Result<TensorMap> {
    let (c, (r, s), o) = (geometry.input.c, geometry.conv.kernel, geometry.output.c);
    let boxes = Boxes {
        dims: vec![c, r * s, o],
        pitches: vec![c, r * s * c],
        take: Take::Tile(vec![tiles::SM90_BLOCK_K, 1, tiles::SM90_BLOCK_N]),
        swizzle: 128,
    };
    cuda.tensor_map(weight, &boxes)
}

/// The first values of `out` = `x`, rounded to 16 bits.
fn narrow(cuda: &Cuda, out: Out<'_, u16>, x: In<'_, f32>, f16: bool) -> Result<()> {
    let len = word("narrow", "values", x.len())?;
    let launch = Launch::over("narrow", x.len().div_ceil(8), tiles::NARROW_THREADS)?;
    // SAFETY: out holds as many values as x, or more.
    match f16 {
        true => unsafe { cuda.narrow_f16(launch, out, x, len) },
        false => unsafe { cuda.narrow_bf16(launch, out, x, len) },
    }
}
