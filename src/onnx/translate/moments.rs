//! Layer norm as graphs before version 17 write it: the mean over channels, what differs from it, the mean of the squares of
//! that, its root, the quotient, and then scale and shift.

use super::super::constant::Constant;
use super::state::{Held, Moment, Stage, Translation, Value};
use crate::error::{Error, Result};
use crate::graph::Operation;

fn other() -> Error {
    Error::config("is a step of a norm in an order that is not known here")
}

impl<'a> Translation<'a> {
    /// The mean of squares over channels.
    pub(super) fn variance(&mut self, moment: Moment, axes: &[usize], keeps: bool) -> Result<Vec<Held>> {
        let c = self.made[moment.of.node].shape.c;
        match (&moment.stage, keeps) {
            (Stage::Square, true) if axes.len() == 1 && moment.of.channels(c) == Some(axes[0]) => {
                Ok(vec![Held::Moment(Moment { stage: Stage::Variance, ..moment })])
            }
            _ => Err(other()),
        }
    }

    /// The root of a part.
    pub(super) fn root(&mut self, moment: Moment) -> Result<Vec<Held>> {
        match moment.stage {
            Stage::Raised(eps) => Ok(vec![Held::Moment(Moment { stage: Stage::Deviation(eps), ..moment })]),
            _ => Err(other()),
        }
    }

    /// An operator on two parts, or on values and a part.
    pub(super) fn of_moments(&mut self, op: &str, a: Held, b: Held) -> Result<Vec<Held>> {
        let same = |a: &Value, b: &Value| a.node == b.node && a.axes == b.axes && a.first == b.first;
        let (moment, stage) = match (op, a, b) {
            ("Sub", Held::Value(x), Held::Moment(m)) if matches!(m.stage, Stage::Mean) => {
                // The values were made a node for their mean.
                if !same(&x, &m.of) || !x.function.is_identity() {
                    return Err(other());
                }
                (m, Stage::Centred)
            }
            ("Mul", Held::Moment(m), Held::Moment(n)) => match (&m.stage, &n.stage) {
                (Stage::Centred, Stage::Centred) if same(&m.of, &n.of) => (m, Stage::Square),
                _ => return Err(other()),
            },
            ("Div", Held::Moment(m), Held::Moment(n)) => match (&m.stage, &n.stage) {
                (Stage::Centred, Stage::Deviation(eps)) if same(&m.of, &n.of) => {
                    let eps = *eps;
                    (m, Stage::Quotient(eps))
                }
                _ => return Err(other()),
            },
            _ => return Err(other()),
        };
        Ok(vec![Held::Moment(Moment { stage, ..moment })])
    }

    /// An operator on a part and a constant.
    pub(super) fn of_moment(
        &mut self,
        op: &str,
        output: &str,
        moment: Moment,
        constant: &Constant,
    ) -> Result<Vec<Held>> {
        let one = match constant.len() {
            1 => self.numbers(constant)?.first().copied(),
            _ => None,
        };
        let shape = self.made[moment.of.node].shape;
        let per_channel = self.is_per_channel(&moment.of, constant);
        let stage = match (&moment.stage, op, one) {
            (Stage::Centred, "Pow", Some(2.0)) => Stage::Square,
            (Stage::Variance, "Add", Some(eps)) => Stage::Raised(eps as f32),
            (Stage::Raised(eps), "Pow", Some(0.5)) => Stage::Deviation(*eps),
            (Stage::Quotient(eps), "Mul", _) if per_channel => Stage::Scaled(*eps, constant.clone()),
            (Stage::Scaled(eps, scale), "Add", _) if per_channel => {
                let (eps, scale) = (*eps, scale.clone());
                let [weight, bias] =
                    [self.parameter(&scale, &[shape.c])?, self.parameter(constant, &[shape.c])?];
                let operation = Operation::LayerNorm { weight, bias, eps };
                let made = self.make(output, operation, &[moment.of.node], shape);
                return Ok(self.made(made, moment.of.axes));
            }
            (Stage::Less(mean), "Div", _) if per_channel => {
                let mean = mean.clone();
                let [mean, std] = [self.parameter(&mean, &[shape.c])?, self.parameter(constant, &[shape.c])?];
                let operation = Operation::Normalise { mean, std };
                let made = self.make(output, operation, &[moment.of.node], shape);
                return Ok(self.made(made, moment.of.axes));
            }
            _ => return Err(other()),
        };
        Ok(vec![Held::Moment(Moment { stage, ..moment })])
    }
}
