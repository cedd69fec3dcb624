//! The CPU's executor: one exhaustive match from each family of instructions to operations on slices.
//!
//! A chunk of images runs on one thread. The chunks of a batch in training run side by side up to a batch norm, where
//! they meet.

use std::ops::Range;

use rayon::prelude::*;

use super::arena::{self, Rest};
use super::layers::activation::ActivationOp;
use super::layers::affine::{AffineForward, AffineOp, LayerUse, Weights};
use super::layers::attention::{AttentionOp, Heads};
use super::layers::batch_norm::BatchNormOp;
use super::layers::layer_norm::LayerNormOp;
use super::layers::loss::LossOp;
use super::layers::pointwise::PointwiseOp;
use super::layers::pool::PoolOp;
use super::layers::rows::{Rows, RowsOp, Source};
use super::layers::shortcut::ShortcutOp;
use super::plan::Plan;
use super::program::{Instruction, Region, Section, Seed, Step, Value};
use super::rows::{RowValues, Selected};
use super::{Network, NodeId};
use crate::Result;
use crate::data::{Inputs, check_labels};
use crate::ops::Strided;
use crate::ops::cpu::batch_norm::{self, Moments};
use crate::ops::cpu::{activation, attention, conv, layer_norm, loss, means, pointwise, pool, shape};

/// What takes the gradients of a backward pass.
pub(crate) trait Sink: Send + Sync {
    /// Takes one use of a layer with selected rows: its input `x` and `dz` `[n, positions, o]`, the adjoint of its own
    /// output; without a `bias`, dz does not count for the bias.
    fn take(&mut self, plan: &Plan, at: &LayerUse, dz: &[f32], x: &[f32], bias: bool, n: usize);

    /// In training, the gradients by parameter of those that belong to no layer; else empty.
    fn other(&mut self) -> &mut [Vec<f32>];
}

/// Gradients of the selected rows.
impl Sink for RowValues {
    fn take(&mut self, plan: &Plan, at: &LayerUse, dz: &[f32], x: &[f32], bias: bool, n: usize) {
        let layer = at.layer.index();
        let rows = &plan.rows[layer];
        if *rows != Selected::None {
            let db = Some(self.bias[layer].as_mut_slice()).filter(|db| bias && !db.is_empty());
            conv::weight_gradient(&mut self.weight[layer], db, dz, x, rows.subset(), n, &at.geometry);
        }
    }

    fn other(&mut self) -> &mut [Vec<f32>] {
        &mut self.other
    }
}

/// What one worker computes in; sized by the plan, filled anew for every chunk.
pub(crate) struct Arena {
    /// What products read of the other sections.
    pub kept: Vec<f32>,
    /// All else.
    pub work: Vec<f32>,
    /// Labels of the chunk.
    pub labels: Vec<u32>,
}

impl Arena {
    /// An arena for `plan`.
    pub fn new(plan: &Plan) -> Arena {
        let zeros = |len: usize| vec![0.0; plan.chunk * len];
        Arena {
            kept: zeros(plan.program.kept),
            work: zeros(plan.program.work),
            labels: vec![0; plan.chunk],
        }
    }

    /// Reads a chunk's images and labels; returns how many there are.
    ///
    /// # Errors
    /// Where a label is no class of the network.
    pub fn fill(
        &mut self,
        net: &Network,
        plan: &Plan,
        inputs: &dyn Inputs,
        range: Range<usize>,
    ) -> Result<usize> {
        let (n, first) = (range.len(), range.start);
        let mut run = Run::new(net, plan, self, n);
        let ([images], _) = run.memory.carve([plan.program.image]);
        let mut labels = vec![0; n];
        inputs.fill(images, &mut labels, range);
        check_labels(&labels, first, net.classes())?;
        self.labels[..n].copy_from_slice(&labels);
        Ok(n)
    }
}

/// Memory of kept values: written in the first two sections, read in the product.
enum Kept<'a> {
    Written(&'a mut [f32]),
    Read(&'a [f32]),
}

/// The values of one chunk of `n` images.
struct Memory<'a> {
    plan: &'a Plan,
    kept: Kept<'a>,
    work: &'a mut [f32],
    n: usize,
}

impl<'a> Memory<'a> {
    /// One value, for reading.
    fn value(&self, value: Value) -> &[f32] {
        let span = self.plan.program.span(value, self.plan.chunk, self.n);
        match (span.region, &self.kept) {
            (Region::Work, _) => &self.work[span.range],
            (Region::Kept, Kept::Written(kept)) => &kept[span.range],
            (Region::Kept, Kept::Read(kept)) => &kept[span.range],
        }
    }

    /// These values for writing, and all others for reading.
    fn carve<const N: usize>(&mut self, values: [Value; N]) -> ([&mut [f32]; N], Others<'_>) {
        let (plan, n) = (self.plan, self.n);
        let kept = match &mut self.kept {
            Kept::Written(kept) => arena::Kept::Written(&mut **kept),
            Kept::Read(kept) => arena::Kept::Read(*kept),
        };
        let lens = [plan.chunk * plan.program.kept, plan.chunk * plan.program.work];
        let spans = values.map(|value| plan.program.span(value, plan.chunk, n));
        let (cut, rest) = arena::carve(kept, &mut *self.work, lens, spans);
        (cut, Others { rest, plan, n })
    }
}

/// The values that an instruction reads.
struct Others<'a> {
    rest: Rest<&'a [f32]>,
    plan: &'a Plan,
    n: usize,
}

impl<'a> Others<'a> {
    fn get(&self, value: Value) -> &'a [f32] {
        self.rest.get(&self.plan.program.span(value, self.plan.chunk, self.n))
    }

    fn source(&self, net: &'a Network, source: &Source) -> (&'a [f32], Strided) {
        match *source {
            Source::Value(x, from) => (self.get(x), from),
            Source::Param(param) => (net.value(param), Strided { first: 0, stride: 0 }),
        }
    }
}

/// A run over one chunk of `n` images.
pub(crate) struct Run<'a> {
    net: &'a Network,
    plan: &'a Plan,
    memory: Memory<'a>,
    labels: &'a [u32],
    n: usize,
    /// Every unit's activation `[n, d]`, where it is asked for.
    trace: Option<&'a mut [f32]>,
    seed: Seed<'a>,
    sink: Option<&'a mut dyn Sink>,
    v: Option<&'a RowValues>,
    /// In training, of every batch norm.
    moments: Vec<(NodeId, Moments)>,
}

impl<'a> Run<'a> {
    /// A run of forward and backward sections over the first `n` images of an arena.
    pub fn new(net: &'a Network, plan: &'a Plan, arena: &'a mut Arena, n: usize) -> Run<'a> {
        let Arena { kept, work, labels } = arena;
        Run {
            net,
            plan,
            memory: Memory { plan, kept: Kept::Written(kept), work, n },
            labels: &labels[..n],
            n,
            trace: None,
            seed: Seed::Gradient,
            sink: None,
            v: None,
            moments: vec![],
        }
    }

    /// A run of a product with `v` on kept values, which adds to `sink`.
    pub fn product(
        net: &'a Network,
        plan: &'a Plan,
        (kept, work): (&'a [f32], &'a mut [f32]),
        labels: &'a [u32],
        v: &'a RowValues,
        sink: &'a mut dyn Sink,
    ) -> Run<'a> {
        let (n, seed, moments) = (labels.len(), Seed::Gradient, vec![]);
        let (sink, v): (Option<&mut dyn Sink>, _) = (Some(sink), Some(v));
        let memory = Memory { plan, kept: Kept::Read(kept), work, n };
        Run { net, plan, memory, labels, n, trace: None, seed, sink, v, moments }
    }

    /// With every unit's activation added up in `trace` `[n, d]`.
    pub fn traced(mut self, trace: Option<&'a mut [f32]>) -> Run<'a> {
        self.trace = trace.map(|trace| {
            trace.fill(0.0);
            trace
        });
        self
    }

    /// With the gradients going to `sink`, from this seed at the logits.
    pub fn seeded(mut self, seed: Seed<'a>, sink: &'a mut dyn Sink) -> Run<'a> {
        self.seed = seed;
        self.sink = Some(sink);
        self
    }

    /// Runs one section.
    pub fn section(&mut self, section: Section) {
        Run::batch(std::slice::from_mut(self), section);
    }

    /// The values, and where the plan derives, the gradient.
    pub fn primal(mut self) {
        self.section(Section::Forward);
        self.section(Section::Backward);
    }

    /// What products read, computed again; gradients go nowhere.
    pub fn primal_again(mut self) {
        self.section(Section::Forward);
        if self.plan.program.keeps_adjoints() {
            self.section(Section::Backward);
        }
    }

    /// Runs one section over the chunks of a batch, side by side.
    pub fn batch(runs: &mut [Run<'a>], section: Section) {
        let Some(first) = runs.first() else { return };
        let steps = first.plan.program.section(section);
        let alone = |step: &Step| !matches!(step.instruction, Instruction::BatchNorm(_));
        for part in steps.chunk_by(|a, b| alone(a) && alone(b)) {
            match (&part[0].instruction, &mut *runs) {
                (Instruction::BatchNorm(op), runs) => Run::batch_norm(runs, op),
                (_, [run]) => part.iter().for_each(|step| run.execute(&step.instruction)),
                (_, runs) => runs
                    .par_iter_mut()
                    .for_each(|run| part.iter().for_each(|step| run.execute(&step.instruction))),
            }
        }
    }

    /// The logits, `[n, classes]`, behind the forward section.
    pub fn logits(&self) -> &[f32] {
        self.memory.value(self.plan.program.logits)
    }

    /// The labels, `[n]`.
    pub fn labels(&self) -> &'a [u32] {
        self.labels
    }

    /// In training, the statistics of every batch norm behind the forward section.
    pub fn moments(&self) -> &[(NodeId, Moments)] {
        &self.moments
    }

    fn execute(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Affine(op) => self.affine(op),
            Instruction::Activation(op) => self.activation(op),
            Instruction::Pointwise(op) => self.pointwise(op),
            Instruction::Rows(op) => self.rows(op),
            Instruction::LayerNorm(op) => self.layer_norm(op),
            Instruction::BatchNorm(op) => Run::batch_norm(std::slice::from_mut(self), op),
            Instruction::Attention(op) => self.attention(op),
            Instruction::Pool(op) => self.pool(op),
            Instruction::Shortcut(op) => self.shortcut(op),
            Instruction::Loss(op) => self.loss(op),
        }
    }

    fn affine(&mut self, op: &AffineOp) {
        let (net, n) = (self.net, self.n);
        match op {
            AffineOp::Forward(op) => self.affine_forward(op),
            AffineOp::Apply { y, x, at, weights } => {
                let (g, v) = (&at.geometry, self.v);
                let ([y], others) = self.memory.carve([*y]);
                let x = others.get(*x);
                match weights {
                    Weights::Layer => conv::apply(y, x, net.weight(at.layer), None, None, n, g, false),
                    Weights::Direction => {
                        let Some((weight, bias, rows)) = direction(v, others.plan, at) else { return };
                        conv::apply(y, x, weight, bias, rows, n, g, true);
                    }
                }
            }
            AffineOp::DataGradient { dx, dz, at, weights } => {
                let (g, v) = (&at.geometry, self.v);
                let ([dx], others) = self.memory.carve([*dx]);
                let dz = others.get(*dz);
                match weights {
                    Weights::Layer => conv::data_gradient(dx, dz, net.weight(at.layer), None, n, g, true),
                    Weights::Direction => {
                        let Some((weight, _, rows)) = direction(v, others.plan, at) else { return };
                        conv::data_gradient(dx, dz, weight, rows, n, g, true);
                    }
                }
            }
            AffineOp::WeightGradient { dz, x, at, bias } => {
                if let Some(sink) = &mut self.sink {
                    sink.take(self.plan, at, self.memory.value(*dz), self.memory.value(*x), *bias, n);
                }
            }
        }
    }

    fn affine_forward(&mut self, op: &AffineForward) {
        let AffineForward { y: value, argument, x, residual, at, scale, activation, uses } = op;
        let (net, n) = (self.net, self.n);
        let ([y], others) = self.memory.carve([*value]);
        let (weight, bias) = (net.weight(at.layer), net.bias(at.layer));
        conv::apply(y, others.get(*x), weight, bias, None, n, &at.geometry, false);
        if let Some(trace) = &mut self.trace {
            let (columns, d) = (net.units().of_layer(at.layer), net.units().len());
            means::means(trace, y, n, at.geometry.output, columns, d, *uses);
        }
        if let Some(affine) = scale.and_then(|node| net.nodes[node.index()].op.scale()) {
            pointwise::scale_shift(y, &affine.scale, &affine.shift);
        }
        if let Some(residual) = residual {
            pointwise::add(y, others.get(*residual));
        }
        let Some(kind) = activation else { return };
        if let Some(argument) = argument {
            let ([argument], others) = self.memory.carve([*argument]);
            argument.copy_from_slice(others.get(*value));
        }
        let ([y], _) = self.memory.carve([*value]);
        activation::forward(y, *kind);
    }

    fn activation(&mut self, op: &ActivationOp) {
        match *op {
            ActivationOp::Forward { y, x, kind } => {
                let ([y], others) = self.memory.carve([y]);
                y.copy_from_slice(others.get(x));
                activation::forward(y, kind);
            }
            ActivationOp::Backward { dx, dy, argument, kind } => {
                let ([d], others) = self.memory.carve([dx]);
                if dx != dy {
                    d.copy_from_slice(others.get(dy));
                }
                activation::backward(d, others.get(argument), kind);
            }
            ActivationOp::AddBackward { dx, dy, argument, kind } => {
                let ([dx], others) = self.memory.carve([dx]);
                activation::add_backward(dx, others.get(dy), others.get(argument), kind);
            }
            ActivationOp::TangentBackward { dxt, dyt, dy, tangent, argument, kind } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tangent, argument] = [dyt, dy, tangent, argument].map(|x| others.get(x));
                activation::tangent_backward(dxt, dyt, dy, tangent, argument, kind);
            }
            ActivationOp::AddTangentBackward { dxt, dyt, dy, tangent, argument, kind } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tangent, argument] = [dyt, dy, tangent, argument].map(|x| others.get(x));
                activation::add_tangent_backward(dxt, dyt, dy, tangent, argument, kind);
            }
        }
    }

    fn pointwise(&mut self, op: &PointwiseOp) {
        let net = self.net;
        let affine = |node: NodeId| net.nodes[node.index()].op.scale();
        match *op {
            PointwiseOp::Zero { y } => {
                let ([y], _) = self.memory.carve([y]);
                y.fill(0.0);
            }
            PointwiseOp::Copy { y, x } => {
                let ([y], others) = self.memory.carve([y]);
                y.copy_from_slice(others.get(x));
            }
            PointwiseOp::Add { y, x } => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::add(y, others.get(x));
            }
            PointwiseOp::Sum { y, a, b } => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::sum(y, others.get(a), others.get(b));
            }
            PointwiseOp::Scale { y, x, by } => {
                let ([out], others) = self.memory.carve([y]);
                if y != x {
                    out.copy_from_slice(others.get(x));
                }
                if let Some(affine) = affine(by) {
                    pointwise::scale(out, &affine.scale);
                }
            }
            PointwiseOp::ScaleShift { y, x, by } => {
                let ([y], others) = self.memory.carve([y]);
                y.copy_from_slice(others.get(x));
                if let Some(affine) = affine(by) {
                    pointwise::scale_shift(y, &affine.scale, &affine.shift);
                }
            }
            PointwiseOp::AddScaled { y, x, by } => {
                let ([y], others) = self.memory.carve([y]);
                if let Some(affine) = affine(by) {
                    pointwise::add_scaled(y, others.get(x), &affine.scale);
                }
            }
        }
    }

    fn rows(&mut self, op: &RowsOp) {
        let (net, n) = (self.net, self.n);
        match op {
            RowsOp::Copy(Rows { y, to, source, count, len }) => {
                let ([y], others) = self.memory.carve([*y]);
                let (x, from) = others.source(net, source);
                shape::copy(y, x, n * count, *len, *to, from);
            }
            RowsOp::Add(Rows { y, to, source, count, len }) => {
                let ([y], others) = self.memory.carve([*y]);
                let (x, from) = others.source(net, source);
                shape::add(y, x, n * count, *len, *to, from);
            }
            RowsOp::SumImages { param, len: _, x } => {
                let (images, from) = (self.memory.value(*x), Strided { first: 0, stride: x.len });
                let sink = self.sink.as_mut();
                if let Some(gradient) = sink.and_then(|sink| sink.other().get_mut(param.index())) {
                    shape::add_sum(gradient, images, n, from);
                }
            }
        }
    }

    fn layer_norm(&mut self, op: &LayerNormOp) {
        let net = self.net;
        match *op {
            LayerNormOp::Forward { y, moments, x, gamma, beta, eps, c: _ } => {
                let ([y, moments], others) = self.memory.carve([y, moments]);
                layer_norm::forward(y, moments, others.get(x), net.value(gamma), net.value(beta), eps);
            }
            LayerNormOp::Tangent { t, tx, x, moments, gamma, c: _ } => {
                let ([t], others) = self.memory.carve([t]);
                let [tx, x, moments] = [tx, x, moments].map(|x| others.get(x));
                layer_norm::tangent(t, tx, x, moments, net.value(gamma));
            }
            LayerNormOp::Backward { dx, dy, x, moments, gamma, c: _ } => {
                let ([dx], others) = self.memory.carve([dx]);
                let [dy, x, moments] = [dy, x, moments].map(|x| others.get(x));
                layer_norm::backward(dx, dy, x, moments, net.value(gamma));
            }
            LayerNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma, c: _ } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tx, x, moments] = [dyt, dy, tx, x, moments].map(|x| others.get(x));
                layer_norm::tangent_backward(dxt, dyt, dy, tx, x, moments, net.value(gamma));
            }
            LayerNormOp::ParameterGradient { gamma, beta, dy, x, moments, c: _ } => {
                let [dy, x, moments] = [dy, x, moments].map(|x| self.memory.value(x));
                let Some(sink) = &mut self.sink else { return };
                let gradients = sink.other().get_disjoint_mut([gamma.index(), beta.index()]);
                if let Ok([dgamma, dbeta]) = gradients {
                    layer_norm::parameter_gradient(dgamma, dbeta, dy, x, moments);
                }
            }
        }
    }

    /// Batch norm over all chunks of a batch: sums are added in the order of the chunks.
    fn batch_norm(runs: &mut [Run<'a>], op: &BatchNormOp) {
        let sums = |runs: &[Run<'a>], len: usize, of: &(dyn Fn(&Run<'a>) -> Vec<f64> + Sync)| {
            let each: Vec<Vec<f64>> = runs.par_iter().map(of).collect();
            each.iter().fold(vec![0.0; len], |mut all, one| {
                all.iter_mut().zip(one).for_each(|(a, b)| *a += b);
                all
            })
        };
        match *op {
            BatchNormOp::Forward { y, x, node, gamma, beta, mean: _, var: _, eps, c } => {
                let count = runs.iter().map(|run| run.n).sum::<usize>() * (x.len / c);
                let mut mean = sums(runs, c, &|run| batch_norm::sums(run.memory.value(x), c));
                mean.iter_mut().for_each(|m| *m /= count as f64);
                let mut var = sums(runs, c, &|run| batch_norm::squares(run.memory.value(x), &mean));
                var.iter_mut().for_each(|v| *v /= count as f64);
                let moments = Moments { mean, var, count };
                runs.par_iter_mut().for_each(|run| {
                    let net = run.net;
                    let ([y], others) = run.memory.carve([y]);
                    batch_norm::forward(y, others.get(x), &moments, net.value(gamma), net.value(beta), eps);
                    run.moments.push((node, moments.clone()));
                });
            }
            BatchNormOp::Backward { dx, dy, x, node, gamma, beta, eps, c } => {
                let of_node = |run: &Run<'a>| run.moments.iter().find(|(of, _)| *of == node).cloned();
                let Some((_, moments)) = runs.first().and_then(of_node) else { return };
                let all = sums(runs, 2 * c, &|run| {
                    batch_norm::backward_sums(run.memory.value(dy), run.memory.value(x), &moments, eps)
                });
                if let Some(sink) = runs.first_mut().and_then(|run| run.sink.as_mut()) {
                    for (param, sums) in [(beta, &all[..c]), (gamma, &all[c..])] {
                        if let Some(gradient) = sink.other().get_mut(param.index()) {
                            gradient.iter_mut().zip(sums).for_each(|(g, &sum)| *g += sum as f32);
                        }
                    }
                }
                let Some(dx) = dx else { return };
                runs.par_iter_mut().for_each(|run| {
                    let gamma = run.net.value(gamma);
                    let ([dx], others) = run.memory.carve([dx]);
                    batch_norm::backward(dx, others.get(dy), others.get(x), &moments, &all, gamma, eps);
                });
            }
        }
    }

    fn attention(&mut self, op: &AttentionOp) {
        let n = self.n;
        match *op {
            AttentionOp::Forward { y, weights, x, at: Heads { shape, heads } } => {
                let ([y, weights], others) = self.memory.carve([y, weights]);
                attention::forward(y, weights, others.get(x), n, shape, heads);
            }
            AttentionOp::Tangent { t, tx, x, weights, at: Heads { shape, heads } } => {
                let ([t], others) = self.memory.carve([t]);
                let [tx, x, weights] = [tx, x, weights].map(|x| others.get(x));
                attention::tangent(t, tx, x, weights, n, shape, heads);
            }
            AttentionOp::Backward { dx, dy, x, weights, at: Heads { shape, heads } } => {
                let ([dx], others) = self.memory.carve([dx]);
                let [dy, x, weights] = [dy, x, weights].map(|x| others.get(x));
                attention::backward(dx, dy, x, weights, n, shape, heads);
            }
            AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at: Heads { shape, heads } } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tx, x, weights] = [dyt, dy, tx, x, weights].map(|x| others.get(x));
                attention::tangent_backward(dxt, dyt, dy, tx, x, weights, n, shape, heads);
            }
        }
    }

    fn pool(&mut self, op: &PoolOp) {
        let n = self.n;
        match *op {
            PoolOp::Max { y, winners, x, at, window } => {
                let ([y, winners], others) = self.memory.carve([y, winners]);
                let winners = bytemuck::cast_slice_mut(winners);
                pool::max_pool(y, winners, others.get(x), n, at.from, at.to, window);
            }
            PoolOp::MaxTangent { t, winners, tx, at } => {
                let ([t], others) = self.memory.carve([t]);
                let winners = bytemuck::cast_slice(others.get(winners));
                pool::gather(t, winners, others.get(tx), n, at.from, at.to);
            }
            PoolOp::MaxBackward { dx, winners, dy, at, window: _ } => {
                let ([dx], others) = self.memory.carve([dx]);
                let winners = bytemuck::cast_slice(others.get(winners));
                pool::scatter(dx, winners, others.get(dy), n, at.from, at.to);
            }
            PoolOp::Average { y, x, at, window } => {
                let ([y], others) = self.memory.carve([y]);
                pool::average_pool(y, others.get(x), n, at.from, at.to, window);
            }
            PoolOp::AverageAdjoint { dx, dy, at, window } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::average_pool_adjoint(dx, others.get(dy), n, at.from, at.to, window);
            }
            PoolOp::Adaptive { y, x, at } => {
                let ([y], others) = self.memory.carve([y]);
                pool::adaptive_pool(y, others.get(x), n, at.from, at.to);
            }
            PoolOp::AdaptiveAdjoint { dx, dy, at } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::adaptive_pool_adjoint(dx, others.get(dy), n, at.from, at.to);
            }
        }
    }

    fn shortcut(&mut self, op: &ShortcutOp) {
        let n = self.n;
        match *op {
            ShortcutOp::Forward { y, x, from, to, stride } => {
                let ([y], others) = self.memory.carve([y]);
                shape::shortcut(y, others.get(x), n, from, to, stride);
            }
            ShortcutOp::Adjoint { dx, dy, from, to, stride } => {
                let ([dx], others) = self.memory.carve([dx]);
                shape::shortcut_adjoint(dx, others.get(dy), n, from, to, stride);
            }
        }
    }

    fn loss(&mut self, op: &LossOp) {
        let (labels, seed, classes) = (self.labels, self.seed, self.net.classes());
        match *op {
            LossOp::Gradient { d, logits } => {
                let ([d], others) = self.memory.carve([d]);
                let logits = others.get(logits);
                match seed {
                    Seed::Gradient => loss::gradient(d, logits, labels, classes),
                    Seed::Weighted(weight, first) => {
                        loss::gradient(d, logits, labels, classes);
                        loss::weigh(d, logits, labels, classes, first, weight);
                    }
                    Seed::Draws { seed, first } => loss::draw_curvature(d, logits, classes, seed, first),
                }
            }
            LossOp::Curvature { back, tangent, logits } => {
                let ([back], others) = self.memory.carve([back]);
                loss::curvature(back, others.get(tangent), others.get(logits), classes);
            }
            LossOp::Fisher { back, tangent, logits } => {
                let ([back], others) = self.memory.carve([back]);
                loss::fisher(back, others.get(tangent), others.get(logits), labels, classes);
            }
        }
    }
}

/// What a direction has for a layer: weights, biases if there are any, and the rows that these are.
fn direction<'a>(
    v: Option<&'a RowValues>,
    plan: &'a Plan,
    at: &LayerUse,
) -> Option<(&'a [f32], Option<&'a [f32]>, Option<&'a [u32]>)> {
    let (v, layer) = (v?, at.layer.index());
    let bias = Some(v.bias[layer].as_slice()).filter(|bias| !bias.is_empty());
    Some((&v.weight[layer], bias, plan.rows[layer].subset()))
}

#[cfg(test)]
mod tests {
    use super::super::everything::{everything, some_rows};
    use super::super::plan::Purpose;
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ at every node, J its derivative by inputs and selected rows.
    #[test]
    fn every_nodes_backward_pass_is_the_transpose_of_its_tangent_pass() {
        let net = everything().unwrap().freeze();
        let mut plan = Plan::new(&net, some_rows(&net), Purpose::Hessian, 64).unwrap();
        plan.program.unshare();
        let (plan, n, mut seen) = (&plan, plan.chunk, 0);
        let mut stream = Stream::new(2, Use::Choice, 0);
        let mut arena = Arena::new(plan);
        let mut run = Run::new(&net, plan, &mut arena, n);
        let ([images], _) = run.memory.carve([plan.program.image]);
        images.fill_with(|| stream.normal());
        run.section(Section::Forward);
        let product = plan.program.section(Section::Product);
        let loss = product.iter().position(|step| matches!(step.instruction, Instruction::Loss(_))).unwrap();
        for node in 1..net.nodes.len() {
            let of_node = |steps: &[Step]| -> Vec<Instruction> {
                let mine = steps.iter().filter(|step| step.node.index() == node);
                mine.map(|step| step.instruction.clone())
                    .filter(|op| !matches!(op, Instruction::Loss(_)))
                    .collect()
            };
            let mut inputs: Vec<usize> = net.nodes[node].inputs.iter().map(|input| input.index()).collect();
            inputs.dedup();
            let named = |name: &str, node: usize| plan.program.named(&format!("{name}{node}"));
            let mut v = RowValues::zeros(&net, &plan.rows);
            v.all().for_each(|values| values.fill_with(|| stream.normal()));
            let mut sink = RowValues::zeros(&net, &plan.rows);
            let mut run = Run { v: Some(&v), sink: Some(&mut sink), ..Run::new(&net, plan, &mut arena, n) };
            for value in inputs.iter().filter_map(|&input| named("t", input)) {
                let ([t], _) = run.memory.carve([value]);
                t.fill_with(|| stream.normal());
            }
            of_node(&product[..loss]).iter().for_each(|op| run.execute(op));
            for value in inputs.iter().filter_map(|&input| named("d", input)) {
                let ([d], _) = run.memory.carve([value]);
                d.fill(0.0);
            }
            let d = named("d", node).unwrap();
            let ([u], _) = run.memory.carve([d]);
            u.fill_with(|| stream.normal());
            of_node(plan.program.section(Section::Backward)).iter().for_each(|op| run.execute(op));

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
            let read = |value| run.memory.value(value);
            let (there, mut off) = dot(read(named("t", node).unwrap()), read(d));
            let pairs = inputs.iter().filter_map(|&input| Some((named("t", input)?, named("d", input)?)));
            let mut parts: Vec<(f64, f64)> = pairs.map(|(t, d)| dot(read(t), read(d))).collect();
            drop(run);
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
