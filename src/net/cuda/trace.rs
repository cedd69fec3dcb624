//! What perturbed copies did, on the device where they ran: losses and activations are summed over the samples of a
//! request, and stay in device memory for the choice of units. The host gets the losses, 4 bytes for each copy.

use std::ops::Range;

use super::passes::{Arena, copy, open};
use crate::data::Inputs;
use crate::device::cuda::{Buffer, In};
use crate::device::{Cuda, Device};
use crate::error::Result;
use crate::net::Network;
use crate::net::lanes::check;
use crate::net::plan::Purpose;
use crate::net::rows::Selected;
use crate::ops::Precision;
use crate::ops::cuda::trace::{add, mean};

/// A trace on the device takes at most this part of the memory that is free: passes and the choice of units need more.
const SHARE: usize = 4;

/// The mean over some inputs of the losses and activations of their copies.
pub(crate) struct TraceOnDevice {
    /// `[m]`.
    pub losses: Vec<f32>,
    /// `[m, d]`.
    pub activations: Buffer<f32>,
    /// How many copies the device had room for at once.
    pub chunk: usize,
}

/// Runs the network over the copies of each of `request`, as many of each, and keeps what is observed where it is. None where
/// the trace would take too much of the device's memory.
///
/// # Errors
/// Where inputs have another shape, a label does not fit the network, it is not frozen, or the device fails.
pub(crate) fn trace_on_device<I: Inputs>(
    device: &Device,
    cuda: &Cuda,
    net: &Network,
    request: &[I],
    precision: Precision,
) -> Result<Option<TraceOnDevice>> {
    request.iter().try_for_each(|inputs| check(net, inputs))?;
    let (m, d) = (request.first().map_or(0, Inputs::len), net.units().len());
    let sums = if request.len() > 1 { size_of::<f64>() } else { 0 };
    let bytes = m.checked_mul(d + 1).and_then(|values| values.checked_mul(size_of::<f32>() + sums));
    let most = cuda.free()? / SHARE;
    if bytes.is_none_or(|bytes| bytes > most) {
        return Ok(None);
    }
    let mut parts = [Part::new(cuda, m, 1, request.len())?, Part::new(cuda, m, d, request.len())?];
    let rows = vec![Selected::None; net.layers.len()];
    let mut at_once = 0;
    for (i, inputs) in request.iter().enumerate() {
        let (passes, mut arena) = open(device, cuda, net, &rows, Purpose::Forward, inputs, d, precision)?;
        at_once = passes.plan.chunk;
        for first in (0..m).step_by(at_once) {
            let range = first..(first + at_once).min(m);
            let n = passes.fill(device, &mut arena, inputs, range.clone())?;
            passes.compute(&mut arena, n, true)?;
            let Arena { chunk, trace, .. } = &arena;
            let [losses, activations] = &mut parts;
            losses.take(cuda, range.clone(), chunk.losses.input().part(0..n), i == 0)?;
            activations.take(cuda, range, trace.input().part(0..n * d), i == 0)?;
        }
        passes.check_range(&arena)?;
    }
    let [losses, activations] = parts.map(|part| part.mean(cuda, request.len()));
    Ok(Some(TraceOnDevice { losses: cuda.download(&losses?)?, activations: activations?, chunk: at_once }))
}

/// Values `[m, width]` of several samples' copies.
struct Part {
    /// Of the only sample, else at the end the means.
    values: Buffer<f32>,
    /// Of several.
    sums: Option<Buffer<f64>>,
    width: usize,
}

impl Part {
    fn new(cuda: &Cuda, m: usize, width: usize, samples: usize) -> Result<Part> {
        let sums = (samples > 1).then(|| cuda.alloc(m * width)).transpose()?;
        Ok(Part { values: cuda.alloc(m * width)?, sums, width })
    }

    /// Adds a sample's values of these copies; the `first` sample's begin the sums.
    fn take(&mut self, cuda: &Cuda, range: Range<usize>, values: In<'_, f32>, first: bool) -> Result<()> {
        let Part { values: all, sums, width } = self;
        let (start, len) = (range.start * *width, range.len() * *width);
        match sums {
            Some(sums) => {
                let (_, rest) = sums.output().split_at(start);
                add(cuda, rest.split_at(len).0, values, !first)
            }
            None => {
                let (_, rest) = all.output().split_at(start);
                copy(cuda, rest.split_at(len).0, values)
            }
        }
    }

    /// The mean over this many samples.
    fn mean(mut self, cuda: &Cuda, samples: usize) -> Result<Buffer<f32>> {
        if let Some(sums) = &self.sums {
            mean(cuda, self.values.output(), sums.input(), samples)?;
        }
        Ok(self.values)
    }
}
