//! scale · x + shift per channel, of values that nothing trains (MATH.md, Eq. 10): a frozen batch norm that follows no
//! layer, the normalisation of a model that has its own, or a layer scale.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::PointwiseOp;
use crate::net::network::Role;
use crate::net::{Affine, Builder, NodeId, Op, Order, ParamId, ScaledBy};

use super::passes::Lower;

/// A node of it.
pub(super) struct Scale;

impl Lower for Scale {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, by) = (at.y()?, at.x(0)?, at.id());
        at.push(PointwiseOp::ScaleShift { y, x, by });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x, by) = (at.tangent()?, at.tangent_of_input()?, at.id());
        at.push(PointwiseOp::Scale { y, x, by });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (x, by) = (at.dy()?, at.id());
        if let Some(y) = at.dx(0) {
            at.push(PointwiseOp::AddScaled { y, x, by });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

impl Builder<'_> {
    /// (x − mean) / std per channel, by buffers of the model, which nothing changes. Each has one value per channel, or
    /// one for all.
    ///
    /// # Errors
    /// Where a buffer has another number of values, or a deviation is not above 0.
    pub fn normalise(&mut self, x: NodeId, mean: &str, std: &str) -> Result<NodeId> {
        let shape = self.shape(x);
        let mut read = |name: &str, role| -> Result<(ParamId, Vec<f32>)> {
            let (buffer, values) = self.untrained(name, role)?;
            match &values[..] {
                &[one] => Ok((buffer, vec![one; shape.c])),
                all if all.len() == shape.c => Ok((buffer, values)),
                all => Err(Error::shape(
                    "normalise",
                    format!("{} values in `{name}`, one per channel of the image", shape.c),
                    all.len().to_string(),
                )),
            }
        };
        let ((mean, means), (std, stds)) = (read(mean, Role::Zero)?, read(std, Role::One)?);
        let zero = stds.iter().find(|std| **std <= 0.0);
        if let Some(zero) = zero.filter(|_| !self.is_outline()) {
            return Err(Error::shape(
                "normalise",
                format!("deviations above 0 in `{}`", self.name(std)),
                zero.to_string(),
            ));
        }
        let scale = stds.iter().map(|std| 1.0 / std).collect();
        let shift = means.iter().zip(&stds).map(|(mean, std)| -mean / std).collect();
        Ok(self.push(Op::Scale(Affine { scale, shift }, ScaledBy::Normalise { mean, std }), &[x], shape))
    }

    /// x times a number.
    pub fn scale(&mut self, x: NodeId, factor: f32) -> NodeId {
        self.scale_and_offset(x, factor, 0.0)
    }

    /// x times a number, and another number added.
    pub fn scale_and_offset(&mut self, x: NodeId, factor: f32, offset: f32) -> NodeId {
        let shape = self.shape(x);
        let affine = Affine { scale: vec![factor; shape.c].into(), shift: vec![offset; shape.c].into() };
        self.push(Op::Scale(affine, ScaledBy::Numbers { factor, offset }), &[x], shape)
    }

    /// x times a stored value for each channel, a layer scale, of any shape with as many values.
    ///
    /// # Errors
    /// Where it has another number of values.
    pub fn layer_scale(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        self.scale_by(x, Some(name), None)
    }

    /// x times a stored value for each channel, and another one added, where there are such; of any shape with as many
    /// values. Training leaves them as they are.
    ///
    /// # Errors
    /// Where one has another number of values.
    pub fn scale_by(&mut self, x: NodeId, scale: Option<&str>, shift: Option<&str>) -> Result<NodeId> {
        let shape = self.shape(x);
        let mut read = |name: Option<&str>, role, else_all: f32| -> Result<(Option<ParamId>, Vec<f32>)> {
            let Some(name) = name else { return Ok((None, vec![else_all; shape.c])) };
            let stored = self.stored(name).unwrap_or(&[]);
            if stored.iter().product::<usize>() != shape.c {
                let expected = format!("{} values in `{name}`, one per channel", shape.c);
                return Err(Error::shape("scale", expected, format!("{stored:?}")));
            }
            let (param, values) = self.untrained(name, role)?;
            Ok((Some(param), values))
        };
        let ((scale, scales), (shift, shifts)) =
            (read(scale, Role::One, 1.0)?, read(shift, Role::Zero, 0.0)?);
        let affine = Affine { scale: scales.into(), shift: shifts.into() };
        Ok(self.push(Op::Scale(affine, ScaledBy::Stored { scale, shift }), &[x], shape))
    }

    /// A tensor as it is stored, which training leaves as it is, and its values.
    fn untrained(&mut self, name: &str, role: Role) -> Result<(ParamId, Vec<f32>)> {
        let stored = self.stored(name).unwrap_or(&[]).to_vec();
        let param = self.param(name, &stored, Order::Same, role)?;
        self.is_not_trained(param);
        Ok((param, self.value(param).to_vec()))
    }
}
