//! Group norm over groups of neighbouring channels and all positions (MATH.md, Eq. 8b).

use crate::net::build::Role;
use crate::net::lower::At;
use crate::net::program::{Operands, Value};
use crate::net::{Builder, NodeId, Op, Order, ParamId, Shape};
use crate::{Error, Result};

use super::Lower;

/// The sizes of a group norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    /// What it reads and gives an image.
    pub shape: Shape,
    /// The number of groups.
    pub groups: usize,
}

/// What is done with a group norm. `moments` holds mean and reciprocal deviation of each group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GroupNormOp {
    /// y = γ x̂ + β, and the moments.
    Forward { y: Value, moments: Value, x: Value, gamma: ParamId, beta: ParamId, eps: f32, at: Groups },
    /// t = γ x̂'.
    Tangent { t: Value, tx: Value, x: Value, moments: Value, gamma: ParamId, at: Groups },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, moments: Value, gamma: ParamId, at: Groups },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward {
        dxt: Value,
        dyt: Value,
        dy: Value,
        tx: Value,
        x: Value,
        moments: Value,
        gamma: ParamId,
        at: Groups,
    },
    /// The gradients of γ and β.
    ParameterGradient { gamma: ParamId, beta: ParamId, dy: Value, x: Value, moments: Value, at: Groups },
}

impl GroupNormOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        let reads = |all: &mut Operands, values: &[Value], moments: Value, at: Groups| {
            values.iter().for_each(|&value| all.read(value, at.shape.len()));
            all.read(moments, 2 * at.groups);
        };
        match *self {
            GroupNormOp::Forward { y, moments, x, gamma, beta, eps: _, at } => {
                all.write(y, at.shape.len());
                all.write(moments, 2 * at.groups);
                all.read(x, at.shape.len());
                [gamma, beta].into_iter().for_each(|param| all.param(param, at.shape.c));
            }
            GroupNormOp::Tangent { t, tx, x, moments, gamma, at } => {
                all.write(t, at.shape.len());
                reads(all, &[tx, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::Backward { dx, dy, x, moments, gamma, at } => {
                all.add(dx, at.shape.len());
                reads(all, &[dy, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma, at } => {
                all.add(dxt, at.shape.len());
                reads(all, &[dyt, dy, tx, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::ParameterGradient { gamma, beta, dy, x, moments, at } => {
                [gamma, beta].into_iter().for_each(|param| all.param(param, at.shape.c));
                reads(all, &[dy, x], moments, at);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, at) = match self {
            GroupNormOp::Forward { at, .. } => ("group-norm", at),
            GroupNormOp::Tangent { at, .. } => ("group-norm-tangent", at),
            GroupNormOp::Backward { at, .. } => ("group-norm-backward", at),
            GroupNormOp::TangentBackward { at, .. } => ("group-norm-tangent-backward", at),
            GroupNormOp::ParameterGradient { at, .. } => ("group-norm-parameter-gradient", at),
        };
        (name, format!("{} groups", at.groups))
    }
}

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
