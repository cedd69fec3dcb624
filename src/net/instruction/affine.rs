//! What is done with a layer's weights: an affine layer's forward pass with its epilogue, and the three bilinear
//! primitives of all others.

use super::operands::{LayerUse, Operands, Value};
use crate::net::{Activation, NodeId};

/// Which weights are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// The layer's.
    Layer,
    /// The direction's, which are there for the selected rows.
    Direction,
}

/// y = act(scale · z + shift + residual) of z = Wx + b. Where activations are asked for, the mean of z over positions
/// and `uses` is added to those of the layer's units.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AffineForward {
    /// The value.
    pub y: Value,
    /// Where the activation's argument is wanted.
    pub argument: Option<Value>,
    /// The input.
    pub x: Value,
    /// What is added before the activation.
    pub residual: Option<Value>,
    /// The layer.
    pub at: LayerUse,
    /// The node whose frozen scale and shift are applied.
    pub scale: Option<NodeId>,
    /// The nonlinearity.
    pub activation: Option<Activation>,
    /// How often the network uses the layer.
    pub uses: usize,
}

/// What is done with a layer's weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AffineOp {
    /// The value.
    Forward(AffineForward),
    /// y = Wx without the bias; or y += Vx + v_b, of the direction.
    Apply {
        /// z' of the layer.
        y: Value,
        /// The input, or its tangent.
        x: Value,
        /// The layer.
        at: LayerUse,
        /// W or V.
        weights: Weights,
    },
    /// dx += Wᵀ dz, or Vᵀ dz.
    DataGradient {
        /// The input's adjoint.
        dx: Value,
        /// The adjoint of z.
        dz: Value,
        /// The layer.
        at: LayerUse,
        /// W or V.
        weights: Weights,
    },
    /// Gives dz and x to the sink of the gradients of the selected rows: dW += dzᵀx, and db += Σ dz where `bias`.
    WeightGradient {
        /// The adjoint of z.
        dz: Value,
        /// The input, or its tangent.
        x: Value,
        /// The layer.
        at: LayerUse,
        /// Whether the bias has its part.
        bias: bool,
    },
}

impl AffineOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match self {
            AffineOp::Forward(op) => {
                let AffineForward { y, argument, x, residual, at, scale, activation: _, uses: _ } = op;
                let (inner, outer) = (at.geometry.input.len(), at.geometry.output.len());
                all.write(*y, outer);
                argument.iter().for_each(|argument| all.write(*argument, outer));
                all.read(*x, inner);
                residual.iter().for_each(|residual| all.read(*residual, outer));
                scale.iter().for_each(|node| all.scale(*node, outer));
                all.layer(*at);
                let results = [Some(*y), *argument, *residual].into_iter().flatten();
                // A depthwise layer has one kernel for each type.
                match at.geometry.is_depthwise() {
                    true => all.alike(results.chain([*x])),
                    false => {
                        all.alike(results);
                        all.alike([*x]);
                    }
                }
            }
            AffineOp::Apply { y, x, at, weights } => {
                match weights {
                    Weights::Layer => all.write(*y, at.geometry.output.len()),
                    Weights::Direction => all.add(*y, at.geometry.output.len()),
                }
                all.read(*x, at.geometry.input.len());
                all.layer(*at);
            }
            AffineOp::DataGradient { dx, dz, at, weights: _ } => {
                all.add(*dx, at.geometry.input.len());
                all.read(*dz, at.geometry.output.len());
                all.layer(*at);
            }
            AffineOp::WeightGradient { dz, x, at, bias: _ } => {
                all.read(*dz, at.geometry.output.len());
                all.read(*x, at.geometry.input.len());
                all.layer_gradient(*at);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            AffineOp::Forward(AffineForward { scale, activation, .. }) => {
                let activation = activation.map(|kind| format!("{kind:?}").to_lowercase());
                let parts = [scale.map(|_| "scale-shift".to_string()), activation];
                ("affine", parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
            }
            AffineOp::Apply { weights, .. } => ("apply", weights.name().into()),
            AffineOp::DataGradient { weights, .. } => ("data-gradient", weights.name().into()),
            AffineOp::WeightGradient { bias, .. } => {
                ("weight-gradient", if *bias { "with bias" } else { "" }.into())
            }
        }
    }
}

impl Weights {
    fn name(self) -> &'static str {
        match self {
            Weights::Layer => "",
            Weights::Direction => "along v",
        }
    }
}
