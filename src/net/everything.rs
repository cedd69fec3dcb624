//! For tests: a network of every operation on images, with every part of an epilogue, and one of texts.

use super::{Activation, Builder, Conv, Network, Role, Selected, Shape, Source, Window};
use crate::error::Result;
use crate::ops::philox::{Stream, Use};

/// Random tensors under any name.
pub(super) struct Any(pub Stream);

impl Source for Any {
    fn tensor(&mut self, _: &str, shape: &[usize], role: Role) -> Result<Vec<f32>> {
        let around = if role == Role::One { 1.0f32 } else { 0.0 };
        Ok((0..shape.iter().product()).map(|_| (around + 0.4 * self.0.normal()).abs()).collect())
    }

    fn shape(&self, _: &str) -> Option<&[usize]> {
        Some(&[])
    }
}

/// The network, in train form.
pub(super) fn everything() -> Result<Network> {
    let mut any = Any(Stream::new(1, Use::Weights, 0));
    let (mut b, x) = Builder::new(&mut any, Shape::new(9, 8, 2));
    let x = b.conv(x, "conv1", 4, Conv::square(3, 1, 1))?;
    let x = b.batch_norm(x, "bn1")?;
    let x = b.relu(x);
    let x = b.max_pool(x, Window::square(3, 1, 1))?;
    let y = b.conv(x, "conv2", 4, Conv { groups: 2, dilation: 2, ..Conv::square(3, 1, 2) })?;
    let y = b.batch_norm(y, "bn2")?;
    let y = b.add(y, x)?;
    let y = b.activation(y, Activation::Gelu);
    let x = b.add(y, x)?;
    let x = b.batch_norm(x, "bn3")?;
    let x = b.activation(x, Activation::Tanh);
    let x = b.average_pool(x, Window { counts_padding: false, ..Window::square(2, 1, 1) })?;
    let gate = b.global_pool(x);
    let gate = b.linear(gate, "squeeze", 3)?;
    let gate = b.activation(gate, Activation::Silu);
    let gate = b.linear(gate, "excite", 4)?;
    let gate = b.activation(gate, Activation::HardSigmoid);
    let x = b.gate(x, gate)?;
    let x = b.group_norm(x, "groups", 2, 1e-5)?;
    let x = b.shortcut(x, 2, 6)?;
    let x = b.adaptive_pool(x, 2, 3);
    let x = b.tokens(x);
    let x = b.class_token(x, "class")?;
    let x = b.positions(x, "positions")?;
    let y = b.layer_norm(x, "norm", 1e-5)?;
    let parts = [b.linear(y, "query", 6)?, b.linear(y, "key", 6)?, b.linear(y, "value", 6)?];
    let y = b.concat(&parts)?;
    let y = b.attention(y, 3)?;
    let x = b.add(x, y)?;
    let x = b.tokens_from(x, 1)?;
    let x = b.add(x, x)?;
    let x = b.global_pool(x);
    let x = b.linear(x, "head", 5)?;
    b.finish(x)
}

/// A network of texts with 5 tokens of 7, in train form; gated by its first token.
pub(super) fn text() -> Result<Network> {
    let mut any = Any(Stream::new(3, Use::Weights, 0));
    let (mut b, [ids, mask]) = Builder::text(&mut any, 5);
    let x = b.embedding(ids, "table", 7, 4)?;
    let x = b.position_rows(x, "positions", 6)?;
    let x = b.layer_norm(x, "norm", 1e-5)?;
    let packed = b.linear(x, "qkv", 12)?;
    let y = b.masked_attention(packed, 2, mask)?;
    let first = b.token(y, 0);
    let x = b.gate(x, first)?;
    let x = b.add(x, y)?;
    let x = b.token(x, 0);
    let x = b.linear(x, "head", 3)?;
    b.finish(x)
}

/// Some rows of the layers with four outputs, and all of the others.
pub(super) fn some_rows(net: &Network) -> Vec<Selected> {
    let rows = net.layers.iter().map(|layer| match layer.outputs {
        4 => Selected::Some(vec![0, 3]),
        _ => Selected::All,
    });
    rows.collect()
}
