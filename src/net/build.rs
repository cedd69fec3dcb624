//! Composing a network: the vocabulary of [`crate::zoo`], whose words are in [`super::layers`]. Shapes are inferred and
//! checked as nodes are added; tensors come from a [`Source`], which is a file's contents or an initialisation.

use super::{Layer, LayerId, Network, Node, NodeId, Op, Order, Param, ParamId, Role, Shape, Units};
use crate::error::{Error, Result};
use crate::loss::Loss;

/// Where a network's tensors come from.
pub trait Source {
    /// The tensor of that name in PyTorch's order, exactly of that shape.
    ///
    /// # Errors
    /// Where it is missing, of another shape, or not finite; the message names it.
    fn tensor(&mut self, name: &str, shape: &[usize], role: Role) -> Result<Vec<f32>>;

    /// The shape of a tensor, if there is one of that name: what widths and depths are read off.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Whether values are left out, so that [`Source::tensor`] gives zeros: for what goes by shapes alone.
    fn is_outline(&self) -> bool {
        false
    }

    /// Whether there is such a tensor; an optional bias is read only where there is.
    fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }
}

/// The tensors of a layer, by name.
#[derive(Clone, Copy, Debug)]
pub struct LayerTensors<'a> {
    /// The layer's own name.
    pub layer: &'a str,
    /// Its weight.
    pub weight: &'a str,
    /// Its bias, where it has one.
    pub bias: Option<&'a str>,
}

/// Whether a tensor of the first shape has the second, but for ones behind it: filters of one position that a network uses as a
/// matrix.
pub(crate) fn is_shape(found: &[usize], shape: &[usize]) -> bool {
    found.strip_prefix(shape).is_some_and(|behind| behind.iter().all(|&side| side == 1))
}

/// A network being composed. Layers are numbered in the order of their first use here, so a family composes in
/// PyTorch's module order.
pub struct Builder<'a> {
    source: &'a mut dyn Source,
    nodes: Vec<Node>,
    layers: Vec<Layer>,
    params: Vec<Param>,
}

impl<'a> Builder<'a> {
    /// An empty network over images of that shape; node 0 is the image.
    pub fn new(source: &'a mut dyn Source, input: Shape) -> (Builder<'a>, NodeId) {
        let nodes = vec![Node { op: Op::Input, inputs: vec![], shape: input }];
        (Builder { source, nodes, layers: vec![], params: vec![] }, NodeId(0))
    }

    /// An empty network over texts of this many tokens: the token ids, then the mask, which is 1 where a token is attended.
    pub fn text(source: &'a mut dyn Source, tokens: usize) -> (Builder<'a>, [NodeId; 2]) {
        let (mut builder, input) = Builder::new(source, Shape::new(2, tokens, 1));
        let part = |part: usize| builder.push(Op::Tokens(part * tokens), &[input], Shape::new(1, tokens, 1));
        let parts = [0, 1].map(part);
        (builder, parts)
    }

    /// Whether it is a network over texts.
    pub fn is_of_texts(&self) -> bool {
        let is = |node: Option<&Node>, first: usize| matches!(node, Some(Node { op: Op::Tokens(at), .. }) if *at == first);
        let Shape { h, w: tokens, c } = self.nodes[0].shape;
        (h, c) == (2, 1) && is(self.nodes.get(1), 0) && is(self.nodes.get(2), tokens)
    }

    /// What a node gives per image.
    pub fn shape(&self, node: NodeId) -> Shape {
        self.nodes[node.index()].shape
    }

    /// Whether the source has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.source.has(name)
    }

    /// One side of a tensor of the source.
    ///
    /// # Errors
    /// Where there is no such tensor or side.
    pub fn side(&self, name: &str, axis: usize) -> Result<usize> {
        let side = self.source.shape(name).and_then(|shape| shape.get(axis));
        side.copied()
            .ok_or_else(|| Error::config(format!("the model has no tensor `{name}` with {} axes", axis + 1)))
    }

    /// The network whose logits are `output`, in train form; its loss is plain cross-entropy.
    pub fn finish(self, output: NodeId) -> Result<Network> {
        let shape = self.nodes[output.index()].shape;
        if output.index() + 1 != self.nodes.len() || shape.positions() != 1 {
            return Err(Error::shape(
                "network",
                "one row of logits from the last node",
                format!("{shape:?}"),
            ));
        }
        let units = Units::of(self.layers.iter().map(|layer| layer.outputs));
        let words = self.nodes.iter().filter_map(|node| match node.op {
            Op::Embedding { rows, .. } => u32::try_from(rows).ok(),
            _ => None,
        });
        let ordinary = 0..words.min().unwrap_or(0);
        Ok(Network {
            nodes: self.nodes,
            layers: self.layers,
            params: self.params,
            loss: Loss::default(),
            ordinary,
            units,
            trained_as: None,
        })
    }

    /// Adds a node.
    pub(super) fn push(&mut self, op: Op, inputs: &[NodeId], shape: Shape) -> NodeId {
        self.nodes.push(Node { op, inputs: inputs.to_vec(), shape });
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Whether the source leaves out values.
    pub(super) fn is_outline(&self) -> bool {
        self.source.is_outline()
    }

    /// All nodes so far.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The shape of a tensor of the source.
    pub(super) fn stored(&self, name: &str) -> Option<&[usize]> {
        self.source.shape(name)
    }

    /// A parameter's values.
    pub(super) fn value(&self, param: ParamId) -> &[f32] {
        &self.params[param.index()].value
    }

    /// A parameter's name.
    pub(super) fn name(&self, param: ParamId) -> &str {
        &self.params[param.index()].name
    }

    /// A node.
    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// Says that a parameter is not moved by gradient.
    pub(super) fn is_not_trained(&mut self, param: ParamId) {
        self.params[param.index()].trained = false;
    }

    /// The parameter of that name: the one there is, where it is used again.
    pub(super) fn param(&mut self, name: &str, shape: &[usize], order: Order, role: Role) -> Result<ParamId> {
        if let Some(known) = self.params.iter().position(|param| param.name == name) {
            self.check_again(known, shape, order)?;
            return Ok(ParamId(known as u32));
        }
        let stored = self.source.tensor(name, shape, role)?;
        let in_file =
            self.source.shape(name).filter(|found| is_shape(found, shape)).unwrap_or(shape).to_vec();
        // Zeros that are never written take no memory.
        let value = if self.source.is_outline() { stored } else { order.from_stored(&stored) };
        self.params.push(Param {
            name: name.into(),
            shape: in_file,
            order,
            value: value.into(),
            trained: true,
            role,
        });
        Ok(ParamId(self.params.len() as u32 - 1))
    }

    /// Checks that a tensor fits where it is used again.
    fn check_again(&self, known: usize, shape: &[usize], order: Order) -> Result<()> {
        let param = &self.params[known];
        if !is_shape(&param.shape, shape) {
            let used = format!("a tensor of shape {shape:?} where `{}` is used again", param.name);
            return Err(Error::shape("network", used, format!("{:?}", param.shape)));
        }
        if param.order != order {
            let used = format!("`{}` behind the same image wherever it is used", param.name);
            return Err(Error::shape("network", used, "it behind a flattened image and elsewhere"));
        }
        Ok(())
    }

    /// The layer of that module name: the one there is, where it is used again.
    /// It has `outputs` rows; `shape` is that of its weight in the file.
    pub(super) fn layer(
        &mut self,
        tensors: LayerTensors,
        outputs: usize,
        shape: &[usize],
        order: Order,
    ) -> Result<LayerId> {
        let LayerTensors { layer: name, weight, bias } = tensors;
        if let Some(known) = self.layers.iter().position(|layer| layer.name == name) {
            let layer = &self.layers[known];
            let tensors = (self.name(layer.weight), layer.bias.map(|bias| self.name(bias)));
            if tensors != (weight, bias) {
                let expected = format!("the tensors {tensors:?} where the layer `{name}` is used again");
                return Err(Error::shape("network", expected, format!("{:?}", (weight, bias))));
            }
            self.check_again(layer.weight.index(), shape, order)?;
            return Ok(LayerId(known as u32));
        }
        let fan_in = shape.iter().product::<usize>() / outputs.max(1);
        let weight = self.param(weight, shape, order, Role::Weight(fan_in))?;
        let bias = match bias {
            Some(bias) => Some(self.param(bias, &[outputs], Order::Same, Role::Bias(fan_in))?),
            None => None,
        };
        self.layers.push(Layer { name: name.into(), weight, bias, outputs, fan_in });
        Ok(LayerId(self.layers.len() as u32 - 1))
    }

    /// The tensors of a layer of PyTorch's: a weight, and a bias where the source has one.
    pub(super) fn tensors<'b>(&self, layer: &'b str, weight: &'b str, bias: &'b str) -> LayerTensors<'b> {
        LayerTensors { layer, weight, bias: Some(bias).filter(|bias| self.source.has(bias)) }
    }
}
