//! The state of a translation: what every tensor of the graph is, the nodes that are made, and the tensors they read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::super::axes::{self, Axis, Run};
use super::super::constant::{Constant, MOST, Stored, count};
use super::super::function::{Function, Steps};
use super::super::message::{Graph, Node};
use super::super::store::{self, Stores};
use super::at::At;
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::net::{Activation, Shape};

/// The most values of a node for one image.
const VALUES: usize = 1 << 31;

/// The values of a node on axes.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) node: usize,
    pub(super) axes: Vec<Axis>,
    /// The first channel, of a part of the channels.
    pub(super) first: usize,
    pub(super) function: Function,
    /// The node of the graph that the function ends with.
    pub(super) by: String,
}

/// What a tensor is.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Value(Value),
    Constant(Constant),
    Scores(Scores),
    Moment(Moment),
    Padded(Padded),
}

/// An image with zeros around it: above, to the left, below and to the right.
#[derive(Clone, Debug)]
pub(super) struct Padded {
    pub(super) of: Value,
    pub(super) sides: [usize; 4],
}

/// A node of the network.
pub(super) struct Made {
    pub(super) name: String,
    pub(super) operation: Option<Operation>,
    pub(super) inputs: Vec<usize>,
    pub(super) shape: Shape,
}

/// The state of a translation.
pub(super) struct Translation<'a> {
    pub(super) stores: &'a Stores,
    pub(super) graph: &'a Graph,
    pub(super) opset: i64,
    pub(super) batch: usize,
    pub(super) held: HashMap<&'a str, Held>,
    /// How many nodes read each tensor.
    pub(super) uses: HashMap<&'a str, usize>,
    pub(super) made: Vec<Made>,
    pub(super) names: HashSet<String>,
    /// The shapes in which stored tensors are parameters.
    pub(super) views: BTreeMap<String, Vec<usize>>,
    /// Stored floats whose values were read.
    pub(super) read: BTreeSet<String>,
    pub(super) notes: Vec<String>,
    /// Values of constants that were computed.
    pub(super) computed: usize,
}

/// A part of a norm of some values.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) of: Value,
    pub(super) stage: Stage,
}

/// Which part.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Mean,
    /// x less its mean.
    Centred,
    Square,
    Variance,
    /// The variance with eps added.
    Raised(f32),
    /// The root of that.
    Deviation(f32),
    Quotient(Normed),
    /// Multiplied by a tensor.
    Scaled(Normed, Constant),
    /// Values less a stored mean per channel, which a stored deviation is to divide.
    Less(Constant),
}

/// What a norm is over: the channels of a position, or the positions and channels of each of some groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normed {
    pub(super) eps: f32,
    pub(super) groups: Option<usize>,
}

/// Channels of a node from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) node: usize,
    pub(super) first: usize,
}

/// Queries times keys.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    pub(super) query: Part,
    pub(super) key: Part,
    pub(super) heads: usize,
    /// Channels of a head.
    pub(super) width: usize,
    pub(super) tokens: usize,
    /// How many axes they are on.
    pub(super) rank: usize,
    pub(super) factor: f64,
    pub(super) is_softmax: bool,
}

/// A stored tensor as a constant.
pub(super) fn stored(name: &str, found: &store::Stored) -> Constant {
    let stored = Some(Stored { name: name.into(), transposed: false });
    Constant { shape: found.shape.clone(), values: None, stored, integer: !found.is_float() }
}

/// Whether it is a constant of whole numbers.
pub(super) fn is_integer(held: &Held) -> bool {
    matches!(held, Held::Constant(Constant { integer: true, .. }))
}

/// A node in messages.
pub(super) fn named(node: &Node) -> String {
    let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
    format!("node `{}` ({})", name.map_or("", String::as_str), node.op)
}

impl<'a> Translation<'a> {
    /// What a tensor is.
    pub(super) fn held(&self, name: &str) -> Result<Held> {
        let missing =
            || Error::config(format!("reads `{name}`, which no node gives and no readable tensor is"));
        self.held.get(name).cloned().ok_or_else(missing)
    }

    /// The values of a node, with no function behind them that is not a node of its own.
    pub(super) fn value(&mut self, name: &'a str) -> Result<Value> {
        let value = match self.held(name)? {
            Held::Value(value) => value,
            Held::Constant(_) => {
                return Err(Error::config(format!("reads `{name}`, which depends on no image")));
            }
            Held::Scores(_) => return Err(Error::config(format!("reads `{name}`, weights of an attention"))),
            Held::Moment(_) => return Err(Error::config(format!("reads `{name}`, a part of a norm"))),
            Held::Padded(_) => {
                let reason = "an image with zeros around it, which only a convolution does here";
                return Err(Error::config(format!("reads `{name}`, {reason}")));
            }
        };
        let settled = self.settle(name, &value)?;
        self.held.insert(name, Held::Value(settled.clone()));
        Ok(settled)
    }

    /// The same values with the function made a node.
    pub(super) fn settle(&mut self, name: &str, value: &Value) -> Result<Value> {
        let Some(Steps { before, activation, after }) = value.function.steps() else {
            let known = Activation::names();
            let by = &value.by;
            return Err(Error::config(format!(
                "reads `{name}`, and the function of one value that ends with {by} is none that is known here; there \
                 are {known}"
            )));
        };
        let mut node = value.node;
        let shape = self.made[node].shape;
        let scale =
            |(factor, offset): (f64, f64)| Operation::Scale { factor: factor as f32, offset: offset as f32 };
        let steps = [
            Steps::scales(before).map(scale),
            activation.map(|kind| Operation::Activation { function: kind.name().into() }),
            Steps::scales(after).map(scale),
        ];
        for operation in steps.into_iter().flatten() {
            node = self.make(name, operation, &[node], shape);
        }
        Ok(Value { node, function: Function::identity(), ..value.clone() })
    }

    /// A new node, named after a tensor.
    pub(super) fn make(&mut self, name: &str, operation: Operation, inputs: &[usize], shape: Shape) -> usize {
        let mut unique = name.to_string();
        for i in 2.. {
            if self.names.insert(unique.clone()) {
                break;
            }
            unique = format!("{name}~{i}");
        }
        self.made.push(Made { name: unique, operation: Some(operation), inputs: inputs.to_vec(), shape });
        self.made.len() - 1
    }

    /// Refuses nodes from this one on that give too many values.
    pub(super) fn check_sizes(&self, from: usize) -> Result<()> {
        let huge = |Shape { h, w, c }: &Shape| count(&[*h, *w, *c]).is_none_or(|values| values > VALUES);
        match self.made[from..].iter().map(|made| made.shape).find(huge) {
            None => Ok(()),
            Some(Shape { h, w, c }) => {
                Err(Error::config(format!("gives {h} x {w} x {c} values for each image, too many")))
            }
        }
    }

    /// A new node's values.
    pub(super) fn made(&self, node: usize, axes: Vec<Axis>) -> Vec<Held> {
        vec![Held::Value(Value { node, axes, first: 0, function: Function::identity(), by: String::new() })]
    }

    /// A constant.
    pub(super) fn constant(&self, name: &str) -> Result<Constant> {
        match self.held(name)? {
            Held::Constant(constant) => Ok(constant),
            _ => Err(Error::config(format!(
                "reads `{name}`, which depends on the image, where a constant was expected"
            ))),
        }
    }

    /// The values of a constant.
    pub(super) fn numbers(&mut self, constant: &Constant) -> Result<Vec<f64>> {
        if let Some(values) = &constant.values {
            return Ok(values.clone());
        }
        let Some(stored) = constant.stored.clone().filter(|_| constant.len() <= MOST) else {
            return Err(Error::config(format!("computes with a constant of shape {:?}", constant.shape)));
        };
        let values = self.stores.values(&stored.name)?;
        let is_float = self.stores.tensors.get(&stored.name).is_some_and(|found| found.is_float());
        if is_float {
            self.read.insert(stored.name);
        }
        // Axes of length 1 may have come to those of the matrix.
        let sides: Vec<usize> = constant.shape.iter().copied().filter(|&side| side != 1).collect();
        match (stored.transposed, &sides[..]) {
            (true, &[rows, columns]) => {
                Ok((0..values.len()).map(|i| values[i % columns * rows + i / columns]).collect())
            }
            _ => Ok(values),
        }
    }

    /// The whole numbers of a constant.
    pub(super) fn integers(&mut self, name: &str) -> Result<Vec<i64>> {
        let constant = self.constant(name)?;
        Ok(self.numbers(&constant)?.into_iter().map(|number| number as i64).collect())
    }

    /// The whole numbers of an attribute, which newer versions have as input `i`; none where there is neither.
    pub(super) fn list(&mut self, at: &At<'a>, name: &'static str, i: usize) -> Result<Option<Vec<i64>>> {
        match (at.ints(name)?, at.optional(i)) {
            (Some(numbers), _) => Ok(Some(numbers)),
            (None, Some(input)) => self.integers(input).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The shapes and values of those that are constants.
    pub(super) fn parts(&mut self, all: &[Held]) -> Result<Vec<(Vec<usize>, Vec<f64>)>> {
        let mut parts = vec![];
        for held in all {
            if let Held::Constant(constant) = held {
                parts.push((constant.shape.clone(), self.numbers(constant)?));
            }
        }
        Ok(parts)
    }

    /// The name of a constant that is a stored tensor, as a parameter in this shape.
    pub(super) fn parameter(&mut self, constant: &Constant, shape: &[usize]) -> Result<String> {
        let Some(Stored { name, transposed }) = &constant.stored else {
            return Err(Error::config(
                "has a parameter that is computed of constants, and no tensor of the file",
            ));
        };
        if *transposed {
            let reason = "which only a product with a matrix does here";
            return Err(Error::config(format!("reads `{name}` transposed, {reason}")));
        }
        let Some(stored) = self.stores.tensors.get(name).filter(|found| found.is_float()) else {
            return Err(Error::config(format!("has the parameter `{name}`, which is of no floats")));
        };
        if stored.shape.iter().product::<usize>() != shape.iter().product::<usize>() {
            let found = &stored.shape;
            return Err(Error::config(format!(
                "has the parameter `{name}` of shape {found:?}, not {shape:?}"
            )));
        }
        match self.views.get(name) {
            Some(known) if known != shape => {
                Err(Error::config(format!("has `{name}` as {shape:?}, and another node as {known:?}")))
            }
            _ => {
                self.views.insert(name.clone(), shape.to_vec());
                Ok(name.clone())
            }
        }
    }
}

impl Value {
    /// The axis of all channels, of `c`.
    pub(super) fn channels(&self, c: usize) -> Option<usize> {
        let all = axes::over(Run::Channel, c, 1);
        self.axes.iter().position(|axis| self.first == 0 && c > 1 && *axis == all)
    }
}
