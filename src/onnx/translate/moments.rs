//! Layer norm as graphs before version 17 write it: the mean over channels, what differs from it, the mean of the squares of
//! that, its root, the quotient, and then scale and shift. And group norm as they write it: groups as the channels of an instance
//! norm, the channels again, and then scale and shift.

use super::super::axes::{self, Run};
use super::super::constant::Constant;
use super::at::At;
use super::state::{Held, Moment, Normed, Stage, Translation, Value};
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

    /// An instance norm: of each channel, or of groups that stand in the place of channels, unscaled.
    pub(super) fn instance_norm(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let eps = at.float("epsilon")?.unwrap_or(1e-5);
        let x = self.value(at.input(0)?)?;
        let shape = self.made[x.node].shape;
        let whole = [axes::over(Run::Batch, self.batch, 1), axes::over(Run::Channel, shape.c, 1)];
        let whole = [&whole[..], &[axes::over(Run::Position, shape.positions(), 1)]].concat();
        let groups = x.axes.get(1).map_or(0, |axis| axes::length(axis));
        let fits = x.first == 0
            && x.axes.first() == Some(&whole[0])
            && axes::regrouped(&x.axes, &axes::lengths(&whole)).as_ref() == Some(&whole)
            && groups > 0
            && shape.c.is_multiple_of(groups);
        if !fits {
            let lengths = axes::lengths(&x.axes);
            return Err(Error::config(format!(
                "normalises {lengths:?}, where groups of channels were expected"
            )));
        }
        let [scale, shift] = [self.constant(at.input(1)?)?, self.constant(at.input(2)?)?];
        if groups == shape.c {
            let [weight, bias] = [self.parameter(&scale, &[groups])?, self.parameter(&shift, &[groups])?];
            let operation = Operation::GroupNorm { groups, weight, bias, eps };
            let made = self.make(at.output(), operation, &[x.node], shape);
            return Ok(self.made(made, x.axes));
        }
        let [scale, shift] = [self.numbers(&scale)?, self.numbers(&shift)?];
        if scale.iter().any(|&value| value != 1.0) || shift.iter().any(|&value| value != 0.0) {
            return Err(Error::config("scales groups of channels, which is not known here"));
        }
        let stage = Stage::Quotient(Normed { eps, groups: Some(groups) });
        Ok(vec![Held::Moment(Moment { of: x, stage })])
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
                    let normed = Normed { eps: *eps, groups: None };
                    (m, Stage::Quotient(normed))
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
            (Stage::Quotient(normed), "Mul", _) if per_channel => Stage::Scaled(*normed, constant.clone()),
            (Stage::Scaled(normed, scale), "Add", _) if per_channel => {
                let (Normed { eps, groups }, scale) = (*normed, scale.clone());
                let [weight, bias] =
                    [self.parameter(&scale, &[shape.c])?, self.parameter(constant, &[shape.c])?];
                let operation = match groups {
                    None => Operation::LayerNorm { weight, bias, eps },
                    Some(groups) => Operation::GroupNorm { groups, weight, bias, eps },
                };
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
