//! Noisy copies of one image, on the CPU or on CUDA: the same bits.
#![allow(unsafe_code)] // a launch

use rayon::prelude::*;

use crate::device::Device;
use crate::device::cuda::{Launch, tiles};
use crate::ops::philox::{Use, add_normals};
use crate::{Error, Result};

/// `out[j] = image + sigma · normal(seed, index, first + j)`; out `[copies, len]`, image `[len]` (method: perturbation).
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
    let whole = !image.is_empty() && out.len().is_multiple_of(image.len());
    let copies = out.len().checked_div(image.len()).and_then(|copies| u32::try_from(copies).ok());
    let (true, Some(copies), Ok(len)) = (whole, copies, u32::try_from(image.len())) else {
        let expected = format!("whole copies of {} values", image.len());
        return Err(Error::shape("perturb", expected, format!("{} values", out.len())));
    };
    if first.checked_add(copies).is_none() {
        return Err(Error::shape("perturb", "copies below 2³²", format!("{copies} from {first}")));
    }
    if copies == 0 {
        return Ok(());
    }
    let Some(cuda) = device.cuda() else {
        let copy = |(j, out): (usize, &mut [f32])| {
            add_normals(out, image, sigma, seed, Use::Noise, index, first + j as u32);
        };
        device.scope(|| out.par_chunks_exact_mut(image.len()).enumerate().for_each(copy));
        return Ok(());
    };
    let threads = copies as usize * image.len().div_ceil(4);
    let launch = Launch::over("perturb", threads, tiles::PERTURB_THREADS)?;
    let (mut noisy, image) = (cuda.alloc::<f32>(out.len())?, cuda.upload(image)?);
    // SAFETY: `noisy` holds copies·len values, `image` len.
    unsafe { cuda.perturb(launch, noisy.output(), image.input(), copies, len, seed, index, first, sigma)? };
    out.copy_from_slice(&cuda.download(&noisy)?);
    Ok(())
}
