//! The CPU's executor: one exhaustive match from each family of instructions to operations on slices.

mod tokens;

use super::Run;
use crate::net::NodeId;
use crate::net::instruction::{
    ActivationOp, AffineForward, AffineOp, EmbeddingOp, GateOp, Instruction, LayerUse, LossOp, Norm, NormOp,
    Over, PointwiseOp, PoolOp, Rows, RowsOp, ShortcutOp, Weights,
};
use crate::net::plan::Plan;
use crate::net::program::{Section, Seed, Step, Tilt};
use crate::net::rows::RowValues;
use crate::ops::Strided;
use crate::ops::cpu::{
    activation, conv, embedding, gate, group_norm, layer_norm, means, pointwise, pool, shape,
};

impl<'a> Run<'a> {
    /// Runs one section, of a batch that is one chunk.
    pub fn section(&mut self, section: Section) {
        self.steps(self.plan.program.section(section));
    }

    /// Runs some steps.
    pub(super) fn steps(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.execute(&step.instruction));
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

    pub(super) fn execute(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Affine(op) => self.affine(op),
            Instruction::Activation(op) => self.activation(op),
            Instruction::Pointwise(op) => self.pointwise(op),
            Instruction::Rows(op) => self.rows(op),
            Instruction::Bands(op) => self.bands(op),
            Instruction::Norm(op) => self.norm(op),
            Instruction::BatchNorm(_) => unreachable!("a batch norm reads the whole batch: Batch runs it"),
            Instruction::Attention(op) => self.attention(op),
            Instruction::Gate(op) => self.gate(op),
            Instruction::Embedding(op) => self.embedding(op),
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
                        let Some(Direction { weight, bias, rows }) = direction(v, others.plan, at) else {
                            return;
                        };
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
                        let Some(Direction { weight, rows, .. }) = direction(v, others.plan, at) else {
                            return;
                        };
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
            RowsOp::Sum { param, len, x, count } => {
                let (images, from) = (self.memory.value(*x), Strided { first: 0, stride: x.len / count });
                let sink = self.sink.as_mut();
                if let Some(gradient) = sink.and_then(|sink| sink.other().get_mut(param.index())) {
                    shape::add_sum(&mut gradient[..*len], images, n * count, from);
                }
            }
        }
    }

    fn norm(&mut self, op: &NormOp) {
        let (net, n) = (self.net, self.n);
        match *op {
            NormOp::Forward { y, moments, x, eps, at: Norm { shape, over, gamma, beta } } => {
                let ([y, moments], others) = self.memory.carve([y, moments]);
                let (x, gamma, beta) = (others.get(x), net.value(gamma), net.value(beta));
                match over {
                    Over::Channels => layer_norm::forward(y, moments, x, gamma, beta, eps),
                    Over::Groups(groups) => {
                        group_norm::forward(y, moments, x, gamma, beta, n, shape, groups, eps)
                    }
                }
            }
            NormOp::Tangent { t, tx, x, moments, at: Norm { shape, over, gamma, beta: _ } } => {
                let ([t], others) = self.memory.carve([t]);
                let ([tx, x, moments], gamma) = ([tx, x, moments].map(|x| others.get(x)), net.value(gamma));
                match over {
                    Over::Channels => layer_norm::tangent(t, tx, x, moments, gamma),
                    Over::Groups(groups) => group_norm::tangent(t, tx, x, moments, gamma, n, shape, groups),
                }
            }
            NormOp::Backward { dx, dy, x, moments, at: Norm { shape, over, gamma, beta: _ } } => {
                let ([dx], others) = self.memory.carve([dx]);
                let ([dy, x, moments], gamma) = ([dy, x, moments].map(|x| others.get(x)), net.value(gamma));
                match over {
                    Over::Channels => layer_norm::backward(dx, dy, x, moments, gamma),
                    Over::Groups(groups) => group_norm::backward(dx, dy, x, moments, gamma, n, shape, groups),
                }
            }
            NormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, at } => {
                let (Norm { shape, over, gamma, beta: _ }, ([dxt], others)) = (at, self.memory.carve([dxt]));
                let [dyt, dy, tx, x, moments] = [dyt, dy, tx, x, moments].map(|x| others.get(x));
                let gamma = net.value(gamma);
                match over {
                    Over::Channels => layer_norm::tangent_backward(dxt, dyt, dy, tx, x, moments, gamma),
                    Over::Groups(groups) => {
                        group_norm::tangent_backward(dxt, dyt, dy, tx, x, moments, gamma, n, shape, groups)
                    }
                }
            }
            NormOp::ParameterGradient { dy, x, moments, at: Norm { shape, over, gamma, beta } } => {
                let [dy, x, moments] = [dy, x, moments].map(|x| self.memory.value(x));
                let Some(sink) = &mut self.sink else { return };
                let gradients = sink.other().get_disjoint_mut([gamma.index(), beta.index()]);
                let Ok([dgamma, dbeta]) = gradients else { return };
                match over {
                    Over::Channels => layer_norm::parameter_gradient(dgamma, dbeta, dy, x, moments),
                    Over::Groups(groups) => {
                        group_norm::parameter_gradient(dgamma, dbeta, dy, x, moments, n, shape, groups);
                    }
                }
            }
        }
    }

    fn gate(&mut self, op: &GateOp) {
        match *op {
            GateOp::Apply { y, x, gate, c, accumulate } => {
                let ([y], others) = self.memory.carve([y]);
                gate::apply(y, others.get(x), others.get(gate), c, accumulate);
            }
            GateOp::Gradient { dgate, dy, x, c } => {
                let ([dgate], others) = self.memory.carve([dgate]);
                gate::gradient(dgate, others.get(dy), others.get(x), c);
            }
        }
    }

    fn embedding(&mut self, op: &EmbeddingOp) {
        let net = self.net;
        match *op {
            EmbeddingOp::Forward { y, tokens, table, rows: _, c } => {
                let ([y], others) = self.memory.carve([y]);
                embedding::forward(y, bytemuck::cast_slice(others.get(tokens)), net.value(table), c);
            }
            EmbeddingOp::Gradient { table, dy, tokens, rows: _, c } => {
                let (dy, tokens) = (self.memory.value(dy), bytemuck::cast_slice(self.memory.value(tokens)));
                let sink = self.sink.as_mut();
                if let Some(dtable) = sink.and_then(|sink| sink.other().get_mut(table.index())) {
                    embedding::gradient(dtable, dy, tokens, c);
                }
            }
        }
    }

    /// Batch norm over all chunks of a batch: sums are added in the order of the chunks.
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
        let (labels, seed, loss, classes) = (self.labels, self.seed, self.net.loss, self.net.classes());
        let done = match *op {
            LossOp::Gradient { d, logits } => {
                let ([d], others) = self.memory.carve([d]);
                let logits = others.get(logits);
                match seed {
                    Seed::Gradient => loss.gradient(d, logits, labels, classes),
                    Seed::Weighted(weight, first) => loss
                        .gradient(d, logits, labels, classes)
                        .and_then(|()| loss.weigh(d, logits, labels, classes, first, weight)),
                    Seed::Tilted(tilt) => {
                        loss.gradient(d, logits, labels, classes).map(|()| tilted(d, tilt, classes))
                    }
                    Seed::Draws { seed, first } => loss.draw(d, logits, classes, seed, first),
                }
            }
            LossOp::Product { matrix, back, tangent, logits } => {
                let ([back], others) = self.memory.carve([back]);
                loss.product(matrix, back, others.get(tangent), others.get(logits), labels, classes)
            }
        };
        // Lengths were checked with the program, labels when they were read.
        assert!(done.is_ok(), "{done:?}");
    }
}

/// d ← factor · d + offset, row by row of `[n, classes]`.
fn tilted(d: &mut [f32], tilt: Tilt, classes: usize) {
    let rows = d.chunks_exact_mut(classes).zip(tilt.offsets.chunks_exact(classes)).zip(tilt.factors);
    for ((d, offsets), factor) in rows {
        d.iter_mut().zip(offsets).for_each(|(d, offset)| *d = *d * factor + offset);
    }
}

/// What a direction has for a layer: weights, biases if there are any, and the rows that these are, where not all.
struct Direction<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    rows: Option<&'a [u32]>,
}

fn direction<'a>(v: Option<&'a RowValues>, plan: &'a Plan, at: &LayerUse) -> Option<Direction<'a>> {
    let (v, layer) = (v?, at.layer.index());
    let bias = Some(v.bias[layer].as_slice()).filter(|bias| !bias.is_empty());
    Some(Direction { weight: &v.weight[layer], bias, rows: plan.rows[layer].subset() })
}
