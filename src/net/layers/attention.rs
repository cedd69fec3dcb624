//! Multi-head softmax attention (MATH.md, Eq. 9); the input's channels are q, k, v, each `heads` × width.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{AttentionOp, Heads, PointwiseOp, Scores};
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId, Shape};
use crate::ops::Windows;

use super::passes::Lower;

/// A node of it.
pub(super) struct Attention {
    pub heads: usize,
    /// Whether input 1 is a mask.
    pub masked: bool,
    /// Windows that are attended to alone, and their table of relative positions.
    pub windows: Option<(ParamId, Windows)>,
}

impl Attention {
    fn at(&self, at: &At) -> Heads {
        let windows = self.windows.map_or(1, |(_, windows)| windows.count());
        Heads { shape: at.shape(), heads: self.heads, windows }
    }
}

impl Lower for Attention {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, heads) = (at.y()?, at.x(0)?, self.at(at));
        let weights = at.save("weights", heads.weights());
        let scores = match self.windows {
            Some((table, windows)) => Scores::Windows(table, windows),
            None if self.masked => Scores::Masked(at.x(1)?),
            None => Scores::Plain,
        };
        at.push(AttentionOp::Forward { y, weights, x, scores, at: heads });
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
        let table = self.windows.filter(|_| at.trains());
        let dx = match (at.dx(0), table) {
            (None, Some(_)) => {
                let y = at.scratch("dqkv", x.len);
                at.push(PointwiseOp::Zero { y });
                Some(y)
            }
            (dx, _) => dx,
        };
        if let Some(dx) = dx {
            at.push(AttentionOp::Backward { dx, table, dy, x, weights, at: heads });
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
    /// Where the channels are not three parts of this many heads.
    pub fn attention(&mut self, qkv: NodeId, heads: usize) -> Result<NodeId> {
        self.attend(qkv, heads, None, None)
    }

    /// Attention within windows, each one row of `qkv`, with the table of relative positions `name [offsets, heads]`.
    ///
    /// # Errors
    /// Where rows and windows or their tokens are not as many, a shift is not below the side, or there is no such table.
    pub fn window_attention(
        &mut self,
        qkv: NodeId,
        heads: usize,
        name: &str,
        windows: Windows,
    ) -> Result<NodeId> {
        let shape = self.shape(qkv);
        let Windows { side, down, right, .. } = windows;
        if (shape.h, shape.w) != (windows.count(), windows.tokens()) || down >= side || right >= side {
            let expected = format!("{} windows of {} tokens", windows.count(), windows.tokens());
            return Err(Error::shape(
                "attention",
                expected,
                format!("{shape:?}, shifted by {down}, {right}"),
            ));
        }
        let table = self.param(name, &[windows.offsets(), heads], Order::Same, Role::Embedding)?;
        self.attend(qkv, heads, None, Some((table, windows)))
    }

    /// [`Builder::attention`] to the tokens where `mask`, which [`Builder::text`] gives, is not 0.
    ///
    /// # Errors
    /// As there; or where `mask` is another node, or of another number of tokens.
    pub fn masked_attention(&mut self, qkv: NodeId, heads: usize, mask: NodeId) -> Result<NodeId> {
        let (tokens, found) = (self.tokens_of_text("attention", mask, 1)?, self.shape(qkv).positions());
        match tokens == found {
            true => self.attend(qkv, heads, Some(mask), None),
            false => Err(Error::shape("attention", format!("{tokens} tokens"), format!("{found}"))),
        }
    }

    fn attend(
        &mut self,
        qkv: NodeId,
        heads: usize,
        mask: Option<NodeId>,
        windows: Option<(ParamId, Windows)>,
    ) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(qkv);
        if heads == 0 || !c.is_multiple_of(3 * heads) {
            return Err(Error::shape(
                "attention",
                format!("channels in 3 x {heads} equal parts"),
                format!("{c}"),
            ));
        }
        let inputs: Vec<NodeId> = [qkv].into_iter().chain(mask).collect();
        let op = Op::Attention { heads, masked: mask.is_some(), windows };
        Ok(self.push(op, &inputs, Shape::new(h, w, c / 3)))
    }
}
