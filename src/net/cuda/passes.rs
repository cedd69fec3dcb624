//! A network's parameters on a CUDA device, and the memory that its passes run in.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::sizes::{Sizes, VECTORS};
use crate::data::Inputs;
use crate::device::cuda::{Buffer, In, Out, Repeats, Scalar};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::net::instruction::{BatchNormOp, Instruction};
use crate::net::lanes::cuda_lanes;
use crate::net::plan::{Plan, Purpose};
use crate::net::program::{Region, Section, Tilt};
use crate::net::rows::Selected;
use crate::net::{Affine, Network, NodeId, Op, ParamId};
use crate::ops::cuda::shape;
use crate::ops::perturb::{Copies, OnDevice};
use crate::ops::{Precision, Strided};

/// Images of a chunk at most: kernels number them in 32 bits.
pub(super) const IMAGES: usize = 1024;

/// The passes of a network under a plan, with what they only read.
pub(crate) struct Passes<'a> {
    pub(super) cuda: &'a Cuda,
    /// In training, as it was at first.
    pub(super) net: Cow<'a, Network>,
    pub plan: Plan,
    /// Of affine layers' forward passes; f32, unless it is lowered.
    pub precision: Precision,
    pub(super) params: Vec<Arc<Buffer<f32>>>,
    /// In training, the parameters, which change; else none.
    pub(super) trained: Vec<Buffer<f32>>,
    /// Scale and shift of every node that has them.
    pub(super) affine: Vec<Option<[Arc<Buffer<f32>>; 2]>>,
    /// The selected rows of every layer of which some are, but not all.
    pub(super) rows: Vec<Option<Buffer<u32>>>,
    pub(super) zero: Buffer<f32>,
    /// The image or text whose perturbed copies the inputs are, where they are that.
    pub(super) original: Option<OnDevice>,
}

/// What passes compute in; sized by the plan, filled anew for every chunk.
pub(crate) struct Arena {
    pub(super) chunk: Chunk,
    /// `[chunk, d]`; empty where activations are not asked for.
    pub(super) trace: Buffer<f32>,
    /// The chunk's images and labels on the host.
    pub(super) host: (Vec<f32>, Vec<u32>),
    /// The forward passes of this many images.
    pub(super) repeats: Repeats<usize>,
    /// Memory for a solver's vectors, held until they are made.
    pub(super) vectors: Vec<Buffer<f64>>,
}

/// What a chunk computes in.
pub(super) struct Chunk {
    /// What products read of the other sections.
    pub(super) kept: Buffer<f32>,
    pub(super) labels: Buffer<u32>,
    /// In training and of a gradient, factors and offsets of a tilted loss; else empty.
    pub(super) tilt: [Buffer<f32>; 2],
    pub(super) losses: Buffer<f32>,
    pub(super) work: Work,
}

impl Chunk {
    /// Brings a tilted loss's factors and offsets.
    pub(super) fn bring(&mut self, cuda: &Cuda, tilt: Tilt) -> Result<()> {
        let [factors, offsets] = &mut self.tilt;
        cuda.write(factors.output().split_at(tilt.factors.len()).0, tilt.factors)?;
        cuda.write(offsets.output().split_at(tilt.offsets.len()).0, tilt.offsets)
    }
}

/// What all sections write.
pub(super) struct Work {
    /// Values that are not kept.
    pub(super) values: Buffer<f32>,
    /// Sums for the activations, or the batch norm, of the node that is running.
    pub(super) parts: Buffer<f64>,
    /// Mean and variance of every batch norm, and two sums of the one whose adjoint is running.
    pub(super) moments: Buffer<f64>,
    /// Sums of the weight gradient that is running.
    pub(super) sums: Buffer<f32>,
    /// Squares of the attention whose adjoint is running.
    pub(super) squares: Buffer<f32>,
    /// Operands of the affine node that is running, in 16 bits.
    pub(super) halves: Buffer<u16>,
    /// In f16, not 0 once a value was beyond it; else empty.
    pub(super) overflow: Buffer<u32>,
}

/// Parameters and memory on the device for passes over `inputs` with these rows selected, in chunks as large as
/// fit, on every rank the same; `d` is the number of units, or 0 where activations are not asked for. Products of affine nodes are
/// in `precision`. A chunk has images of one lane alone, where there are sums.
///
/// # Errors
/// [`Error::Memory`] where not even one image at a time fits, or the device fails.
pub(crate) fn open<'a>(
    device: &Device,
    cuda: &'a Cuda,
    net: &'a Network,
    rows: &[Selected],
    purpose: Purpose,
    inputs: &dyn Inputs,
    d: usize,
    precision: Precision,
) -> Result<(Passes<'a>, Arena)> {
    let together = match purpose {
        Purpose::Forward => inputs.len(),
        _ => cuda_lanes(net, inputs.len()).first().map_or(0, ExactSizeIterator::len),
    };
    let (ranks, mut most) = (device.ranks(), IMAGES.min(together).max(1));
    loop {
        let opened = ranks.told(largest(cuda, net, rows, purpose, inputs, most, d, precision))?;
        if ranks.size() == 1 {
            return Ok(opened);
        }
        let chunks = ranks.gather_values(Ok(vec![opened.0.plan.chunk as u64]))?.concat();
        let least = chunks.iter().min().map_or(1, |&least| least as usize);
        if chunks.iter().all(|&chunk| chunk as usize == least) {
            return Ok(opened);
        }
        most = least; // this one's memory is given back first
    }
}

/// The same on one device, in chunks of at most so many images.
fn largest<'a>(
    cuda: &'a Cuda,
    net: &'a Network,
    rows: &[Selected],
    purpose: Purpose,
    inputs: &dyn Inputs,
    most: usize,
    d: usize,
    precision: Precision,
) -> Result<(Passes<'a>, Arena)> {
    let mut chunk = most;
    let whole = Plan::on_cuda(net, rows, purpose, chunk, precision)?;
    loop {
        let plan = Plan { chunk, ..whole.clone() };
        let mut sizes = Sizes::new(net, &plan, d, precision);
        sizes.fixed += inputs.copies().map_or(0, Copies::words);
        let (bytes, free) = (sizes.bytes(), cuda.free()?);
        if chunk > 1 && (bytes > free || !sizes.numbered()) {
            chunk = chunk.div_ceil(2);
            continue;
        }
        let fits = Passes::new(cuda, Cow::Borrowed(net), plan, sizes, inputs.copies(), precision);
        match fits.map_err(|error| error.during("memory for a network")) {
            Err(Error::Memory { .. }) if chunk > 1 => chunk = chunk.div_ceil(2),
            Err(Error::Memory { .. }) => {
                let fixed = 4 * sizes.fixed;
                let remedy = match fixed <= free {
                    true => format!(
                        "; the parameters' {fixed} would fit, and {} an image beside them",
                        free.saturating_sub(fixed)
                    ),
                    false => format!("; the parameters alone are {fixed}"),
                };
                let op = format!("{purpose:?} pass, one image at a time").to_lowercase();
                return Err(Error::Memory { op, bytes, free, remedy });
            }
            other => return other,
        }
    }
}

impl<'a> Passes<'a> {
    pub(super) fn new(
        cuda: &'a Cuda,
        net: Cow<'a, Network>,
        plan: Plan,
        sizes: Sizes,
        copies: Option<&Copies<'_>>,
        precision: Precision,
    ) -> Result<(Passes<'a>, Arena)> {
        let original = copies.map(|copies| copies.upload(cuda)).transpose()?;
        let on_host = if original.is_some() { 0 } else { sizes.images * net.input().len() };
        let affine = |op: &Op| match op.scale() {
            Some(Affine { scale, shift }) => Ok(Some([cuda.resident(scale)?, cuda.resident(shift)?])),
            None => Ok(None),
        };
        let work = Work {
            values: cuda.alloc(sizes.work)?,
            parts: cuda.alloc(sizes.parts)?,
            moments: cuda.alloc(sizes.moments)?,
            sums: cuda.alloc(sizes.sums)?,
            squares: cuda.alloc(sizes.squares)?,
            halves: cuda.alloc(sizes.halves)?,
            overflow: if precision == Precision::F16 { cuda.upload(&[0])? } else { cuda.alloc(0)? },
        };
        let (kept, labels) = (cuda.alloc(sizes.kept)?, cuda.alloc(sizes.labels)?);
        let tilt = [cuda.alloc(sizes.tilt[0])?, cuda.alloc(sizes.tilt[1])?];
        let arena = Arena {
            chunk: Chunk { kept, labels, losses: cuda.alloc(sizes.images)?, tilt, work },
            trace: cuda.alloc(sizes.trace)?,
            host: (vec![0.0; on_host], vec![0; sizes.labels]),
            repeats: Repeats::default(),
            vectors: (0..VECTORS).map(|_| cuda.alloc(sizes.block)).collect::<Result<_>>()?,
        };
        let rows = plan.rows.iter().map(|rows| rows.subset().map(|rows| cuda.upload(rows)).transpose());
        let rows = rows.collect::<Result<_>>()?;
        let values = net.params.iter().map(|param| &param.value);
        let (params, trained) = match plan.purpose {
            Purpose::Train => (vec![], values.map(|values| cuda.upload(values)).collect::<Result<_>>()?),
            _ => (values.map(|values| cuda.resident(values)).collect::<Result<_>>()?, vec![]),
        };
        let affine = net.nodes.iter().map(|node| affine(&node.op)).collect::<Result<_>>()?;
        let zero = cuda.upload(&[0.0])?;
        Ok((Passes { cuda, net, plan, precision, params, trained, affine, rows, zero, original }, arena))
    }

    /// `[n, classes]`, behind the forward section.
    pub(super) fn logits<'b>(&self, kept: &'b Buffer<f32>, work: &'b Work, n: usize) -> In<'b, f32> {
        let span = self.plan.program.span(self.plan.program.logits, self.plan.chunk, n);
        let memory = match span.region {
            Region::Kept => kept,
            Region::Work => &work.values,
        };
        memory.input().part(span.range)
    }

    /// What a node is called in an error: its layer, else its operation.
    pub(super) fn name(&self, node: usize, what: &str) -> String {
        match self.net.nodes[node].op.layer() {
            Some(layer) => format!("{what} of layer `{}`", self.net.layer(layer).name),
            None => {
                let op = format!("{:?}", self.net.nodes[node].op);
                format!("{what} of {}, node {node}", op.split([' ', '(']).next().unwrap_or("node"))
            }
        }
    }

    /// The frozen scale and shift of a node that has them.
    pub(super) fn scale_shift(&self, node: NodeId) -> Option<[In<'_, f32>; 2]> {
        self.affine[node.index()].as_ref().map(|[scale, shift]| [scale.input(), shift.input()])
    }

    /// The selected rows of a layer as operations take them: none means all.
    pub(super) fn subset(&self, layer: usize) -> Option<In<'_, u32>> {
        self.rows[layer].as_ref().map(Buffer::input)
    }

    pub(super) fn param(&self, param: ParamId) -> In<'_, f32> {
        match self.trained.get(param.index()) {
            Some(trained) => trained.input(),
            None => self.params[param.index()].input(),
        }
    }

    /// Zeros.
    pub(super) fn clear(&self, y: Out<'_, f32>) -> Result<()> {
        let (len, to, from) = (y.len(), Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
        shape::copy(self.cuda, y, self.zero.input(), len, 1, to, from)
    }

    /// Where the moments of a batch norm are.
    pub(super) fn moments(&self, node: NodeId) -> Range<usize> {
        let norms =
            self.plan.program.section(Section::Forward).iter().filter_map(|step| match &step.instruction {
                Instruction::BatchNorm(BatchNormOp::Forward { node, c, .. }) => Some((*node, 2 * c)),
                _ => None,
            });
        let width = |(_, width): (NodeId, usize)| width;
        let start = norms.clone().take_while(|(of, _)| *of != node).map(width).sum();
        start..start + norms.clone().find(|(of, _)| *of == node).map_or(0, width)
    }
}

/// y = x.
pub(super) fn copy<T: Scalar>(cuda: &Cuda, y: Out<'_, T>, x: In<'_, T>) -> Result<()> {
    let row = Strided { first: 0, stride: x.len() };
    shape::copy(cuda, y, x, 1, x.len(), row, row)
}

/// These of the moments for writing, and the two sums of each of as many channels behind all.
pub(super) fn carve_moments(moments: Out<'_, f64>, at: Range<usize>) -> (Out<'_, f64>, Out<'_, f64>) {
    let (len, all) = (at.len(), moments.len() - at.len());
    let (before, sums) = moments.split_at(all);
    (before.split_at(at.start).1.split_at(len).0, sums)
}
