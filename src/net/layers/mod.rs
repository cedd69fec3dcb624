//! The layers, one file a kind: how a [`Builder`](super::Builder) adds one and what shape it gives, what it
//! saves, and the instructions of its four passes.
//!
//! *Forward* is the value, *tangent* its derivative along a direction v, *backward* what adds to the adjoints of the
//! inputs and to gradients, *tangent backward* the derivative of that along v, hence Hv (MATH.md, Eq. 7). A layer that
//! is linear in its input has the first two and the last two alike.

mod activation;
mod affine;
mod attention;
mod bands;
mod batch_norm;
mod concat;
mod embedding;
mod gate;
mod norm;
mod passes;
mod pool;
mod reshape;
mod scale;
mod shortcut;
mod sum;
mod tokens;

use super::Op;
use super::instruction::Over;
pub(super) use passes::Lower;
use passes::{Input, OfLinear};

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
        Op::Scale(..) => Box::new(scale::Scale),
        Op::LayerNorm { gamma, beta, eps } => {
            Box::new(norm::Norm { over: Over::Channels, gamma: *gamma, beta: *beta, eps: *eps })
        }
        Op::GroupNorm { groups, gamma, beta, eps } => {
            Box::new(norm::Norm { over: Over::Groups(*groups), gamma: *gamma, beta: *beta, eps: *eps })
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
        Op::RowToAll(table) => Box::new(tokens::RowToAll(*table)),
        Op::Tokens(first) => Box::new(OfLinear(tokens::Tokens(*first))),
        Op::Concat => Box::new(concat::Concat),
        Op::Attention { heads, masked, windows } => {
            Box::new(attention::Attention { heads: *heads, masked: *masked, windows: *windows })
        }
        Op::Bands { bands, back } => Box::new(OfLinear(bands::Reorder { bands: *bands, back: *back })),
        Op::Shortcut { stride } => Box::new(OfLinear(shortcut::Shortcut { stride: *stride })),
    }
}
