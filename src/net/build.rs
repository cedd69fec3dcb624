//! Composing a network: the vocabulary of [`crate::zoo`]. Shapes are inferred and checked as nodes are added; tensors
//! come from a [`Source`], which is a file's contents or an initialisation.

use super::{
    Activation, Affine, Conv, Epilogue, Layer, LayerId, Network, Node, NodeId, Op, Order, Param, ParamId,
    Shape, Units, Window,
};
use crate::{Error, Result};

/// What a tensor is for: what an initialisation goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight matrix or filter bank, whose rows have this length.
    Weight(usize),
    /// A bias of rows of this length.
    Bias(usize),
    /// A norm's scale, or a running variance: ones.
    One,
    /// A norm's shift, or a running mean: zeros.
    Zero,
    /// A class token or position table.
    Embedding,
}

/// Where a network's tensors come from.
pub trait Source {
    /// The tensor of that name in PyTorch's order, exactly of that shape.
    ///
    /// # Errors
    /// Where it is missing, of another shape, or not finite; the message names it.
    fn tensor(&mut self, name: &str, shape: &[usize], role: Role) -> Result<Vec<f32>>;

    /// The shape of a tensor, if there is one of that name: what widths and depths are read off.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Whether there is such a tensor; an optional bias is read only where there is.
    fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }
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

    /// A convolution `name.weight [outputs, c / groups, r, s]`, with `name.bias` where there is one.
    pub fn conv(&mut self, x: NodeId, name: &str, outputs: usize, conv: Conv) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        let (r, s) = conv.kernel;
        let reach =
            |size: usize, pad: usize, k: usize| (size + 2 * pad).checked_sub(conv.dilation * (k - 1) + 1);
        let (Some(down), Some(right)) = (reach(h, conv.padding.0, r), reach(w, conv.padding.1, s)) else {
            return Err(Error::shape(
                "conv2d",
                format!("an image that a {r}x{s} filter fits"),
                format!("{h}x{w} at `{name}`"),
            ));
        };
        if conv.groups == 0 || !c.is_multiple_of(conv.groups) || !outputs.is_multiple_of(conv.groups) {
            return Err(Error::shape(
                "conv2d",
                format!("channels that {} groups divide", conv.groups),
                format!("{c} to {outputs} at `{name}`"),
            ));
        }
        let inner = c / conv.groups;
        let order = Order::ChannelsLast { o: outputs, c: inner, positions: r * s };
        let layer = self.layer(
            name,
            &format!("{name}.weight"),
            &format!("{name}.bias"),
            &[outputs, inner, r, s],
            order,
        )?;
        // A layer has one number of groups, however often it is used.
        let earlier = self.nodes.iter().find_map(|node| match &node.op {
            Op::Conv(known, earlier, _) if *known == layer => Some(earlier.groups),
            _ => None,
        });
        if let Some(groups) = earlier.filter(|&groups| groups != conv.groups) {
            return Err(Error::shape(
                "conv2d",
                format!("{} channels where `{name}` is used again", groups * inner),
                format!("{c}"),
            ));
        }
        let shape = Shape::new(down / conv.stride + 1, right / conv.stride + 1, outputs);
        Ok(self.push(Op::Conv(layer, conv, Epilogue::default()), &[x], shape))
    }

    /// A linear layer `name.weight [outputs, c]` at every position, with `name.bias` where there is one.
    pub fn linear(&mut self, x: NodeId, name: &str, outputs: usize) -> Result<NodeId> {
        self.linear_named(x, name, &format!("{name}.weight"), &format!("{name}.bias"), outputs)
    }

    /// [`Builder::linear`] under tensor names of their own (PyTorch's `in_proj_weight`).
    pub fn linear_named(
        &mut self,
        x: NodeId,
        name: &str,
        weight: &str,
        bias: &str,
        outputs: usize,
    ) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        // Behind a flattened image the file's columns are (c, h, w), ours (h, w, c).
        let order = match self.flattened(x) {
            Some(image) if image.positions() > 1 && image.c > 1 => {
                Order::ChannelsLast { o: outputs, c: image.c, positions: image.positions() }
            }
            _ => Order::Same,
        };
        let layer = self.layer(name, weight, bias, &[outputs, c], order)?;
        Ok(self.push(Op::Linear(layer, Epilogue::default()), &[x], Shape::new(h, w, outputs)))
    }

    /// Batch norm under `name.{weight, bias, running_mean, running_var}`, eps 1e-5.
    pub fn batch_norm(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        self.batch_norm_with(x, name, 1e-5)
    }

    /// [`Builder::batch_norm`] of another eps.
    pub fn batch_norm_with(&mut self, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        let mut read =
            |tensor: &str, role| self.param(&format!("{name}.{tensor}"), &[shape.c], Order::Same, role);
        let (gamma, beta) = (read("weight", Role::One)?, read("bias", Role::Zero)?);
        let (mean, var) = (read("running_mean", Role::Zero)?, read("running_var", Role::One)?);
        self.params[mean.index()].trained = false;
        self.params[var.index()].trained = false;
        Ok(self.push(Op::BatchNorm { gamma, beta, mean, var, eps }, &[x], shape))
    }

    /// (x − mean) / std per channel, by buffers of the model, which nothing changes. Each has one value per channel, or
    /// one for all.
    ///
    /// # Errors
    /// Where a buffer has another number of values, or a deviation is not above 0.
    pub fn normalise(&mut self, x: NodeId, mean: &str, std: &str) -> Result<NodeId> {
        let shape = self.shape(x);
        let mut read = |name: &str, role| -> Result<Vec<f32>> {
            let stored = self.source.shape(name).unwrap_or(&[]).to_vec();
            let buffer = self.param(name, &stored, Order::Same, role)?;
            self.params[buffer.index()].trained = false;
            match self.params[buffer.index()].value[..] {
                [one] => Ok(vec![one; shape.c]),
                ref all if all.len() == shape.c => Ok(all.to_vec()),
                ref all => Err(Error::shape(
                    "normalise",
                    format!("{} values in `{name}`, one per channel of the image", shape.c),
                    all.len().to_string(),
                )),
            }
        };
        let (means, stds) = (read(mean, Role::Zero)?, read(std, Role::One)?);
        if let Some(zero) = stds.iter().find(|std| **std <= 0.0) {
            return Err(Error::shape(
                "normalise",
                format!("deviations above 0 in `{std}`"),
                zero.to_string(),
            ));
        }
        let scale = stds.iter().map(|std| 1.0 / std).collect();
        let shift = means.iter().zip(&stds).map(|(mean, std)| -mean / std).collect();
        Ok(self.push(Op::Scale(Affine { scale, shift }), &[x], shape))
    }

    /// Layer norm over channels under `name.{weight, bias}`.
    pub fn layer_norm(&mut self, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        let gamma = self.param(&format!("{name}.weight"), &[shape.c], Order::Same, Role::One)?;
        let beta = self.param(&format!("{name}.bias"), &[shape.c], Order::Same, Role::Zero)?;
        Ok(self.push(Op::LayerNorm { gamma, beta, eps }, &[x], shape))
    }

    /// A nonlinearity.
    pub fn activation(&mut self, x: NodeId, activation: Activation) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Activation(activation), &[x], shape)
    }

    /// ReLU.
    pub fn relu(&mut self, x: NodeId) -> NodeId {
        self.activation(x, Activation::Relu)
    }

    /// x + y.
    pub fn add(&mut self, x: NodeId, y: NodeId) -> Result<NodeId> {
        let (a, b) = (self.shape(x), self.shape(y));
        if a != b {
            return Err(Error::shape("add", format!("{a:?}"), format!("{b:?}")));
        }
        Ok(self.push(Op::Add, &[x, y], a))
    }

    /// An image as one row of features; PyTorch's (c, h, w) order is restored in the weights that read it.
    pub fn flatten(&mut self, x: NodeId) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Reshape, &[x], Shape::new(1, 1, shape.len()))
    }

    /// An image as a row of tokens.
    pub fn tokens(&mut self, x: NodeId) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Reshape, &[x], Shape::new(1, shape.positions(), shape.c))
    }

    /// Max pooling.
    pub fn max_pool(&mut self, x: NodeId, window: Window) -> Result<NodeId> {
        let shape = self.pooled("max_pool", x, window)?;
        Ok(self.push(Op::MaxPool(window), &[x], shape))
    }

    /// Average pooling.
    pub fn average_pool(&mut self, x: NodeId, window: Window) -> Result<NodeId> {
        let shape = self.pooled("average_pool", x, window)?;
        Ok(self.push(Op::AveragePool(window), &[x], shape))
    }

    /// Average pooling to an `h × w` grid.
    pub fn adaptive_pool(&mut self, x: NodeId, h: usize, w: usize) -> NodeId {
        let c = self.shape(x).c;
        self.push(Op::AdaptivePool, &[x], Shape::new(h, w, c))
    }

    /// The mean over all positions.
    pub fn global_pool(&mut self, x: NodeId) -> NodeId {
        let c = self.shape(x).c;
        self.push(Op::GlobalPool, &[x], Shape::new(1, 1, c))
    }

    /// The token `name [1, 1, c]` before the others.
    pub fn class_token(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        let token = self.param(name, &[1, 1, c], Order::Same, Role::Embedding)?;
        Ok(self.push(Op::ClassToken(token), &[x], Shape::new(1, h * w + 1, c)))
    }

    /// The table `name [1, tokens, c]` added to the tokens.
    pub fn positions(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        let shape = self.shape(x);
        let table = self.param(name, &[1, shape.positions(), shape.c], Order::Same, Role::Embedding)?;
        Ok(self.push(Op::Positions(table), &[x], shape))
    }

    /// Token `i` as features.
    pub fn token(&mut self, x: NodeId, i: usize) -> NodeId {
        let c = self.shape(x).c;
        self.push(Op::Tokens(i), &[x], Shape::new(1, 1, c))
    }

    /// All tokens but the first `i`.
    ///
    /// # Errors
    /// Where no token is left.
    pub fn tokens_from(&mut self, x: NodeId, i: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        match (h * w).checked_sub(i).filter(|&left| left > 0) {
            Some(left) => Ok(self.push(Op::Tokens(i), &[x], Shape::new(1, left, c))),
            None => Err(Error::shape("tokens", format!("more than {i} tokens"), format!("{}", h * w))),
        }
    }

    /// The channels of `parts`, one part after the other.
    ///
    /// # Errors
    /// Where there are no parts, or not all have the same positions.
    pub fn concat(&mut self, parts: &[NodeId]) -> Result<NodeId> {
        let shapes: Vec<Shape> = parts.iter().map(|&part| self.shape(part)).collect();
        match shapes.first() {
            Some(&Shape { h, w, .. }) if shapes.iter().all(|shape| (shape.h, shape.w) == (h, w)) => {
                let c = shapes.iter().map(|shape| shape.c).sum();
                Ok(self.push(Op::Concat, parts, Shape::new(h, w, c)))
            }
            _ => Err(Error::shape("concat", "parts of the same positions", format!("{shapes:?}"))),
        }
    }

    /// Multi-head attention over packed q, k, v channels.
    pub fn attention(&mut self, qkv: NodeId, heads: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(qkv);
        if heads == 0 || !c.is_multiple_of(3 * heads) {
            return Err(Error::shape(
                "attention",
                format!("channels in 3 x {heads} equal parts"),
                format!("{c}"),
            ));
        }
        Ok(self.push(Op::Attention { heads }, &[qkv], Shape::new(h, w, c / 3)))
    }

    /// The option-A shortcut to `channels` channels.
    pub fn shortcut(&mut self, x: NodeId, stride: usize, channels: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        if channels < c || !(channels - c).is_multiple_of(2) {
            return Err(Error::shape(
                "shortcut",
                format!("{c} channels and an even number more"),
                format!("{channels}"),
            ));
        }
        Ok(self.push(
            Op::Shortcut { stride },
            &[x],
            Shape::new(h.div_ceil(stride), w.div_ceil(stride), channels),
        ))
    }

    /// The network whose logits are `output`, in train form.
    pub fn finish(self, output: NodeId) -> Result<Network> {
        let shape = self.nodes[output.index()].shape;
        if output.index() + 1 != self.nodes.len() || shape.positions() != 1 {
            return Err(Error::shape(
                "network",
                "one row of logits from the last node",
                format!("{shape:?}"),
            ));
        }
        let units = Units::of(&self.layers);
        Ok(Network { nodes: self.nodes, layers: self.layers, params: self.params, units, frozen: false })
    }

    fn push(&mut self, op: Op, inputs: &[NodeId], shape: Shape) -> NodeId {
        self.nodes.push(Node { op, inputs: inputs.to_vec(), shape });
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// The image behind a flattened node, if `x` is one (a nonlinearity between does not change the order).
    fn flattened(&self, x: NodeId) -> Option<Shape> {
        let node = &self.nodes[x.index()];
        match node.op {
            Op::Reshape if node.shape.positions() == 1 => Some(self.shape(node.inputs[0])),
            Op::Activation(_) => self.flattened(node.inputs[0]),
            _ => None,
        }
    }

    fn pooled(&self, op: &'static str, x: NodeId, window: Window) -> Result<Shape> {
        let Shape { h, w, c } = self.shape(x);
        let along =
            |size: usize| (size + 2 * window.padding).checked_sub(window.size).map(|d| d / window.stride + 1);
        match (along(h), along(w)) {
            (Some(h), Some(w)) => Ok(Shape::new(h, w, c)),
            _ => Err(Error::shape(
                op,
                format!("an image that a window of {} fits", window.size),
                format!("{h}x{w}"),
            )),
        }
    }

    fn param(&mut self, name: &str, shape: &[usize], order: Order, role: Role) -> Result<ParamId> {
        if let Some(known) = self.params.iter().position(|param| param.name == name) {
            self.check_again(known, shape, order)?;
            return Ok(ParamId(known as u32));
        }
        let stored = self.source.tensor(name, shape, role)?;
        let value = order.from_stored(&stored);
        self.params.push(Param {
            name: name.into(),
            shape: shape.into(),
            order,
            value: value.into(),
            trained: true,
        });
        Ok(ParamId(self.params.len() as u32 - 1))
    }

    /// Checks that a tensor fits where it is used again.
    fn check_again(&self, known: usize, shape: &[usize], order: Order) -> Result<()> {
        let param = &self.params[known];
        if param.shape != shape {
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
    fn layer(
        &mut self,
        name: &str,
        weight: &str,
        bias: &str,
        shape: &[usize],
        order: Order,
    ) -> Result<LayerId> {
        if let Some(known) = self.layers.iter().position(|layer| layer.name == name) {
            self.check_again(self.layers[known].weight.index(), shape, order)?;
            return Ok(LayerId(known as u32));
        }
        let (outputs, fan_in) = (shape[0], shape[1..].iter().product());
        let weight = self.param(weight, shape, order, Role::Weight(fan_in))?;
        let bias = match self.source.has(bias) {
            true => Some(self.param(bias, &[outputs], Order::Same, Role::Bias(fan_in))?),
            false => None,
        };
        self.layers.push(Layer { name: name.into(), weight, bias, outputs, fan_in });
        Ok(LayerId(self.layers.len() as u32 - 1))
    }
}
