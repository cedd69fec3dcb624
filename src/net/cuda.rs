//! A network on a CUDA device: its parameters, the memory that its program runs in, and what comes back.
//!
//! Parameters are brought to the device once and stay until they are changed or memory is wanted. A chunk's images are
//! written where the program has them ([`run`] executes it), and only logits, losses and activations come back. Nothing
//! is allocated between chunks. An affine node is one launch with its epilogue, which also sums what units are read of:
//! its own output. The launches of a chunk are recorded when they come a second time, and from then on replayed.
//!
//! A chunk is as many images as the device's free memory holds, found by halving from a number that does not depend on
//! it, so that a little more or less of it changes nothing.

mod derivatives;
mod execute;
mod moments;
mod run;
mod train;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use derivatives::Derivatives;
pub(crate) use moments::{Wanted, moments_of};
use rayon::prelude::*;
pub(super) use train::Training;

use self::run::Run;
use super::instruction::{
    AffineOp, AttentionOp, BatchNormOp, EmbeddingOp, GroupNormOp, Instruction, LayerNormOp,
};
use super::plan::{Plan, Purpose};
use super::program::{Region, Section};
use super::rows::Selected;
use super::{Affine, Network, NodeId, Op, ParamId};
use crate::data::{Inputs, check_words};
use crate::device::cuda::{Buffer, In, Out, Repeats};
use crate::device::{Cuda, Device};
use crate::ops::cuda::{batch_norm, conv, group_norm, layer_norm, loss, shape};
use crate::ops::perturb::{Copies, perturb_on};
use crate::ops::{Precision, Strided};
use crate::{Error, Result};

/// Images of a chunk at most, and floats of an arena: kernels number them in 32 bits.
const IMAGES: usize = 1024;
const FLOATS: usize = 1 << 31;

/// Vectors of the block that a solver has at once, in f64: memory for them is found with that of its products.
const VECTORS: usize = 12;

/// The passes of a network under a plan, with what they only read.
pub(crate) struct Passes<'a> {
    cuda: &'a Cuda,
    /// In training, as it was at first.
    net: Cow<'a, Network>,
    pub plan: Plan,
    /// Of affine layers' forward passes; f32, unless it is lowered.
    pub precision: Precision,
    params: Vec<Arc<Buffer<f32>>>,
    /// In training, the parameters, which change; else none.
    trained: Vec<Buffer<f32>>,
    /// Scale and shift of every node that has them.
    affine: Vec<Option<[Arc<Buffer<f32>>; 2]>>,
    /// The selected rows of every layer of which some are, but not all.
    rows: Vec<Option<Buffer<u32>>>,
    zero: Buffer<f32>,
    /// The image whose noisy copies the inputs are, where they are that.
    image: Option<Buffer<f32>>,
}

/// What passes compute in; sized by the plan, filled anew for every chunk.
pub(crate) struct Arena {
    chunk: Chunk,
    /// `[chunk, d]`; empty where activations are not asked for.
    trace: Buffer<f32>,
    /// The chunk's images and labels on the host.
    host: (Vec<f32>, Vec<u32>),
    /// The forward passes of so many images.
    repeats: Repeats<usize>,
    /// Memory for a solver's vectors, held until they are made.
    vectors: Vec<Buffer<f64>>,
}

/// What a chunk computes in.
struct Chunk {
    /// What products read of the other sections.
    kept: Buffer<f32>,
    labels: Buffer<u32>,
    losses: Buffer<f32>,
    work: Work,
}

/// What all sections write.
struct Work {
    /// Values that are not kept.
    values: Buffer<f32>,
    /// Sums for the activations, or the batch norm, of the node that is running.
    parts: Buffer<f64>,
    /// Mean and variance of every batch norm, and two sums of the one whose adjoint is running.
    moments: Buffer<f64>,
    /// Sums of the weight gradient that is running.
    sums: Buffer<f32>,
    /// Squares of the attention whose adjoint is running.
    squares: Buffer<f32>,
}

/// What comes back of a chunk of `n` images.
pub(crate) struct Outputs<'a> {
    /// `[n, d]`, or empty.
    pub activations: &'a mut [f32],
    /// `[n]`.
    pub losses: &'a mut [f32],
    /// `[n, classes]`.
    pub logits: &'a mut [f32],
    /// `[n, width]`.
    pub labels: &'a mut [u32],
}

/// How many values of each kind a plan takes on the device.
#[derive(Clone, Copy, Default)]
struct Sizes {
    /// Parameters, scales and shifts; the rows selected, and a direction and a sum over them.
    fixed: usize,
    /// Parameters of the block, where a solver has vectors of them.
    block: usize,
    kept: usize,
    work: usize,
    sums: usize,
    squares: usize,
    images: usize,
    /// Words of label.
    labels: usize,
    trace: usize,
    parts: usize,
    moments: usize,
}

impl Sizes {
    /// Those of `plan`; `d` as of [`open`].
    fn new(net: &Network, plan: &Plan, d: usize) -> Sizes {
        let affine = net.nodes.iter().filter_map(|node| node.op.scale()).map(|a| 2 * a.scale.len());
        let params = net.params.iter().map(|param| param.value.len());
        let count = |layer: usize| plan.rows[layer].count(net.layers[layer].outputs);
        let selected = net.layers.iter().enumerate().map(|(l, layer)| count(l) * (2 * layer.unit_len() + 1));
        let block = match plan.purpose.has_products() {
            true => net.layers.iter().enumerate().map(|(l, layer)| count(l) * layer.unit_len()).sum(),
            false => 0,
        };
        let mut sizes = Sizes {
            fixed: params.chain(affine).chain(selected).sum(),
            block,
            kept: plan.chunk * plan.program.kept,
            work: plan.chunk * plan.program.work,
            images: plan.chunk,
            labels: plan.chunk * plan.label_width,
            trace: plan.chunk * d,
            ..Sizes::default()
        };
        let mut widest = 0;
        for step in plan.program.steps() {
            widest = widest.max(sizes.scratch(net, plan, &step.instruction, d > 0));
        }
        sizes.moments += widest;
        sizes
    }

    /// Adds what an instruction needs beside its operands; returns how many sums of a batch norm it takes.
    fn scratch(&mut self, net: &Network, plan: &Plan, instruction: &Instruction, traced: bool) -> usize {
        let n = plan.chunk;
        match instruction {
            Instruction::Affine(op) => match op {
                AffineOp::Forward(op) if traced => {
                    self.parts = self.parts.max(conv::parts(n, &op.at.geometry));
                }
                AffineOp::WeightGradient { at, .. } => {
                    let layer = at.layer.index();
                    let rows = plan.rows[layer].count(net.layers[layer].outputs);
                    self.sums = self.sums.max(conv::gradient_parts(n, rows, &at.geometry));
                }
                AffineOp::Forward(_) | AffineOp::Apply { .. } | AffineOp::DataGradient { .. } => {}
            },
            Instruction::LayerNorm(op) => match *op {
                LayerNormOp::ParameterGradient { x, c, .. } => {
                    self.sums = self.sums.max(layer_norm::gradient_parts(n * (x.len / c), c));
                }
                LayerNormOp::Forward { .. }
                | LayerNormOp::Tangent { .. }
                | LayerNormOp::Backward { .. }
                | LayerNormOp::TangentBackward { .. } => {}
            },
            Instruction::GroupNorm(op) => match op {
                GroupNormOp::ParameterGradient { at, .. } => {
                    self.sums = self.sums.max(group_norm::gradient_parts(n, at.shape));
                }
                GroupNormOp::Forward { .. }
                | GroupNormOp::Tangent { .. }
                | GroupNormOp::Backward { .. }
                | GroupNormOp::TangentBackward { .. } => {}
            },
            Instruction::Embedding(op) => match *op {
                EmbeddingOp::Gradient { tokens, .. } => self.sums = self.sums.max(n * tokens.len),
                EmbeddingOp::Forward { .. } => {}
            },
            Instruction::BatchNorm(op) => match *op {
                BatchNormOp::Forward { x, c, .. } => {
                    self.parts = self.parts.max(batch_norm::parts(n * (x.len / c), c));
                    self.moments += 2 * c;
                }
                BatchNormOp::Backward { c, .. } => return 2 * c,
            },
            Instruction::Attention(op) => match op {
                AttentionOp::Backward { at, .. } => self.squares = self.squares.max(n * at.weights()),
                AttentionOp::TangentBackward { at, .. } => {
                    self.squares = self.squares.max(3 * n * at.weights());
                }
                AttentionOp::Forward { .. } | AttentionOp::Tangent { .. } => {}
            },
            Instruction::Activation(_)
            | Instruction::Pointwise(_)
            | Instruction::Rows(_)
            | Instruction::Gate(_)
            | Instruction::Pool(_)
            | Instruction::Shortcut(_)
            | Instruction::Loss(_) => {}
        }
        0
    }

    fn bytes(&self) -> usize {
        let scratch = self.sums + self.squares + self.images + self.labels + self.trace;
        let wide = self.parts + self.moments + VECTORS * self.block;
        4 * (1 + self.fixed + self.kept + self.work + scratch) + 8 * wide // 1 is the zero
    }

    /// Whether kernels can number the values of every memory.
    fn numbered(&self) -> bool {
        self.kept.max(self.work) <= FLOATS
    }
}

/// Parameters and memory on the device for passes over `inputs` with these rows selected, in chunks as large as
/// fit; `d` is the number of units, or 0 where activations are not asked for.
///
/// # Errors
/// [`Error::Memory`] where not even one image at a time fits, or the device fails.
pub(crate) fn open<'a>(
    cuda: &'a Cuda,
    net: &'a Network,
    rows: &[Selected],
    purpose: Purpose,
    inputs: &dyn Inputs,
    d: usize,
) -> Result<(Passes<'a>, Arena)> {
    let mut chunk = IMAGES.min(inputs.len()).max(1);
    let whole = Plan::on_cuda(net, rows, purpose, chunk)?;
    loop {
        let plan = Plan { chunk, ..whole.clone() };
        let mut sizes = Sizes::new(net, &plan, d);
        sizes.fixed += inputs.copies().map_or(0, |copies| copies.image.len());
        let (bytes, free) = (sizes.bytes(), cuda.free()?);
        if chunk > 1 && (bytes > free || !sizes.numbered()) {
            chunk = chunk.div_ceil(2);
            continue;
        }
        let fits = Passes::new(cuda, Cow::Borrowed(net), plan, sizes, inputs.copies());
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
    fn new(
        cuda: &'a Cuda,
        net: Cow<'a, Network>,
        plan: Plan,
        sizes: Sizes,
        copies: Option<Copies<'_>>,
    ) -> Result<(Passes<'a>, Arena)> {
        let image = copies.map(|copies| cuda.upload(copies.image)).transpose()?;
        let on_host = if image.is_some() { 0 } else { sizes.images * net.input().len() };
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
        };
        let (kept, labels) = (cuda.alloc(sizes.kept)?, cuda.alloc(sizes.labels)?);
        let arena = Arena {
            chunk: Chunk { kept, labels, losses: cuda.alloc(sizes.images)?, work },
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
        let (precision, zero) = (Precision::F32, cuda.upload(&[0.0])?);
        Ok((Passes { cuda, net, plan, precision, params, trained, affine, rows, zero, image }, arena))
    }

    /// Brings a chunk's images and labels to the device: the host threads make them, or, where they are noisy copies of
    /// one image, the device. Returns how many there are.
    ///
    /// # Errors
    /// Where a label does not fit the network, a token id is beyond its vocabulary, or the device fails.
    pub fn fill(
        &self,
        device: &Device,
        arena: &mut Arena,
        inputs: &dyn Inputs,
        range: Range<usize>,
    ) -> Result<usize> {
        let (n, first, len) = (range.len(), range.start, self.net.input().len());
        let Arena { chunk, host: (x, labels), .. } = arena;
        let width = self.plan.label_width;
        let labels = &mut labels[..n * width];
        let mut run = Run::new(self, chunk, n);
        if let (Some(image), Some(copies)) = (&self.image, inputs.copies()) {
            labels.chunks_exact_mut(width).for_each(|labels| labels.copy_from_slice(copies.labels));
            let Copies { seed, index, sigma, .. } = copies;
            perturb_on(self.cuda, run.images(), image.input(), seed, index, first as u32, sigma)?;
        } else {
            let x = &mut x[..n * len];
            device.scope(|| {
                let each = x.par_chunks_exact_mut(len).zip(labels.par_chunks_exact_mut(width)).zip(range);
                each.for_each(|((x, labels), i)| inputs.fill(x, labels, i..i + 1));
            });
            self.net.check_tokens(x, first)?;
            self.cuda.write(run.images(), x)?;
        }
        check_words(labels, self.net.loss, self.net.classes(), first)?;
        self.cuda.write(chunk.labels.output().split_at(labels.len()).0, labels)?;
        Ok(n)
    }

    /// The values of the `n` images that are in the arena, and what is asked of them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn observe(&self, arena: &mut Arena, n: usize, out: Outputs<'_>) -> Result<()> {
        let Arena { chunk, trace, host, repeats, .. } = arena;
        repeats.run(self.cuda, n, || {
            let mut run = Run::new(self, chunk, n);
            if !out.activations.is_empty() {
                self.clear(trace.output().split_at(out.activations.len()).0)?;
                run = run.traced(trace.output().split_at(out.activations.len()).0);
            }
            run.section(Section::Forward)?;
            self.losses(chunk, n)
        })?;
        out.labels.copy_from_slice(&host.1[..n * self.plan.label_width]);
        self.cuda.read(out.losses, chunk.losses.input().part(0..n))?;
        self.cuda.read(out.logits, self.logits(&chunk.kept, &chunk.work, n))?;
        self.cuda.read(out.activations, trace.input().part(0..out.activations.len()))
    }

    fn losses(&self, chunk: &mut Chunk, n: usize) -> Result<()> {
        let Chunk { kept, labels, losses, work } = chunk;
        let logits = self.logits(&*kept, &*work, n);
        let labels = labels.input().part(0..n * self.plan.label_width);
        loss::values(self.cuda, losses.output().split_at(n).0, logits, labels, self.net.loss)
    }

    /// `[n, classes]`, behind the forward section.
    fn logits<'b>(&self, kept: &'b Buffer<f32>, work: &'b Work, n: usize) -> In<'b, f32> {
        let span = self.plan.program.span(self.plan.program.logits, self.plan.chunk, n);
        let memory = match span.region {
            Region::Kept => kept,
            Region::Work => &work.values,
        };
        memory.input().part(span.range)
    }

    /// What a node is called in an error: its layer, else its operation.
    fn name(&self, node: usize, what: &str) -> String {
        match self.net.nodes[node].op.layer() {
            Some(layer) => format!("{what} of layer `{}`", self.net.layer(layer).name),
            None => {
                let op = format!("{:?}", self.net.nodes[node].op);
                format!("{what} of {}, node {node}", op.split([' ', '(']).next().unwrap_or("node"))
            }
        }
    }

    /// The frozen scale and shift of a node that has them.
    fn scale_shift(&self, node: NodeId) -> Option<[In<'_, f32>; 2]> {
        self.affine[node.index()].as_ref().map(|[scale, shift]| [scale.input(), shift.input()])
    }

    /// The selected rows of a layer as operations take them: none means all.
    fn subset(&self, layer: usize) -> Option<In<'_, u32>> {
        self.rows[layer].as_ref().map(Buffer::input)
    }

    fn param(&self, param: ParamId) -> In<'_, f32> {
        match self.trained.get(param.index()) {
            Some(trained) => trained.input(),
            None => self.params[param.index()].input(),
        }
    }

    /// Zeros.
    fn clear(&self, y: Out<'_, f32>) -> Result<()> {
        let (len, to, from) = (y.len(), Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
        shape::copy(self.cuda, y, self.zero.input(), len, 1, to, from)
    }

    /// Where the moments of a batch norm are.
    fn moments(&self, node: NodeId) -> Range<usize> {
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

fn copy(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>) -> Result<()> {
    let row = Strided { first: 0, stride: x.len() };
    shape::copy(cuda, y, x, 1, x.len(), row, row)
}

/// These of the moments for writing, and the two sums of each of as many channels behind all.
fn carve_moments(moments: Out<'_, f64>, at: Range<usize>) -> (Out<'_, f64>, Out<'_, f64>) {
    let (len, all) = (at.len(), moments.len() - at.len());
    let (before, sums) = moments.split_at(all);
    (before.split_at(at.start).1.split_at(len).0, sums)
}
