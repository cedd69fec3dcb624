//! Affine layers on CUDA.

use super::typed;
use crate::device::cuda::{Element, Scalar};
use crate::error::Result;
use crate::net::cuda::rows::Used;
use crate::net::cuda::run::Run;
use crate::net::instruction::{AffineForward, AffineOp, LayerUse, Weights};
use crate::ops::cuda::{activation, conv, means};

impl Run<'_> {
    pub(super) fn affine(&mut self, op: &AffineOp) -> Result<()> {
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
        typed!(self, op.x, X => typed!(self, op.y, Y => self.affine_forward_of::<X, Y>(op)))
    }

    /// From values of type X to values of type Y.
    fn affine_forward_of<X: Scalar, Y: Scalar>(&mut self, op: &AffineForward) -> Result<()> {
        let AffineForward { y: value, argument, x, residual, at, scale, activation: kind, uses } = op;
        let (passes, n, geometry) = (self.passes, self.n, &at.geometry);
        let (cuda, owner, precision) = (passes.cuda, passes.net.layer(at.layer), passes.precision);
        let (weight, bias) = (passes.param(owner.weight), owner.bias.map(|bias| passes.param(bias)));
        let traced = self.trace.is_some();
        let count = if traced { conv::parts(n, geometry) } else { 0 };
        let sums = traced.then(|| self.parts.output().split_at(count).0);
        let scratch = self.halves.output().split_at(conv::scratch(n, geometry, precision, X::ELEMENT)).0;
        let ([z], others) = self.memory.carve::<Y, 1>([argument.unwrap_or(*value)]);
        let epilogue = conv::Epilogue {
            affine: scale.and_then(|node| passes.scale_shift(node)),
            residual: residual.map(|residual| others.get(residual)),
            activation: kind.filter(|_| argument.is_none()),
            overflow: self.overflow,
        };
        let x = others.get::<X>(*x);
        conv::forward(cuda, z, sums, x, weight, bias, epilogue, n, geometry, precision, scratch)?;
        if let (Some(argument), Some(kind)) = (argument, kind) {
            let ([y], others) = self.memory.carve::<Y, 1>([*value]);
            activation::forward(cuda, y, others.get(*argument), *kind)?;
        }
        if let Some(trace) = &mut self.trace {
            let (columns, d) = (passes.net.units().of_layer(at.layer), passes.net.units().len());
            let sums = self.parts.input().part(0..count);
            means::means(cuda, trace.output(), sums, n, geometry, columns, d, *uses)?;
        }
        Ok(())
    }
}
