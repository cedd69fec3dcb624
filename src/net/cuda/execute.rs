//! The executor on a CUDA device: one exhaustive match from each family of instructions to operations on device memory.

mod tokens;

use super::passes::{carve_moments, copy};
use super::rows::{Sink, Used};
use super::run::Run;
use super::sizes::gradient_parts;
use crate::device::cuda::{Buffer, Out};
use crate::error::Result;
use crate::loss::Weight;
use crate::net::ParamId;
use crate::net::instruction::{
    ActivationOp, AffineForward, AffineOp, BatchNormOp, EmbeddingOp, GateOp, Instruction, LayerUse, LossOp,
    Norm, NormOp, Over, PointwiseOp, PoolOp, Rows, RowsOp, ShortcutOp, Value, Weights,
};
use crate::net::program::{Section, Seed};
use crate::ops::Strided;
use crate::ops::cuda::{
    activation, batch_norm, conv, conv_sm90, embedding, gate, group_norm, layer_norm, loss, means, pointwise,
    pool, shape,
};

impl Run<'_> {
    /// Runs one section.
    ///
    /// # Errors
    /// Where the device fails; the message names the node.
    pub fn section(&mut self, section: Section) -> Result<()> {
        let passes = self.passes;
        let what = match section {
            Section::Forward => "value",
            Section::Backward => "adjoint",
            Section::Product => "product",
        };
        passes.plan.program.section(section).iter().try_for_each(|step| {
            self.execute(&step.instruction)
                .map_err(|error| error.during(&passes.name(step.node.index(), what)))
        })
    }

    fn execute(&mut self, instruction: &Instruction) -> Result<()> {
        match instruction {
            Instruction::Affine(op) => self.affine(op),
            Instruction::Activation(op) => self.activation(op),
            Instruction::Pointwise(op) => self.pointwise(op),
            Instruction::Rows(op) => self.rows(op),
            Instruction::Bands(op) => self.bands(op),
            Instruction::Norm(op) => self.norm(op),
            Instruction::BatchNorm(op) => self.batch_norm(op),
            Instruction::Attention(op) => self.attention(op),
            Instruction::Gate(op) => self.gate(op),
            Instruction::Embedding(op) => self.embedding(op),
            Instruction::Pool(op) => self.pool(op),
            Instruction::Shortcut(op) => self.shortcut(op),
            Instruction::Loss(op) => self.loss(op),
        }
    }

    fn affine(&mut self, op: &AffineOp) -> Result<()> {
        let (passes, n, v) = (self.passes, self.n, self.v);
        let cuda = passes.cuda;
        let weight = |at: &LayerUse| passes.param(passes.net.layer(at.layer).weight);
        match op {
            AffineOp::Forward(op) => self.affine_forward(op),
            AffineOp::Apply { y, x, at, weights } => {
                let (g, layer) = (&at.geometry, at.layer.index());
                let ([y], others) = self.memory.carve([*y]);
                let x = others.get(*x);
                match (weights, v) {
                    (Weights::Layer, _) => conv::apply(cuda, y, x, weight(at), None, None, n, g, false),
                    (Weights::Direction, Some(v)) => {
                        let (rows, weight) = (passes.subset(layer), v.weight[layer].input());
                        conv::apply(cuda, y, x, weight, v.bias(layer), rows, n, g, true)
                    }
                    (Weights::Direction, None) => Ok(()),
                }
            }
            AffineOp::DataGradient { dx, dz, at, weights } => {
                let (g, layer) = (&at.geometry, at.layer.index());
                let ([dx], others) = self.memory.carve([*dx]);
                let dz = others.get(*dz);
                match (weights, v) {
                    (Weights::Layer, _) => conv::data_gradient(cuda, dx, dz, weight(at), None, n, g, true),
                    (Weights::Direction, Some(v)) => {
                        let (rows, weight) = (passes.subset(layer), v.weight[layer].input());
                        conv::data_gradient(cuda, dx, dz, weight, rows, n, g, true)
                    }
                    (Weights::Direction, None) => Ok(()),
                }
            }
            AffineOp::WeightGradient { dz, x, at, bias } => {
                let (dz, x) = (self.memory.value(*dz), self.memory.value(*x));
                match &mut self.sink {
                    Some(sink) => sink.take(passes, Used { at, dz, x, bias: *bias, n }, self.sums.output()),
                    None => Ok(()),
                }
            }
        }
    }

    fn affine_forward(&mut self, op: &AffineForward) -> Result<()> {
        let AffineForward { y: value, argument, x, residual, at, scale, activation: kind, uses } = op;
        let (passes, n, geometry) = (self.passes, self.n, &at.geometry);
        let (cuda, owner) = (passes.cuda, passes.net.layer(at.layer));
        let (weight, bias) = (passes.param(owner.weight), owner.bias.map(|bias| passes.param(bias)));
        let traced = self.trace.is_some();
        let count = if traced { conv::parts(n, geometry) } else { 0 };
        let sums = traced.then(|| self.parts.output().split_at(count).0);
        let halves = conv_sm90::scratch(cuda, n, geometry, passes.precision);
        let scratch = Some(self.halves.output().split_at(halves).0);
        let ([z], others) = self.memory.carve([argument.unwrap_or(*value)]);
        let epilogue = conv::Epilogue {
            affine: scale.and_then(|node| passes.scale_shift(node)),
            residual: residual.map(|residual| others.get(residual)),
            activation: kind.filter(|_| argument.is_none()),
        };
        let (x, precision) = (others.get(*x), passes.precision);
        conv::forward(cuda, z, sums, x, weight, bias, epilogue, n, geometry, precision, scratch)?;
        if let (Some(argument), Some(kind)) = (argument, kind) {
            let ([y], others) = self.memory.carve([*value]);
            activation::forward(cuda, y, others.get(*argument), *kind)?;
        }
        if let Some(trace) = &mut self.trace {
            let (columns, d) = (passes.net.units().of_layer(at.layer), passes.net.units().len());
            let sums = self.parts.input().part(0..count);
            means::means(cuda, trace.output(), sums, n, geometry, columns, d, *uses)?;
        }
        Ok(())
    }

    fn activation(&mut self, op: &ActivationOp) -> Result<()> {
        let cuda = self.passes.cuda;
        match *op {
            ActivationOp::Forward { y, x, kind } => {
                let ([y], others) = self.memory.carve([y]);
                activation::forward(cuda, y, others.get(x), kind)
            }
            ActivationOp::Backward { dx, dy, argument, kind } => {
                let ([d], others) = self.memory.carve([dx]);
                match dx == dy {
                    true => activation::backward_in_place(cuda, d, others.get(argument), kind),
                    false => activation::backward(cuda, d, others.get(dy), others.get(argument), kind),
                }
            }
            ActivationOp::AddBackward { dx, dy, argument, kind } => {
                let ([dx], others) = self.memory.carve([dx]);
                activation::add_backward(cuda, dx, others.get(dy), others.get(argument), kind)
            }
            ActivationOp::TangentBackward { dxt, dyt, dy, tangent, argument, kind } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tangent, argument] = [dyt, dy, tangent, argument].map(|x| others.get(x));
                activation::tangent_backward(cuda, dxt, dyt, dy, tangent, argument, kind)
            }
            ActivationOp::AddTangentBackward { dxt, dyt, dy, tangent, argument, kind } => {
                let ([dxt], others) = self.memory.carve([dxt]);
                let [dyt, dy, tangent, argument] = [dyt, dy, tangent, argument].map(|x| others.get(x));
                activation::add_tangent_backward(cuda, dxt, dyt, dy, tangent, argument, kind)
            }
        }
    }

    fn pointwise(&mut self, op: &PointwiseOp) -> Result<()> {
        let (passes, cuda) = (self.passes, self.passes.cuda);
        match *op {
            PointwiseOp::Zero { y } => {
                let ([y], _) = self.memory.carve([y]);
                passes.clear(y)
            }
            PointwiseOp::Copy { y, x } => {
                let ([y], others) = self.memory.carve([y]);
                copy(cuda, y, others.get(x))
            }
            PointwiseOp::Add { y, x } => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::add(cuda, y, others.get(x))
            }
            PointwiseOp::Sum { y, a, b } => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::sum(cuda, y, others.get(a), others.get(b))
            }
            PointwiseOp::Scale { y, x, by } => {
                let Some([scale, _]) = passes.scale_shift(by) else { return Ok(()) };
                let ([out], others) = self.memory.carve([y]);
                match y == x {
                    true => pointwise::scale_in_place(cuda, out, scale),
                    false => pointwise::scale(cuda, out, others.get(x), scale),
                }
            }
            PointwiseOp::ScaleShift { y, x, by } => {
                let Some([scale, shift]) = passes.scale_shift(by) else { return Ok(()) };
                let ([y], others) = self.memory.carve([y]);
                pointwise::scale_shift(cuda, y, others.get(x), scale, shift)
            }
            PointwiseOp::AddScaled { y, x, by } => {
                let Some([scale, _]) = passes.scale_shift(by) else { return Ok(()) };
                let ([y], others) = self.memory.carve([y]);
                pointwise::add_scaled(cuda, y, others.get(x), scale)
            }
        }
    }

    fn rows(&mut self, op: &RowsOp) -> Result<()> {
        let (cuda, n) = (self.passes.cuda, self.n);
        match op {
            RowsOp::Copy(Rows { y, to, source, count, len }) => {
                let ([y], others) = self.memory.carve([*y]);
                let (x, from) = others.source(source);
                shape::copy(cuda, y, x, n * count, *len, *to, from)
            }
            RowsOp::Add(Rows { y, to, source, count, len }) => {
                let ([y], others) = self.memory.carve([*y]);
                let (x, from) = others.source(source);
                shape::add(cuda, y, x, n * count, *len, *to, from)
            }
            RowsOp::Sum { param, len, x, count } => {
                let (images, from) = (self.memory.value(*x), Strided { first: 0, stride: x.len / count });
                let sink = self.sink.as_mut();
                match sink.and_then(|sink| sink.other().get_mut(param.index())) {
                    Some(gradient) => {
                        let gradient = gradient.output().split_at(*len).0;
                        shape::add_sum(cuda, gradient, images, n * count, from)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn norm(&mut self, op: &NormOp) -> Result<()> {
        let (passes, cuda, n) = (self.passes, self.passes.cuda, self.n);
        match *op {
            NormOp::Forward { y, moments, x, eps, at: Norm { shape, over, gamma, beta } } => {
                let ([y, moments], others) = self.memory.carve([y, moments]);
                let (x, gamma, beta) = (others.get(x), passes.param(gamma), passes.param(beta));
                match over {
                    Over::Channels => layer_norm::forward(cuda, y, moments, x, gamma, beta, eps),
                    Over::Groups(groups) => {
                        group_norm::forward(cuda, y, moments, x, gamma, beta, n, shape, groups, eps)
                    }
                }
            }
            NormOp::Tangent { t, tx, x, moments, at: Norm { shape, over, gamma, beta: _ } } => {
                let ([t], others) = self.memory.carve([t]);
                let ([tx, x, moments], gamma) =
                    ([tx, x, moments].map(|x| others.get(x)), passes.param(gamma));
                match over {
                    Over::Channels => layer_norm::tangent(cuda, t, tx, x, moments, gamma),
                    Over::Groups(groups) => {
                        group_norm::tangent(cuda, t, tx, x, moments, gamma, n, shape, groups)
                    }
                }
            }
            NormOp::Backward { dx, dy, x, moments, at: Norm { shape, over, gamma, beta: _ } } => {
                let ([dx], others) = self.memory.carve([dx]);
                let ([dy, x, moments], gamma) =
                    ([dy, x, moments].map(|x| others.get(x)), passes.param(gamma));
                match over {
                    Over::Channels => layer_norm::backward(cuda, dx, dy, x, moments, gamma),
                    Over::Groups(groups) => {
                        group_norm::backward(cuda, dx, dy, x, moments, gamma, n, shape, groups)
                    }
                }
            }
            NormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, at } => {
                let (Norm { shape, over, gamma, beta: _ }, ([dxt], others)) = (at, self.memory.carve([dxt]));
                let [dyt, dy, tx, x, moments] = [dyt, dy, tx, x, moments].map(|x| others.get(x));
                let gamma = passes.param(gamma);
                match over {
                    Over::Channels => layer_norm::tangent_backward(cuda, dxt, dyt, dy, tx, x, moments, gamma),
                    Over::Groups(groups) => group_norm::tangent_backward(
                        cuda, dxt, dyt, dy, tx, x, moments, gamma, n, shape, groups,
                    ),
                }
            }
            NormOp::ParameterGradient { dy, x, moments, at } => {
                let [dy, x, moments] = [dy, x, moments].map(|x| self.memory.value(x));
                let parts = self.sums.output().split_at(gradient_parts(at, n)).0;
                let Norm { shape, over, gamma, beta } = at;
                let Some([dgamma, dbeta]) = two(&mut self.sink, gamma, beta) else { return Ok(()) };
                match over {
                    Over::Channels => {
                        layer_norm::parameter_gradient(cuda, dgamma, dbeta, parts, dy, x, moments)
                    }
                    Over::Groups(groups) => group_norm::parameter_gradient(
                        cuda, dgamma, dbeta, parts, dy, x, moments, n, shape, groups,
                    ),
                }
            }
        }
    }

    fn gate(&mut self, op: &GateOp) -> Result<()> {
        let cuda = self.passes.cuda;
        match *op {
            GateOp::Apply { y, x, gate, c, accumulate } => {
                let ([y], others) = self.memory.carve([y]);
                gate::apply(cuda, y, others.get(x), others.get(gate), c, accumulate)
            }
            GateOp::Gradient { dgate, dy, x, c } => {
                let ([dgate], others) = self.memory.carve([dgate]);
                gate::gradient(cuda, dgate, others.get(dy), others.get(x), c)
            }
        }
    }

    fn embedding(&mut self, op: &EmbeddingOp) -> Result<()> {
        let (passes, cuda) = (self.passes, self.passes.cuda);
        match *op {
            EmbeddingOp::Forward { y, tokens, table, rows: _, c } => {
                let ([y], others) = self.memory.carve([y]);
                embedding::forward(cuda, y, others.get(tokens).bits(), passes.param(table), c)
            }
            EmbeddingOp::Gradient { table, dy, tokens, rows: _, c } => {
                let (dy, tokens) = (self.memory.value(dy), self.memory.value(tokens).bits());
                let order = self.sums.output().split_at(tokens.len()).0.bits();
                let sink = self.sink.as_mut();
                match sink.and_then(|sink| sink.other().get_mut(table.index())) {
                    Some(dtable) => embedding::gradient(cuda, dtable.output(), order, dy, tokens, c),
                    None => Ok(()),
                }
            }
        }
    }

    fn batch_norm(&mut self, op: &BatchNormOp) -> Result<()> {
        let (passes, cuda, n) = (self.passes, self.passes.cuda, self.n);
        match *op {
            BatchNormOp::Forward { y, x, node, gamma, beta, mean: _, var: _, eps, c } => {
                let input = self.memory.value(x);
                let (mut moments, _) = carve_moments(self.moments.output(), passes.moments(node));
                let parts = self.parts.output().split_at(batch_norm::parts(n * (x.len / c), c)).0;
                batch_norm::moments(cuda, moments.output(), parts, input, c)?;
                let ([y], others) = self.memory.carve([y]);
                let (gamma, beta) = (passes.param(gamma), passes.param(beta));
                batch_norm::forward(cuda, y, others.get(x), moments.input(), gamma, beta, eps)
            }
            BatchNormOp::Backward { dx, dy, x, node, gamma, beta, eps, c } => {
                let (adjoint, input) = (self.memory.value(dy), self.memory.value(x));
                let (moments, mut sums) = carve_moments(self.moments.output(), passes.moments(node));
                let parts = self.parts.output().split_at(batch_norm::parts(n * (x.len / c), c)).0;
                batch_norm::sums(cuda, sums.output(), parts, adjoint, input, moments.input(), eps)?;
                if let Some([dgamma, dbeta]) = two(&mut self.sink, gamma, beta) {
                    batch_norm::add_gradient(cuda, dbeta, sums.input().part(0..c))?;
                    batch_norm::add_gradient(cuda, dgamma, sums.input().part(c..2 * c))?;
                }
                let Some(dx) = dx else { return Ok(()) };
                let ([dx], others) = self.memory.carve([dx]);
                let (dy, x, gamma) = (others.get(dy), others.get(x), passes.param(gamma));
                batch_norm::backward(cuda, dx, dy, x, moments.input(), sums.input(), gamma, eps)
            }
        }
    }

    fn pool(&mut self, op: &PoolOp) -> Result<()> {
        let (cuda, n) = (self.passes.cuda, self.n);
        match *op {
            PoolOp::Max { y, winners, x, at, window } => {
                let ([y, winners], others) = self.memory.carve([y, winners]);
                pool::max_pool(cuda, y, winners.bits(), others.get(x), n, at.from, at.to, window)
            }
            PoolOp::MaxTangent { t, winners, tx, at } => {
                let ([t], others) = self.memory.carve([t]);
                let winners = others.get(winners).bits();
                pool::max_pool_tangent(cuda, t, winners, others.get(tx), n, at.from, at.to)
            }
            PoolOp::MaxBackward { dx, winners, dy, at, window } => {
                let ([dx], others) = self.memory.carve([dx]);
                let winners = others.get(winners).bits();
                pool::max_pool_backward(cuda, dx, winners, others.get(dy), n, at.from, at.to, window)
            }
            PoolOp::Average { y, x, at, window } => {
                let ([y], others) = self.memory.carve([y]);
                pool::average_pool(cuda, y, others.get(x), n, at.from, at.to, window)
            }
            PoolOp::AverageAdjoint { dx, dy, at, window } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::average_pool_backward(cuda, dx, others.get(dy), n, at.from, at.to, window)
            }
            PoolOp::Adaptive { y, x, at } => {
                let ([y], others) = self.memory.carve([y]);
                pool::adaptive_pool(cuda, y, others.get(x), n, at.from, at.to)
            }
            PoolOp::AdaptiveAdjoint { dx, dy, at } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::adaptive_pool_backward(cuda, dx, others.get(dy), n, at.from, at.to)
            }
        }
    }

    fn shortcut(&mut self, op: &ShortcutOp) -> Result<()> {
        let (cuda, n) = (self.passes.cuda, self.n);
        match *op {
            ShortcutOp::Forward { y, x, from, to, stride } => {
                let ([y], others) = self.memory.carve([y]);
                shape::shortcut(cuda, y, others.get(x), n, from, to, stride)
            }
            ShortcutOp::Adjoint { dx, dy, from, to, stride } => {
                let ([dx], others) = self.memory.carve([dx]);
                shape::shortcut_backward(cuda, dx, others.get(dy), n, from, to, stride)
            }
        }
    }

    fn loss(&mut self, op: &LossOp) -> Result<()> {
        let (cuda, n, labels, of) = (self.passes.cuda, self.n, self.labels, self.passes.net.loss);
        match *op {
            LossOp::Gradient { d, logits } => {
                let seed = self.seed;
                if let Seed::Weighted(weight, first) = seed {
                    self.weigh_losses(logits, weight, first)?;
                }
                let ([mut d], others) = self.memory.carve([d]);
                let logits = others.get(logits);
                match seed {
                    Seed::Gradient => loss::gradient(cuda, d, logits, labels, n, of),
                    Seed::Weighted(..) => {
                        loss::gradient(cuda, d.output(), logits, labels, n, of)?;
                        loss::weigh(cuda, d, self.losses.input().part(0..n))
                    }
                    Seed::Tilted(_) => {
                        let [factors, offsets] = self.tilt;
                        loss::gradient(cuda, d.output(), logits, labels, n, of)?;
                        loss::weigh(cuda, d.output(), factors.part(0..n))?;
                        let len = d.len();
                        pointwise::add(cuda, d, offsets.part(0..len))
                    }
                    Seed::Draws { seed, first } => loss::draw(cuda, d, logits, n, seed, first, of),
                }
            }
            LossOp::Product { matrix, back, tangent, logits } => {
                let ([back], others) = self.memory.carve([back]);
                let (tangent, logits) = (others.get(tangent), others.get(logits));
                loss::product(cuda, back, tangent, logits, labels, n, matrix, of)
            }
        }
    }

    /// Replaces the losses by the weights that the host gives them.
    fn weigh_losses(&mut self, logits: Value, weight: &Weight, first: usize) -> Result<()> {
        let (cuda, n) = (self.passes.cuda, self.n);
        let mut losses = vec![0.0; n];
        let out = self.losses.output().split_at(n).0;
        loss::values(cuda, out, self.memory.value(logits), self.labels, self.passes.net.loss)?;
        cuda.read(&mut losses, self.losses.input().part(0..n))?;
        let factors = losses.iter_mut().enumerate();
        factors.for_each(|(i, loss)| *loss = weight(first + i, f64::from(*loss)) as f32);
        cuda.write(self.losses.output().split_at(n).0, &losses)
    }
}

/// The gradients of two parameters, where they are wanted.
fn two<'b>(sink: &'b mut Option<&mut dyn Sink>, a: ParamId, b: ParamId) -> Option<[Out<'b, f32>; 2]> {
    let gradients = sink.as_mut()?.other();
    let two = gradients.get_disjoint_mut([a.index(), b.index()]).ok()?;
    Some(two.map(Buffer::output))
}
