//! Affine layers on CUDA, as [`crate::ops::conv`].
#![allow(unsafe_code)] // a launch

use super::{Cuda, In, Out, images, word};
use crate::device::cuda::{Launch, tiles};
use crate::ops::conv::Geometry;
use crate::ops::same;
use crate::{Error, Result};

/// `y` = W `x` + b; `x` `[n, input]`, `weight` `[o, fan_in]`, `bias` `[o]`, `y` `[n, output]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn apply(
    cuda: &Cuda,
    y: Out<'_, f32>,
    x: In<'_, f32>,
    weight: In<'_, f32>,
    bias: Option<In<'_, f32>>,
    n: usize,
    geometry: &Geometry,
) -> Result<()> {
    let Geometry { input, output, conv } = *geometry;
    images("conv", "input", n, input, x.len())?;
    images("conv", "output", n, output, y.len())?;
    let groups = conv.groups;
    if groups == 0 || !input.c.is_multiple_of(groups) || !output.c.is_multiple_of(groups) || conv.stride == 0
    {
        let expected = format!("channels in {groups} groups");
        return Err(Error::shape("conv", expected, format!("{input:?} to {output:?}")));
    }
    same("conv", "weights", output.c * geometry.fan_in(), weight.len())?;
    if let Some(bias) = bias {
        same("conv", "biases", output.c, bias.len())?;
    }
    let tile = tiles::CONV_TILE as usize;
    let pixels = n * output.positions();
    let blocks = (output.c / groups).div_ceil(tile) * groups * pixels.div_ceil(tile);
    let launch = Launch::blocks("conv", blocks, tiles::CONV_THREADS)?;
    let word = |value: usize| word("conv", "values", value);
    word(weight.len())?;
    let biased = u32::from(bias.is_some());
    // SAFETY: x holds n images of the input, y of the output; weight holds o rows, and bias, where it is read, o values;
    // taps outside the image are not read.
    unsafe {
        cuda.conv(
            launch,
            y,
            x,
            weight,
            bias.unwrap_or(weight),
            word(pixels)?,
            word(input.h)?,
            word(input.w)?,
            word(input.c)?,
            word(output.h)?,
            word(output.w)?,
            word(output.c)?,
            word(conv.kernel.0)?,
            word(conv.kernel.1)?,
            word(conv.stride)?,
            word(conv.padding.0)?,
            word(conv.padding.1)?,
            word(conv.dilation)?,
            word(groups)?,
            biased,
        )
    }
}
