//! A gate: a map times one value per image and channel, y[p, c] = x[p, c] g[c] (MATH.md, Eq. 8c). The product is bilinear,
//! so that two instructions make all four passes, whichever of the two inputs require a tangent.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::GateOp;
use crate::net::{Builder, NodeId, Op};

use super::passes::Lower;

/// A node of it.
pub(super) struct Gate;

impl Lower for Gate {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, gate, c) = (at.y()?, at.x(0)?, at.x(1)?, at.shape().c);
        at.push(GateOp::Apply { y, x, gate, c, accumulate: false });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x, gate, c) = (at.tangent()?, at.x(0)?, at.x(1)?, at.shape().c);
        let (tx, tangent) = (at.tangent_of(0), at.tangent_of(1));
        if let Some(x) = tx {
            at.push(GateOp::Apply { y, x, gate, c, accumulate: false });
        }
        if let Some(gate) = tangent {
            at.push(GateOp::Apply { y, x, gate, c, accumulate: tx.is_some() });
        }
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, x, gate, c) = (at.dy()?, at.x(0)?, at.x(1)?, at.shape().c);
        if let Some(dgate) = at.dx(1) {
            at.push(GateOp::Gradient { dgate, dy, x, c });
        }
        if let Some(dx) = at.dx(0) {
            at.push(GateOp::Apply { y: dx, x: dy, gate, c, accumulate: true });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)?;
        let (dy, c) = (at.primal_dy()?, at.shape().c);
        if let (Some(dgate), Some(x)) = (at.dx(1), at.tangent_of(0)) {
            at.push(GateOp::Gradient { dgate, dy, x, c });
        }
        if let (Some(dx), Some(gate)) = (at.dx(0), at.tangent_of(1)) {
            at.push(GateOp::Apply { y: dx, x: dy, gate, c, accumulate: true });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// x times `gate`, which has one position and x's channels.
    ///
    /// # Errors
    /// Where it has another shape.
    pub fn gate(&mut self, x: NodeId, gate: NodeId) -> Result<NodeId> {
        let (shape, by) = (self.shape(x), self.shape(gate));
        if by.positions() != 1 || by.c != shape.c {
            let expected = format!("a gate of one position and {} channels", shape.c);
            return Err(Error::shape("gate", expected, format!("{by:?}")));
        }
        Ok(self.push(Op::Gate, &[x, gate], shape))
    }
}
