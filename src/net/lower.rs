//! Lowering: the instructions of a network's passes, node by node.
//!
//! The block restriction is structural. A node *requires a tangent* where a selected layer is at or above it: only
//! such nodes have tangents and adjoints, and only selected rows have gradients. Adjoints are cleared by whoever adds to
//! them first. The four passes of each kind of node are in [`super::layers`].

use super::layers::loss::LossOp;
use super::layers::pointwise::PointwiseOp;
use super::layers::{self, Lower};
use super::program::{Instruction, List, Program, Purpose, Value};
use super::rows::Selected;
use super::{LayerId, Network, Node, NodeId, Op, Shape};
use crate::loss::LogitProduct;
use crate::{Error, Result};

impl Program {
    /// The program of a network for a purpose, with these rows of each layer selected.
    ///
    /// # Errors
    /// Where the purpose is not [`Purpose::Train`] and batch norm is not frozen, or an operand has another length than
    /// its instruction expects.
    pub fn new(net: &Network, rows: &[Selected], purpose: Purpose) -> Result<Program> {
        let mut program = lower(net, rows, purpose)?;
        program.check(net)?;
        program.place();
        Ok(program)
    }
}

/// The instructions of a network for a purpose; places are not decided yet.
fn lower(net: &Network, rows: &[Selected], purpose: Purpose) -> Result<Program> {
    let nodes = net.nodes.len();
    let mut requires = vec![false; nodes];
    for (i, node) in net.nodes.iter().enumerate() {
        let selected = match node.op.layer() {
            Some(layer) => rows[layer.index()] != Selected::None,
            None => purpose == Purpose::Train && has_parameters(&node.op),
        };
        requires[i] = selected || node.inputs.iter().any(|input| requires[input.index()]);
    }
    let none = || vec![None; nodes];
    let mut all = Lowering {
        net,
        rows,
        purpose,
        requires,
        list: List::default(),
        values: none(),
        saved: none(),
        tangents: none(),
        saved_tangents: none(),
        adjoints: none(),
        primal_adjoints: none(),
    };
    let layers: Vec<Box<dyn Lower + '_>> = net.nodes.iter().map(|node| layers::of(&node.op)).collect();
    for (node, layer) in layers.iter().enumerate() {
        let y = all.list.value(format!("y{node}"), net.nodes[node].shape.len());
        all.values[node] = Some(y);
        layer.forward(&mut At { all: &mut all, node })?;
    }
    let backward = all.list.len();
    let end = nodes - 1;
    let (image, logits) = (all.value(0)?, all.value(end)?);
    if purpose != Purpose::Forward && all.requires[end] {
        let d = all.adjoint(end, "d");
        all.list.push(NodeId(end as u32), LossOp::Gradient { d, logits }.into());
        all.backward(&layers, |layer, at| layer.backward(at))?;
    }
    let product = all.list.len();
    if purpose.has_products() && all.requires[end] {
        for (node, layer) in layers.iter().enumerate() {
            if all.requires[node] {
                let t = all.list.value(format!("t{node}"), net.nodes[node].shape.len());
                all.tangents[node] = Some(t);
                layer.tangent(&mut At { all: &mut all, node })?;
            }
        }
        all.primal_adjoints = std::mem::replace(&mut all.adjoints, none());
        let (back, tangent) = (all.adjoint(end, "h"), found(all.tangents[end], "tangent", end)?);
        let matrix = match purpose {
            Purpose::Fisher => LogitProduct::Fisher,
            _ => LogitProduct::Curvature,
        };
        all.list.push(NodeId(end as u32), LossOp::Product { matrix, back, tangent, logits }.into());
        match purpose {
            Purpose::Hessian => all.backward(&layers, |layer, at| layer.tangent_backward(at))?,
            _ => all.backward(&layers, |layer, at| layer.backward(at))?,
        }
    }
    Ok(Program::of(all.list, [backward, product], image, logits))
}

/// Whether an operation without units has parameters, which only training changes.
fn has_parameters(op: &Op) -> bool {
    match op {
        Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Embedding { .. }
        | Op::ClassToken(_)
        | Op::Positions(_) => true,
        Op::Input
        | Op::Linear(..)
        | Op::Conv(..)
        | Op::Scale(_)
        | Op::Activation(_)
        | Op::Add
        | Op::Gate
        | Op::Reshape
        | Op::MaxPool(_)
        | Op::AveragePool(_)
        | Op::AdaptivePool
        | Op::GlobalPool
        | Op::Tokens(_)
        | Op::Concat
        | Op::Attention { .. }
        | Op::Shortcut { .. } => false,
    }
}

fn found(value: Option<Value>, what: &str, node: usize) -> Result<Value> {
    value.ok_or_else(|| Error::shape("program", format!("a {what} of node {node}"), "none"))
}

/// The values of every node while they are made.
struct Lowering<'a> {
    net: &'a Network,
    rows: &'a [Selected],
    purpose: Purpose,
    requires: Vec<bool>,
    list: List,
    values: Vec<Option<Value>>,
    saved: Vec<Option<Value>>,
    tangents: Vec<Option<Value>>,
    saved_tangents: Vec<Option<Value>>,
    /// Of the backward pass that is being listed.
    adjoints: Vec<Option<Value>>,
    /// While that is a tangent backward pass, those of the backward section.
    primal_adjoints: Vec<Option<Value>>,
}

impl Lowering<'_> {
    fn value(&self, node: usize) -> Result<Value> {
        found(self.values[node], "value", node)
    }

    fn adjoint(&mut self, node: usize, name: &str) -> Value {
        let value = self.list.value(format!("{name}{node}"), self.net.nodes[node].shape.len());
        self.adjoints[node] = Some(value);
        value
    }

    /// One pass from the logits back, through the nodes whose adjoint somebody added to.
    fn backward(
        &mut self,
        layers: &[Box<dyn Lower + '_>],
        pass: impl Fn(&dyn Lower, &mut At<'_, '_>) -> Result<()>,
    ) -> Result<()> {
        for node in (1..self.net.nodes.len()).rev() {
            if self.adjoints[node].is_some() {
                pass(layers[node].as_ref(), &mut At { all: self, node })?;
            }
        }
        Ok(())
    }
}

/// The node whose instructions are being listed.
pub(super) struct At<'a, 'b> {
    all: &'a mut Lowering<'b>,
    node: usize,
}

impl<'b> At<'_, 'b> {
    /// The network.
    pub fn net(&self) -> &'b Network {
        self.all.net
    }

    /// The node's number.
    pub fn id(&self) -> NodeId {
        NodeId(self.node as u32)
    }

    fn node(&self) -> &'b Node {
        &self.all.net.nodes[self.node]
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        self.node().inputs.len()
    }

    /// What it gives an image.
    pub fn shape(&self) -> Shape {
        self.node().shape
    }

    /// What input `i` gives an image.
    pub fn from(&self, i: usize) -> Shape {
        self.all.net.nodes[self.node().inputs[i].index()].shape
    }

    /// The selected rows of a layer.
    pub fn rows(&self, layer: LayerId) -> &'b Selected {
        &self.all.rows[layer.index()]
    }

    /// Whether parameters that belong to no layer have gradients.
    pub fn trains(&self) -> bool {
        self.all.purpose == Purpose::Train
    }

    /// Whether there are passes behind the forward one.
    pub fn derives(&self) -> bool {
        self.all.purpose != Purpose::Forward
    }

    /// Whether there is a tangent backward pass.
    pub fn derives_twice(&self) -> bool {
        self.all.purpose == Purpose::Hessian
    }

    /// Adds an instruction.
    pub fn push(&mut self, op: impl Into<Instruction>) {
        let id = self.id();
        self.all.list.push(id, op.into());
    }

    /// Its value.
    pub fn y(&self) -> Result<Value> {
        self.all.value(self.node)
    }

    /// The value of input `i`.
    pub fn x(&self, i: usize) -> Result<Value> {
        self.all.value(self.node().inputs[i].index())
    }

    /// Room for what later passes read beside the value: `len` floats an image.
    pub fn save(&mut self, name: &str, len: usize) -> Value {
        let value = self.all.list.value(format!("y{}.{name}", self.node), len);
        self.all.saved[self.node] = Some(value);
        value
    }

    /// What the forward pass saved.
    pub fn saved(&self) -> Result<Value> {
        found(self.all.saved[self.node], "saved value", self.node)
    }

    /// Its tangent.
    pub fn tangent(&self) -> Result<Value> {
        found(self.all.tangents[self.node], "tangent", self.node)
    }

    /// The tangent of input `i`, if it requires one.
    pub fn tangent_of(&self, i: usize) -> Option<Value> {
        self.all.tangents[self.node().inputs[i].index()]
    }

    /// The tangent of the only input.
    pub fn tangent_of_input(&self) -> Result<Value> {
        found(self.tangent_of(0), "tangent of the input", self.node)
    }

    /// Room for what the tangent backward pass reads beside the tangent.
    pub fn save_tangent(&mut self, name: &str, len: usize) -> Value {
        let value = self.all.list.value(format!("t{}.{name}", self.node), len);
        self.all.saved_tangents[self.node] = Some(value);
        value
    }

    /// What the tangent pass saved.
    pub fn saved_tangent(&self) -> Result<Value> {
        found(self.all.saved_tangents[self.node], "saved tangent", self.node)
    }

    /// The adjoint of its value: in a tangent backward pass, the tangent of that.
    pub fn dy(&self) -> Result<Value> {
        found(self.all.adjoints[self.node], "adjoint", self.node)
    }

    /// In a tangent backward pass, the adjoint that the backward pass had.
    pub fn primal_dy(&self) -> Result<Value> {
        found(self.all.primal_adjoints[self.node], "adjoint", self.node)
    }

    /// A value of this node for the next few instructions.
    pub fn scratch(&mut self, name: &str, len: usize) -> Value {
        self.all.list.value(format!("{name}{}", self.node), len)
    }

    /// The adjoint of input `i` to add to, if it has one; cleared where nobody has added to it before.
    pub fn dx(&mut self, i: usize) -> Option<Value> {
        let input = self.node().inputs[i].index();
        if !self.all.requires[input] {
            return None;
        }
        if let Some(dx) = self.all.adjoints[input] {
            return Some(dx);
        }
        let name = if self.all.tangents.iter().any(Option::is_some) { "h" } else { "d" };
        let dx = self.all.adjoint(input, name);
        self.push(PointwiseOp::Zero { y: dx });
        Some(dx)
    }
}
