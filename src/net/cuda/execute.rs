//! The executor on a CUDA device: one exhaustive match from each family of instructions to operations on device memory.

mod affine;
mod range;
mod tokens;

use super::passes::{carve_moments, copy};
use super::rows::Sink;
use super::run::Run;
use super::sizes::gradient_parts;
use crate::device::cuda::{Buffer, Element, Out};
use crate::error::Result;
use crate::loss::Weight;
use crate::net::ParamId;
use crate::net::instruction::{
    ActivationOp, BatchNormOp, EmbeddingOp, GateOp, Instruction, LossOp, Norm, NormOp, Over, PointwiseOp,
    PoolOp, RowSource, Rows, RowsOp, ShortcutOp, Value,
};
use crate::net::program::{Section, Seed};
use crate::ops::Strided;
use crate::ops::cuda::{
    activation, batch_norm, embedding, gate, group_norm, layer_norm, loss, pointwise, pool, shape,
};

/// What an operation does with values of the type that a value has, which is `$T`.
macro_rules! typed {
    ($run:expr, $value:expr, $T:ident => $operation:expr) => {
        match $run.element($value) {
            Element::F32 => {
                type $T = f32;
                $operation
            }
            Element::Bf16 => {
                type $T = half::bf16;
                $operation
            }
            Element::F16 => {
                type $T = half::f16;
                $operation
            }
        }
    };
}
use typed;

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
            let done = self.execute(&step.instruction).and_then(|()| self.watch(&step.instruction));
            done.map_err(|error| error.during(&passes.name(step.node.index(), what)))
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

    /// The type of a value's elements.
    fn element(&self, value: Value) -> Element {
        self.passes.plan.program.element(value)
    }

    fn activation(&mut self, op: &ActivationOp) -> Result<()> {
        let cuda = self.passes.cuda;
        match *op {
            ActivationOp::Forward { y, x, kind } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                activation::forward::<T>(cuda, y, others.get(x), kind)
            }),
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
            PointwiseOp::Copy { y, x } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                copy::<T>(cuda, y, others.get(x))
            }),
            PointwiseOp::Add { y, x } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::add::<T>(cuda, y, others.get(x))
            }),
            PointwiseOp::Sum { y, a, b } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                pointwise::sum::<T>(cuda, y, others.get(a), others.get(b))
            }),
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
                typed!(self, y, T => {
                    let ([y], others) = self.memory.carve([y]);
                    pointwise::scale_shift::<T>(cuda, y, others.get(x), scale, shift)
                })
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
            RowsOp::Copy(rows) => self.move_rows(rows, false),
            RowsOp::Add(rows) => self.move_rows(rows, true),
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

    fn move_rows(&mut self, rows: &Rows, add: bool) -> Result<()> {
        let Rows { y, to, source, count, len } = rows;
        let (passes, cuda, rows) = (self.passes, self.passes.cuda, self.n * count);
        match *source {
            RowSource::Value(x, from) => typed!(self, *y, T => {
                let ([y], others) = self.memory.carve([*y]);
                match add {
                    true => shape::add::<T>(cuda, y, others.get(x), rows, *len, *to, from),
                    false => shape::copy::<T>(cuda, y, others.get(x), rows, *len, *to, from),
                }
            }),
            RowSource::Param(param) => {
                let ([y], _) = self.memory.carve([*y]);
                let (x, from) = (passes.param(param), Strided { first: 0, stride: 0 });
                match add {
                    true => shape::add(cuda, y, x, rows, *len, *to, from),
                    false => shape::copy(cuda, y, x, rows, *len, *to, from),
                }
            }
        }
    }

    fn norm(&mut self, op: &NormOp) -> Result<()> {
        let (passes, cuda, n) = (self.passes, self.passes.cuda, self.n);
        match *op {
            NormOp::Forward { y, moments, x, eps, at: Norm { shape, over, gamma, beta } } => {
                let (gamma, beta) = (passes.param(gamma), passes.param(beta));
                match over {
                    Over::Channels => typed!(self, y, T => {
                        let (y, moments, others) = self.memory.carve_two::<T>(y, moments);
                        layer_norm::forward(cuda, y, moments, others.get(x), gamma, beta, eps)
                    }),
                    Over::Groups(groups) => {
                        let ([y, moments], others) = self.memory.carve([y, moments]);
                        let x = others.get(x);
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
            GateOp::Apply { y, x, gate, c, accumulate } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                gate::apply::<T>(cuda, y, others.get(x), others.get(gate), c, accumulate)
            }),
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
            BatchNormOp::Again { y, x, node, gamma, beta, eps, c: _ } => {
                let (moments, _) = carve_moments(self.moments.output(), passes.moments(node));
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
            PoolOp::Max { y, winners, x, at, window } => typed!(self, y, T => {
                let (y, winners, others) = self.memory.carve_read::<T>(y, winners);
                let winners = winners.map(Out::bits);
                pool::max_pool(cuda, y, winners, others.get(x), n, at.from, at.to, window)
            }),
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
            PoolOp::Average { y, x, at, window } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                pool::average_pool::<T>(cuda, y, others.get(x), n, at.from, at.to, window)
            }),
            PoolOp::AverageAdjoint { dx, dy, at, window } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::average_pool_backward(cuda, dx, others.get(dy), n, at.from, at.to, window)
            }
            PoolOp::Adaptive { y, x, at } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                pool::adaptive_pool::<T>(cuda, y, others.get(x), n, at.from, at.to)
            }),
            PoolOp::AdaptiveAdjoint { dx, dy, at } => {
                let ([dx], others) = self.memory.carve([dx]);
                pool::adaptive_pool_backward(cuda, dx, others.get(dy), n, at.from, at.to)
            }
        }
    }

    fn shortcut(&mut self, op: &ShortcutOp) -> Result<()> {
        let (cuda, n) = (self.passes.cuda, self.n);
        match *op {
            ShortcutOp::Forward { y, x, from, to, stride } => typed!(self, y, T => {
                let ([y], others) = self.memory.carve([y]);
                shape::shortcut::<T>(cuda, y, others.get(x), n, from, to, stride)
            }),
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
