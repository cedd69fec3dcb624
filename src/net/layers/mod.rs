//! The layers, one file a kind: how a [`Builder`](super::Builder) adds one and what shape it gives, what its
//! instructions read and write, what it saves, and the instructions of its four passes.
//!
//! *Forward* is the value, *tangent* its derivative along a direction v, *backward* what adds to the adjoints of the
//! inputs and to gradients, *tangent backward* the derivative of that along v, hence Hv (MATH.md, Eq. 7). A layer that
//! is linear in its input has the first two and the last two alike.

pub(super) mod activation;
pub(super) mod affine;
pub(super) mod attention;
pub(super) mod batch_norm;
mod concat;
pub(super) mod embedding;
pub(super) mod gate;
pub(super) mod group_norm;
pub(super) mod layer_norm;
pub(super) mod loss;
pub(super) mod pointwise;
pub(super) mod pool;
mod reshape;
pub(super) mod rows;
mod scale;
pub(super) mod shortcut;
mod sum;
mod tokens;

use super::lower::At;
use super::program::{Instruction, Value};
use super::{Op, Shape};
use crate::Result;

/// The four passes of a node. None has a default, so that a layer without one does not compile.
pub(super) trait Lower {
    /// Writes its value.
    fn forward(&self, at: &mut At) -> Result<()>;
    /// Writes its tangent.
    fn tangent(&self, at: &mut At) -> Result<()>;
    /// Adds to the adjoints of its inputs, and to gradients.
    fn backward(&self, at: &mut At) -> Result<()>;
    /// The derivative of `backward` along v.
    fn tangent_backward(&self, at: &mut At) -> Result<()>;
}

/// A layer of one input that is a linear map of it.
trait Linear {
    /// y = A x.
    fn map(&self, y: Value, x: Value, from: Shape, to: Shape) -> Instruction;
    /// dx += Aᵀ dy.
    fn adjoint(&self, dx: Value, dy: Value, from: Shape, to: Shape) -> Instruction;
}

/// The four passes of a linear map.
struct OfLinear<L>(L);

impl<L: Linear> Lower for OfLinear<L> {
    fn forward(&self, at: &mut At) -> Result<()> {
        let map = self.0.map(at.y()?, at.x(0)?, at.from(0), at.shape());
        at.push(map);
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let map = self.0.map(at.tangent()?, at.tangent_of_input()?, at.from(0), at.shape());
        at.push(map);
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let dy = at.dy()?;
        if let Some(dx) = at.dx(0) {
            let adjoint = self.0.adjoint(dx, dy, at.from(0), at.shape());
            at.push(adjoint);
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

/// The image, which is there.
struct Input;

impl Lower for Input {
    fn forward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn tangent(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn backward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn tangent_backward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }
}

/// The layer of an operation.
pub(super) fn of(op: &Op) -> Box<dyn Lower + '_> {
    match op {
        Op::Input => Box::new(Input),
        Op::Linear(layer, epilogue) => Box::new(affine::Affine { layer: *layer, conv: None, epilogue }),
        Op::Conv(layer, conv, epilogue) => {
            Box::new(affine::Affine { layer: *layer, conv: Some(*conv), epilogue })
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            let [gamma, beta, mean, var] = [*gamma, *beta, *mean, *var];
            Box::new(batch_norm::BatchNorm { gamma, beta, mean, var, eps: *eps })
        }
        Op::Scale(_) => Box::new(scale::Scale),
        Op::LayerNorm { gamma, beta, eps } => {
            Box::new(layer_norm::LayerNorm { gamma: *gamma, beta: *beta, eps: *eps })
        }
        Op::GroupNorm { groups, gamma, beta, eps } => {
            let [gamma, beta] = [*gamma, *beta];
            Box::new(group_norm::GroupNorm { groups: *groups, gamma, beta, eps: *eps })
        }
        Op::Activation(kind) => Box::new(*kind),
        Op::Add => Box::new(sum::Sum),
        Op::Gate => Box::new(gate::Gate),
        Op::Reshape => Box::new(OfLinear(reshape::Reshape)),
        Op::MaxPool(window) => Box::new(pool::MaxPool(*window)),
        Op::AveragePool(window) => Box::new(OfLinear(pool::AveragePool(*window))),
        Op::AdaptivePool | Op::GlobalPool => Box::new(OfLinear(pool::AdaptivePool)),
        Op::Embedding { table, rows } => Box::new(embedding::Embedding { table: *table, rows: *rows }),
        Op::ClassToken(token) => Box::new(tokens::ClassToken(*token)),
        Op::Positions(table) => Box::new(tokens::Positions(*table)),
        Op::Tokens(first) => Box::new(OfLinear(tokens::Tokens(*first))),
        Op::Concat => Box::new(concat::Concat),
        Op::Attention { heads, masked } => Box::new(attention::Attention { heads: *heads, masked: *masked }),
        Op::Shortcut { stride } => Box::new(OfLinear(shortcut::Shortcut { stride: *stride })),
    }
}
