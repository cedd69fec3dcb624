//! Parts that several families of convolutional networks are made of.

use super::resnet::odd;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Conv, NodeId, Shape};

/// The weight of a layer or norm.
pub(super) fn weight(name: &str) -> String {
    format!("{name}.weight")
}

/// A convolution with its batch norm.
pub(super) struct Normed<'a> {
    pub conv: &'a str,
    pub norm: &'a str,
    pub stride: usize,
    pub eps: f32,
    /// Whether it is padded as TensorFlow pads.
    pub same: bool,
}

impl Normed<'_> {
    /// The convolution, padded so that stride 1 keeps the image, and the norm. Its groups follow from the channels that a
    /// filter reads.
    pub fn compose(&self, b: &mut Builder, x: NodeId) -> Result<NodeId> {
        let x = conv_padded(b, x, self.conv, self.stride, self.same)?;
        b.batch_norm_with(x, self.norm, self.eps)
    }
}

/// A convolution, padded so that stride 1 keeps the image.
pub(super) fn conv(b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
    conv_padded(b, x, name, stride, false)
}

fn conv_padded(b: &mut Builder, x: NodeId, name: &str, stride: usize, same: bool) -> Result<NodeId> {
    let weight = weight(name);
    let (outputs, inner, kernel) = (b.side(&weight, 0)?, b.side(&weight, 1)?, b.side(&weight, 2)?);
    let groups = (b.shape(x).c / inner.max(1)).max(1);
    let square = Conv::square(odd(kernel, name)?, stride, kernel / 2);
    let Shape { h, w, .. } = b.shape(x);
    let padded = if same { square.same(h, w) } else { square };
    b.conv(x, name, outputs, Conv { groups, ..padded })
}

/// Squeeze and excitation: two layers of the map's means, `names`, give a factor for each channel (Hu et al. 2018).
pub(super) fn squeeze(
    b: &mut Builder,
    x: NodeId,
    names: [&str; 2],
    activations: [Activation; 2],
) -> Result<NodeId> {
    let mut y = b.global_pool(x);
    for (name, activation) in names.into_iter().zip(activations) {
        let outputs = b.side(&weight(name), 0)?;
        y = b.linear(y, name, outputs)?;
        y = b.activation(y, activation);
    }
    b.gate(x, y)
}

/// Inverted residuals (Sandler et al. 2018): an expansion unless the first layer is depthwise, a depthwise filter, a squeeze where there is
/// one, and a projection without nonlinearity; the input is added where it has the output's shape.
///
/// Layer k is `{name}.{k}.0` with its norm `{name}.{k}.1`; a squeeze is `{name}.{k}.fc1` and `fc2`.
pub(super) struct Inverted {
    pub stride: usize,
    pub activation: Activation,
    /// Within the squeeze, and at its end.
    pub squeeze: [Activation; 2],
    pub eps: f32,
}

impl Inverted {
    /// The block under a name.
    pub fn compose(&self, b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
        let mut y = x;
        for k in 0.. {
            let [conv, norm, plain] =
                [format!("{name}.{k}.0"), format!("{name}.{k}.1"), format!("{name}.{k}")];
            if b.has(&weight(&conv)) {
                let depthwise = b.side(&weight(&conv), 1)? == 1 && b.shape(y).c > 1;
                let stride = if depthwise { self.stride } else { 1 };
                y = Normed { conv: &conv, norm: &norm, stride, eps: self.eps, same: false }.compose(b, y)?;
                let last = !b.has(&format!("{name}.{}.0.weight", k + 1))
                    && !b.has(&format!("{name}.{}.weight", k + 1))
                    && !b.has(&format!("{name}.{}.fc1.weight", k + 1));
                if !last {
                    y = b.activation(y, self.activation);
                }
            } else if b.has(&format!("{plain}.fc1.weight")) {
                let names = [format!("{plain}.fc1"), format!("{plain}.fc2")];
                y = squeeze(b, y, [&names[0], &names[1]], self.squeeze)?;
            } else if b.has(&weight(&plain)) {
                // MobileNetV2's projection has no module around it: its norm is the next number.
                let norm = format!("{name}.{}", k + 1);
                y = Normed { conv: &plain, norm: &norm, stride: 1, eps: self.eps, same: false }
                    .compose(b, y)?;
                break;
            } else {
                break;
            }
        }
        if self.stride == 1 && b.shape(x) == b.shape(y) {
            return b.add(y, x);
        }
        Ok(y)
    }
}

/// A map as a row of features, all of which the linear layer `name` reads.
///
/// # Errors
/// Where it reads another number: the images are not of the model's size.
pub(super) fn flatten_exactly(b: &mut Builder, x: NodeId, name: &str) -> Result<NodeId> {
    let (shape, reads) = (b.shape(x), b.side(&weight(name), 1)?);
    match shape.len() == reads {
        true => Ok(b.flatten(x)),
        false => Err(Error::config(format!(
            "`{name}` reads {reads} values, and images of this size leave {} x {} x {}; the model takes images of another \
             size",
            shape.c, shape.h, shape.w
        ))),
    }
}

/// The image of this many pixels a side, with the channels that the first filter reads.
pub(super) fn square_image(side: usize, channels: Option<usize>) -> Option<Shape> {
    Some(Shape::new(side, side, channels.unwrap_or(3)))
}

/// The number of submodules `{name}.{0..}` of which the tensor `part` is there.
pub(super) fn count(b: &Builder, name: &str, part: &str) -> usize {
    count_by(b, |i| format!("{name}.{i}.{part}"))
}

/// How many tensors of numbered names there are, from 0 on.
pub(super) fn count_by(b: &Builder, name: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|&i| b.has(&name(i))).count()
}
