//! Group norm over groups of neighbouring channels and all positions (MATH.md, Eq. 8b).

use crate::net::emit::At;
use crate::net::instruction::{GroupNormOp, Groups};
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId};
use crate::{Error, Result};

use super::passes::Lower;

/// A node of it.
pub(super) struct GroupNorm {
    pub groups: usize,
    pub gamma: ParamId,
    pub beta: ParamId,
    pub eps: f32,
}

impl GroupNorm {
    fn at(&self, at: &At) -> Groups {
        Groups { shape: at.shape(), groups: self.groups }
    }
}

impl Lower for GroupNorm {
    fn forward(&self, at: &mut At) -> Result<()> {
        let GroupNorm { groups, gamma, beta, eps } = *self;
        let (y, x, sizes) = (at.y()?, at.x(0)?, self.at(at));
        let moments = at.save("moments", 2 * groups);
        at.push(GroupNormOp::Forward { y, moments, x, gamma, beta, eps, at: sizes });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (t, tx, x, moments) = (at.tangent()?, at.tangent_of_input()?, at.x(0)?, at.saved()?);
        let sizes = self.at(at);
        at.push(GroupNormOp::Tangent { t, tx, x, moments, gamma: self.gamma, at: sizes });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let GroupNorm { gamma, beta, .. } = *self;
        let (dy, x, moments, sizes) = (at.dy()?, at.x(0)?, at.saved()?, self.at(at));
        if at.trains() {
            at.push(GroupNormOp::ParameterGradient { gamma, beta, dy, x, moments, at: sizes });
        }
        if let Some(dx) = at.dx(0) {
            at.push(GroupNormOp::Backward { dx, dy, x, moments, gamma, at: sizes });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dyt, dy, x, moments) = (at.dy()?, at.primal_dy()?, at.x(0)?, at.saved()?);
        let (tx, sizes) = (at.tangent_of_input()?, self.at(at));
        if let Some(dxt) = at.dx(0) {
            let gamma = self.gamma;
            at.push(GroupNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma, at: sizes });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Group norm under `name.{weight, bias}`.
    ///
    /// # Errors
    /// Where the channels do not form so many equal groups, or a tensor is missing.
    pub fn group_norm(&mut self, x: NodeId, name: &str, groups: usize, eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        if groups == 0 || !shape.c.is_multiple_of(groups) {
            let expected = format!("channels in {groups} equal groups");
            return Err(Error::shape("group_norm", expected, format!("{}", shape.c)));
        }
        let gamma = self.param(&format!("{name}.weight"), &[shape.c], Order::Same, Role::One)?;
        let beta = self.param(&format!("{name}.bias"), &[shape.c], Order::Same, Role::Zero)?;
        Ok(self.push(Op::GroupNorm { groups, gamma, beta, eps }, &[x], shape))
    }
}
