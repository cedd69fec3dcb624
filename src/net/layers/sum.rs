//! The sum of two inputs.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::PointwiseOp;
use crate::net::{Builder, NodeId, Op};

use super::passes::Lower;

/// A node of it.
pub(super) struct Sum;

impl Lower for Sum {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, a, b) = (at.y()?, at.x(0)?, at.x(1)?);
        at.push(PointwiseOp::Sum { y, a, b });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let y = at.tangent()?;
        match at.tangent_of(0) {
            Some(x) => at.push(PointwiseOp::Copy { y, x }),
            None => at.push(PointwiseOp::Zero { y }),
        }
        if let Some(x) = at.tangent_of(1) {
            at.push(PointwiseOp::Add { y, x });
        }
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let x = at.dy()?;
        for input in [1, 0] {
            if let Some(y) = at.dx(input) {
                at.push(PointwiseOp::Add { y, x });
            }
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

impl Builder<'_> {
    /// x + y.
    pub fn add(&mut self, x: NodeId, y: NodeId) -> Result<NodeId> {
        let (a, b) = (self.shape(x), self.shape(y));
        if a != b {
            return Err(Error::shape("add", format!("{a:?}"), format!("{b:?}")));
        }
        Ok(self.push(Op::Add, &[x, y], a))
    }
}
