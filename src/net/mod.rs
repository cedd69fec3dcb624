//! A network: a static graph of nodes over layers.
//!
//! A *layer* owns a weight (and a bias) and with them its units; a *node* is one use of a layer, or an operation
//! without units. Every input of a node comes before the node; node 0 is the image. The
//! families of [`crate::zoo`] compose networks with a [`Builder`] in *train form*, where batch norm is a node of its
//! own; [`Network::freeze`] folds batch norm, residual and activation into the [`Epilogue`] of the layer before them.
//! Only frozen networks have tangent passes.
//!
//! Activations are NHWC; weights are output-major rows, convolution `[o, r·s·c/groups]` and linear `[o, c]` alike, so
//! that a unit is one contiguous row and its bias. PyTorch's order lives at the border only ([`Order`]).

mod arena;
mod build;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod elements;
mod emit;
mod evaluate;
#[cfg(test)]
mod everything;
mod freeze;
mod ids;
mod instruction;
mod lanes;
mod layers;
mod lower;
mod maps;
mod network;
mod order;
pub mod plan;
mod program;
mod rows;
mod step;
mod train;
mod units;

pub(crate) use build::is_shape;
pub use build::{Builder, LayerTensors, Source};
pub(crate) use cuda::{TraceOnDevice, trace_on_device};
pub use evaluate::{Scores, Trace, evaluate, outputs, surprisals};
pub(crate) use evaluate::{pass, zeros};
pub use ids::{LayerId, NodeId, ParamId, UnitId};
pub(crate) use instruction::LayerUse;
pub(crate) use lanes::{check, in_lanes, lanes, sums_of};
pub use maps::{activation_maps, mapped};
pub use network::{Affine, Epilogue, Layer, Network, Node, Op, Param, Role, ScaledBy};
pub use order::Order;
pub use program::Tilt;
pub(crate) use program::{Section, Seed};
pub(crate) use rows::RowValues;
pub use rows::Selected;
pub use step::Step;
pub use train::{State, TrainPass};
pub use units::Units;

pub use crate::ops::{Activation, Conv, Shape, Window};
