//! The instructions of a [`Program`](super::program::Program): one enum of families, one file each, and what each reads,
//! writes and adds to.

mod activation;
mod affine;
mod attention;
mod bands;
mod batch_norm;
mod embedding;
mod gate;
mod loss;
mod norm;
mod operands;
mod pointwise;
mod pool;
mod rows;
mod shortcut;

pub(crate) use activation::ActivationOp;
pub(crate) use affine::{AffineForward, AffineOp, Weights};
pub(crate) use attention::{AttentionOp, Heads, Scores};
pub(crate) use bands::BandsOp;
pub(crate) use batch_norm::BatchNormOp;
pub(crate) use embedding::EmbeddingOp;
pub(crate) use gate::GateOp;
pub(crate) use loss::LossOp;
pub(crate) use norm::{Norm, NormOp, Over};
pub(crate) use operands::{Access, LayerUse, Operands, Value};
pub(crate) use pointwise::PointwiseOp;
pub(crate) use pool::{PoolOp, Pooling};
pub(crate) use rows::{RowSource, Rows, RowsOp};
pub(crate) use shortcut::ShortcutOp;

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
    /// Positions of an image in another order.
    Bands(BandsOp);
    /// Layer norm or group norm.
    Norm(NormOp);
    /// Batch norm with the statistics of the batch, for which all chunks of the batch wait.
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
