//! The four passes of every node over one chunk of images: forward, backward (adjoint), tangent (derivative along v)
//! and tangent backward (derivative along v of the adjoint, hence Hv; MATH.md, Eq. 7).
//!
//! An affine layer's passes are calls of the three bilinear primitives of [`crate::ops::conv`]:
//! z = Wx + b; z' = Wx' + Vx; δx = Wᵀδ; δx' = Wᵀδ' + Vᵀδ; dW = δᵀx; dW' = δ'ᵀx + δᵀx'. Its epilogue
//! y = act(scale·z + shift + r) is part of the node in all four. Linear nodes without units pass values, tangents and
//! adjoints through the same two maps; only activation, layer norm, attention, max pool and loss have tangent forms.

use std::ops::Range;

use super::plan::{Layout, Plan, Rows, needs_argument};
use super::{Affine, Epilogue, Network, Op, Shape};
use crate::Result;
use crate::data::{Inputs, check_labels};
use crate::ops::conv::{self, Geometry};
use crate::ops::{activation, attention, layer_norm, loss, pool, shape};

/// One value for each selected row of each layer: a direction v, or a gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RowValues {
    /// Per layer `[rows, fan_in]`; empty where no row is selected.
    pub weight: Vec<Vec<f32>>,
    /// Per layer `[rows]`; empty where the layer has no bias.
    pub bias: Vec<Vec<f32>>,
    /// In training, per parameter that belongs to no layer; else empty.
    pub other: Vec<Vec<f32>>,
}

impl RowValues {
    /// Zeros for the rows of a plan.
    pub fn zeros(net: &Network, rows: &[Rows]) -> RowValues {
        let count = |l: usize| rows[l].count(net.layers[l].outputs);
        let each = |len: &dyn Fn(usize) -> usize| (0..net.layers.len()).map(|l| vec![0.0; len(l)]).collect();
        RowValues {
            weight: each(&|l| count(l) * net.layers[l].fan_in),
            bias: each(&|l| if net.layers[l].bias.is_some() { count(l) } else { 0 }),
            other: vec![],
        }
    }

    /// Sets everything to zero.
    pub fn clear(&mut self) {
        self.all().for_each(|values| values.fill(0.0));
    }

    /// Adds `other`'s values.
    pub fn add(&mut self, other: &RowValues) {
        let theirs = other.weight.iter().chain(&other.bias).chain(&other.other);
        for (mine, theirs) in self.all().zip(theirs) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.other)
    }
}

/// What a backward pass leaves behind at the nodes that it goes through.
pub(crate) trait Sink {
    /// Takes one use of a layer: its input `x` and `dz` `[n, positions, o]`, the adjoint of its own output.
    fn take(&mut self, pass: &Pass, node: usize, dz: &[f32], x: &[f32], n: usize);

    /// In training, the gradients of the parameters that belong to no layer; else empty.
    fn other(&mut self) -> &mut [Vec<f32>] {
        &mut []
    }
}

/// Gradients of the selected rows.
impl Sink for RowValues {
    fn take(&mut self, pass: &Pass, node: usize, dz: &[f32], x: &[f32], n: usize) {
        let Some(layer) = pass.net.nodes[node].op.layer() else { return };
        let rows = &pass.plan.rows[layer.index()];
        if *rows != Rows::None {
            let bias = &mut self.bias[layer.index()];
            let bias = (!bias.is_empty()).then_some(bias.as_mut_slice());
            let weight = &mut self.weight[layer.index()];
            conv::weight_gradient(weight, bias, dz, x, rows.subset(), n, &pass.geometry(node));
        }
    }

    fn other(&mut self) -> &mut [Vec<f32>] {
        &mut self.other
    }
}

/// What one worker computes in; sized by the plan, filled anew for every chunk.
pub(crate) struct Arena {
    /// Values, with what the backward passes need.
    pub y: Vec<f32>,
    /// Tangents.
    pub t: Vec<f32>,
    /// Adjoints that a Hessian keeps.
    pub g: Vec<f32>,
    /// Adjoints of the pass that is running.
    pub h: Vec<f32>,
    /// Labels of the chunk.
    pub labels: Vec<u32>,
    /// For the adjoint at a layer's own output, and its tangent.
    pub scratch: [Vec<f32>; 2],
}

impl Arena {
    /// An arena for `plan`.
    pub fn new(plan: &Plan) -> Arena {
        let zeros = |len: usize| vec![0.0; len];
        Arena {
            y: zeros(plan.y.len),
            t: zeros(plan.t.len),
            g: zeros(plan.g.len),
            h: zeros(plan.h.len),
            labels: vec![0; plan.chunk],
            scratch: [zeros(plan.scratch), zeros(plan.scratch)],
        }
    }
}

/// One span cut out of an arena for writing; the rest can still be read.
struct Rest<'a> {
    before: &'a [f32],
    after: &'a [f32],
    cut: Range<usize>,
}

fn carve(arena: &mut [f32], cut: Range<usize>) -> (&mut [f32], Rest<'_>) {
    let (before, tail) = arena.split_at_mut(cut.start);
    let (span, after) = tail.split_at_mut(cut.len());
    (span, Rest { before, after, cut })
}

impl<'a> Rest<'a> {
    fn get(&self, span: Range<usize>) -> &'a [f32] {
        match span.start >= self.cut.end {
            true => &self.after[span.start - self.cut.end..span.end - self.cut.end],
            false => &self.before[span],
        }
    }
}

/// The passes of a network under a plan.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// The network, frozen (or in train form, where [`super::train`] runs the batch norms).
    pub net: &'a Network,
    /// Its plan.
    pub plan: &'a Plan,
}

impl<'a> Pass<'a> {
    /// Reads a chunk's images and labels into the arena; returns how many there are.
    ///
    /// # Errors
    /// Where a label is no class of the network.
    pub fn fill(&self, arena: &mut Arena, inputs: &dyn Inputs, range: Range<usize>) -> Result<usize> {
        let (n, first) = (range.len(), range.start);
        inputs.fill(&mut arena.y[self.plan.y.value(0, n)], &mut arena.labels[..n], range);
        check_labels(&arena.labels[..n], first, self.net.classes())?;
        Ok(n)
    }

    /// The logits of a chunk, `[n, classes]`.
    pub fn logits<'b>(&self, y: &'b [f32], n: usize) -> &'b [f32] {
        &y[self.plan.y.value(self.end(), n)]
    }

    /// All values of a chunk of `n` images; with `trace` `[n, d]`, every unit's activation too.
    pub fn forward(&self, y: &mut [f32], n: usize, mut trace: Option<&mut [f32]>) {
        if let Some(trace) = &mut trace {
            trace.fill(0.0);
        }
        for node in 1..=self.end() {
            self.forward_node(node, y, n, trace.as_deref_mut());
        }
    }

    /// One node's value.
    pub fn forward_node(&self, node: usize, y: &mut [f32], n: usize, trace: Option<&mut [f32]>) {
        let at = &self.net.nodes[node];
        let layout = &self.plan.y;
        let (whole, rest) = carve(y, layout.whole(node));
        let (value, saved) = layout.split(whole, node, n);
        let input = |i: usize| rest.get(layout.value(at.inputs[i].index(), n));
        let x = input(0);
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                conv::apply(
                    value,
                    x,
                    self.net.weight(*layer),
                    self.net.bias(*layer),
                    None,
                    n,
                    &self.geometry(node),
                    false,
                );
                if let Some(trace) = trace {
                    let uses = self.net.nodes.iter().filter(|other| other.op.layer() == Some(*layer)).count();
                    let (columns, d) = (self.net.units().of_layer(*layer), self.net.units().len());
                    add_means(trace, value, n, at.shape, columns, d, uses);
                }
                if let Some(affine) = &epilogue.affine {
                    scale_shift(value, affine);
                }
                if epilogue.residual {
                    add(value, input(1));
                }
                if let Some(kind) = epilogue.activation {
                    if needs_argument(Some(kind)) && !saved.is_empty() {
                        saved.copy_from_slice(value);
                    }
                    activation::forward(value, kind);
                }
            }
            Op::Activation(kind) => {
                value.copy_from_slice(x);
                activation::forward(value, *kind);
            }
            Op::LayerNorm { gamma, beta, eps } => {
                layer_norm::forward(value, saved, x, self.net.value(*gamma), self.net.value(*beta), *eps);
            }
            Op::MaxPool(window) => {
                pool::max_pool(
                    value,
                    bytemuck::cast_slice_mut(saved),
                    x,
                    n,
                    self.shape_of(node, 0),
                    at.shape,
                    *window,
                );
            }
            Op::Attention { heads } => attention::forward(value, saved, x, n, at.shape, *heads, None),
            Op::Add => {
                value.copy_from_slice(x);
                add(value, input(1));
            }
            Op::Concat => self.channels_of(node).for_each(|(i, first, c)| {
                shape::join(value, input(i), first, c, at.shape);
            }),
            Op::ClassToken(token) => {
                self.linear_map(node, value, x, n);
                let token = self.net.value(*token);
                value
                    .chunks_exact_mut(at.shape.len())
                    .for_each(|image| image[..token.len()].copy_from_slice(token));
            }
            Op::Positions(table) => {
                value.copy_from_slice(x);
                let table = self.net.value(*table);
                value.chunks_exact_mut(at.shape.len()).for_each(|image| add(image, table));
            }
            Op::Scale(affine) => {
                value.copy_from_slice(x);
                scale_shift(value, affine);
            }
            _ => self.linear_map(node, value, x, n),
        }
    }

    /// The derivative of one node's value along `v`.
    pub fn tangent_node(&self, node: usize, t: &mut [f32], y: &[f32], v: &RowValues, n: usize) {
        let at = &self.net.nodes[node];
        let (layout, values) = (&self.plan.t, &self.plan.y);
        let (whole, rest) = carve(t, layout.whole(node));
        let (tangent, saved) = layout.split(whole, node, n);
        let input = |i: usize| {
            let input = at.inputs.get(i)?.index();
            self.plan.carries[input].then(|| rest.get(layout.value(input, n)))
        };
        let primal = |i: usize| &y[values.value(at.inputs[i].index(), n)];
        match (&at.op, input(0)) {
            (Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue), x) => {
                let g = self.geometry(node);
                match x {
                    Some(x) => conv::apply(tangent, x, self.net.weight(*layer), None, None, n, &g, false),
                    None => tangent.fill(0.0),
                }
                let rows = &self.plan.rows[layer.index()];
                if *rows != Rows::None {
                    let (weight, bias) = (&v.weight[layer.index()], &v.bias[layer.index()]);
                    let bias = (!bias.is_empty()).then_some(bias.as_slice());
                    conv::apply(tangent, primal(0), weight, bias, rows.subset(), n, &g, true);
                }
                if let Some(affine) = &epilogue.affine {
                    scale(tangent, &affine.scale);
                }
                if let Some(residual) = input(1) {
                    add(tangent, residual);
                }
                if let Some(kind) = epilogue.activation {
                    if !saved.is_empty() {
                        saved.copy_from_slice(tangent);
                    }
                    activation::backward(tangent, self.argument(node, y, n), kind);
                }
            }
            (Op::Activation(kind), Some(x)) => {
                tangent.copy_from_slice(x);
                activation::backward(tangent, primal(0), *kind);
            }
            (Op::LayerNorm { gamma, .. }, Some(x)) => {
                let saved = &y[values.saved(node, n)];
                layer_norm::tangent(tangent, x, primal(0), saved, self.net.value(*gamma));
            }
            (Op::MaxPool(_), Some(x)) => {
                let winners = bytemuck::cast_slice(&y[values.saved(node, n)]);
                pool::gather(tangent, winners, x, n, self.shape_of(node, 0), at.shape);
            }
            (Op::Attention { heads }, Some(x)) => {
                let saved = &y[values.saved(node, n)];
                attention::tangent(tangent, x, primal(0), saved, n, at.shape, *heads);
            }
            (Op::Add, first) => {
                match first {
                    Some(x) => tangent.copy_from_slice(x),
                    None => tangent.fill(0.0),
                }
                if let Some(x) = input(1) {
                    add(tangent, x);
                }
            }
            (Op::Concat, _) => {
                tangent.fill(0.0);
                for (i, first, c) in self.channels_of(node) {
                    if let Some(x) = input(i) {
                        shape::join(tangent, x, first, c, at.shape);
                    }
                }
            }
            (Op::Scale(affine), Some(x)) => {
                tangent.copy_from_slice(x);
                scale(tangent, &affine.scale);
            }
            (_, Some(x)) => self.linear_map(node, tangent, x, n),
            (_, None) => {}
        }
    }

    /// Adds to the adjoints of one node's inputs, and to the gradients of its selected rows. `layout` says where
    /// `adjoint` keeps what: [`Plan::g`] or [`Plan::h`].
    pub fn backward_node(
        &self,
        node: usize,
        adjoint: &mut [f32],
        sink: &mut impl Sink,
        scratch: &mut [f32],
        layout: &Layout,
        y: &[f32],
        n: usize,
    ) {
        let at = &self.net.nodes[node];
        let values = &self.plan.y;
        let primal = |i: usize| &y[values.value(at.inputs[i].index(), n)];
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let dz = &mut scratch[..n * at.shape.len()];
                dz.copy_from_slice(&adjoint[layout.value(node, n)]);
                if let Some(kind) = epilogue.activation {
                    activation::backward(dz, self.argument(node, y, n), kind);
                }
                if at.inputs.len() > 1 {
                    self.add_to_input(node, 1, adjoint, layout, n, |dr, _| add(dr, dz));
                }
                if let Some(affine) = &epilogue.affine {
                    scale(dz, &affine.scale);
                }
                let g = self.geometry(node);
                sink.take(self, node, dz, primal(0), n);
                let weight = self.net.weight(*layer);
                self.add_to_input(node, 0, adjoint, layout, n, |dx, _| {
                    conv::data_gradient(dx, dz, weight, None, n, &g, true)
                });
            }
            Op::Activation(kind) => {
                self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                    activation::add_backward(dx, dy, primal(0), *kind)
                });
            }
            Op::LayerNorm { gamma, beta, .. } => {
                let saved = &y[values.saved(node, n)];
                if !sink.other().is_empty() {
                    let dy = &adjoint[layout.value(node, n)];
                    let [mut dgamma, mut dbeta] =
                        [gamma, beta].map(|p| std::mem::take(&mut sink.other()[p.index()]));
                    layer_norm::parameter_gradient(&mut dgamma, &mut dbeta, dy, primal(0), saved);
                    sink.other()[gamma.index()] = dgamma;
                    sink.other()[beta.index()] = dbeta;
                }
                let gamma = self.net.value(*gamma);
                self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                    layer_norm::backward(dx, dy, primal(0), saved, gamma)
                });
            }
            Op::Attention { heads } => {
                let saved = &y[values.saved(node, n)];
                self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| {
                    attention::backward(dx, dy, primal(0), saved, n, at.shape, *heads);
                });
            }
            Op::ClassToken(token) | Op::Positions(token) if !sink.other().is_empty() => {
                let d = &mut sink.other()[token.index()];
                let dy = &adjoint[layout.value(node, n)];
                dy.chunks_exact(at.shape.len()).for_each(|image| add(d, image));
                self.linear_backward(node, adjoint, layout, y, n);
            }
            _ => self.linear_backward(node, adjoint, layout, y, n),
        }
    }

    /// The derivative along `v` of [`Pass::backward_node`]: `h` holds the derivatives of the adjoints that `g` kept.
    pub fn tangent_backward_node(
        &self,
        node: usize,
        h: &mut [f32],
        sink: &mut RowValues,
        scratch: &mut [Vec<f32>; 2],
        g: &[f32],
        t: &[f32],
        y: &[f32],
        v: &RowValues,
        n: usize,
    ) {
        let at = &self.net.nodes[node];
        let (values, layout) = (&self.plan.y, &self.plan.h);
        let primal = |i: usize| &y[values.value(at.inputs[i].index(), n)];
        let carries = |i: usize| self.plan.carries[at.inputs[i].index()];
        let tangent = |i: usize| &t[self.plan.t.value(at.inputs[i].index(), n)];
        let dy = &g[self.plan.g.value(node, n)];
        match &at.op {
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                let [first, second] = scratch;
                let len = n * at.shape.len();
                let (dz, dzt) = (&mut first[..len], &mut second[..len]); // δ and δ'
                dz.copy_from_slice(dy);
                dzt.copy_from_slice(&h[layout.value(node, n)]);
                if let Some(kind) = epilogue.activation {
                    let argument = self.argument(node, y, n);
                    let moved = &t[self.plan.t.saved(node, n)];
                    activation::tangent_backward(dzt, dz, moved, argument, kind);
                }
                if at.inputs.len() > 1 {
                    self.add_to_input(node, 1, h, layout, n, |dr, _| add(dr, dzt));
                }
                if let Some(affine) = &epilogue.affine {
                    scale(dz, &affine.scale);
                    scale(dzt, &affine.scale);
                }
                let geometry = self.geometry(node);
                let rows = &self.plan.rows[layer.index()];
                sink.take(self, node, dzt, primal(0), n);
                if *rows != Rows::None && carries(0) {
                    let weight = &mut sink.weight[layer.index()];
                    conv::weight_gradient(weight, None, dz, tangent(0), rows.subset(), n, &geometry);
                }
                let weight = self.net.weight(*layer);
                self.add_to_input(node, 0, h, layout, n, |dx, _| {
                    conv::data_gradient(dx, dzt, weight, None, n, &geometry, true);
                    if *rows != Rows::None {
                        conv::data_gradient(
                            dx,
                            dz,
                            &v.weight[layer.index()],
                            rows.subset(),
                            n,
                            &geometry,
                            true,
                        );
                    }
                });
            }
            Op::Activation(kind) => {
                let (x, tx) = (primal(0), tangent(0));
                self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                    activation::add_tangent_backward(dx, dyt, dy, tx, x, *kind)
                });
            }
            Op::LayerNorm { gamma, .. } => {
                let (x, tx, saved) = (primal(0), tangent(0), &y[values.saved(node, n)]);
                let gamma = self.net.value(*gamma);
                self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                    layer_norm::tangent_backward(dx, dyt, dy, tx, x, saved, gamma);
                });
            }
            Op::Attention { heads } => {
                let (x, tx, saved) = (primal(0), tangent(0), &y[values.saved(node, n)]);
                self.add_to_input(node, 0, h, layout, n, |dx, dyt| {
                    attention::tangent_backward(dx, dyt, dy, tx, x, saved, n, at.shape, *heads);
                });
            }
            _ => self.linear_backward(node, h, layout, y, n),
        }
    }

    /// The sum of the gradients at the logits of `n` images, p − onehot(label), written to the adjoint of the logits.
    pub fn loss_gradient(&self, adjoint: &mut [f32], layout: &Layout, y: &[f32], labels: &[u32], n: usize) {
        let dz = &mut adjoint[layout.value(self.end(), n)];
        loss::gradient(dz, self.logits(y, n), &labels[..n], self.net.classes());
    }

    /// Every carrying node's part of the backward pass, from the logits down.
    pub fn backward(
        &self,
        adjoint: &mut [f32],
        sink: &mut impl Sink,
        scratch: &mut [f32],
        layout: &Layout,
        y: &[f32],
        n: usize,
    ) {
        for node in (1..=self.end()).rev().filter(|&node| self.plan.carries[node]) {
            self.backward_node(node, adjoint, sink, scratch, layout, y, n);
        }
    }

    /// The primal part of a chunk: values, and for a Hessian the kept adjoints, with the gradient added to `sink`;
    /// losses are weighted where a number of the chunk's first image and a weight are given.
    pub fn primal(
        &self,
        arena: &mut Arena,
        sink: &mut RowValues,
        n: usize,
        weighted: Option<(usize, &loss::Weight)>,
    ) {
        self.forward(&mut arena.y, n, None);
        let hessian = self.plan.purpose == super::plan::Purpose::Hessian;
        let (adjoint, layout) = match hessian {
            true => (&mut arena.g, &self.plan.g),
            false => (&mut arena.h, &self.plan.h),
        };
        self.loss_gradient(adjoint, layout, &arena.y, &arena.labels, n);
        if let Some((first, weight)) = weighted {
            let d = &mut adjoint[layout.value(self.end(), n)];
            let (logits, labels) = (self.logits(&arena.y, n), &arena.labels[..n]);
            loss::weigh(d, logits, labels, self.net.classes(), first, weight);
        }
        self.backward(adjoint, sink, &mut arena.scratch[0], layout, &arena.y, n);
    }

    /// Adds one chunk's (sum of) H v to `sink`, on a primal that stands in `y` and `g`; `middle` is the form of the
    /// loss: it turns the logits' tangent into what goes back.
    pub fn product(
        &self,
        work: (&mut [f32], &mut [f32], &mut [Vec<f32>; 2]),
        sink: &mut RowValues,
        primal: (&[f32], &[f32]),
        labels: &[u32],
        v: &RowValues,
        middle: loss::Middle,
        n: usize,
    ) {
        let ((t, h, scratch), (y, g)) = (work, primal);
        for node in (1..=self.end()).filter(|&node| self.plan.carries[node]) {
            self.tangent_node(node, t, y, v, n);
        }
        let moved = &t[self.plan.t.value(self.end(), n)];
        let back = &mut h[self.plan.h.value(self.end(), n)];
        let (logits, classes) = (self.logits(y, n), self.net.classes());
        match middle {
            loss::Middle::Curvature => loss::curvature(back, moved, logits, classes),
            loss::Middle::Fisher => loss::fisher(back, moved, logits, &labels[..n], classes),
        }
        if self.plan.purpose == super::plan::Purpose::Hessian {
            for node in (1..=self.end()).rev().filter(|&node| self.plan.carries[node]) {
                self.tangent_backward_node(node, h, sink, scratch, g, t, y, v, n);
            }
        } else {
            self.backward(h, sink, &mut scratch[0], &self.plan.h, y, n);
        }
    }

    fn end(&self) -> usize {
        self.net.nodes.len() - 1
    }

    fn shape_of(&self, node: usize, input: usize) -> Shape {
        self.net.nodes[self.net.nodes[node].inputs[input].index()].shape
    }

    /// Which channels each input of a node has in a row of all: input, first channel, count.
    pub(super) fn channels_of(&self, node: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.net.nodes[node].inputs.len()).scan(0, move |next, i| {
            let (first, c) = (*next, self.shape_of(node, i).c);
            *next += c;
            Some((i, first, c))
        })
    }

    /// Where a layer's node reads and writes.
    pub fn geometry(&self, node: usize) -> Geometry {
        let at = &self.net.nodes[node];
        match &at.op {
            Op::Conv(_, conv, _) => Geometry::conv(self.shape_of(node, 0), at.shape, *conv),
            _ => Geometry::linear(self.shape_of(node, 0), at.shape),
        }
    }

    /// What an epilogue's activation derivative is read off: its argument, or for ReLU its value.
    fn argument<'b>(&self, node: usize, y: &'b [f32], n: usize) -> &'b [f32] {
        match self.net.nodes[node].op.epilogue() {
            Some(Epilogue { activation, .. }) if needs_argument(*activation) => {
                &y[self.plan.y.saved(node, n)]
            }
            _ => &y[self.plan.y.value(node, n)],
        }
    }

    /// Whether a backward pass adds to the adjoint of input `i` of a node before any other does.
    pub(super) fn adds_first(&self, node: usize, i: usize) -> bool {
        let inputs = &self.net.nodes[node].inputs;
        // The later inputs are written before the earlier ones.
        self.plan.last[inputs[i].index()] == node && !inputs[i + 1..].contains(&inputs[i])
    }

    /// Lets `write(dx, dy)` add to the adjoint of input `i`, if that carries; the first to add finds zeros.
    pub(super) fn add_to_input(
        &self,
        node: usize,
        i: usize,
        adjoint: &mut [f32],
        layout: &Layout,
        n: usize,
        write: impl FnOnce(&mut [f32], &[f32]),
    ) {
        let input = self.net.nodes[node].inputs[i].index();
        if !self.plan.carries[input] {
            return;
        }
        let (dx, rest) = carve(adjoint, layout.value(input, n));
        if self.adds_first(node, i) {
            dx.fill(0.0);
        }
        write(dx, rest.get(layout.value(node, n)));
    }

    /// Forward of the nodes that are linear in their input, their constants left out.
    fn linear_map(&self, node: usize, value: &mut [f32], x: &[f32], n: usize) {
        let at = &self.net.nodes[node];
        let from = self.shape_of(node, 0);
        match &at.op {
            Op::AveragePool(window) => pool::average_pool(value, x, n, from, at.shape, *window),
            Op::AdaptivePool => pool::adaptive_pool(value, x, n, from, at.shape),
            Op::GlobalPool => pool::global_pool(value, x, n, from),
            Op::ClassToken(_) => shape::prepend(value, x, from, at.shape),
            Op::Tokens(i) => shape::tokens(value, x, *i, from, at.shape),
            Op::Shortcut { stride } => shape::shortcut(value, x, n, from, at.shape, *stride),
            _ => value.copy_from_slice(x), // reshape, positions
        }
    }

    /// The adjoint of [`Pass::linear_map`], of a sum, of a frozen scale and of a max pool, all linear on a fixed
    /// primal.
    fn linear_backward(&self, node: usize, adjoint: &mut [f32], layout: &Layout, y: &[f32], n: usize) {
        let at = &self.net.nodes[node];
        if at.inputs.is_empty() {
            return;
        }
        if at.op == Op::Concat {
            let parts: Vec<_> = self.channels_of(node).collect();
            for (i, first, c) in parts.into_iter().rev() {
                self.add_to_input(node, i, adjoint, layout, n, |dx, dy| {
                    shape::join_adjoint(dx, dy, first, c, at.shape);
                });
            }
            return;
        }
        let from = self.shape_of(node, 0);
        if at.inputs.len() > 1 {
            self.add_to_input(node, 1, adjoint, layout, n, add);
        }
        self.add_to_input(node, 0, adjoint, layout, n, |dx, dy| match &at.op {
            Op::AveragePool(window) => pool::average_pool_adjoint(dx, dy, n, from, at.shape, *window),
            Op::AdaptivePool => pool::adaptive_pool_adjoint(dx, dy, n, from, at.shape),
            Op::GlobalPool => pool::global_pool_adjoint(dx, dy, n, from),
            Op::MaxPool(_) => {
                let winners = bytemuck::cast_slice(&y[self.plan.y.saved(node, n)]);
                pool::scatter(dx, winners, dy, n, from, at.shape);
            }
            Op::ClassToken(_) => shape::prepend_adjoint(dx, dy, from, at.shape),
            Op::Tokens(i) => shape::tokens_adjoint(dx, dy, *i, from, at.shape),
            Op::Shortcut { stride } => shape::shortcut_adjoint(dx, dy, n, from, at.shape, *stride),
            Op::Scale(affine) => add_scaled(dx, dy, affine),
            _ => add(dx, dy), // reshape, positions, sum
        });
    }
}

fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

fn scale(y: &mut [f32], scale: &[f32]) {
    y.chunks_exact_mut(scale.len()).for_each(|at| at.iter_mut().zip(scale).for_each(|(y, s)| *y *= s));
}

fn scale_shift(y: &mut [f32], Affine { scale, shift }: &Affine) {
    for at in y.chunks_exact_mut(scale.len()) {
        at.iter_mut().zip(scale.iter()).zip(shift.iter()).for_each(|((y, a), b)| *y = *y * a + b);
    }
}

fn add_scaled(dx: &mut [f32], dy: &[f32], Affine { scale, .. }: &Affine) {
    for (dx, dy) in dx.chunks_exact_mut(scale.len()).zip(dy.chunks_exact(scale.len())) {
        dx.iter_mut().zip(dy).zip(scale.iter()).for_each(|((dx, dy), s)| *dx += dy * s);
    }
}

/// Adds the mean over positions of `z` `[n, positions, c]`, divided by `uses`, to `columns` of `trace` `[n, d]`.
fn add_means(
    trace: &mut [f32],
    z: &[f32],
    n: usize,
    shape: Shape,
    columns: Range<usize>,
    d: usize,
    uses: usize,
) {
    let weight = 1.0 / (shape.positions() * uses) as f64;
    let mut sums = vec![0.0f64; shape.c];
    for i in 0..n {
        sums.fill(0.0);
        for at in z[i * shape.len()..(i + 1) * shape.len()].chunks_exact(shape.c) {
            sums.iter_mut().zip(at).for_each(|(sum, &z)| *sum += f64::from(z));
        }
        let row = &mut trace[i * d..(i + 1) * d][columns.clone()];
        row.iter_mut().zip(&sums).for_each(|(unit, sum)| *unit += (sum * weight) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Purpose;
    use super::super::{Activation, Builder, Conv, Role, Source, Window};
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Random tensors under any name.
    struct Any(Stream);

    impl Source for Any {
        fn tensor(&mut self, _: &str, shape: &[usize], role: Role) -> Result<Vec<f32>> {
            let around = if role == Role::One { 1.0f32 } else { 0.0 };
            Ok((0..shape.iter().product()).map(|_| (around + 0.4 * self.0.normal()).abs()).collect())
        }

        fn shape(&self, _: &str) -> Option<&[usize]> {
            Some(&[])
        }
    }

    /// Every operation, and every part of an epilogue.
    fn everything() -> Result<Network> {
        let mut any = Any(Stream::new(1, Use::Weights, 0));
        let (mut b, x) = Builder::new(&mut any, Shape::new(9, 8, 2));
        let x = b.conv(x, "conv1", 4, Conv::square(3, 1, 1))?;
        let x = b.batch_norm(x, "bn1")?;
        let x = b.relu(x);
        let x = b.max_pool(x, Window { size: 3, stride: 1, padding: 1 })?;
        let y = b.conv(x, "conv2", 4, Conv { groups: 2, dilation: 2, ..Conv::square(3, 1, 2) })?;
        let y = b.batch_norm(y, "bn2")?;
        let y = b.add(y, x)?;
        let y = b.activation(y, Activation::Gelu);
        let x = b.add(y, x)?;
        let x = b.batch_norm(x, "bn3")?;
        let x = b.activation(x, Activation::Tanh);
        let x = b.average_pool(x, Window { size: 2, stride: 1, padding: 1 })?;
        let x = b.shortcut(x, 2, 6)?;
        let x = b.adaptive_pool(x, 2, 3);
        let x = b.tokens(x);
        let x = b.class_token(x, "class")?;
        let x = b.positions(x, "positions")?;
        let y = b.layer_norm(x, "norm", 1e-5)?;
        let parts = [b.linear(y, "query", 6)?, b.linear(y, "key", 6)?, b.linear(y, "value", 6)?];
        let y = b.concat(&parts)?;
        let y = b.attention(y, 3)?;
        let x = b.add(x, y)?;
        let x = b.tokens_from(x, 1)?;
        let x = b.add(x, x)?;
        let x = b.global_pool(x);
        let x = b.linear(x, "head", 5)?;
        b.finish(x)
    }

    /// ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ at every node, J its derivative by inputs and selected rows.
    #[test]
    fn every_nodes_backward_pass_is_the_transpose_of_its_tangent_pass() {
        let net = everything().unwrap().freeze();
        let rows = net.layers.iter().map(|layer| match layer.outputs {
            4 => Rows::Some(vec![0, 3]),
            _ => Rows::All,
        });
        let plan = Plan::new(&net, rows.collect(), Purpose::Hessian, 64);
        let (pass, n) = (Pass { net: &net, plan: &plan }, plan.chunk);
        let mut stream = Stream::new(2, Use::Choice, 0);
        let mut arena = Arena::new(&plan);
        arena.y[plan.y.value(0, n)].fill_with(|| stream.normal());
        pass.forward(&mut arena.y, n, None);
        let mut seen = 0;
        for node in (1..net.nodes.len()).filter(|&node| plan.carries[node]) {
            let mut v = RowValues::zeros(&net, &plan.rows);
            v.all().for_each(|values| values.fill_with(|| stream.normal()));
            arena.t.fill_with(|| stream.normal());
            pass.tangent_node(node, &mut arena.t, &arena.y, &v, n);
            arena.g.fill(0.0);
            arena.g[plan.g.value(node, n)].fill_with(|| stream.normal());
            let u = arena.g[plan.g.value(node, n)].to_vec();
            let mut sink = RowValues::zeros(&net, &plan.rows);
            pass.backward_node(node, &mut arena.g, &mut sink, &mut arena.scratch[0], &plan.g, &arena.y, n);

            // The sum of products, and what rounding each factor once could change of it.
            let dot = |a: &[f32], b: &[f32]| {
                let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                    a.iter().zip(b).map(|(&a, &b)| f(a.into(), b.into())).sum()
                };
                (
                    sum(&|a, b| a * b),
                    f64::from(f32::EPSILON) * (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt(),
                )
            };
            let (there, mut off) = dot(&arena.t[plan.t.value(node, n)], &u);
            let mut inputs: Vec<usize> = net.nodes[node].inputs.iter().map(|input| input.index()).collect();
            inputs.dedup();
            let carrying = inputs.iter().filter(|&&input| plan.carries[input]);
            let mut parts: Vec<(f64, f64)> = carrying
                .map(|&input| dot(&arena.t[plan.t.value(input, n)], &arena.g[plan.g.value(input, n)]))
                .collect();
            parts.extend(v.all().zip(sink.all()).map(|(v, sink)| dot(v, sink)));
            let back: f64 = parts.iter().map(|(sum, _)| sum).sum();
            off += parts.iter().map(|(_, off)| off).sum::<f64>();
            let op = &net.nodes[node].op;
            assert!(there != 0.0 && (there - back).abs() <= off, "{op:?}: {there} {back}, allowed {off:e}");
            seen += 1;
        }
        assert_eq!(seen, net.nodes.len() - 1);
    }
}
