//! An ONNX graph to nodes. The graph is run once on what its tensors are and not on values: a tensor is a constant, or the
//! values of a node on axes ([`super::axes`]) behind a function of one value ([`super::function`]). Axes that are moved,
//! split or joined, and the steps of which exporters make an activation, are nodes of no network; what is neither is
//! refused.

mod at;
mod attention;
mod layers;
mod lengths;
mod moments;
mod padded;
mod pointwise;
mod pools;
mod shapes;
mod state;
mod turned;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::axes::{self, Axis, Run};
use super::constant::{MOST, MOST_OF_ALL};
use super::function::{Function, Steps};
use super::message::{FLOAT, Graph, Node, is_standard};
use super::store::{Stores, Translated};
use crate::error::{Error, Result};
use crate::graph;
use crate::net::{Activation, Shape};
use at::At;
use state::{Held, Made, Translation, Value, named};

/// The number of inputs of a batch that the graph leaves open: a prime, so that it is found again in what is computed of
/// shapes.
const BATCH: usize = 1_000_003;

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
            let constant = state::stored(&tensor.name, stored);
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
        computed: 0,
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

impl<'a> Translation<'a> {
    /// Takes the input that is no stored tensor.
    fn input(&mut self, size: Option<[usize; 3]>) -> Result<[usize; 3]> {
        let stored: HashSet<&str> = self.graph.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let inputs: Vec<_> =
            self.graph.inputs.iter().filter(|input| !stored.contains(input.name.as_str())).collect();
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
        let rank = sides.len();
        self.batch = sides[0].unwrap_or(BATCH);
        if self.batch > MOST {
            let found = self.batch;
            return Err(Error::config(format!("the input `{name}` is a batch of {found} images, too many")));
        }
        // Channels last, where the graph first puts them first.
        let readers = self.graph.nodes.iter().filter(|node| node.inputs.iter().any(|read| read == name));
        let last = rank == 4 && readers.into_iter().all(|node| at::order(node) == Some(vec![0, 3, 1, 2]));
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
        let mut axes = match rank {
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
        self.check_sizes(0).map_err(|error| Error::config(format!("the input `{name}` {error}")))?;
        let value = Value { node: 0, axes, first: 0, function: Function::identity(), by: String::new() };
        self.held.insert(name, Held::Value(value));
        Ok(sides)
    }

    /// One node of the graph.
    fn node(&mut self, node: &'a Node) -> Result<()> {
        if !is_standard(&node.domain) {
            return Err(Error::config(format!(
                "is of the domain `{}`, which is not known here",
                node.domain
            )));
        }
        let (at, before) = (At::new(node), self.made.len());
        let made = match node.op.as_str() {
            "Conv" => self.conv(&at),
            "Gemm" => self.gemm(&at),
            "MatMul" => self.mat_mul(&at),
            "BatchNormalization" => self.batch_norm(&at),
            "LayerNormalization" => self.layer_norm(&at),
            "GroupNormalization" => self.group_norm(&at),
            "InstanceNormalization" => self.instance_norm(&at),
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
        self.check_sizes(before)?;
        at.check_all_read()?;
        let outputs = node.outputs.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
        if made.len() < outputs.len() {
            let used = |name: &&&String| self.uses.contains_key(name.as_str());
            if let Some(name) = outputs[made.len()..].iter().find(used) {
                return Err(Error::config(format!("its output `{name}` is used, which is not known here")));
            }
        }
        for (name, made) in outputs.into_iter().zip(made) {
            // A few bytes can make a constant of a million values.
            if let Held::Constant(constant) = &made {
                self.computed += constant.values.as_ref().map_or(0, Vec::len);
            }
            if self.computed > MOST_OF_ALL {
                let reason = format!("with it, constants of more than {MOST_OF_ALL} values are computed");
                return Err(Error::config(reason));
            }
            self.held.insert(name, made);
        }
        Ok(())
    }

    /// Whether axes are the batch and all channels, beside some of length 1; of one image, also the channels alone.
    fn is_row(&self, axes: &[Axis], c: usize) -> bool {
        let row = [axes::over(Run::Batch, self.batch, 1), axes::over(Run::Channel, c, 1)];
        let long = |axes: &[Axis]| axes.iter().filter(|axis| !axis.is_empty()).cloned().collect::<Vec<_>>();
        long(axes) == long(&row) && (axes.len() < 2 || axes[0] == row[0])
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
        if last.node == 0 || shape.positions() != 1 || last.first != 0 || !self.is_row(&last.axes, shape.c) {
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
}
