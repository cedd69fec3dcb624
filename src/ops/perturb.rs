//! Perturbed copies of one input, on the CPU or on CUDA: the same bits. An image gets noise; in a text, tokens are replaced
//! ([`super::tokens`]).
#![allow(unsafe_code)] // a launch

use std::borrow::Cow;

use rayon::prelude::*;

use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda, In, Launch, Out, tiles};
use crate::error::{Error, Result};
use crate::ops::philox::{Use, add_normals};
use crate::ops::tokens::{Replacement, Tokens, replace, replace_tokens_on};

/// What determines the perturbed copies of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies<'a> {
    /// The input, and how its copies differ from it.
    pub original: Original<'a>,
    /// Its labels, `[width]`.
    pub labels: &'a [u32],
    /// The index of the sample, which with a seed keys what is random.
    pub index: u32,
}

/// An input, and how its copies differ from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Original<'a> {
    /// Normals of this deviation are added to an image.
    Image {
        /// `[h, w, c]`, normalised.
        image: Cow<'a, [f32]>,
        /// The noise's standard deviation.
        sigma: f32,
        /// The seed that keys it.
        seed: u64,
    },
    /// Some tokens of a text are replaced.
    Text {
        /// Token ids and mask.
        tokens: Tokens<'a>,
        /// What [`Tokens::slots`] gives.
        slots: Vec<u32>,
        /// What is replaced by what; one that [`Replacement::check`] takes.
        replacement: Replacement,
    },
}

/// An original in device memory.
pub(crate) enum OnDevice {
    Image(Buffer<f32>),
    Text {
        /// Token ids and mask.
        row: Buffer<u32>,
        slots: Buffer<u32>,
    },
}

impl Copies<'_> {
    /// Copy `copy`, to `x`, on the CPU.
    pub fn fill(&self, x: &mut [f32], copy: u32) {
        match &self.original {
            Original::Image { image, sigma, seed } => {
                add_normals(x, image, *sigma, *seed, Use::Noise, self.index, copy);
            }
            Original::Text { tokens, slots, replacement } => {
                replace(bytemuck::cast_slice_mut(x), *tokens, slots, replacement, self.index, copy);
            }
        }
    }

    /// Words that the original takes in device memory.
    pub(crate) fn words(&self) -> usize {
        match &self.original {
            Original::Image { image, .. } => image.len(),
            Original::Text { tokens, slots, .. } => 2 * tokens.ids.len() + slots.len(),
        }
    }

    /// Brings the original to the device.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn upload(&self, cuda: &Cuda) -> Result<OnDevice> {
        Ok(match &self.original {
            Original::Image { image, .. } => OnDevice::Image(cuda.upload(image)?),
            Original::Text { tokens, slots, .. } => OnDevice::Text {
                row: cuda.upload(&[tokens.ids, tokens.mask].concat())?,
                slots: cuda.upload(slots)?,
            },
        })
    }

    /// Copies `first`.. of an original that [`Copies::upload`] brought, to `out`.
    ///
    /// # Errors
    /// Where it is another original, or the device fails.
    pub(crate) fn fill_on(&self, cuda: &Cuda, out: Out<'_, f32>, there: &OnDevice, first: u32) -> Result<()> {
        match (&self.original, there) {
            (Original::Image { sigma, seed, .. }, OnDevice::Image(image)) => {
                perturb_on(cuda, out, image.input(), *seed, self.index, first, *sigma)
            }
            (Original::Text { replacement, .. }, OnDevice::Text { row, slots }) => {
                let (row, slots) = (row.input(), slots.input());
                replace_tokens_on(cuda, out.bits(), row, slots, replacement, self.index, first)
            }
            (Original::Image { .. } | Original::Text { .. }, _) => {
                Err(Error::shape("perturb", "the original that was brought", "another"))
            }
        }
    }
}

/// `out[j] = image + sigma · normal(seed, index, first + j)`; out `[copies, len]`, image `[len]` (MATH.md, Eq. 6).
///
/// # Errors
/// Shapes that do not fit, more than 2³² copies, or the device fails.
pub fn perturb(
    device: &Device,
    out: &mut [f32],
    image: &[f32],
    seed: u64,
    index: u32,
    first: u32,
    sigma: f32,
) -> Result<()> {
    if shape(out.len(), image.len(), first)?.0 == 0 {
        return Ok(());
    }
    let Some(cuda) = device.cuda() else {
        let copy = |(j, out): (usize, &mut [f32])| {
            add_normals(out, image, sigma, seed, Use::Noise, index, first + j as u32);
        };
        device.scope(|| out.par_chunks_exact_mut(image.len()).enumerate().for_each(copy));
        return Ok(());
    };
    let (mut noisy, image) = (cuda.alloc::<f32>(out.len())?, cuda.upload(image)?);
    perturb_on(cuda, noisy.output(), image.input(), seed, index, first, sigma)?;
    out.copy_from_slice(&cuda.download(&noisy)?);
    Ok(())
}

/// [`perturb`] in device memory.
///
/// # Errors
/// As there.
pub fn perturb_on(
    cuda: &Cuda,
    out: Out<'_, f32>,
    image: In<'_, f32>,
    seed: u64,
    index: u32,
    first: u32,
    sigma: f32,
) -> Result<()> {
    let (copies, len) = shape(out.len(), image.len(), first)?;
    let threads = copies as usize * image.len().div_ceil(4);
    let launch = Launch::over("perturb", threads, tiles::PERTURB_THREADS)?;
    // SAFETY: `out` holds copies·len values, `image` len.
    unsafe { cuda.perturb(launch, out, image, copies, len, seed, index, first, sigma) }
}

/// The number of copies and the values of each; the copies are numbered from `first`.
fn shape(out: usize, image: usize, first: u32) -> Result<(u32, u32)> {
    let whole = image > 0 && out.is_multiple_of(image);
    let copies = out.checked_div(image).and_then(|copies| u32::try_from(copies).ok());
    let (true, Some(copies), Ok(len)) = (whole, copies, u32::try_from(image)) else {
        return Err(Error::shape(
            "perturb",
            format!("whole copies of {image} values"),
            format!("{out} values"),
        ));
    };
    match first.checked_add(copies) {
        Some(_) => Ok((copies, len)),
        None => Err(Error::shape("perturb", "copies below 2³²", format!("{copies} from {first}"))),
    }
}
