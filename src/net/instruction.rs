//! The instructions of a [`Program`](super::program::Program): one enum of families, and what each reads, writes and adds to.

use super::layers::activation::ActivationOp;
use super::layers::affine::{AffineOp, LayerUse};
use super::layers::attention::AttentionOp;
use super::layers::batch_norm::BatchNormOp;
use super::layers::embedding::EmbeddingOp;
use super::layers::gate::GateOp;
use super::layers::group_norm::GroupNormOp;
use super::layers::layer_norm::LayerNormOp;
use super::layers::loss::LossOp;
use super::layers::pointwise::PointwiseOp;
use super::layers::pool::PoolOp;
use super::layers::rows::RowsOp;
use super::layers::shortcut::ShortcutOp;
use super::{Network, NodeId, ParamId};
use crate::{Error, Result};

/// A value that instructions compute: so many floats an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(super) id: u32,
    /// Floats an image.
    pub len: usize,
}

impl Value {
    /// Its number in the program.
    pub fn index(self) -> usize {
        self.id as usize
    }
}

macro_rules! families {
    ($($(#[$doc:meta])* $family:ident($op:ident);)*) => {
        /// One operation on values, by what it belongs to. Each family has an exhaustive match of its own on each
        /// device.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Instruction {
            $($(#[$doc])* $family($op),)*
        }

        $(impl From<$op> for Instruction {
            fn from(op: $op) -> Instruction {
                Instruction::$family(op)
            }
        })*

        impl Instruction {
            /// What it reads, writes and adds to, with the lengths that these must have.
            pub fn operands(&self) -> Operands {
                let mut operands = Operands::default();
                match self {
                    $(Instruction::$family(op) => op.operands(&mut operands),)*
                }
                operands
            }

            /// What it is called, and its settings.
            pub fn describe(&self) -> (&'static str, String) {
                match self {
                    $(Instruction::$family(op) => op.describe(),)*
                }
            }
        }
    };
}

families! {
    /// A linear layer or a convolution.
    Affine(AffineOp);
    /// A nonlinearity.
    Activation(ActivationOp);
    /// Sums, copies and scales of whole values.
    Pointwise(PointwiseOp);
    /// Rows that are copied, added or summed.
    Rows(RowsOp);
    /// Layer norm.
    LayerNorm(LayerNormOp);
    /// Group norm.
    GroupNorm(GroupNormOp);
    /// Batch norm with the statistics of the batch, which all chunks of a batch meet at.
    BatchNorm(BatchNormOp);
    /// Attention.
    Attention(AttentionOp);
    /// A map times a gate.
    Gate(GateOp);
    /// Rows of a table by integer tokens.
    Embedding(EmbeddingOp);
    /// Pooling.
    Pool(PoolOp);
    /// The shortcut without parameters.
    Shortcut(ShortcutOp);
    /// The loss.
    Loss(LossOp);
}

/// How an instruction meets a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads it.
    Read,
    /// It writes it, all of it or, as part of several instructions, some.
    Write,
    /// It adds to it.
    Add,
}

/// How much of a parameter an instruction meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// Its first floats.
    Start,
}

/// What an instruction meets, and the lengths that it expects.
#[derive(Default)]
pub(crate) struct Operands {
    pub(super) values: Vec<(Value, usize, Access)>,
    pub(super) params: Vec<(ParamId, usize, Extent)>,
    pub(super) layers: Vec<LayerUse>,
    scales: Vec<(NodeId, usize)>,
}

impl Operands {
    /// A value that is read, of `len` floats an image.
    pub fn read(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Read));
    }

    /// A value that is written. It may be one that is read, where the operation works in place.
    pub fn write(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Write));
    }

    /// A value that is added to.
    pub fn add(&mut self, value: Value, len: usize) {
        self.values.push((value, len, Access::Add));
    }

    /// A parameter, or its gradient, of `len` floats.
    pub fn param(&mut self, param: ParamId, len: usize) {
        self.params.push((param, len, Extent::Whole));
    }

    /// The first `len` floats of a parameter, or of its gradient.
    pub fn param_start(&mut self, param: ParamId, len: usize) {
        self.params.push((param, len, Extent::Start));
    }

    /// The weights of a layer, or their gradient.
    pub fn layer(&mut self, at: LayerUse) {
        self.layers.push(at);
    }

    /// The frozen scale of a node, for values of `len` floats an image.
    pub fn scale(&mut self, node: NodeId, len: usize) {
        self.scales.push((node, len));
    }

    /// Refuses operands of another length than the instruction expects.
    ///
    /// # Errors
    /// Where there are such; the message has `text`.
    pub fn check(&self, net: &Network, text: &dyn Fn() -> String) -> Result<()> {
        let expect = |what: &str, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => {
                Err(Error::shape("program", format!("{expected} {what}"), format!("{found} in {}", text())))
            }
        };
        for &(value, len, _) in &self.values {
            expect("floats an image", len, value.len)?;
        }
        for &(param, len, extent) in &self.params {
            let found = net.value(param).len();
            match extent {
                Extent::Whole => expect("parameters", len, found)?,
                Extent::Start => expect("parameters", len, found.min(len))?,
            }
        }
        for at in &self.layers {
            let layer = net.layer(at.layer);
            expect("outputs", layer.outputs, at.geometry.output.c)?;
            expect("weights a row", layer.fan_in, at.geometry.fan_in())?;
        }
        for &(node, len) in &self.scales {
            let channels = net.nodes[node.index()].op.scale().map_or(0, |affine| affine.scale.len());
            expect("floats of whole channels", len, len.checked_div(channels).unwrap_or(0) * channels)?;
        }
        Ok(())
    }
}
