//! The context in which layers lower themselves to instructions: the values of every node so far, and the node that is lowered
//! now.
//!
//! An adjoint is cleared by the first instruction that adds to it.

use super::instruction::{Instruction, PointwiseOp, Value};
use super::program::{List, Purpose};
use super::rows::Selected;
use super::{LayerId, Network, Node, NodeId, Shape};
use crate::error::{Error, Result};

pub(super) fn found(value: Option<Value>, what: &str, node: usize) -> Result<Value> {
    value.ok_or_else(|| Error::shape("program", format!("a {what} of node {node}"), "none"))
}

/// The values of every node while they are made.
pub(super) struct Lowering<'a> {
    pub net: &'a Network,
    pub rows: &'a [Selected],
    pub purpose: Purpose,
    pub requires: Vec<bool>,
    pub list: List,
    pub values: Vec<Option<Value>>,
    pub saved: Vec<Option<Value>>,
    pub tangents: Vec<Option<Value>>,
    pub saved_tangents: Vec<Option<Value>>,
    /// Of the backward pass that is being listed.
    pub adjoints: Vec<Option<Value>>,
    /// While that is a tangent backward pass, those of the backward section.
    pub primal_adjoints: Vec<Option<Value>>,
}

impl<'b> Lowering<'b> {
    /// A node, whose turn it is.
    pub fn at(&mut self, node: usize) -> At<'_, 'b> {
        At { all: self, node }
    }

    pub fn value(&self, node: usize) -> Result<Value> {
        found(self.values[node], "value", node)
    }

    pub fn adjoint(&mut self, node: usize, name: &str) -> Value {
        let value = self.list.value(format!("{name}{node}"), self.net.nodes[node].shape.len());
        self.adjoints[node] = Some(value);
        value
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
