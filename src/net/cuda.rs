//! The forward pass of a frozen network on a CUDA device, node by node as [`super::passes`] has it on the CPU.
//!
//! Parameters go to the device once. Values stand in one arena where the plan puts them; a chunk's images are written to
//! its front, every node launches its operation, and only logits, losses and activations come back. Nothing is allocated
//! between chunks. An affine node is one launch with its epilogue, which also sums what units are read of: its own output.

use std::ops::Range;

use super::passes::Pass;
use super::plan::Plan;
use super::{Affine, Network, Op, ParamId, Shape};
use crate::Result;
use crate::device::Cuda;
use crate::device::cuda::{Buffer, In, Out};
use crate::ops::cuda::shape::Rows;
use crate::ops::cuda::{activation, attention, conv, layer_norm, loss, means, pointwise, pool, shape};

/// What a forward pass computes in and with.
pub(crate) struct Forward<'a> {
    cuda: &'a Cuda,
    net: &'a Network,
    plan: &'a Plan,
    params: Vec<Buffer<f32>>,
    /// Scale and shift of every node that has them.
    affine: Vec<Option<[Buffer<f32>; 2]>>,
    arena: Buffer<f32>,
    labels: Buffer<u32>,
    losses: Buffer<f32>,
    /// `[chunk, d]`; empty where activations are not asked for.
    trace: Buffer<f32>,
    zero: Buffer<f32>,
    /// Sums for the activations of the node that is running.
    parts: Buffer<f64>,
}

/// What comes back of a chunk of `n` images.
pub(crate) struct Outputs<'a> {
    /// `[n, d]`, or empty.
    pub activations: &'a mut [f32],
    /// `[n]`.
    pub losses: &'a mut [f32],
    /// `[n, classes]`.
    pub logits: &'a mut [f32],
}

impl<'a> Forward<'a> {
    /// Room and parameters for `plan`; `d` is the number of units, or 0 where activations are not asked for.
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn new(cuda: &'a Cuda, net: &'a Network, plan: &'a Plan, d: usize) -> Result<Forward<'a>> {
        let affine = |op: &Op| -> Result<Option<[Buffer<f32>; 2]>> {
            let (Op::Scale(affine)
            | Op::Linear(_, super::Epilogue { affine: Some(affine), .. })
            | Op::Conv(_, _, super::Epilogue { affine: Some(affine), .. })) = op
            else {
                return Ok(None);
            };
            let Affine { scale, shift } = affine;
            Ok(Some([cuda.upload(scale)?, cuda.upload(shift)?]))
        };
        let pass = Pass { net, plan };
        let affine_nodes = (0..net.nodes.len()).filter(|&node| d > 0 && net.nodes[node].op.layer().is_some());
        let parts = affine_nodes.map(|node| conv::parts(plan.chunk, &pass.geometry(node))).max();
        Ok(Forward {
            cuda,
            net,
            plan,
            params: net.params.iter().map(|param| cuda.upload(&param.value)).collect::<Result<_>>()?,
            affine: net.nodes.iter().map(|node| affine(&node.op)).collect::<Result<_>>()?,
            arena: cuda.alloc(plan.y.len)?,
            labels: cuda.alloc(plan.chunk)?,
            losses: cuda.alloc(plan.chunk)?,
            trace: cuda.alloc(plan.chunk * d)?,
            zero: cuda.upload(&[0.0])?,
            parts: cuda.alloc(parts.unwrap_or(0))?,
        })
    }

    /// Runs one chunk of images `x` `[n, h, w, c]` with labels that are classes of the network.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn run(&mut self, x: &[f32], labels: &[u32], out: Outputs<'_>) -> Result<()> {
        let n = labels.len();
        let (_, front) = self.arena.output().split_at(self.plan.y.value(0, n).start);
        self.cuda.write(front.split_at(x.len()).0, x)?;
        self.cuda.write(self.labels.output().split_at(n).0, labels)?;
        if !out.activations.is_empty() {
            let (from, to) = (Rows { first: 0, apart: 0 }, Rows { first: 0, apart: 1 });
            let trace = self.trace.output().split_at(out.activations.len()).0;
            let len = trace.len();
            shape::copy(self.cuda, trace, self.zero.input(), len, 1, to, from)?;
        }
        for node in 1..self.net.nodes.len() {
            self.node(node, n, !out.activations.is_empty())?;
        }
        let logits = self.arena.input().part(self.plan.y.value(self.net.nodes.len() - 1, n));
        let labels = self.labels.input().part(0..n);
        loss::cross_entropy(self.cuda, self.losses.output().split_at(n).0, logits, labels)?;
        self.cuda.read(out.losses, self.losses.input().part(0..n))?;
        self.cuda.read(out.logits, logits)?;
        self.cuda.read(out.activations, self.trace.input().part(0..out.activations.len()))
    }

    /// One node's value.
    fn node(&mut self, node: usize, n: usize, traced: bool) -> Result<()> {
        let (cuda, net, layout) = (self.cuda, self.net, &self.plan.y);
        let (at, pass) = (&net.nodes[node], Pass { net, plan: self.plan });
        let (whole, rest) = carve(self.arena.output(), layout.whole(node));
        let (value, saved) = (layout.value(node, n), layout.saved(node, n));
        let (y, other) = whole.split_at(saved.start - value.start);
        let (mut y, saved) = (y.split_at(value.len()).0, other.split_at(saved.len()).0);
        let input = |i: usize| rest.get(layout.value(at.inputs[i].index(), n));
        let param = |param: ParamId| self.params[param.index()].input();
        let x = input(0);
        let from = net.nodes[at.inputs[0].index()].shape;
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let (owner, geometry) = (net.layer(*layer), pass.geometry(node));
                let affine = self.affine[node].as_ref();
                let epilogue = conv::Epilogue {
                    affine: affine.map(|[scale, shift]| [scale.input(), shift.input()]),
                    residual: epilogue.residual.then(|| input(1)),
                    activation: epilogue.activation,
                };
                let (weight, bias) = (param(owner.weight), owner.bias.map(param));
                let count = if traced { conv::parts(n, &geometry) } else { 0 };
                let sums = traced.then(|| self.parts.output().split_at(count).0);
                conv::forward(cuda, y, sums, x, weight, bias, epilogue, n, &geometry)?;
                if traced {
                    let uses = net.nodes.iter().filter(|other| other.op.layer() == Some(*layer)).count();
                    let (columns, d) = (net.units().of_layer(*layer), net.units().len());
                    let (trace, sums) =
                        (self.trace.output().split_at(n * d).0, self.parts.input().part(0..count));
                    means::means(cuda, trace, sums, n, &geometry, columns, d, uses)?;
                }
                Ok(())
            }
            Op::Activation(kind) => activation::forward(cuda, y, x, *kind),
            Op::LayerNorm { gamma, beta, eps } => {
                layer_norm::forward(cuda, y, saved, x, param(*gamma), param(*beta), *eps)
            }
            Op::Attention { heads } => attention::forward(cuda, y, saved, x, n, at.shape, *heads),
            Op::MaxPool(window) => pool::max_pool(cuda, y, saved.bits(), x, n, from, at.shape, *window),
            Op::AveragePool(window) => pool::average_pool(cuda, y, x, n, from, at.shape, *window),
            Op::AdaptivePool | Op::GlobalPool => pool::adaptive_pool(cuda, y, x, n, from, at.shape),
            Op::Add => pointwise::sum(cuda, y, x, input(1)),
            Op::Concat => pass.channels_of(node).try_for_each(|(i, first, c)| {
                let (to, from) = (Rows { first, apart: at.shape.c }, Rows { first: 0, apart: c });
                shape::copy(cuda, y.output(), input(i), n * at.shape.positions(), c, to, from)
            }),
            Op::ClassToken(token) => {
                let (to, same) = (images(at.shape, 0), Rows { first: 0, apart: 0 });
                shape::copy(cuda, y.output(), param(*token), n, at.shape.c, to, same)?;
                shape::copy(cuda, y, x, n, from.len(), images(at.shape, at.shape.c), images(from, 0))
            }
            Op::Positions(table) => {
                copy(cuda, y.output(), x)?;
                let same = Rows { first: 0, apart: 0 };
                shape::add(cuda, y, param(*table), n, at.shape.len(), images(at.shape, 0), same)
            }
            Op::Tokens(i) => {
                shape::copy(cuda, y, x, n, at.shape.len(), images(at.shape, 0), images(from, i * from.c))
            }
            Op::Shortcut { stride } => shape::shortcut(cuda, y, x, n, from, at.shape, *stride),
            Op::Scale(_) => match &self.affine[node] {
                Some([scale, shift]) => pointwise::scale_shift(cuda, y, x, scale.input(), shift.input()),
                None => Ok(()),
            },
            Op::Reshape | Op::Input | Op::BatchNorm { .. } => copy(cuda, y, x),
        }
    }
}

/// Row r is image r, from value `first` on.
fn images(shape: Shape, first: usize) -> Rows {
    Rows { first, apart: shape.len() }
}

fn copy(cuda: &Cuda, y: Out<'_, f32>, x: In<'_, f32>) -> Result<()> {
    let row = Rows { first: 0, apart: x.len() };
    shape::copy(cuda, y, x, 1, x.len(), row, row)
}

/// One span cut out of an arena for writing; the rest can still be read.
struct Rest<'a> {
    before: In<'a, f32>,
    after: In<'a, f32>,
    cut: Range<usize>,
}

fn carve(arena: Out<'_, f32>, cut: Range<usize>) -> (Out<'_, f32>, Rest<'_>) {
    let (before, tail) = arena.split_at(cut.start);
    let (span, after) = tail.split_at(cut.len());
    (span, Rest { before: before.read_only(), after: after.read_only(), cut })
}

impl<'a> Rest<'a> {
    fn get(&self, span: Range<usize>) -> In<'a, f32> {
        match span.start >= self.cut.end {
            true => self.after.part(span.start - self.cut.end..span.end - self.cut.end),
            false => self.before.part(span),
        }
    }
}
