//! Linear layers and convolutions, with their epilogues: y = act(scale · z + shift + r), z = Wx + b.
//!
//! The passes are calls of three bilinear primitives: z' = Wx' + Vx; δx = Wᵀδ; dW = δᵀx; δx' = Wᵀδ' + Vᵀδ;
//! dW' = δ'ᵀx + δᵀx'. A layer's output rows are its units; their activation is z.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{ActivationOp, AffineForward, AffineOp, LayerUse, PointwiseOp, Value, Weights};
use crate::net::rows::Selected;
use crate::net::{Activation, Builder, Conv, Epilogue, LayerId, LayerTensors, NodeId, Op, Order, Shape};
use crate::ops::Geometry;

use super::passes::Lower;

/// A node of a linear layer (`conv` is none) or a convolution.
pub(super) struct Affine<'a> {
    pub layer: LayerId,
    pub conv: Option<Conv>,
    pub epilogue: &'a Epilogue,
}

impl Affine<'_> {
    fn at(&self, at: &At) -> LayerUse {
        let (from, to) = (at.from(0), at.shape());
        let geometry = match self.conv {
            Some(conv) => Geometry::conv(from, to, conv),
            None => Geometry::linear(from, to),
        };
        LayerUse { layer: self.layer, geometry }
    }

    fn scale(&self, at: &At) -> Option<NodeId> {
        self.epilogue.affine.as_ref().map(|_| at.id())
    }

    /// What the derivative of the activation is read off: its argument, or for ReLU its value.
    fn argument(&self, at: &At, kind: Activation) -> Result<Value> {
        if kind.needs_argument() { at.saved() } else { at.y() }
    }

    /// d through the frozen scale, to a value of its own where `d` is somebody else's.
    fn scaled(&self, at: &mut At, d: Value, own: bool, name: &str) -> Value {
        let Some(by) = self.scale(at) else { return d };
        let y = if own { d } else { at.scratch(name, d.len) };
        at.push(PointwiseOp::Scale { y, x: d, by });
        y
    }

    /// The adjoint of z from that of y, without the residual's part.
    fn through_epilogue(&self, at: &mut At, dy: Value, name: &str) -> Result<Value> {
        let Some(kind) = self.epilogue.activation else { return Ok(self.scaled(at, dy, false, name)) };
        let dz = at.scratch(name, dy.len);
        let argument = self.argument(at, kind)?;
        at.push(ActivationOp::Backward { dx: dz, dy, argument, kind });
        Ok(self.scaled(at, dz, true, name))
    }
}

impl Lower for Affine<'_> {
    fn forward(&self, at: &mut At) -> Result<()> {
        let activation = self.epilogue.activation;
        // Saved in every purpose that derives, whichever rows are selected: where it is, a GPU applies the activation
        // in a kernel of its own, and so all these purposes have the same values.
        let saves = at.derives() && activation.is_some_and(Activation::needs_argument);
        let op = AffineForward {
            y: at.y()?,
            argument: saves.then(|| at.save("argument", at.shape().len())),
            x: at.x(0)?,
            residual: self.epilogue.residual.then(|| at.x(1)).transpose()?,
            at: self.at(at),
            scale: self.scale(at),
            activation,
            uses: at.net().nodes.iter().filter(|node| node.op.layer() == Some(self.layer)).count(),
        };
        at.push(AffineOp::Forward(op));
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, layer) = (at.tangent()?, self.at(at));
        match at.tangent_of(0) {
            Some(x) => at.push(AffineOp::Apply { y, x, at: layer, weights: Weights::Layer }),
            None => at.push(PointwiseOp::Zero { y }),
        }
        if *at.rows(self.layer) != Selected::None {
            let x = at.x(0)?;
            at.push(AffineOp::Apply { y, x, at: layer, weights: Weights::Direction });
        }
        if let Some(by) = self.scale(at) {
            at.push(PointwiseOp::Scale { y, x: y, by });
        }
        if let Some(x) = self.epilogue.residual.then(|| at.tangent_of(1)).flatten() {
            at.push(PointwiseOp::Add { y, x });
        }
        let Some(kind) = self.epilogue.activation else { return Ok(()) };
        if at.derives_twice() && kind.needs_argument() {
            let saved = at.save_tangent("argument", y.len);
            at.push(PointwiseOp::Copy { y: saved, x: y });
        }
        let argument = self.argument(at, kind)?;
        at.push(ActivationOp::Backward { dx: y, dy: y, argument, kind });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, layer) = (at.dy()?, self.at(at));
        let mut d = dy;
        if let Some(kind) = self.epilogue.activation {
            d = at.scratch("dz", dy.len);
            let argument = self.argument(at, kind)?;
            at.push(ActivationOp::Backward { dx: d, dy, argument, kind });
        }
        if let Some(dr) = self.epilogue.residual.then(|| at.dx(1)).flatten() {
            at.push(PointwiseOp::Add { y: dr, x: d });
        }
        let dz = self.scaled(at, d, d != dy, "dz");
        if *at.rows(self.layer) != Selected::None {
            let x = at.x(0)?;
            at.push(AffineOp::WeightGradient { dz, x, at: layer, bias: true });
        }
        if let Some(dx) = at.dx(0) {
            at.push(AffineOp::DataGradient { dx, dz, at: layer, weights: Weights::Layer });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dy, dyt, layer) = (at.primal_dy()?, at.dy()?, self.at(at));
        let selected = *at.rows(self.layer) != Selected::None;
        let mut d = dyt;
        if let Some(kind) = self.epilogue.activation {
            d = at.scratch("hz", dyt.len);
            let argument = self.argument(at, kind)?;
            // Without a second derivative, the tangent of the argument does not count.
            match kind.needs_argument() {
                true => {
                    let tangent = at.saved_tangent()?;
                    at.push(ActivationOp::TangentBackward { dxt: d, dyt, dy, tangent, argument, kind });
                }
                false => at.push(ActivationOp::Backward { dx: d, dy: dyt, argument, kind }),
            }
        }
        if let Some(dr) = self.epilogue.residual.then(|| at.dx(1)).flatten() {
            at.push(PointwiseOp::Add { y: dr, x: d });
        }
        let dzt = self.scaled(at, d, d != dyt, "hz");
        if selected {
            let x = at.x(0)?;
            at.push(AffineOp::WeightGradient { dz: dzt, x, at: layer, bias: true });
        }
        let Some(tx) = at.tangent_of(0) else { return Ok(()) };
        let dz = selected.then(|| self.through_epilogue(at, dy, "dz")).transpose()?;
        if let Some(dz) = dz {
            at.push(AffineOp::WeightGradient { dz, x: tx, at: layer, bias: false });
        }
        if let Some(dx) = at.dx(0) {
            at.push(AffineOp::DataGradient { dx, dz: dzt, at: layer, weights: Weights::Layer });
            if let Some(dz) = dz {
                at.push(AffineOp::DataGradient { dx, dz, at: layer, weights: Weights::Direction });
            }
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// A convolution `name.weight [outputs, c / groups, r, s]`, with `name.bias` where there is one.
    ///
    /// # Errors
    /// As [`Builder::conv_of`].
    pub fn conv(&mut self, x: NodeId, name: &str, outputs: usize, conv: Conv) -> Result<NodeId> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let tensors = self.tensors(name, &weight, &bias);
        self.conv_of(x, tensors, outputs, conv)
    }

    /// A convolution of tensors of any names; the weight is `[outputs, c / groups, r, s]`.
    ///
    /// # Errors
    /// Where a filter does not fit the image, the groups do not divide the channels, or a tensor is missing or of another
    /// shape.
    pub fn conv_of(
        &mut self,
        x: NodeId,
        tensors: LayerTensors,
        outputs: usize,
        conv: Conv,
    ) -> Result<NodeId> {
        let (Shape { h, w, c }, name) = (self.shape(x), tensors.layer);
        let (r, s) = conv.kernel;
        let reach = |size: usize, pad: usize, further: isize, k: usize| {
            let span = k.checked_sub(1)?.checked_mul(conv.dilation)?.checked_add(1)?;
            pad.checked_add_signed(further)?.checked_add(pad)?.checked_add(size)?.checked_sub(span)
        };
        let down = reach(h, conv.padding.0, conv.further.0, r);
        let right = reach(w, conv.padding.1, conv.further.1, s);
        let (Some(down), Some(right)) = (down, right) else {
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
        let layer = self.layer(tensors, outputs, &[outputs, inner, r, s], order)?;
        // A layer has one number of groups, however often it is used.
        let earlier = self.nodes().iter().find_map(|node| match &node.op {
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
    ///
    /// # Errors
    /// As [`Builder::linear_of`].
    pub fn linear(&mut self, x: NodeId, name: &str, outputs: usize) -> Result<NodeId> {
        self.linear_named(x, name, &format!("{name}.weight"), &format!("{name}.bias"), outputs)
    }

    /// [`Builder::linear`] under tensor names of their own (PyTorch's `in_proj_weight`).
    ///
    /// # Errors
    /// As [`Builder::linear_of`].
    pub fn linear_named(
        &mut self,
        x: NodeId,
        name: &str,
        weight: &str,
        bias: &str,
        outputs: usize,
    ) -> Result<NodeId> {
        let tensors = self.tensors(name, weight, bias);
        self.linear_of(x, tensors, outputs, false)
    }

    /// A linear layer of tensors of any names at every position; the weight is `[outputs, c]`, or where it is `transposed`
    /// `[c, outputs]`.
    ///
    /// # Errors
    /// Where a tensor is missing or of another shape.
    pub fn linear_of(
        &mut self,
        x: NodeId,
        tensors: LayerTensors,
        outputs: usize,
        transposed: bool,
    ) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        // Behind a flattened image the file's columns are (c, h, w), ours (h, w, c).
        let image = self.flattened(x).filter(|image| image.positions() > 1 && image.c > 1);
        let (shape, order) = match (transposed, image) {
            (false, None) => ([outputs, c], Order::Same),
            (false, Some(image)) => {
                let order = Order::ChannelsLast { o: outputs, c: image.c, positions: image.positions() };
                ([outputs, c], order)
            }
            (true, image) => {
                let (channels, positions) = image.map_or((c, 1), |image| (image.c, image.positions()));
                ([c, outputs], Order::RowsLast { o: outputs, c: channels, positions })
            }
        };
        let layer = self.layer(tensors, outputs, &shape, order)?;
        Ok(self.push(Op::Linear(layer, Epilogue::default()), &[x], Shape::new(h, w, outputs)))
    }
}
