//! Noisy copies of one image, on the CPU or on CUDA: the same bits.
#![allow(unsafe_code)] // a launch

use rayon::prelude::*;

use crate::device::Device;
use crate::device::cuda::{Cuda, In, Launch, Out, tiles};
use crate::ops::philox::{Use, add_normals};
use crate::{Error, Result};

/// What determines the noisy copies of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Copies<'a> {
    /// `[h, w, c]`, normalised.
    pub image: &'a [f32],
    /// Its labels, `[width]`.
    pub labels: &'a [u32],
    /// The seed that keys the noise.
    pub seed: u64,
    /// The index of the sample, which keys the noise too.
    pub index: u32,
    /// The noise's standard deviation.
    pub sigma: f32,
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
