//! An ONNX graph to nodes. The graph is run once on what its tensors are and not on values: a tensor is a constant, or the
//! values of a node on axes ([`super::axes`]) behind a function of one value ([`super::function`]). Axes that are moved,
//! split or joined, and the steps of which exporters make an activation, are nodes of no network; what is neither is
//! refused.

mod at;
mod attention;
mod layers;
mod lengths;
mod moments;
mod pointwise;
mod pools;
mod shapes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::axes::{self, Axis, Run};
use super::constant::{Constant, MOST, Stored};
use super::function::{Function, Steps};
use super::message::{FLOAT, Graph, Node, is_standard};
use super::{Stores, Translated};
use crate::error::{Error, Result};
use crate::graph::{self, Operation};
use crate::net::{Activation, Shape};
use at::At;
use attention::Scores;
use moments::Moment;

/// The number of inputs of a batch that the graph leaves open: a prime, so that it is found again in what is computed of
/// shapes.
const BATCH: usize = 1_000_003;

/// The values of a node on axes.
#[derive(Clone, Debug)]
struct Value {
    node: usize,
    axes: Vec<Axis>,
    /// The first channel, of a part of the channels.
    first: usize,
    function: Function,
    /// The node of the graph that the function ends with.
    by: String,
}

/// What a tensor is.
#[derive(Clone, Debug)]
enum Held {
    Value(Value),
    Constant(Constant),
    Scores(Scores),
    Moment(Moment),
}

/// A node of the network.
struct Made {
    name: String,
    operation: Option<Operation>,
    inputs: Vec<usize>,
    shape: Shape,
}

/// The state of a translation.
struct Translation<'a> {
    stores: &'a Stores,
    graph: &'a Graph,
    opset: i64,
    batch: usize,
    held: HashMap<&'a str, Held>,
    /// How many nodes read each tensor.
    uses: HashMap<&'a str, usize>,
    made: Vec<Made>,
    names: HashSet<String>,
    /// The shapes in which stored tensors are parameters.
    views: BTreeMap<String, Vec<usize>>,
    /// Stored floats whose values were read.
    read: BTreeSet<String>,
    notes: Vec<String>,
}

/// The nodes of a graph.
pub(super) fn translate(
    graph: &Graph,
    opset: i64,
    stores: &Stores,
    size: Option<[usize; 3]>,
) -> Result<Translated> {
    let needed = needed(graph);
    let mut uses = HashMap::new();
    let read = needed.iter().flat_map(|&i| &graph.nodes[i].inputs);
    read.chain(&graph.outputs).for_each(|name| *uses.entry(name.as_str()).or_insert(0) += 1);
    let mut held = HashMap::new();
    for tensor in &graph.tensors {
        if let Some(stored) = stores.tensors.get(&tensor.name) {
            let constant = self::stored(&tensor.name, stored);
            held.insert(tensor.name.as_str(), Held::Constant(constant));
        }
    }
    let names = [graph::IMAGE, graph::IDS, graph::MASK].map(String::from).into();
    let mut all = Translation {
        stores,
        graph,
        opset,
        batch: BATCH,
        held,
        uses,
        made: vec![],
        names,
        views: BTreeMap::new(),
        read: BTreeSet::new(),
        notes: vec![],
    };
    let input = all.input(size)?;
    for node in needed.iter().map(|&i| &graph.nodes[i]) {
        all.node(node).map_err(|error| match error {
            Error::Config(reason) => Error::config(format!("{}: {reason}", named(node))),
            Error::Shape { .. } => Error::config(format!("{}: {error}", named(node))),
            other => other,
        })?;
    }
    all.finish(input)
}

/// A stored tensor as a constant.
fn stored(name: &str, found: &super::Stored) -> Constant {
    let stored = Some(Stored { name: name.into(), transposed: false });
    Constant { shape: found.shape.clone(), values: None, stored, integer: !found.is_float() }
}

/// Whether it is a constant of whole numbers.
fn is_integer(held: &Held) -> bool {
    matches!(held, Held::Constant(Constant { integer: true, .. }))
}

/// The numbers of the nodes on which an output depends, in the order of the graph.
fn needed(graph: &Graph) -> BTreeSet<usize> {
    let outputs = |(i, node): (usize, &'_ Node)| -> Vec<(String, usize)> {
        node.outputs.iter().map(|name| (name.clone(), i)).collect()
    };
    let makers: HashMap<String, usize> = graph.nodes.iter().enumerate().flat_map(outputs).collect();
    let (mut needed, mut open) = (BTreeSet::new(), graph.outputs.clone());
    while let Some(name) = open.pop() {
        if let Some(&i) = makers.get(&name)
            && needed.insert(i)
        {
            open.extend(graph.nodes[i].inputs.iter().cloned());
        }
    }
    needed
}

/// A node in messages.
fn named(node: &Node) -> String {
    let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
    format!("node `{}` ({})", name.map_or("", String::as_str), node.op)
}

impl<'a> Translation<'a> {
    /// Takes the input that is no stored tensor.
    fn input(&mut self, size: Option<[usize; 3]>) -> Result<[usize; 3]> {
        let is_stored = |name: &str| self.graph.tensors.iter().any(|tensor| tensor.name == name);
        let inputs: Vec<_> = self.graph.inputs.iter().filter(|input| !is_stored(&input.name)).collect();
        let [input] = inputs[..] else {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            let reason = format!("has the inputs {}, where one of images was expected", names.join(", "));
            return Err(Error::config(reason));
        };
        let name = input.name.as_str();
        let sides = input.sides.clone().unwrap_or_default();
        if input.dtype != FLOAT || ![2, 4].contains(&sides.len()) {
            return Err(Error::config(format!(
                "the input `{name}` is no batch of images in f32: it has {} axes and the type {}",
                sides.len(),
                input.dtype
            )));
        }
        self.batch = sides[0].unwrap_or(BATCH);
        // Channels last, where the graph first puts them first.
        let readers = self.graph.nodes.iter().filter(|node| node.inputs.iter().any(|read| read == name));
        let last =
            sides.len() == 4 && readers.into_iter().all(|node| at::order(node) == Some(vec![0, 3, 1, 2]));
        let stored = match (&sides[1..], last) {
            (&[features], _) => [features, Some(1), Some(1)],
            (&[h, w, c], true) => [c, h, w],
            (&[c, h, w], false) => [c, h, w],
            _ => [None; 3],
        };
        let open = || {
            let remedy = "a config.json beside it says it, as \"input_size\": [3, 224, 224]";
            Error::config(format!("the input `{name}` leaves the size of images open; {remedy}"))
        };
        let mut sides = [0; 3];
        for (i, side) in stored.into_iter().enumerate() {
            sides[i] = side.or(size.map(|size| size[i])).filter(|&s| s > 0).ok_or_else(open)?;
        }
        let [c, h, w] = sides;
        let mut axes = match self.graph_rank(name) {
            2 => vec![axes::over(Run::Batch, self.batch, 1), axes::over(Run::Channel, c, 1)],
            _ => axes::image(self.batch, c, h, w),
        };
        if last {
            let channels = axes.remove(1);
            axes.push(channels);
        }
        let image =
            Made { name: graph::IMAGE.into(), operation: None, inputs: vec![], shape: Shape::new(h, w, c) };
        self.made.push(image);
        let value = Value { node: 0, axes, first: 0, function: Function::identity(), by: String::new() };
        self.held.insert(name, Held::Value(value));
        Ok(sides)
    }

    fn graph_rank(&self, input: &str) -> usize {
        let found = self.graph.inputs.iter().find(|found| found.name == input);
        found.and_then(|input| input.sides.as_ref()).map_or(0, Vec::len)
    }

    /// One node of the graph.
    fn node(&mut self, node: &'a Node) -> Result<()> {
        if !is_standard(&node.domain) {
            return Err(Error::config(format!(
                "is of the domain `{}`, which is not known here",
                node.domain
            )));
        }
        let at = At::new(node);
        let made = match node.op.as_str() {
            "Conv" => self.conv(&at),
            "Gemm" => self.gemm(&at),
            "MatMul" => self.mat_mul(&at),
            "BatchNormalization" => self.batch_norm(&at),
            "LayerNormalization" => self.layer_norm(&at),
            "GroupNormalization" => self.group_norm(&at),
            "MaxPool" | "AveragePool" => self.pool(&at),
            "GlobalAveragePool" => self.global_pool(&at),
            "ReduceMean" => self.reduce_mean(&at),
            "Identity" | "Dropout" | "Cast" => self.identity(&at),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Sum" | "Mod" | "Max" | "Min" | "Equal" | "Where" => {
                self.binary(&at)
            }
            "Softmax" | "LogSoftmax" => self.softmax(&at),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Shape" | "Gather" | "Slice"
            | "Split" | "Concat" | "Expand" | "Constant" | "ConstantOfShape" | "Pad" | "Range" => {
                self.shapes(&at)
            }
            _ => self.unary(&at),
        }?;
        at.check_all_read()?;
        let outputs = node.outputs.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
        if made.len() < outputs.len() {
            let unused = |name: &&&String| self.uses.contains_key(name.as_str());
            if let Some(name) = outputs[made.len()..].iter().find(unused) {
                return Err(Error::config(format!("its output `{name}` is used, which is not known here")));
            }
        }
        for (name, made) in outputs.into_iter().zip(made) {
            self.held.insert(name, made);
        }
        Ok(())
    }

    /// The network, with what its output does not depend on left out.
    fn finish(mut self, input: [usize; 3]) -> Result<Translated> {
        let [output] = &self.graph.outputs[..] else {
            let names = self.graph.outputs.join(", ");
            return Err(Error::config(format!("has the outputs {names}, where one of logits was expected")));
        };
        let Some(Held::Value(value)) = self.held.get(output.as_str()).cloned() else {
            return Err(Error::config(format!("the output `{output}` depends on no image")));
        };
        let only_sigmoid =
            Steps { before: (1.0, 0.0), activation: Some(Activation::Sigmoid), after: (1.0, 0.0) };
        let several_labels = value.function.steps() == Some(only_sigmoid);
        let last = match several_labels {
            true => {
                let note = "the sigmoid at the end is left out: the loss takes logits, one per label";
                self.notes.push(note.into());
                Value { function: Function::identity(), ..value }
            }
            false => self.settle(output, &value)?,
        };
        let shape = self.made[last.node].shape;
        if last.node == 0 || shape.positions() != 1 || last.first != 0 {
            let reason = "is no row of logits behind a layer for each image";
            return Err(Error::config(format!("the output `{output}` {reason}")));
        }
        let (mut needed, mut open) = (HashSet::from([last.node]), vec![last.node]);
        while let Some(node) = open.pop() {
            open.extend(self.made[node].inputs.iter().filter(|input| needed.insert(**input)));
        }
        let name = |node: usize| self.made[node].name.clone();
        let mut nodes = vec![];
        for (i, made) in self.made.iter().enumerate().filter(|(i, _)| needed.contains(i)) {
            let Some(operation) = made.operation.clone() else { continue };
            nodes.push(graph::Node {
                name: name(i),
                inputs: made.inputs.iter().map(|&i| name(i)).collect(),
                operation,
            });
        }
        let used: HashSet<&str> = nodes.iter().flat_map(|node| node.operation.tensors()).collect();
        self.views.retain(|name, _| used.contains(name.as_str()));
        if let Some(name) = self.views.keys().find(|name| self.read.contains(*name)) {
            let reason = "is a parameter and a constant of other steps, which would not change with it";
            return Err(Error::config(format!("tensor `{name}` {reason}")));
        }
        Ok(Translated { nodes, tensors: self.views, input, notes: self.notes, several_labels })
    }

    /// What a tensor is.
    fn held(&self, name: &str) -> Result<Held> {
        let missing =
            || Error::config(format!("reads `{name}`, which no node gives and no readable tensor is"));
        self.held.get(name).cloned().ok_or_else(missing)
    }

    /// The values of a node, with no function behind them that is not a node of its own.
    fn value(&mut self, name: &'a str) -> Result<Value> {
        let value = match self.held(name)? {
            Held::Value(value) => value,
            Held::Constant(_) => {
                return Err(Error::config(format!("reads `{name}`, which depends on no image")));
            }
            Held::Scores(_) => return Err(Error::config(format!("reads `{name}`, weights of an attention"))),
            Held::Moment(_) => return Err(Error::config(format!("reads `{name}`, a part of a norm"))),
        };
        let settled = self.settle(name, &value)?;
        self.held.insert(name, Held::Value(settled.clone()));
        Ok(settled)
    }

    /// The same values with the function made a node.
    fn settle(&mut self, name: &str, value: &Value) -> Result<Value> {
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
    fn make(&mut self, name: &str, operation: Operation, inputs: &[usize], shape: Shape) -> usize {
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

    /// A new node's values.
    fn made(&self, node: usize, axes: Vec<Axis>) -> Vec<Held> {
        vec![Held::Value(Value { node, axes, first: 0, function: Function::identity(), by: String::new() })]
    }

    /// A constant.
    fn constant(&self, name: &str) -> Result<Constant> {
        match self.held(name)? {
            Held::Constant(constant) => Ok(constant),
            _ => Err(Error::config(format!(
                "reads `{name}`, which depends on the image, where a constant was expected"
            ))),
        }
    }

    /// The values of a constant.
    fn numbers(&mut self, constant: &Constant) -> Result<Vec<f64>> {
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
        match (stored.transposed, &constant.shape[..]) {
            (true, &[rows, columns]) => {
                Ok((0..values.len()).map(|i| values[i % columns * rows + i / columns]).collect())
            }
            _ => Ok(values),
        }
    }

    /// The whole numbers of a constant.
    fn integers(&mut self, name: &str) -> Result<Vec<i64>> {
        let constant = self.constant(name)?;
        Ok(self.numbers(&constant)?.into_iter().map(|number| number as i64).collect())
    }

    /// The name of a constant that is a stored tensor, as a parameter in this shape.
    fn parameter(&mut self, constant: &Constant, shape: &[usize]) -> Result<String> {
        let Some(Stored { name, .. }) = &constant.stored else {
            return Err(Error::config(
                "has a parameter that is computed of constants, and no tensor of the file",
            ));
        };
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
    fn channels(&self, c: usize) -> Option<usize> {
        let all = axes::over(Run::Channel, c, 1);
        self.axes.iter().position(|axis| self.first == 0 && c > 1 && *axis == all)
    }
}
