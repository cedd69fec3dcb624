//! Multi-head softmax attention (MATH.md, Eq. 9); the input's channels are q, k, v, each `heads` × width.

use crate::net::lower::At;
use crate::net::program::{Operands, Value};
use crate::net::{Builder, NodeId, Op, Shape};
use crate::{Error, Result};

use super::Lower;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// What it gives an image.
    pub shape: Shape,
    /// The number of heads.
    pub heads: usize,
}

impl Heads {
    /// Floats an image of the input.
    fn packed(self) -> usize {
        3 * self.shape.len()
    }

    /// Floats an image of the weights P, a square for each head.
    pub fn weights(self) -> usize {
        self.heads * self.shape.positions() * self.shape.positions()
    }
}

/// What is done with an attention; `weights` holds P.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttentionOp {
    /// y = PV, and P; with a mask, which holds integers as the bits of floats, keys where it is 0 get no weight. The other
    /// passes read that off P.
    Forward { y: Value, weights: Value, x: Value, mask: Option<Value>, at: Heads },
    /// t = P'V + PV'.
    Tangent { t: Value, tx: Value, x: Value, weights: Value, at: Heads },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, weights: Value, at: Heads },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward { dxt: Value, dyt: Value, dy: Value, tx: Value, x: Value, weights: Value, at: Heads },
}

impl AttentionOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            AttentionOp::Forward { y, weights, x, mask, at } => {
                all.write(y, at.shape.len());
                all.write(weights, at.weights());
                all.read(x, at.packed());
                mask.iter().for_each(|&mask| all.read(mask, at.shape.positions()));
            }
            AttentionOp::Tangent { t, tx, x, weights, at } => {
                all.write(t, at.shape.len());
                [tx, x].into_iter().for_each(|value| all.read(value, at.packed()));
                all.read(weights, at.weights());
            }
            AttentionOp::Backward { dx, dy, x, weights, at } => {
                all.add(dx, at.packed());
                all.read(dy, at.shape.len());
                all.read(x, at.packed());
                all.read(weights, at.weights());
            }
            AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at } => {
                all.add(dxt, at.packed());
                [dyt, dy].into_iter().for_each(|value| all.read(value, at.shape.len()));
                [tx, x].into_iter().for_each(|value| all.read(value, at.packed()));
                all.read(weights, at.weights());
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, at) = match self {
            AttentionOp::Forward { at, .. } => ("attention", at),
            AttentionOp::Tangent { at, .. } => ("attention-tangent", at),
            AttentionOp::Backward { at, .. } => ("attention-backward", at),
            AttentionOp::TangentBackward { at, .. } => ("attention-tangent-backward", at),
        };
        (name, format!("{} heads", at.heads))
    }
}

/// A node of it.
pub(super) struct Attention {
    pub heads: usize,
    /// Whether input 1 is a mask.
    pub masked: bool,
}

impl Attention {
    fn at(&self, at: &At) -> Heads {
        Heads { shape: at.shape(), heads: self.heads }
    }
}

impl Lower for Attention {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, heads) = (at.y()?, at.x(0)?, self.at(at));
        let weights = at.save("weights", heads.weights());
        let mask = if self.masked { Some(at.x(1)?) } else { None };
        at.push(AttentionOp::Forward { y, weights, x, mask, at: heads });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (t, tx, x, weights) = (at.tangent()?, at.tangent_of_input()?, at.x(0)?, at.saved()?);
        let heads = self.at(at);
        at.push(AttentionOp::Tangent { t, tx, x, weights, at: heads });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, x, weights, heads) = (at.dy()?, at.x(0)?, at.saved()?, self.at(at));
        if let Some(dx) = at.dx(0) {
            at.push(AttentionOp::Backward { dx, dy, x, weights, at: heads });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dyt, dy, x, weights) = (at.dy()?, at.primal_dy()?, at.x(0)?, at.saved()?);
        let (tx, heads) = (at.tangent_of_input()?, self.at(at));
        if let Some(dxt) = at.dx(0) {
            at.push(AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at: heads });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Multi-head attention over packed q, k, v channels.
    ///
    /// # Errors
    /// Where the channels are not three parts of so many heads.
    pub fn attention(&mut self, qkv: NodeId, heads: usize) -> Result<NodeId> {
        self.attend(qkv, heads, None)
    }

    /// [`Builder::attention`] to the tokens where `mask`, which [`Builder::text`] gives, is not 0.
    ///
    /// # Errors
    /// As there; or where `mask` is another node, or of another number of tokens.
    pub fn masked_attention(&mut self, qkv: NodeId, heads: usize, mask: NodeId) -> Result<NodeId> {
        let (tokens, found) = (self.tokens_of_text("attention", mask, 1)?, self.shape(qkv).positions());
        match tokens == found {
            true => self.attend(qkv, heads, Some(mask)),
            false => Err(Error::shape("attention", format!("{tokens} tokens"), format!("{found}"))),
        }
    }

    fn attend(&mut self, qkv: NodeId, heads: usize, mask: Option<NodeId>) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(qkv);
        if heads == 0 || !c.is_multiple_of(3 * heads) {
            return Err(Error::shape(
                "attention",
                format!("channels in 3 x {heads} equal parts"),
                format!("{c}"),
            ));
        }
        let inputs: Vec<NodeId> = [qkv].into_iter().chain(mask).collect();
        Ok(self.push(Op::Attention { heads, masked: mask.is_some() }, &inputs, Shape::new(h, w, c / 3)))
    }
}
