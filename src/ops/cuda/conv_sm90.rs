//! The forward pass of an affine layer on sm_90a: which layers its kernels take, and how operands in 16 bits are copied by
//! TMA; [`super::conv::forward`] launches them.

use super::{Cuda, Half, In};
use crate::device::cuda::{Boxes, Launch, Take, TensorMap, tiles};
use crate::error::Result;
use crate::ops::Geometry;

/// Whether the kernels for sm_90a take a layer: not on another device, with groups, with channels that are fewer than 32 or
/// not a multiple of 8, or where TMA does not reach.
pub fn takes(cuda: &Cuda, geometry: &Geometry) -> bool {
    let Geometry { input, conv, .. } = *geometry;
    // Half of a step's depth is filled at least, and a row begins on 16 bytes.
    let channels =
        conv.groups == 1 && input.c.is_multiple_of(8) && input.c >= tiles::SM90_BLOCK_K as usize / 2;
    let reach = |taps: usize| conv.dilation * (taps - 1) < 128;
    let near = reach(conv.kernel.0)
        && reach(conv.kernel.1)
        && [conv.padding, conv.behind()].iter().all(|&(down, right)| down.max(right) < 128);
    let fits = channels && near && (1..=8).contains(&conv.stride) && input.h.max(input.w) < 1 << 16;
    fits && cuda.is_sm90()
}

/// How a pass over `n` images is launched, and the maps of both operands, `x` `[n, input]` and `weight` `[o, taps, c]`.
///
/// # Errors
/// Where an operand does not begin on 16 bytes, or the device fails.
pub(super) fn launch<H: Half>(
    cuda: &Cuda,
    x: In<'_, H>,
    weight: In<'_, H>,
    n: usize,
    geometry: &Geometry,
) -> Result<(Launch, TensorMap, TensorMap)> {
    let (x, weight) = (images(cuda, x, n, geometry)?, filters(cuda, weight, geometry)?);
    let pixels = (n * geometry.output.positions()).div_ceil(tiles::SM90_BLOCK_M as usize);
    let blocks = pixels * geometry.output.c.div_ceil(tiles::SM90_BLOCK_N as usize);
    let launch = Launch::blocks("conv", blocks.min(cuda.multiprocessors()?), tiles::SM90_THREADS)?;
    Ok((launch, x, weight))
}

/// The map of x: rows of a matrix where pixels of the output are those of the input, else pixels of images under one tap.
fn images<H: Half>(cuda: &Cuda, x: In<'_, H>, n: usize, geometry: &Geometry) -> Result<TensorMap> {
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
            let (below, beside) = conv.behind();
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
    cuda.tensor_map(x.words(), &boxes)
}

/// The map of the weights `[o, taps, c]`: channels under one tap, of several rows.
fn filters<H: Half>(cuda: &Cuda, weight: In<'_, H>, geometry: &Geometry) -> Result<TensorMap> {
    let (c, (r, s), o) = (geometry.input.c, geometry.conv.kernel, geometry.output.c);
    let boxes = Boxes {
        dims: vec![c, r * s, o],
        pitches: vec![c, r * s * c],
        take: Take::Tile(vec![tiles::SM90_BLOCK_K, 1, tiles::SM90_BLOCK_N]),
        swizzle: 128,
    };
    cuda.tensor_map(weight.words(), &boxes)
}
