//! Lowering: the instructions of a network's passes, node by node.
//!
//! The block restriction is structural. A node *requires a tangent* where a selected layer is at or above it: only
//! such nodes have tangents and adjoints, and only selected rows have gradients. The four passes of each kind of node are in
//! [`super::layers`].

use super::emit::{At, Lowering, found};
use super::instruction::LossOp;
use super::layers::{self, Lower};
use super::program::{List, Program, Purpose};
use super::rows::Selected;
use super::{Network, NodeId, Op};
use crate::device::cuda::Element;
use crate::error::Result;
use crate::loss::LogitProduct;
use crate::ops::Precision;

impl Program {
    /// The program of a network for a purpose, with these rows of each layer selected. The precision of affine layers says of
    /// which type values are.
    ///
    /// # Errors
    /// Where the purpose is not [`Purpose::Train`] and batch norm is not frozen, or an operand has another length than
    /// its instruction expects.
    pub fn new(net: &Network, rows: &[Selected], purpose: Purpose, precision: Precision) -> Result<Program> {
        let mut program = lower(net, rows, purpose)?;
        program.check(net)?;
        program.narrow(narrowest(purpose, precision));
        program.place();
        Ok(program)
    }
}

/// The type of values in passes for a purpose where they need not be f32: gradients and products have f32 alone.
fn narrowest(purpose: Purpose, precision: Precision) -> Element {
    match (purpose, precision) {
        (Purpose::Forward, Precision::Bf16) => Element::Bf16,
        (Purpose::Forward, Precision::F16) => Element::F16,
        (Purpose::Forward, Precision::F32 | Precision::Tf32)
        | (
            Purpose::Gradient | Purpose::Train | Purpose::Ggn | Purpose::Fisher | Purpose::Hessian,
            Precision::F32 | Precision::Tf32 | Precision::Bf16 | Precision::F16,
        ) => Element::F32,
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
        layer.forward(&mut all.at(node))?;
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
                layer.tangent(&mut all.at(node))?;
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

impl Lowering<'_> {
    /// One pass from the logits back, through the nodes whose adjoint somebody added to.
    fn backward(
        &mut self,
        layers: &[Box<dyn Lower + '_>],
        pass: impl Fn(&dyn Lower, &mut At<'_, '_>) -> Result<()>,
    ) -> Result<()> {
        for node in (1..self.net.nodes.len()).rev() {
            if self.adjoints[node].is_some() {
                pass(layers[node].as_ref(), &mut self.at(node))?;
            }
        }
        Ok(())
    }
}

/// Whether an operation without units has parameters, which only training changes.
fn has_parameters(op: &Op) -> bool {
    match op {
        Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Embedding { .. }
        | Op::ClassToken(_)
        | Op::Positions(_)
        | Op::RowToAll(_)
        | Op::Attention { windows: Some(_), .. } => true,
        Op::Input
        | Op::Linear(..)
        | Op::Conv(..)
        | Op::Scale(..)
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
        | Op::Attention { windows: None, .. }
        | Op::Bands { .. }
        | Op::Shortcut { .. } => false,
    }
}
