//! The derivative passes of a network on a CUDA device: gradients of the selected rows, and products of a curvature.
//!
//! The same walk over the same nodes as [`super::super::passes`], with what its comments say. Sums over chunks run in
//! one lane, in order. What products read of a chunk stands in the arena, or in memory of its own up to a number of
//! bytes, or is computed again. What products launch is recorded and replayed.

use super::*;
use crate::net::passes::RowValues;
use crate::net::plan::{Layout, needs_argument};
use crate::ops::cuda::vector::{self, Places};
use crate::ops::loss::{Middle, Weight};

/// One value for each selected row of each layer, as [`RowValues`], on the device.
pub(super) struct RowBuffers {
    pub weight: Vec<Buffer<f32>>,
    pub bias: Vec<Buffer<f32>>,
    pub other: Vec<Buffer<f32>>,
}

impl RowBuffers {
    pub fn upload(cuda: &Cuda, values: &RowValues) -> Result<RowBuffers> {
        let all = |of: &[Vec<f32>]| of.iter().map(|values| cuda.upload(values)).collect::<Result<_>>();
        Ok(RowBuffers { weight: all(&values.weight)?, bias: all(&values.bias)?, other: all(&values.other)? })
    }

    /// Writes the values of other rows of the same shape.
    fn write(&mut self, cuda: &Cuda, values: &RowValues) -> Result<()> {
        let buffers = self.weight.iter_mut().chain(&mut self.bias);
        let mut pairs = buffers.zip(values.weight.iter().chain(&values.bias));
        pairs.try_for_each(|(buffer, values)| cuda.write(buffer.output(), values))
    }

    fn download(&self, cuda: &Cuda) -> Result<RowValues> {
        let all = |of: &[Buffer<f32>]| of.iter().map(|buffer| cuda.download(buffer)).collect::<Result<_>>();
        Ok(RowValues { weight: all(&self.weight)?, bias: all(&self.bias)?, other: vec![] })
    }

    /// Zeros.
    pub fn clear(&mut self, passes: &Passes) -> Result<()> {
        let buffers = self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other);
        buffers.filter(|buffer| !buffer.is_empty()).try_for_each(|buffer| passes.clear(buffer.output()))
    }

    /// The values of a vector of the block, over `scale`.
    fn set(&mut self, cuda: &Cuda, v: In<'_, f64>, places: &[Option<Places>], scale: f64) -> Result<()> {
        places.iter().zip(self.weight.iter_mut().zip(&mut self.bias)).try_for_each(
            |(places, (weight, bias))| {
                let Some(places) = places else { return Ok(()) };
                let bias = Some(bias).filter(|bias| !bias.is_empty()).map(Buffer::output);
                vector::to_rows(cuda, weight.output(), bias, v, places, scale)
            },
        )
    }

    /// These values over `n`, times `scale`, as a vector of the block.
    fn get(
        &self,
        cuda: &Cuda,
        mut v: Out<'_, f64>,
        places: &[Option<Places>],
        n: usize,
        scale: f64,
    ) -> Result<()> {
        places.iter().enumerate().try_for_each(|(layer, places)| {
            let Some(places) = places else { return Ok(()) };
            let (weight, bias) = (self.weight[layer].input(), self.bias(layer));
            vector::from_rows(cuda, v.output(), weight, bias, places, n as f64, scale)
        })
    }

    /// A layer's biases, where it has any.
    fn bias(&self, layer: usize) -> Option<In<'_, f32>> {
        Some(&self.bias[layer]).filter(|bias| !bias.is_empty()).map(Buffer::input)
    }
}

/// What a backward pass leaves behind at the layers that it goes through.
pub(super) trait Sink {
    /// Takes one use of a layer: its input `x` and `dz`, the adjoint of its own output; `sums` is the arena's room.
    fn take(
        &mut self,
        passes: &Passes,
        node: usize,
        dz: In<'_, f32>,
        x: In<'_, f32>,
        sums: Out<'_, f32>,
        n: usize,
    ) -> Result<()>;

    /// The gradients of parameters that belong to no layer, by parameter; empty where they are not wanted.
    fn other(&mut self) -> &mut [Buffer<f32>] {
        &mut []
    }

    /// Two of these.
    fn two(&mut self, a: ParamId, b: ParamId) -> Option<[Out<'_, f32>; 2]> {
        let two = self.other().get_disjoint_mut([a.index(), b.index()]).ok()?;
        Some(two.map(Buffer::output))
    }
}

impl Sink for RowBuffers {
    fn take(
        &mut self,
        passes: &Passes,
        node: usize,
        dz: In<'_, f32>,
        x: In<'_, f32>,
        sums: Out<'_, f32>,
        n: usize,
    ) -> Result<()> {
        passes.weight_gradient(node, self, true, dz, x, sums, n)
    }

    fn other(&mut self) -> &mut [Buffer<f32>] {
        &mut self.other
    }
}

/// Gradients or products of a network over the same inputs, again and again.
pub(crate) struct Derivatives<'a> {
    device: &'a Device,
    passes: Passes<'a>,
    arena: Arena,
    inputs: &'a dyn Inputs,
    /// What stands in the arena: the primal part of this chunk.
    standing: Option<usize>,
    /// That of the first chunks, one for each of a length above none.
    kept: Vec<Kept>,
    /// Bytes that `kept` may have.
    memory: usize,
    /// What is summed up, and the direction of a product.
    rows: [RowBuffers; 2],
    repeats: Repeats<Again>,
}

/// What is launched again and again.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    /// The primal part of so many images, without a sum.
    Primal(usize),
    /// A product on so many images whose primal part is kept under that number, or stands in the arena.
    Product(Option<usize>, usize, Middle),
}

/// The primal part of a chunk.
struct Kept {
    y: Buffer<f32>,
    g: Buffer<f32>,
    labels: Buffer<u32>,
}

impl<'a> Derivatives<'a> {
    /// Room for derivatives with these rows selected; products keep up to `memory` bytes of their primal passes beside
    /// it.
    ///
    /// # Errors
    /// [`Error::Memory`] where not even one image at a time fits, or the device fails.
    pub fn new(
        device: &'a Device,
        cuda: &'a Cuda,
        net: &'a Network,
        rows: &[Selected],
        purpose: Purpose,
        inputs: &'a dyn Inputs,
        memory: usize,
    ) -> Result<Derivatives<'a>> {
        let (passes, arena) = open(cuda, net, rows, purpose, inputs, 0)?;
        let zeros = RowValues::zeros(net, rows);
        let rows = [RowBuffers::upload(cuda, &zeros)?, RowBuffers::upload(cuda, &zeros)?];
        Ok(Derivatives {
            device,
            passes,
            arena,
            inputs,
            standing: None,
            kept: vec![],
            memory,
            rows,
            repeats: Repeats::default(),
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.passes.plan
    }

    /// Chunks whose primal part no product computes again.
    pub fn lasting(&self) -> usize {
        if self.chunks() == 1 { 1 } else { self.kept.len() }
    }

    fn chunks(&self) -> usize {
        self.inputs.len().div_ceil(self.plan().chunk)
    }

    /// The sum of the gradients over the inputs, losses weighted where a weight is given. Keeps for later products what
    /// there is room for.
    ///
    /// # Errors
    /// Where a label is no class, or the device fails.
    pub fn gradient(&mut self, weight: Option<&Weight>) -> Result<RowValues> {
        let products = matches!(self.plan().purpose, Purpose::Linearised | Purpose::Hessian);
        self.rows[0].clear(&self.passes)?;
        for index in 0..self.chunks() {
            self.primal(index, true, weight)?;
            if products && self.chunks() > 1 && index == self.kept.len() {
                self.keep()?;
            }
        }
        self.arena.vectors.clear();
        self.rows[0].download(self.passes.cuda)
    }

    /// The sum of H v over the inputs; `middle` is the form of the loss.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product(&mut self, v: &RowValues, middle: Middle) -> Result<RowValues> {
        self.rows[1].write(self.passes.cuda, v)?;
        self.sum(middle)?;
        self.rows[0].download(self.passes.cuda)
    }

    /// hv = H v, the mean over the inputs, both `[p]` on the device; v is brought to a largest value of 1 on the way.
    /// `places` are those of each layer's selected rows in them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product_on(
        &mut self,
        hv: Out<'_, f64>,
        v: In<'_, f64>,
        places: &[Option<Places>],
        middle: Middle,
    ) -> Result<()> {
        let (cuda, mut scale) = (self.passes.cuda, [0.0]);
        let mut room = cuda.alloc(vector::parts(v.len()))?;
        vector::largest(cuda, room.output(), v)?;
        cuda.read(&mut scale, room.input().part(room.len() - 1..room.len()))?;
        let scale = f64::MIN_POSITIVE.max(scale[0]);
        self.rows[1].set(cuda, v, places, scale)?;
        self.sum(middle)?;
        self.rows[0].get(cuda, hv, places, self.inputs.len(), scale)
    }

    /// Sums up the products with what stands in the second rows in the first.
    fn sum(&mut self, middle: Middle) -> Result<()> {
        self.rows[0].clear(&self.passes)?;
        for index in 0..self.chunks() {
            if index >= self.kept.len() && self.standing != Some(index) {
                self.primal(index, false, None)?;
            }
            let n = self.range(index).len();
            let Arena { y, g, labels, work, .. } = &mut self.arena;
            let (place, y, g, labels) = match self.kept.get(index) {
                Some(kept) => (Some(index), kept.y.input(), kept.g.input(), kept.labels.input()),
                None => (None, y.input(), g.input(), labels.input()),
            };
            let [sink, v] = &mut self.rows;
            self.repeats.run(self.passes.cuda, Again::Product(place, n, middle), || {
                self.passes.product(work, sink, (y, g), labels.part(0..n), v, middle, n)
            })?;
        }
        Ok(())
    }

    fn range(&self, index: usize) -> Range<usize> {
        let chunk = self.plan().chunk;
        index * chunk..((index + 1) * chunk).min(self.inputs.len())
    }

    fn primal(&mut self, index: usize, summed: bool, weight: Option<&Weight>) -> Result<()> {
        let range = self.range(index);
        let weight = weight.map(|weight| (range.start, weight));
        self.standing = None;
        let n = self.passes.fill(self.device, &mut self.arena, self.inputs, range)?;
        match summed {
            true => self.passes.primal(&mut self.arena, Some(&mut self.rows[0]), n, weight)?,
            false => self.repeats.run(self.passes.cuda, Again::Primal(n), || {
                self.passes.primal(&mut self.arena, None, n, None)
            })?,
        }
        self.standing = Some(index);
        Ok(())
    }

    /// Keeps the primal part of the chunk that stands in the arena, if there is room.
    fn keep(&mut self) -> Result<()> {
        let (cuda, plan) = (self.passes.cuda, &self.passes.plan);
        let bytes = plan.kept_bytes() + 4 * plan.chunk;
        if (self.kept.len() + 1) * bytes > self.memory {
            return Ok(());
        }
        let room = || -> Result<Kept> {
            let (y, g) = (cuda.alloc(plan.y.kept)?, cuda.alloc(plan.g.kept)?);
            Ok(Kept { y, g, labels: cuda.alloc(plan.chunk)? })
        };
        let mut kept = match room() {
            Err(Error::Memory { .. }) => return Ok(()),
            room => room?,
        };
        copy(cuda, kept.y.output(), self.arena.y.input().part(0..plan.y.kept))?;
        if plan.g.kept > 0 {
            copy(cuda, kept.g.output(), self.arena.g.input().part(0..plan.g.kept))?;
        }
        cuda.write(kept.labels.output(), &self.arena.host.1)?;
        self.kept.push(kept);
        Ok(())
    }
}

impl Passes<'_> {
    /// The primal part of the chunk whose images stand in the arena: values, and the gradient where a sink takes it or
    /// products read its adjoints; losses are weighted where a number of the chunk's first image and a weight are
    /// given.
    pub(super) fn primal(
        &self,
        arena: &mut Arena,
        mut sink: Option<&mut RowBuffers>,
        n: usize,
        weighted: Option<(usize, &Weight)>,
    ) -> Result<()> {
        self.forward(arena, n, false)?;
        let hessian = self.plan.purpose == Purpose::Hessian;
        if sink.is_none() && !hessian {
            return Ok(());
        }
        if let Some((first, weight)) = weighted {
            let mut losses = vec![0.0; n];
            self.losses(arena, n)?;
            self.cuda.read(&mut losses, arena.losses.input().part(0..n))?;
            let factors = losses.iter_mut().enumerate();
            factors.for_each(|(i, loss)| *loss = weight(first + i, f64::from(*loss)) as f32);
            self.cuda.write(arena.losses.output().split_at(n).0, &losses)?;
        }
        let Arena { y, g, labels, losses, parts, moments, work, .. } = arena;
        let Work { h, scratch, sums, squares, .. } = work;
        let (mut adjoint, layout) =
            if hessian { (g.output(), &self.plan.g) } else { (h.output(), &self.plan.h) };
        let (y, labels) = (y.input(), labels.input().part(0..n));
        let (mut d, _) = carve(adjoint.output(), layout.value(self.end(), n));
        loss::gradient(self.cuda, d.output(), self.logits(y, n), labels)?;
        if weighted.is_some() {
            loss::weigh(self.cuda, d, losses.input().part(0..n))?;
        }
        for node in self.carrying().rev() {
            let (adjoint, sink) = (adjoint.output(), sink.as_deref_mut());
            let done = match self.net.nodes[node].op {
                Op::BatchNorm { .. } => {
                    let (moments, room) = carve_moments(moments, self.moments(node));
                    self.batch_norm_backward(
                        node,
                        adjoint,
                        sink,
                        (moments.input(), room, parts.output()),
                        y,
                        n,
                    )
                }
                _ => {
                    let room = (scratch[0].output(), sums.output(), squares.output());
                    self.backward_node(node, adjoint, sink, room, layout, y, n)
                }
            };
            done.map_err(|error| error.during(&self.name(node, "adjoint")))?;
        }
        Ok(())
    }

    /// [`Passes::backward_node`] of a batch norm, which only training has: its moments, and room for two sums and for
    /// their parts.
    fn batch_norm_backward(
        &self,
        node: usize,
        adjoint: Out<'_, f32>,
        sink: Option<&mut RowBuffers>,
        (moments, mut sums, parts): (In<'_, f64>, Out<'_, f64>, Out<'_, f64>),
        y: In<'_, f32>,
        n: usize,
    ) -> Result<()> {
        let (cuda, at, layout) = (self.cuda, &self.net.nodes[node], &self.plan.h);
        let Op::BatchNorm { gamma, beta, eps, .. } = &at.op else { return Ok(()) };
        let x = y.part(self.plan.y.value(at.inputs[0].index(), n));
        let dy = adjoint.input().part(layout.value(node, n));
        let (parts, _) = parts.split_at(batch_norm::parts(n * at.shape.positions(), at.shape.c));
        batch_norm::sums(cuda, sums.output(), parts, dy, x, moments, *eps)?;
        if let Some([dgamma, dbeta]) = sink.and_then(|sink| sink.two(*gamma, *beta)) {
            batch_norm::add_gradient(cuda, dbeta, sums.input().part(0..at.shape.c))?;
            batch_norm::add_gradient(cuda, dgamma, sums.input().part(at.shape.c..2 * at.shape.c))?;
        }
        self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
            batch_norm::backward(cuda, dx, dy, x, moments, sums.input(), self.param(*gamma), *eps)
        })
    }

    /// Adds one chunk's (sum of) H v to `sink`, on a primal that stands in `y` and `g`.
    fn product(
        &self,
        work: &mut Work,
        sink: &mut RowBuffers,
        (y, g): (In<'_, f32>, In<'_, f32>),
        labels: In<'_, u32>,
        v: &RowBuffers,
        middle: Middle,
        n: usize,
    ) -> Result<()> {
        let Work { t, h, scratch, sums, squares } = work;
        for node in self.carrying() {
            self.tangent_node(node, t.output(), y, v, n)
                .map_err(|error| error.during(&self.name(node, "tangent")))?;
        }
        let moved = t.input().part(self.plan.t.value(self.end(), n));
        let (back, _) = carve(h.output(), self.plan.h.value(self.end(), n));
        match middle {
            Middle::Curvature => loss::curvature(self.cuda, back, moved, self.logits(y, n), n)?,
            Middle::Fisher => loss::fisher(self.cuda, back, moved, self.logits(y, n), labels)?,
        }
        let hessian = self.plan.purpose == Purpose::Hessian;
        for node in self.carrying().rev() {
            let [first, second] = scratch.each_mut().map(Buffer::output);
            let (sums, squares) = (sums.output(), squares.output());
            let done = match hessian {
                true => self.tangent_backward_node(
                    node,
                    h.output(),
                    sink,
                    ([first, second], sums, squares),
                    g,
                    t.input(),
                    y,
                    v,
                    n,
                ),
                false => {
                    let room = (first, sums, squares);
                    self.backward_node(node, h.output(), Some(sink), room, &self.plan.h, y, n)
                }
            };
            done.map_err(|error| error.during(&self.name(node, "adjoint's tangent")))?;
        }
        Ok(())
    }

    /// The derivative of one node's value along `v`.
    fn tangent_node(
        &self,
        node: usize,
        t: Out<'_, f32>,
        y: In<'_, f32>,
        v: &RowBuffers,
        n: usize,
    ) -> Result<()> {
        let (cuda, at) = (self.cuda, &self.net.nodes[node]);
        let (layout, values) = (&self.plan.t, &self.plan.y);
        let (whole, rest) = carve(t, layout.whole(node));
        let (value, saved) = (layout.value(node, n), layout.saved(node, n));
        let (tangent, other) = whole.split_at(saved.start - value.start);
        let (mut tangent, saved) = (tangent.split_at(value.len()).0, other.split_at(saved.len()).0);
        let input = |i: usize| {
            let input = at.inputs.get(i)?.index();
            self.plan.carries[input].then(|| rest.get(layout.value(input, n)))
        };
        let primal = |i: usize| y.part(values.value(at.inputs[i].index(), n));
        let primal_saved = || y.part(values.saved(node, n));
        match (&at.op, input(0)) {
            (Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue), x) => {
                let g = self.pass().geometry(node);
                match x {
                    Some(x) => {
                        let weight = self.param(self.net.layer(*layer).weight);
                        conv::apply(cuda, tangent.output(), x, weight, None, None, n, &g, false)?;
                    }
                    None => self.clear(tangent.output())?,
                }
                if self.plan.rows[layer.index()] != Selected::None {
                    let (weight, bias) = (v.weight[layer.index()].input(), v.bias(layer.index()));
                    let rows = self.subset(layer.index());
                    conv::apply(cuda, tangent.output(), primal(0), weight, bias, rows, n, &g, true)?;
                }
                if let Some([scale, _]) = &self.affine[node] {
                    pointwise::scale_in_place(cuda, tangent.output(), scale.input())?;
                }
                if let Some(residual) = input(1) {
                    pointwise::add(cuda, tangent.output(), residual)?;
                }
                let Some(kind) = epilogue.activation else { return Ok(()) };
                if !saved.is_empty() {
                    copy(cuda, saved, tangent.input())?;
                }
                activation::backward_in_place(cuda, tangent, self.argument(node, y, n), kind)
            }
            (Op::Activation(kind), Some(x)) => activation::backward(cuda, tangent, x, primal(0), *kind),
            (Op::LayerNorm { gamma, .. }, Some(x)) => {
                layer_norm::tangent(cuda, tangent, x, primal(0), primal_saved(), self.param(*gamma))
            }
            (Op::MaxPool(_), Some(x)) => {
                let from = self.net.nodes[at.inputs[0].index()].shape;
                pool::max_pool_tangent(cuda, tangent, primal_saved().bits(), x, n, from, at.shape)
            }
            (Op::Attention { heads }, Some(x)) => {
                attention::tangent(cuda, tangent, x, primal(0), primal_saved(), n, at.shape, *heads)
            }
            (Op::Add, first) => {
                match first {
                    Some(x) => copy(cuda, tangent.output(), x)?,
                    None => self.clear(tangent.output())?,
                }
                input(1).map_or(Ok(()), |x| pointwise::add(cuda, tangent, x))
            }
            (Op::Concat, _) => {
                self.clear(tangent.output())?;
                self.pass().channels_of(node).try_for_each(|(i, first, c)| {
                    let (to, from) = (Rows { first, apart: at.shape.c }, Rows { first: 0, apart: c });
                    let Some(x) = input(i) else { return Ok(()) };
                    shape::copy(cuda, tangent.output(), x, n * at.shape.positions(), c, to, from)
                })
            }
            (Op::Scale(_), Some(x)) => match &self.affine[node] {
                Some([scale, _]) => pointwise::scale(cuda, tangent, x, scale.input()),
                None => Ok(()),
            },
            (Op::ClassToken(_), Some(x)) => {
                self.clear(tangent.output())?;
                self.linear_map(node, tangent, x, n)
            }
            (_, Some(x)) => self.linear_map(node, tangent, x, n),
            (_, None) => Ok(()),
        }
    }

    /// Adds to the adjoints of one node's inputs, and to the gradients of its selected rows. `room` is for the adjoint
    /// at a layer's own output, its gradient's sums, and the squares of an attention.
    pub(super) fn backward_node<S: Sink>(
        &self,
        node: usize,
        mut adjoint: Out<'_, f32>,
        sink: Option<&mut S>,
        (scratch, sums, squares): (Out<'_, f32>, Out<'_, f32>, Out<'_, f32>),
        layout: &Layout,
        y: In<'_, f32>,
        n: usize,
    ) -> Result<()> {
        let (cuda, at) = (self.cuda, &self.net.nodes[node]);
        let values = &self.plan.y;
        let primal = |i: usize| y.part(values.value(at.inputs[i].index(), n));
        let saved = || y.part(values.saved(node, n));
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let (mut dz, _) = scratch.split_at(n * at.shape.len());
                let dy = adjoint.input().part(layout.value(node, n));
                match epilogue.activation {
                    Some(kind) => {
                        activation::backward(cuda, dz.output(), dy, self.argument(node, y, n), kind)?
                    }
                    None => copy(cuda, dz.output(), dy)?,
                }
                if at.inputs.len() > 1 {
                    self.add_to_input(node, 1, adjoint.output(), layout, n, |dr, _| {
                        pointwise::add(cuda, dr, dz.input())
                    })?;
                }
                if let Some([scale, _]) = &self.affine[node] {
                    pointwise::scale_in_place(cuda, dz.output(), scale.input())?;
                }
                if let Some(sink) = sink {
                    sink.take(self, node, dz.input(), primal(0), sums, n)?;
                }
                let (g, weight) = (self.pass().geometry(node), self.param(self.net.layer(*layer).weight));
                self.add_to_input(node, 0, adjoint, layout, n, |dx, _| {
                    conv::data_gradient(cuda, dx, dz.input(), weight, None, n, &g, true)
                })
            }
            Op::Activation(kind) => self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                activation::add_backward(cuda, dx, dy, primal(0), *kind)
            }),
            Op::LayerNorm { gamma, beta, .. } => {
                if let Some([dgamma, dbeta]) = sink.and_then(|sink| sink.two(*gamma, *beta)) {
                    let count = layer_norm::gradient_parts(n * at.shape.positions(), at.shape.c);
                    let (parts, dy) = (sums.split_at(count).0, adjoint.input().part(layout.value(node, n)));
                    layer_norm::parameter_gradient(cuda, dgamma, dbeta, parts, dy, primal(0), saved())?;
                }
                self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                    layer_norm::backward(cuda, dx, dy, primal(0), saved(), self.param(*gamma))
                })
            }
            Op::ClassToken(param) | Op::Positions(param) => {
                if let Some(gradient) = sink.and_then(|sink| sink.other().get_mut(param.index())) {
                    let dy = adjoint.input().part(layout.value(node, n));
                    shape::add_sum(cuda, gradient.output(), dy, n, images(at.shape, 0))?;
                }
                self.linear_backward(node, adjoint, layout, y, n)
            }
            Op::Attention { heads } => self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                let (room, _) = squares.split_at(saved().len());
                attention::backward(cuda, dx, room, dy, primal(0), saved(), n, at.shape, *heads)
            }),
            _ => self.linear_backward(node, adjoint, layout, y, n),
        }
    }

    /// The derivative along `v` of [`Passes::backward_node`]: `h` holds the derivatives of the adjoints that `g` kept.
    fn tangent_backward_node(
        &self,
        node: usize,
        mut h: Out<'_, f32>,
        sink: &mut RowBuffers,
        (scratch, mut sums, squares): ([Out<'_, f32>; 2], Out<'_, f32>, Out<'_, f32>),
        g: In<'_, f32>,
        t: In<'_, f32>,
        y: In<'_, f32>,
        v: &RowBuffers,
        n: usize,
    ) -> Result<()> {
        let (cuda, at) = (self.cuda, &self.net.nodes[node]);
        let (values, layout) = (&self.plan.y, &self.plan.h);
        let primal = |i: usize| y.part(values.value(at.inputs[i].index(), n));
        let saved = || y.part(values.saved(node, n));
        let tangent = |i: usize| t.part(self.plan.t.value(at.inputs[i].index(), n));
        let dy = g.part(self.plan.g.value(node, n));
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let len = n * at.shape.len();
                let [mut dz, mut dzt] = scratch.map(|room| room.split_at(len).0); // δ and δ'
                copy(cuda, dz.output(), dy)?;
                copy(cuda, dzt.output(), h.input().part(layout.value(node, n)))?;
                if let Some(kind) = epilogue.activation {
                    // That of a ReLU is its own, but nothing is added: its second derivative is 0.
                    let argument = self.argument(node, y, n);
                    if needs_argument(Some(kind)) {
                        let moved = t.part(self.plan.t.saved(node, n));
                        activation::tangent_backward(cuda, dzt.output(), dz.output(), moved, argument, kind)?;
                    } else {
                        activation::backward_in_place(cuda, dzt.output(), argument, kind)?;
                        activation::backward_in_place(cuda, dz.output(), argument, kind)?;
                    }
                }
                if at.inputs.len() > 1 {
                    self.add_to_input(node, 1, h.output(), layout, n, |dr, _| {
                        pointwise::add(cuda, dr, dzt.input())
                    })?;
                }
                if let Some([scale, _]) = &self.affine[node] {
                    pointwise::scale_in_place(cuda, dz.output(), scale.input())?;
                    pointwise::scale_in_place(cuda, dzt.output(), scale.input())?;
                }
                self.weight_gradient(node, sink, true, dzt.input(), primal(0), sums.output(), n)?;
                if self.plan.carries[at.inputs[0].index()] {
                    self.weight_gradient(node, sink, false, dz.input(), tangent(0), sums, n)?;
                }
                let (geometry, weight) =
                    (self.pass().geometry(node), self.param(self.net.layer(*layer).weight));
                self.add_to_input(node, 0, h, layout, n, |mut dx, _| {
                    conv::data_gradient(cuda, dx.output(), dzt.input(), weight, None, n, &geometry, true)?;
                    if self.plan.rows[layer.index()] == Selected::None {
                        return Ok(());
                    }
                    let (weight, rows) = (v.weight[layer.index()].input(), self.subset(layer.index()));
                    conv::data_gradient(cuda, dx, dz.input(), weight, rows, n, &geometry, true)
                })
            }
            Op::Activation(kind) => self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                activation::add_tangent_backward(cuda, dx, dyt, dy, tangent(0), primal(0), *kind)
            }),
            Op::LayerNorm { gamma, .. } => self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                let (x, tx, gamma) = (primal(0), tangent(0), self.param(*gamma));
                layer_norm::tangent_backward(cuda, dx, dyt, dy, tx, x, saved(), gamma)
            }),
            Op::Attention { heads } => self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                let (room, _) = squares.split_at(3 * saved().len());
                let (x, tx) = (primal(0), tangent(0));
                attention::tangent_backward(cuda, dx, room, dyt, dy, tx, x, saved(), n, at.shape, *heads)
            }),
            _ => self.linear_backward(node, h, layout, y, n),
        }
    }

    /// Adds to the gradients of a layer's selected rows, if any are, from one use of it; to those of its biases where
    /// `biased`.
    fn weight_gradient(
        &self,
        node: usize,
        sink: &mut RowBuffers,
        biased: bool,
        dz: In<'_, f32>,
        x: In<'_, f32>,
        sums: Out<'_, f32>,
        n: usize,
    ) -> Result<()> {
        let Some(layer) = self.net.nodes[node].op.layer().map(|layer| layer.index()) else { return Ok(()) };
        let count = self.plan.rows[layer].count(self.net.layers[layer].outputs);
        if count == 0 {
            return Ok(());
        }
        let geometry = self.pass().geometry(node);
        let (sums, _) = sums.split_at(conv::gradient_parts(n, count, &geometry));
        let bias = Some(&mut sink.bias[layer]).filter(|bias| biased && !bias.is_empty()).map(Buffer::output);
        let weight = sink.weight[layer].output();
        conv::weight_gradient(self.cuda, weight, bias, sums, dz, x, self.subset(layer), n, &geometry)
    }

    /// The adjoint of [`Passes::linear_map`], of a sum, of a frozen scale and of a max pool, all linear on a fixed
    /// primal.
    fn linear_backward(
        &self,
        node: usize,
        mut adjoint: Out<'_, f32>,
        layout: &Layout,
        y: In<'_, f32>,
        n: usize,
    ) -> Result<()> {
        let (cuda, at) = (self.cuda, &self.net.nodes[node]);
        if at.inputs.is_empty() {
            return Ok(());
        }
        if at.op == Op::Concat {
            let parts: Vec<_> = self.pass().channels_of(node).collect();
            return parts.into_iter().rev().try_for_each(|(i, first, c)| {
                self.add_to_input(node, i, adjoint.output(), layout, n, |dx, dy| {
                    let (to, from) = (Rows { first: 0, apart: c }, Rows { first, apart: at.shape.c });
                    shape::add(cuda, dx, dy, n * at.shape.positions(), c, to, from)
                })
            });
        }
        let from = self.net.nodes[at.inputs[0].index()].shape;
        if at.inputs.len() > 1 {
            self.add_to_input(node, 1, adjoint.output(), layout, n, |dx, dy| pointwise::add(cuda, dx, dy))?;
        }
        self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| match &at.op {
            Op::AveragePool(window) => pool::average_pool_backward(cuda, dx, dy, n, from, at.shape, *window),
            Op::AdaptivePool | Op::GlobalPool => {
                pool::adaptive_pool_backward(cuda, dx, dy, n, from, at.shape)
            }
            Op::MaxPool(window) => {
                let winners = y.part(self.plan.y.saved(node, n)).bits();
                pool::max_pool_backward(cuda, dx, winners, dy, n, from, at.shape, *window)
            }
            Op::ClassToken(_) => {
                shape::add(cuda, dx, dy, n, from.len(), images(from, 0), images(at.shape, at.shape.c))
            }
            Op::Tokens(i) => {
                let to = images(from, i * from.c);
                shape::add(cuda, dx, dy, n, at.shape.len(), to, images(at.shape, 0))
            }
            Op::Shortcut { stride } => shape::shortcut_backward(cuda, dx, dy, n, from, at.shape, *stride),
            Op::Scale(_) => match &self.affine[node] {
                Some([scale, _]) => pointwise::add_scaled(cuda, dx, dy, scale.input()),
                None => Ok(()),
            },
            _ => pointwise::add(cuda, dx, dy), // reshape, positions, sum
        })
    }

    /// Lets `write(dx, dy)` add to the adjoint of input `i`, if that carries; the first to add finds zeros.
    fn add_to_input(
        &self,
        node: usize,
        i: usize,
        adjoint: Out<'_, f32>,
        layout: &Layout,
        n: usize,
        write: impl FnOnce(Out<'_, f32>, In<'_, f32>) -> Result<()>,
    ) -> Result<()> {
        if !self.plan.carries[self.net.nodes[node].inputs[i].index()] {
            return Ok(());
        }
        let (mut dx, rest) = carve(adjoint, layout.value(self.net.nodes[node].inputs[i].index(), n));
        if self.pass().adds_first(node, i) {
            self.clear(dx.output())?;
        }
        write(dx, rest.get(layout.value(node, n)))
    }

    /// What an epilogue's activation derivative is read off: its argument, or for ReLU its value.
    fn argument<'b>(&self, node: usize, y: In<'b, f32>, n: usize) -> In<'b, f32> {
        match self.net.nodes[node].op.epilogue() {
            Some(epilogue) if needs_argument(epilogue.activation) => y.part(self.plan.y.saved(node, n)),
            _ => y.part(self.plan.y.value(node, n)),
        }
    }

    /// The selected rows of a layer as operations take them: none means all.
    pub(super) fn subset(&self, layer: usize) -> Option<In<'_, u32>> {
        self.rows[layer].as_ref().map(Buffer::input)
    }

    pub(super) fn carrying(&self) -> impl DoubleEndedIterator<Item = usize> {
        (1..=self.end()).filter(|&node| self.plan.carries[node])
    }

    pub(super) fn end(&self) -> usize {
        self.net.nodes.len() - 1
    }
}
