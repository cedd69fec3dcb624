//! Operators value by value: functions of one value, sums, products, scales and shifts.

use super::super::axes::{self, Run};
use super::super::constant::{Constant, broadcast};
use super::super::function::erf;
use super::super::message::{DOUBLE, FLOAT};
use super::at::At;
use super::state::{Held, Translation, Value, is_integer, named};
use super::state::{Moment, Stage};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::net::Shape;
use crate::ops::Activation;
use crate::ops::cpu::activation::value;

/// A function of one value.
type Map = Box<dyn Fn(f64) -> f64>;

/// The operator's function of two values.
fn of_two(op: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match op {
        "Add" | "Sum" => |a, b| a + b,
        "Sub" => |a, b| a - b,
        "Mul" => |a, b| a * b,
        "Div" => |a, b| a / b,
        "Pow" => f64::powf,
        "Mod" => |a, b| a - b * (a / b).floor(),
        "Max" => f64::max,
        "Min" => f64::min,
        "Equal" => |a, b| f64::from(u8::from(a == b)),
        _ => return None,
    })
}

impl<'a> Translation<'a> {
    pub(super) fn identity(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let held = self.held(at.input(0)?)?;
        match at.node.op.as_str() {
            "Cast" => {
                at.pass("saturate");
                return self.cast(held, at.int("to")?.unwrap_or(0));
            }
            "Dropout" => {
                ["ratio", "seed", "is_test"].into_iter().for_each(|name| at.pass(name));
                if let Some(input) = at.optional(2)
                    && self.integers(input)? != [0]
                {
                    return Err(Error::config("drops values, as in training"));
                }
            }
            _ => {}
        }
        Ok(vec![held])
    }

    /// Another type: of the image f32, of constants also f64 and whole numbers.
    fn cast(&mut self, held: Held, to: i64) -> Result<Vec<Held>> {
        const BOOL: i64 = 9;
        match (held, to) {
            (Held::Constant(constant), FLOAT | DOUBLE) if !constant.integer => {
                Ok(vec![Held::Constant(constant)])
            }
            (Held::Constant(constant), FLOAT | DOUBLE | 2 | 3 | 5 | 6 | 7 | BOOL | 12 | 13) => {
                let values = self.numbers(&constant)?.into_iter().map(|v| match to {
                    FLOAT | DOUBLE => v,
                    BOOL => f64::from(u8::from(v != 0.0)),
                    _ => v.trunc(),
                });
                let cast = Constant::of(constant.shape, values.collect())?;
                Ok(vec![Held::Constant(cast.whole(!matches!(to, FLOAT | DOUBLE)))])
            }
            (held, FLOAT) => Ok(vec![held]),
            _ => Err(Error::config(format!("rounds to the type {to}, and only f32 (1) is known here"))),
        }
    }

    pub(super) fn unary(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let f = self.map(at)?;
        match self.held(at.input(0)?)? {
            Held::Value(x) => {
                Ok(vec![Held::Value(Value { function: x.function.then(f), by: named(at.node), ..x })])
            }
            Held::Constant(constant) => {
                let values = self.numbers(&constant)?.into_iter().map(f).collect();
                Ok(vec![Held::Constant(Constant::of(constant.shape, values)?.whole(constant.integer))])
            }
            Held::Moment(moment) if at.node.op == "Sqrt" => self.root(moment),
            _ => Err(Error::config("is a step of an attention or a norm that is not known here")),
        }
    }

    /// The function of one value that a node is.
    fn map(&mut self, at: &At<'a>) -> Result<Map> {
        let of = |activation: Activation| -> Result<Map> { Ok(Box::new(move |v| value(activation, v))) };
        let float = |name: &'static str, usual: f32| -> Result<f64> {
            Ok(f64::from(at.float(name)?.unwrap_or(usual)))
        };
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        Ok(match at.node.op.as_str() {
            "Relu" => return of(Activation::Relu),
            "Sigmoid" => return of(Activation::Sigmoid),
            "Tanh" => return of(Activation::Tanh),
            "Softplus" => return of(Activation::Softplus),
            "HardSwish" => return of(Activation::HardSwish),
            "Gelu" => match at.word("approximate")?.unwrap_or("none") {
                "none" => return of(Activation::Gelu),
                "tanh" => return of(Activation::GeluTanh),
                other => {
                    return Err(Error::config(format!("has approximate = {other}, which is not known here")));
                }
            },
            "HardSigmoid" => {
                let (alpha, beta) = (float("alpha", 0.2)?, float("beta", 0.5)?);
                Box::new(move |v| (alpha * v + beta).clamp(0.0, 1.0))
            }
            "LeakyRelu" => {
                let alpha = float("alpha", 0.01)?;
                Box::new(move |v| if v < 0.0 { alpha * v } else { v })
            }
            "Elu" => {
                let alpha = float("alpha", 1.0)?;
                Box::new(move |v| if v < 0.0 { alpha * v.exp_m1() } else { v })
            }
            "Swish" => {
                let alpha = float("alpha", 1.0)?;
                Box::new(move |v| v * sigmoid(alpha * v))
            }
            "Clip" => {
                let mut bound = |name: &'static str, i: usize, open: f64| -> Result<f64> {
                    match at.optional(i) {
                        Some(input) => {
                            let constant = self.constant(input)?;
                            Ok(self.numbers(&constant)?.first().copied().unwrap_or(open))
                        }
                        None => Ok(at.float(name)?.map_or(open, f64::from)),
                    }
                };
                let (low, high) = (bound("min", 1, f64::NEG_INFINITY)?, bound("max", 2, f64::INFINITY)?);
                Box::new(move |v| v.max(low).min(high))
            }
            "Erf" => Box::new(erf),
            "Exp" => Box::new(f64::exp),
            "Log" => Box::new(f64::ln),
            "Sqrt" => Box::new(f64::sqrt),
            "Reciprocal" => Box::new(|v| 1.0 / v),
            "Neg" => Box::new(|v| -v),
            "Abs" => Box::new(f64::abs),
            "Floor" => Box::new(f64::floor),
            "Ceil" => Box::new(f64::ceil),
            _ => {
                return Err(Error::config(
                    "is an operator that is not known here; docs/GRAPH.md lists those that are",
                ));
            }
        })
    }

    pub(super) fn binary(&mut self, at: &At<'a>) -> Result<Vec<Held>> {
        let op = at.node.op.as_str();
        at.only("fmod", 0)?;
        let inputs = (0..at.node.inputs.len()).map(|i| at.input(i)).collect::<Result<Vec<_>>>()?;
        let held = inputs.iter().map(|name| self.held(name)).collect::<Result<Vec<_>>>()?;
        if held.iter().all(|held| matches!(held, Held::Constant(_))) {
            return self.fold(op, &held);
        }
        let f = of_two(op).filter(|_| op != "Equal");
        let (&[a, b], Some(f)) = (&inputs[..], f) else {
            return Err(Error::config(format!("depends on the image, with {} inputs", inputs.len())));
        };
        match (self.held(a)?, self.held(b)?) {
            (Held::Value(x), Held::Constant(c)) => self.with_constant(at, a, x, &c, &|x, c| f(x, c)),
            (Held::Constant(c), Held::Value(x))
                if matches!(op, "Add" | "Sum" | "Mul" | "Max" | "Min") || c.len() == 1 =>
            {
                self.with_constant(at, b, x, &c, &|x, c| f(c, x))
            }
            (Held::Value(x), Held::Value(y)) => self.of_values(at, [a, b], x, y, f),
            (Held::Scores(scores), Held::Constant(c)) if matches!(op, "Mul" | "Div") && c.len() == 1 => {
                let by = self.numbers(&c)?[0];
                self.scaled_scores(scores, if op == "Mul" { by } else { 1.0 / by })
            }
            (Held::Scores(_), _) | (_, Held::Scores(_)) => Err(Error::config(
                "changes the scores of an attention, as a mask or a bias does, which is not known here",
            )),
            (Held::Moment(moment), Held::Constant(c)) => self.of_moment(op, at.output(), moment, &c),
            (Held::Constant(c), Held::Moment(moment)) if matches!(op, "Add" | "Mul") => {
                self.of_moment(op, at.output(), moment, &c)
            }
            (a, b) => self.of_moments(op, a, b),
        }
    }

    /// An operator on constants.
    fn fold(&mut self, op: &str, held: &[Held]) -> Result<Vec<Held>> {
        let parts = self.parts(held)?;
        let integer = held.iter().all(is_integer);
        let folded = match (op, of_two(op), parts.len()) {
            ("Where", _, 3) => broadcast(&parts, |v| if v[0] != 0.0 { v[1] } else { v[2] }),
            ("Div", _, 2) if integer => broadcast(&parts, |v| (v[0] / v[1]).trunc()),
            (_, Some(f), 2) => broadcast(&parts, |v| f(v[0], v[1])),
            _ => Err(Error::config(format!("has {} constants", parts.len()))),
        };
        // Of a choice, the condition is no number.
        let integer = if op == "Where" { held[1..].iter().all(is_integer) } else { integer };
        Ok(vec![Held::Constant(folded?.whole(integer || op == "Equal"))])
    }

    /// Whether a constant has one value for each channel of some values, which it is added to or multiplied by.
    pub(super) fn is_per_channel(&self, x: &Value, constant: &Constant) -> bool {
        let (c, rank) = (self.made[x.node].shape.c, x.axes.len());
        let Some(axis) = x.channels(c) else { return false };
        let sides = &constant.shape;
        sides.len() <= rank
            && sides.iter().rev().enumerate().all(|(i, &side)| {
                let of_channels = rank - 1 - i == axis;
                side == if of_channels { c } else { 1 }
            })
            && sides.len() >= rank - axis
    }

    /// Whether a constant has one value for each position and channel.
    fn is_table(&self, x: &Value, constant: &Constant) -> bool {
        let shape = self.made[x.node].shape;
        let sides = &constant.shape;
        let tail = x.axes.len().checked_sub(2).map(|at| &x.axes[at..]);
        let expected =
            [axes::over(Run::Position, shape.positions(), 1), axes::over(Run::Channel, shape.c, 1)];
        x.first == 0
            && tail == Some(&expected)
            && sides.len() >= 2
            && sides.len() <= x.axes.len()
            && sides[sides.len() - 2..] == [shape.positions(), shape.c]
            && sides[..sides.len() - 2].iter().all(|&side| side == 1)
    }

    /// Values and a constant.
    fn with_constant(
        &mut self,
        at: &At<'a>,
        name: &'a str,
        x: Value,
        constant: &Constant,
        f: &dyn Fn(f64, f64) -> f64,
    ) -> Result<Vec<Held>> {
        let op = at.node.op.as_str();
        let one = match &constant.values {
            _ if constant.len() == 1 => self.numbers(constant)?.first().copied(),
            Some(values) => values.first().copied().filter(|first| values.iter().all(|v| v == first)),
            None => None,
        };
        if let Some(by) = one
            && constant.shape.len() <= x.axes.len()
            && self.is_broadcast_onto(&x, constant)
        {
            return Ok(vec![Held::Value(Value {
                function: x.function.then(|v| f(v, by)),
                by: named(at.node),
                ..x
            })]);
        }
        let x = self.value(name)?;
        let turned = if self.is_per_channel(&x, constant) { None } else { self.turnable(&x, constant) };
        let x = turned.map_or(x.clone(), |axes| self.turned(name, &x, axes));
        let shape = self.made[x.node].shape;
        let adds = matches!(op, "Add" | "Sum");
        if self.is_per_channel(&x, constant) {
            let operation = match op {
                "Sub" => {
                    let stage = Stage::Less(constant.clone());
                    return Ok(vec![Held::Moment(Moment { of: x, stage })]);
                }
                _ if adds => {
                    if self.becomes_bias(name, &x, constant)? {
                        return Ok(vec![Held::Value(x)]);
                    }
                    Operation::Affine { scale: None, shift: Some(self.parameter(constant, &[shape.c])?) }
                }
                "Mul" => {
                    Operation::Affine { scale: Some(self.parameter(constant, &[shape.c])?), shift: None }
                }
                _ => return Err(Error::config("divides by a tensor with a value for each channel")),
            };
            let made = self.make(at.output(), operation, &[x.node], shape);
            return Ok(self.made(made, x.axes));
        }
        if adds && self.is_table(&x, constant) {
            let table = self.parameter(constant, &[1, shape.positions(), shape.c])?;
            let made = self.make(at.output(), Operation::Positions { table }, &[x.node], shape);
            return Ok(self.made(made, x.axes));
        }
        let (found, lengths) = (&constant.shape, axes::lengths(&x.axes));
        let known = "a constant is one number, one for each channel, or a table added to tokens";
        Err(Error::config(format!("has a constant of shape {found:?} beside values of {lengths:?}; {known}")))
    }

    /// Whether a constant makes no axis longer.
    fn is_broadcast_onto(&self, x: &Value, constant: &Constant) -> bool {
        let lengths = axes::lengths(&x.axes);
        constant
            .shape
            .iter()
            .rev()
            .zip(lengths.iter().rev())
            .all(|(&side, &length)| side == 1 || side == length)
    }

    /// Makes a constant the bias of the layer whose values are read by this node alone, where it has none.
    fn becomes_bias(&mut self, name: &str, x: &Value, constant: &Constant) -> Result<bool> {
        let made = &self.made[x.node];
        let lacks = matches!(
            &made.operation,
            Some(Operation::Conv { bias: None, .. } | Operation::Linear { bias: None, .. })
        );
        let read_once = made.name == name && self.uses.get(name) == Some(&1);
        let weight = |operation: &Option<Operation>| match operation {
            Some(Operation::Conv { weight, .. } | Operation::Linear { weight, .. }) => Some(weight.clone()),
            _ => None,
        };
        let own = weight(&made.operation);
        // A layer that is used twice has one bias; another use of it may have none.
        let alone = self.made.iter().filter(|made| weight(&made.operation) == own).count() == 1;
        if !lacks || !read_once || !alone || constant.stored.is_none() {
            return Ok(false);
        }
        let c = made.shape.c;
        let name = self.parameter(constant, &[c])?;
        if let Some(Operation::Conv { bias, .. } | Operation::Linear { bias, .. }) =
            &mut self.made[x.node].operation
        {
            *bias = Some(name);
        }
        Ok(true)
    }

    /// Two values that depend on the image.
    fn of_values(
        &mut self,
        at: &At<'a>,
        [a, b]: [&'a str; 2],
        x: Value,
        y: Value,
        f: fn(f64, f64) -> f64,
    ) -> Result<Vec<Held>> {
        if (x.node, &x.axes, x.first) == (y.node, &y.axes, y.first) {
            return Ok(vec![Held::Value(Value {
                function: x.function.with(&y.function, f),
                by: named(at.node),
                ..x
            })]);
        }
        let (mut x, mut y) = (self.value(a)?, self.value(b)?);
        if matches!(at.node.op.as_str(), "Add" | "Sum" | "Sub") {
            [x, y] = self.alike([a, b], x, y);
        }
        let shape = |translation: &Translation, value: &Value| translation.made[value.node].shape;
        let (of_x, of_y) = (shape(self, &x), shape(self, &y));
        let refuse = |what: &str| {
            let lengths = [&x, &y].map(|value| axes::lengths(&value.axes));
            Err(Error::config(format!(
                "{what} {:?} and {:?}, which is not known here",
                lengths[0], lengths[1]
            )))
        };
        match at.node.op.as_str() {
            "Add" | "Sum" | "Sub"
                if x.axes == y.axes && [x.first, y.first] == [0, 0] && of_x.len() == of_y.len() =>
            {
                let mut nodes = [x.node, y.node];
                if at.node.op == "Sub" {
                    let negative = Operation::Scale { factor: -1.0, offset: 0.0 };
                    nodes[1] = self.make(&format!("{b}~negative"), negative, &[y.node], of_y);
                }
                if of_x != of_y {
                    let operation = Operation::Image { height: of_x.h, width: of_x.w };
                    nodes[1] = self.make(b, operation, &nodes[1..], of_x);
                }
                let made = self.make(at.output(), Operation::Add, &nodes, of_x);
                Ok(self.made(made, x.axes))
            }
            "Add" | "Sum" | "Sub" => refuse("adds values on axes of"),
            "Mul" => {
                let (map, gate) = if of_y.positions() == 1 { (&x, &y) } else { (&y, &x) };
                match self.is_gate(map, gate) {
                    true => {
                        let (shape, nodes): (Shape, _) = (shape(self, map), [map.node, gate.node]);
                        let axes = map.axes.clone();
                        let made = self.make(at.output(), Operation::Gate, &nodes, shape);
                        Ok(self.made(made, axes))
                    }
                    false => refuse("multiplies values on axes of"),
                }
            }
            _ => refuse("computes of values on axes of"),
        }
    }

    /// Whether values are one for each channel of a map.
    fn is_gate(&self, map: &Value, gate: &Value) -> bool {
        let (of_map, of_gate) = (self.made[map.node].shape, self.made[gate.node].shape);
        let fits = |(a, b): (&axes::Axis, &axes::Axis)| {
            a == b || b.is_empty() && a.iter().all(|factor| factor.run == Run::Position)
        };
        of_gate.positions() == 1
            && of_map.c == of_gate.c
            && [map.first, gate.first] == [0, 0]
            && map.axes.len() == gate.axes.len()
            && map.axes.iter().zip(&gate.axes).all(fits)
    }
}
