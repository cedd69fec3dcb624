//! A network on a CUDA device, node by node as [`super::passes`] has it on the CPU.
//!
//! Parameters are brought to the device once and stay until they are changed or room is wanted. Values stand in one arena
//! where the plan puts them; a chunk's images are written to its front, every node launches its operation, and only
//! logits, losses and activations come back. Nothing is allocated between chunks. An affine node is one launch with its
//! epilogue, which also sums what units are read of: its own output. The launches of a chunk are recorded when they come a
//! second time, and from then on replayed.
//!
//! A chunk is as many images as the device's free memory holds, found by halving from a number that does not depend on
//! it, so that a little more or less of it changes nothing.

mod derivatives;
mod moments;
mod train;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use derivatives::Derivatives;
pub(crate) use moments::{Wanted, moments_of};
use rayon::prelude::*;
pub(super) use train::Training;

use super::passes::Pass;
use super::plan::{Plan, Purpose, Rows as Selected};
use super::{Affine, Epilogue, Network, Node, Op, ParamId, Shape};
use crate::data::{Inputs, check_labels};
use crate::device::cuda::{Buffer, In, Out, Repeats};
use crate::device::{Cuda, Device};
use crate::ops::Precision;
use crate::ops::cuda::shape::Rows;
use crate::ops::cuda::{
    activation, attention, batch_norm, conv, layer_norm, loss, means, pointwise, pool, shape,
};
use crate::ops::perturb::{Copies, perturb_on};
use crate::{Error, Result};

/// Images of a chunk at most, and floats of an arena: kernels number them in 32 bits.
const IMAGES: usize = 1024;
const FLOATS: usize = 1 << 31;

/// Vectors of the block that a solver has at once, in f64: room for them is found with that of its products.
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
    y: Buffer<f32>,
    labels: Buffer<u32>,
    losses: Buffer<f32>,
    /// `[chunk, d]`; empty where activations are not asked for.
    trace: Buffer<f32>,
    /// Sums for the activations, or the batch norm, of the node that is running.
    parts: Buffer<f64>,
    /// Mean and variance of every batch norm, and room for two sums of the one whose adjoint is running.
    moments: Buffer<f64>,
    /// The chunk's images and labels on the host.
    host: (Vec<f32>, Vec<u32>),
    /// The forward passes of so many images.
    repeats: Repeats<usize>,
    /// Adjoints that a Hessian keeps.
    g: Buffer<f32>,
    /// Room for a solver's vectors, held until they are made.
    vectors: Vec<Buffer<f64>>,
    work: Work,
}

/// What derivatives compute in; empty for a forward pass.
struct Work {
    /// Tangents.
    t: Buffer<f32>,
    /// Adjoints of the pass that is running.
    h: Buffer<f32>,
    /// For the adjoint at a layer's own output, and its tangent.
    scratch: [Buffer<f32>; 2],
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
    /// `[n]`.
    pub labels: &'a mut [u32],
}

/// How many values of each kind a plan takes on the device.
#[derive(Clone, Copy, Default)]
struct Sizes {
    /// Parameters, scales and shifts; the rows selected, and a direction and a sum over them.
    fixed: usize,
    /// Parameters of the block, where a solver has vectors of them.
    block: usize,
    y: usize,
    t: usize,
    g: usize,
    h: usize,
    scratch: [usize; 2],
    sums: usize,
    squares: usize,
    images: usize,
    trace: usize,
    parts: usize,
    moments: usize,
}

impl Sizes {
    /// Those of `plan`; `d` as of [`open`].
    fn new(net: &Network, plan: &Plan, d: usize) -> Sizes {
        let pass = Pass { net, plan };
        let affine = net.nodes.iter().filter_map(|node| scale_shift(&node.op)).map(|a| 2 * a.scale.len());
        let params = net.params.iter().map(|param| param.value.len());
        let layers = (0..net.nodes.len()).filter(|&node| net.nodes[node].op.layer().is_some());
        let parts = layers.clone().map(|node| match d {
            0 => 0,
            _ => conv::parts(plan.chunk, &pass.geometry(node)),
        });
        let count = |layer: usize| plan.rows[layer].count(net.layers[layer].outputs);
        let selected = net.layers.iter().enumerate().map(|(l, layer)| count(l) * (2 * layer.unit_len() + 1));
        let sums = layers.map(|node| {
            let count = net.nodes[node].op.layer().map_or(0, |layer| count(layer.index()));
            conv::gradient_parts(plan.chunk, count, &pass.geometry(node))
        });
        let train = plan.purpose == Purpose::Train;
        let sums = sums.chain(net.nodes.iter().map(|node| match node.op {
            Op::LayerNorm { .. } if train => {
                layer_norm::gradient_parts(plan.chunk * node.shape.positions(), node.shape.c)
            }
            _ => 0,
        }));
        let norms = net.nodes.iter().filter(|node| train && matches!(node.op, Op::BatchNorm { .. }));
        let parts = parts.chain(
            norms.clone().map(|norm| batch_norm::parts(plan.chunk * norm.shape.positions(), norm.shape.c)),
        );
        let widest = norms.clone().map(|norm| 2 * norm.shape.c).max().unwrap_or(0);
        let (hessian, forward) = (plan.purpose == Purpose::Hessian, plan.purpose == Purpose::Forward);
        let carrying = (0..net.nodes.len()).filter(|&node| plan.carries[node] && !forward);
        let squares = carrying.map(|node| match net.nodes[node].op {
            Op::Attention { .. } => plan.y.saved(node, plan.chunk).len(),
            _ => 0,
        });
        let scratch = if forward { 0 } else { plan.scratch };
        let block = match plan.purpose {
            Purpose::Linearised | Purpose::Hessian => {
                net.layers.iter().enumerate().map(|(l, layer)| count(l) * layer.unit_len()).sum()
            }
            _ => 0,
        };
        Sizes {
            fixed: params.chain(affine).chain(selected).sum(),
            block,
            y: plan.y.len,
            t: plan.t.len,
            g: plan.g.len,
            h: plan.h.len,
            scratch: [scratch, if hessian { scratch } else { 0 }],
            sums: sums.max().unwrap_or(0),
            squares: squares.max().unwrap_or(0) * if hessian { 3 } else { 1 },
            images: plan.chunk,
            trace: plan.chunk * d,
            parts: parts.max().unwrap_or(0),
            moments: norms.map(|norm| 2 * norm.shape.c).sum::<usize>() + widest,
        }
    }

    fn bytes(&self) -> usize {
        let adjoints = self.t + self.g + self.h + self.scratch.iter().sum::<usize>();
        let room = self.sums + self.squares + 2 * self.images + self.trace;
        let wide = self.parts + self.moments + VECTORS * self.block;
        4 * (1 + self.fixed + self.y + adjoints + room) + 8 * wide // 1 is the zero
    }
}

/// Parameters and room on the device for passes over `inputs` with these rows selected, in chunks as large as
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
    loop {
        let plan = Plan::on_cuda(net, rows.to_vec(), purpose, chunk);
        let mut sizes = Sizes::new(net, &plan, d);
        sizes.fixed += inputs.copies().map_or(0, |copies| copies.image.len());
        let (bytes, free) = (sizes.bytes(), cuda.free()?);
        if chunk > 1 && (bytes > free || sizes.y.max(sizes.t).max(sizes.g).max(sizes.h) > FLOATS) {
            chunk = chunk.div_ceil(2);
            continue;
        }
        let fits = Passes::new(cuda, Cow::Borrowed(net), plan, sizes, inputs.copies());
        match fits.map_err(|error| error.during("room for a network")) {
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
        let affine = |op: &Op| match scale_shift(op) {
            Some(Affine { scale, shift }) => Ok(Some([cuda.resident(scale)?, cuda.resident(shift)?])),
            None => Ok(None),
        };
        let arena = Arena {
            y: cuda.alloc(sizes.y)?,
            labels: cuda.alloc(sizes.images)?,
            losses: cuda.alloc(sizes.images)?,
            trace: cuda.alloc(sizes.trace)?,
            parts: cuda.alloc(sizes.parts)?,
            moments: cuda.alloc(sizes.moments)?,
            host: (vec![0.0; on_host], vec![0; sizes.images]),
            repeats: Repeats::default(),
            g: cuda.alloc(sizes.g)?,
            vectors: (0..VECTORS).map(|_| cuda.alloc(sizes.block)).collect::<Result<_>>()?,
            work: Work {
                t: cuda.alloc(sizes.t)?,
                h: cuda.alloc(sizes.h)?,
                scratch: [cuda.alloc(sizes.scratch[0])?, cuda.alloc(sizes.scratch[1])?],
                sums: cuda.alloc(sizes.sums)?,
                squares: cuda.alloc(sizes.squares)?,
            },
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
    /// Where a label is no class of the network, or the device fails.
    pub fn fill(
        &self,
        device: &Device,
        arena: &mut Arena,
        inputs: &dyn Inputs,
        range: Range<usize>,
    ) -> Result<usize> {
        let (n, first, len) = (range.len(), range.start, self.net.input().len());
        let (_, front) = arena.y.output().split_at(self.plan.y.value(0, n).start);
        let (images, labels) = (front.split_at(n * len).0, &mut arena.host.1[..n]);
        if let (Some(image), Some(copies)) = (&self.image, inputs.copies()) {
            labels.fill(copies.label);
            let Copies { seed, index, sigma, .. } = copies;
            perturb_on(self.cuda, images, image.input(), seed, index, first as u32, sigma)?;
        } else {
            let x = &mut arena.host.0[..n * len];
            device.scope(|| {
                let each = x.par_chunks_exact_mut(len).zip(&mut *labels).zip(range);
                each.for_each(|((x, label), i)| inputs.fill(x, std::slice::from_mut(label), i..i + 1));
            });
            self.cuda.write(images, x)?;
        }
        check_labels(labels, first, self.net.classes())?;
        self.cuda.write(arena.labels.output().split_at(n).0, labels)?;
        Ok(n)
    }

    /// The values of the `n` images that stand in the arena, and what is asked of them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn observe(&self, arena: &mut Arena, n: usize, out: Outputs<'_>) -> Result<()> {
        let traced = !out.activations.is_empty();
        let mut repeats = std::mem::take(&mut arena.repeats);
        let done = repeats.run(self.cuda, n, || {
            if traced {
                self.clear(arena.trace.output().split_at(out.activations.len()).0)?;
            }
            self.forward(arena, n, traced)?;
            self.losses(arena, n)
        });
        arena.repeats = repeats;
        done?;
        out.labels.copy_from_slice(&arena.host.1[..n]);
        self.cuda.read(out.losses, arena.losses.input().part(0..n))?;
        self.cuda.read(out.logits, self.logits(arena.y.input(), n))?;
        self.cuda.read(out.activations, arena.trace.input().part(0..out.activations.len()))
    }

    fn losses(&self, arena: &mut Arena, n: usize) -> Result<()> {
        let (losses, labels) = (arena.losses.output().split_at(n).0, arena.labels.input().part(0..n));
        loss::cross_entropy(self.cuda, losses, self.logits(arena.y.input(), n), labels)
    }

    /// `[n, classes]`.
    fn logits<'b>(&self, y: In<'b, f32>, n: usize) -> In<'b, f32> {
        y.part(self.plan.y.value(self.net.nodes.len() - 1, n))
    }

    fn forward(&self, arena: &mut Arena, n: usize, traced: bool) -> Result<()> {
        (1..self.net.nodes.len()).try_for_each(|node| {
            self.forward_node(node, arena, n, traced).map_err(|error| error.during(&self.name(node, "value")))
        })
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

    fn pass(&self) -> Pass<'_> {
        Pass { net: &self.net, plan: &self.plan }
    }

    fn param(&self, param: ParamId) -> In<'_, f32> {
        match self.trained.get(param.index()) {
            Some(trained) => trained.input(),
            None => self.params[param.index()].input(),
        }
    }

    /// Zeros.
    fn clear(&self, y: Out<'_, f32>) -> Result<()> {
        let (len, to, from) = (y.len(), Rows { first: 0, apart: 1 }, Rows { first: 0, apart: 0 });
        shape::copy(self.cuda, y, self.zero.input(), len, 1, to, from)
    }

    /// One node's value.
    fn forward_node(&self, node: usize, arena: &mut Arena, n: usize, traced: bool) -> Result<()> {
        let (cuda, net, layout) = (self.cuda, &self.net, &self.plan.y);
        let (at, pass) = (&net.nodes[node], self.pass());
        let (whole, rest) = carve(arena.y.output(), layout.whole(node));
        let (value, saved) = (layout.value(node, n), layout.saved(node, n));
        let (y, other) = whole.split_at(saved.start - value.start);
        let (mut y, mut saved) = (y.split_at(value.len()).0, other.split_at(saved.len()).0);
        let input = |i: usize| rest.get(layout.value(at.inputs[i].index(), n));
        let x = input(0);
        let from = net.nodes[at.inputs[0].index()].shape;
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let (owner, geometry) = (net.layer(*layer), pass.geometry(node));
                // A backward pass reads the activation's argument where its value does not do.
                let apart = epilogue.activation.filter(|_| !saved.is_empty());
                let (weight, bias) = (self.param(owner.weight), owner.bias.map(|bias| self.param(bias)));
                let epilogue = conv::Epilogue {
                    affine: self.affine[node].as_ref().map(|[scale, shift]| [scale.input(), shift.input()]),
                    residual: epilogue.residual.then(|| input(1)),
                    activation: epilogue.activation.filter(|_| apart.is_none()),
                };
                let count = if traced { conv::parts(n, &geometry) } else { 0 };
                let sums = traced.then(|| arena.parts.output().split_at(count).0);
                let z = if apart.is_some() { saved.output() } else { y.output() };
                conv::forward(cuda, z, sums, x, weight, bias, epilogue, n, &geometry, self.precision)?;
                if let Some(kind) = apart {
                    activation::forward(cuda, y, saved.input(), kind)?;
                }
                if traced {
                    let uses = net.nodes.iter().filter(|other| other.op.layer() == Some(*layer)).count();
                    let (columns, d) = (net.units().of_layer(*layer), net.units().len());
                    let (trace, sums) =
                        (arena.trace.output().split_at(n * d).0, arena.parts.input().part(0..count));
                    means::means(cuda, trace, sums, n, &geometry, columns, d, uses)?;
                }
                Ok(())
            }
            Op::Activation(kind) => activation::forward(cuda, y, x, *kind),
            Op::BatchNorm { gamma, beta, eps, .. } if self.plan.purpose == Purpose::Train => {
                let (mut moments, _) = carve_moments(&mut arena.moments, self.moments(node));
                let (parts, c) = (batch_norm::parts(n * at.shape.positions(), at.shape.c), at.shape.c);
                let parts = arena.parts.output().split_at(parts).0;
                batch_norm::moments(cuda, moments.output(), parts, x, c)?;
                let (gamma, beta) = (self.param(*gamma), self.param(*beta));
                batch_norm::forward(cuda, y, x, moments.input(), gamma, beta, *eps)
            }
            Op::LayerNorm { gamma, beta, eps } => {
                layer_norm::forward(cuda, y, saved, x, self.param(*gamma), self.param(*beta), *eps)
            }
            Op::Attention { heads } => attention::forward(cuda, y, saved, x, n, at.shape, *heads, None),
            Op::MaxPool(window) => pool::max_pool(cuda, y, saved.bits(), x, n, from, at.shape, *window),
            Op::Add => pointwise::sum(cuda, y, x, input(1)),
            Op::Concat => pass.channels_of(node).try_for_each(|(i, first, c)| {
                let (to, from) = (Rows { first, apart: at.shape.c }, Rows { first: 0, apart: c });
                shape::copy(cuda, y.output(), input(i), n * at.shape.positions(), c, to, from)
            }),
            Op::ClassToken(token) => {
                let (to, same) = (images(at.shape, 0), Rows { first: 0, apart: 0 });
                shape::copy(cuda, y.output(), self.param(*token), n, at.shape.c, to, same)?;
                self.linear_map(node, y, x, n)
            }
            Op::Positions(table) => {
                copy(cuda, y.output(), x)?;
                let same = Rows { first: 0, apart: 0 };
                shape::add(cuda, y, self.param(*table), n, at.shape.len(), images(at.shape, 0), same)
            }
            Op::Scale(_) => match &self.affine[node] {
                Some([scale, shift]) => pointwise::scale_shift(cuda, y, x, scale.input(), shift.input()),
                None => Ok(()),
            },
            _ => self.linear_map(node, y, x, n),
        }
    }

    /// Where the moments of a batch norm stand.
    fn moments(&self, node: usize) -> Range<usize> {
        let width = |node: &Node| match node.op {
            Op::BatchNorm { .. } => 2 * node.shape.c,
            _ => 0,
        };
        let start = self.net.nodes[..node].iter().map(width).sum();
        start..start + width(&self.net.nodes[node])
    }

    /// Forward of the nodes that are linear in their input, their constants left out: the row of a class token too.
    fn linear_map(&self, node: usize, y: Out<'_, f32>, x: In<'_, f32>, n: usize) -> Result<()> {
        let (cuda, at) = (self.cuda, &self.net.nodes[node]);
        let from = self.net.nodes[at.inputs[0].index()].shape;
        match &at.op {
            Op::AveragePool(window) => pool::average_pool(cuda, y, x, n, from, at.shape, *window),
            Op::AdaptivePool | Op::GlobalPool => pool::adaptive_pool(cuda, y, x, n, from, at.shape),
            Op::ClassToken(_) => {
                shape::copy(cuda, y, x, n, from.len(), images(at.shape, at.shape.c), images(from, 0))
            }
            Op::Tokens(i) => {
                shape::copy(cuda, y, x, n, at.shape.len(), images(at.shape, 0), images(from, i * from.c))
            }
            Op::Shortcut { stride } => shape::shortcut(cuda, y, x, n, from, at.shape, *stride),
            _ => copy(cuda, y, x), // reshape, positions
        }
    }
}

/// The scale and shift of a node that has them.
fn scale_shift(op: &Op) -> Option<&Affine> {
    match op {
        Op::Scale(affine) => Some(affine),
        Op::Linear(_, Epilogue { affine, .. }) | Op::Conv(_, _, Epilogue { affine, .. }) => affine.as_ref(),
        _ => None,
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

/// These of the moments for writing, and the room behind all for two sums of each of as many channels.
fn carve_moments(moments: &mut Buffer<f64>, at: Range<usize>) -> (Out<'_, f64>, Out<'_, f64>) {
    let (len, room) = (at.len(), moments.len() - at.len());
    let (before, sums) = moments.output().split_at(room);
    (before.split_at(at.start).1.split_at(len).0, sums)
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
