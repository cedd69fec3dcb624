//! What K-FAC takes of a frozen network on a CUDA device: the second moments of its layers' selected rows, by one forward
//! and one backward pass over the inputs. They stay on the device until the last chunk of a lane, and are then read back.

use super::passes::{IMAGES, Passes, open};
use super::rows::{Sink, Used};
use crate::data::Inputs;
use crate::device::cuda::{Buffer, Out};
use crate::device::{Cuda, Device};
use crate::error::Result;
use crate::net::Network;
use crate::net::instruction::{AffineOp, Instruction};
use crate::net::lanes::cuda_lanes;
use crate::net::plan::{Plan, Purpose};
use crate::net::program::{Section, Seed};
use crate::net::rows::Selected;
use crate::ops::Precision;
use crate::ops::cuda::{moments, vector};

/// What is asked of a layer.
pub(crate) struct Wanted {
    /// The groups that have selected rows, ascending.
    pub groups: Vec<u32>,
    /// The length of a weight row with its bias.
    pub width: usize,
    /// The most selected rows of a group.
    pub rows: usize,
    /// Whether A is wanted; else the trace of it.
    pub whole: bool,
}

/// Sums over inputs, positions and uses of a layer.
pub(crate) struct Moments {
    /// Σ x̄ x̄ᵀ of each of the groups `[groups, width, width]`; empty where its trace is wanted.
    pub a: Vec<f32>,
    /// Σ x² of what the taps of an average group read, without the 1 for the bias.
    pub trace: f32,
    /// Σ δ δᵀ: for each selected row those of its group, zeros behind them, `[selected, rows]`.
    pub g: Vec<f32>,
}

/// The same while it is summed up.
struct Sums<'a> {
    wanted: &'a Wanted,
    sets: Buffer<u32>,
    a: Buffer<f32>,
    trace: Buffer<f64>,
    g: Buffer<f32>,
}

/// What a backward pass adds to.
struct Layers<'a> {
    sums: Vec<Option<Sums<'a>>>,
    one: Buffer<f32>,
    /// Room for the chunks of a sum, and for those of a trace.
    parts: Buffer<f32>,
    squares: Buffer<f64>,
}

/// The moments of every layer of which something is wanted, of one lane of this rank after the other: `each` takes those of a lane.
/// `seed` draws the loss gradients. Returns how many lanes all ranks have.
///
/// # Errors
/// [`crate::Error::Memory`] where the moments and one image at a time do not fit, or the device fails.
pub(crate) fn moments_of(
    device: &Device,
    cuda: &Cuda,
    net: &Network,
    rows: &[Selected],
    wanted: &[Option<Wanted>],
    inputs: &dyn Inputs,
    seed: u64,
    each: &mut dyn FnMut(&[Option<Moments>]),
) -> Result<usize> {
    let layers = Layers::new(cuda, net, rows, wanted, inputs.len());
    let mut layers = device.ranks().told(layers.map_err(|error| error.during("scratch for moments")))?;
    let (passes, mut arena) = open(device, cuda, net, rows, Purpose::Gradient, inputs, 0, Precision::F32)?;
    let lanes = cuda_lanes(net, inputs.len());
    for lane in device.ranks().own(lanes.len()).map(|lane| lanes[lane].clone()) {
        layers.clear(&passes)?;
        for first in lane.clone().step_by(passes.plan.chunk) {
            let range = first..lane.end.min(first + passes.plan.chunk);
            let n = passes.fill(device, &mut arena, inputs, range)?;
            passes.primal(&mut arena.chunk, Seed::Draws { seed, first }, &mut layers, n)?;
        }
        let read = |sums: &Option<Sums>| {
            let Some(Sums { a, trace, g, .. }) = sums else { return Ok(None) };
            let trace = cuda.download(trace)?.first().copied().unwrap_or(0.0) as f32;
            Ok(Some(Moments { a: cuda.download(a)?, trace, g: cuda.download(g)? }))
        };
        each(&layers.sums.iter().map(read).collect::<Result<Vec<_>>>()?);
    }
    Ok(lanes.len())
}

impl<'a> Layers<'a> {
    fn new(
        cuda: &Cuda,
        net: &Network,
        rows: &[Selected],
        wanted: &'a [Option<Wanted>],
        inputs: usize,
    ) -> Result<Layers<'a>> {
        let count = |layer: usize| rows[layer].count(net.layers[layer].outputs);
        let of_layer = |(layer, wanted): (usize, &'a Option<Wanted>)| {
            let Some(wanted) = wanted else { return Ok(None) };
            let (a, trace) = match wanted.whole {
                true => (wanted.groups.len() * wanted.width * wanted.width, vec![]),
                false => (0, vec![0.0]),
            };
            let sets = cuda.upload(&wanted.groups)?;
            let (a, g) = (cuda.alloc(a)?, cuda.alloc(count(layer) * wanted.rows)?);
            Ok(Some(Sums { wanted, sets, a, trace: cuda.upload(&trace)?, g }))
        };
        let plan = Plan::on_cuda(net, rows, Purpose::Gradient, 1, Precision::F32)?;
        let (mut parts, mut squares) = (0, 0);
        let most = IMAGES.min(inputs);
        for step in plan.program.section(Section::Backward) {
            let Instruction::Affine(AffineOp::WeightGradient { at, .. }) = &step.instruction else {
                continue;
            };
            let (layer, geometry) = (at.layer.index(), &at.geometry);
            let Some(wanted) = &wanted[layer] else { continue };
            parts = parts.max(moments::output_parts(most, count(layer), wanted.rows, geometry));
            match wanted.whole {
                true => {
                    let sets = wanted.groups.len();
                    parts = parts.max(moments::input_parts(most, sets, wanted.width, geometry));
                }
                false => squares = squares.max(vector::parts(most * geometry.input.len())),
            }
        }
        Ok(Layers {
            sums: wanted.iter().enumerate().map(of_layer).collect::<Result<_>>()?,
            one: cuda.upload(&moments::ONE)?,
            parts: cuda.alloc(parts)?,
            squares: cuda.alloc(squares)?,
        })
    }
}

impl Layers<'_> {
    /// Zeros.
    fn clear(&mut self, passes: &Passes) -> Result<()> {
        for sums in self.sums.iter_mut().flatten() {
            if !sums.a.is_empty() {
                passes.clear(sums.a.output())?;
            }
            passes.clear(sums.g.output())?;
            let zeros = vec![0.0; sums.trace.len()];
            passes.cuda.write(sums.trace.output(), &zeros)?;
        }
        Ok(())
    }
}

impl Sink for Layers<'_> {
    fn take(&mut self, passes: &Passes, used: Used<'_>, _: Out<'_, f32>) -> Result<()> {
        let Used { at, dz, x, n, bias: _ } = used;
        let Layers { sums, one, parts, squares } = self;
        let layer = at.layer.index();
        let Some(sums) = &mut sums[layer] else { return Ok(()) };
        let (cuda, geometry, wanted) = (passes.cuda, &at.geometry, sums.wanted);
        let rows = passes.plan.rows[layer].count(passes.net.layers[layer].outputs);
        let scratch = moments::output_parts(n, rows, wanted.rows, geometry);
        let (scratch, selected) = (parts.output().split_at(scratch).0, passes.subset(layer));
        moments::output(cuda, sums.g.output(), scratch, dz, selected, wanted.rows, n, geometry)?;
        if wanted.whole {
            let scratch = moments::input_parts(n, wanted.groups.len(), wanted.width, geometry);
            let (scratch, sets) = (parts.output().split_at(scratch).0, sums.sets.input());
            return moments::input(
                cuda,
                sums.a.output(),
                scratch,
                x,
                one.input(),
                sets,
                wanted.width,
                n,
                geometry,
            );
        }
        let (mut scratch, _) = squares.output().split_at(vector::parts(x.len()));
        vector::squares(cuda, scratch.output(), x)?;
        let total = scratch.input().part(scratch.len() - 1..scratch.len());
        vector::combine(cuda, sums.trace.output(), 1.0, Some((geometry.share_of_squares(), total)), 1.0)
    }

    fn other(&mut self) -> &mut [Buffer<f32>] {
        &mut []
    }
}
