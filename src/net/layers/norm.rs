//! Layer norm over the channels of each position (MATH.md, Eq. 8), and group norm over groups of neighbouring channels and
//! all positions (Eq. 8b).

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{self, NormOp, Over};
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId};

use super::passes::Lower;

/// A node of one.
pub(super) struct Norm {
    pub over: Over,
    pub gamma: ParamId,
    pub beta: ParamId,
    pub eps: f32,
}

impl Norm {
    fn at(&self, at: &At) -> instruction::Norm {
        let Norm { over, gamma, beta, .. } = *self;
        instruction::Norm { shape: at.shape(), over, gamma, beta }
    }
}

impl Lower for Norm {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, norm) = (at.y()?, at.x(0)?, self.at(at));
        let moments = at.save("moments", norm.moments());
        at.push(NormOp::Forward { y, moments, x, eps: self.eps, at: norm });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (t, tx, x, moments) = (at.tangent()?, at.tangent_of_input()?, at.x(0)?, at.saved()?);
        at.push(NormOp::Tangent { t, tx, x, moments, at: self.at(at) });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, x, moments, norm) = (at.dy()?, at.x(0)?, at.saved()?, self.at(at));
        if at.trains() {
            at.push(NormOp::ParameterGradient { dy, x, moments, at: norm });
        }
        if let Some(dx) = at.dx(0) {
            at.push(NormOp::Backward { dx, dy, x, moments, at: norm });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dyt, dy, x, moments) = (at.dy()?, at.primal_dy()?, at.x(0)?, at.saved()?);
        let (tx, norm) = (at.tangent_of_input()?, self.at(at));
        if let Some(dxt) = at.dx(0) {
            at.push(NormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, at: norm });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Layer norm over channels under `name.{weight, bias}`.
    pub fn layer_norm(&mut self, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
        let [gamma, beta] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.layer_norm_of(x, [&gamma, &beta], eps)
    }

    /// Layer norm over channels by tensors of any names: scale and shift.
    ///
    /// # Errors
    /// Where one is missing, or has not one value per channel.
    pub fn layer_norm_of(&mut self, x: NodeId, names: [&str; 2], eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        let [gamma, beta] = self.scale_and_shift(names, shape.c)?;
        Ok(self.push(Op::LayerNorm { gamma, beta, eps }, &[x], shape))
    }

    /// Group norm under `name.{weight, bias}`.
    ///
    /// # Errors
    /// Where the channels do not form this many equal groups, or a tensor is missing.
    pub fn group_norm(&mut self, x: NodeId, name: &str, groups: usize, eps: f32) -> Result<NodeId> {
        let [gamma, beta] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.group_norm_of(x, [&gamma, &beta], groups, eps)
    }

    /// Group norm by tensors of any names: scale and shift.
    ///
    /// # Errors
    /// As [`Builder::group_norm`].
    pub fn group_norm_of(&mut self, x: NodeId, names: [&str; 2], groups: usize, eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        if groups == 0 || !shape.c.is_multiple_of(groups) {
            let expected = format!("channels in {groups} equal groups");
            return Err(Error::shape("group_norm", expected, format!("{}", shape.c)));
        }
        let [gamma, beta] = self.scale_and_shift(names, shape.c)?;
        Ok(self.push(Op::GroupNorm { groups, gamma, beta, eps }, &[x], shape))
    }

    fn scale_and_shift(&mut self, [gamma, beta]: [&str; 2], c: usize) -> Result<[ParamId; 2]> {
        let gamma = self.param(gamma, &[c], Order::Same, Role::One)?;
        Ok([gamma, self.param(beta, &[c], Order::Same, Role::Zero)?])
    }
}
