//! A case that was checked and timed, beside the least time that the device needs.

use serde::Serialize;

use super::case::{Case, Check, Sizes, Timing, check};
use super::ceilings::Ceilings;
use super::measure::measure;
use crate::device::Device;
use crate::device::cuda::Launched;
use crate::error::Result;

/// One kernel at one shape.
#[derive(Serialize)]
pub struct Measured {
    /// Its name.
    pub kernel: &'static str,
    /// Its sizes, in words.
    pub shape: String,
    /// The type of its operands.
    pub dtype: &'static str,
    /// The times.
    #[serde(flatten)]
    pub timing: Timing,
    /// Bytes that must move.
    pub bytes: f64,
    /// Operations that must be done.
    pub flops: f64,
    /// The least seconds by the ceilings.
    pub floor: f64,
    /// Whether memory or compute bounds them.
    pub bound: &'static str,
    /// How far the result is from plain loops.
    #[serde(flatten)]
    pub check: Check,
    /// Whether that is allowed.
    pub passes: bool,
    /// Clock of the GPU's multiprocessors right after, MHz.
    pub sm_clock: Option<u32>,
    /// The kernels it launched, and the resources of each; none on the CPU.
    pub launched: Vec<Launched>,
}

/// Checks and times a case.
///
/// # Errors
/// Where the device does not run it, or fails.
pub fn measured(device: &Device, case: &Case, sizes: Sizes, ceilings: &Ceilings) -> Result<Measured> {
    let mut work = (case.make)(device, sizes)?;
    let (check, launched) = check(device, &mut work)?;
    let timing = measure(device, &mut work)?;
    let sm_clock = device.reading().and_then(|reading| reading.sm_clock);
    let (floor, bound) = ceilings.floor(&work, case.dtype);
    Ok(Measured {
        kernel: case.name,
        shape: case.shape(sizes),
        dtype: case.dtype,
        timing,
        bytes: work.bytes,
        flops: work.flops,
        floor,
        bound,
        passes: check.passes(),
        check,
        sm_clock,
        launched,
    })
}
