//! Values beyond f16 on CUDA: affine layers note them when they write, and what other instructions wrote is read again.

use crate::device::cuda::Element;
use crate::error::Result;
use crate::net::cuda::run::Run;
use crate::net::instruction::{GateOp, Instruction, NormOp, PointwiseOp, RowsOp, Value};
use crate::ops::cuda::conv;

impl Run<'_> {
    /// Notes whether an instruction of a pass in f16 wrote what f16 does not have.
    pub(super) fn watch(&mut self, instruction: &Instruction) -> Result<()> {
        match (self.overflow, may_exceed(instruction)) {
            (Some(flag), Some(y)) if self.element(y) == Element::F16 => {
                conv::beyond(self.passes.cuda, flag, self.memory.value::<half::f16>(y))
            }
            _ => Ok(()),
        }
    }
}

/// The value that an instruction writes, where it can be larger than all that it reads and no kernel notes that.
fn may_exceed(instruction: &Instruction) -> Option<Value> {
    match instruction {
        Instruction::Pointwise(
            PointwiseOp::Add { y, .. } | PointwiseOp::Sum { y, .. } | PointwiseOp::ScaleShift { y, .. },
        )
        | Instruction::Gate(GateOp::Apply { y, .. })
        | Instruction::Norm(NormOp::Forward { y, .. }) => Some(*y),
        Instruction::Rows(RowsOp::Add(rows)) => Some(rows.y),
        Instruction::Affine(_)
        | Instruction::Activation(_)
        | Instruction::Pointwise(_)
        | Instruction::Rows(_)
        | Instruction::Bands(_)
        | Instruction::Gate(_)
        | Instruction::Norm(_)
        | Instruction::BatchNorm(_)
        | Instruction::Attention(_)
        | Instruction::Embedding(_)
        | Instruction::Pool(_)
        | Instruction::Shortcut(_)
        | Instruction::Loss(_) => None,
    }
}
