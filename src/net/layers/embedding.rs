//! An embedding of integer tokens: y[i, :] = table[token[i], :]. Tokens are data and no unit is a row of a table, so that
//! the table has a gradient in training and there is no tangent.

use crate::error::{Error, Result};
use crate::net::build::Role;
use crate::net::emit::At;
use crate::net::instruction::EmbeddingOp;
use crate::net::{Builder, NodeId, Op, Order, ParamId, Shape};

use super::passes::Lower;

/// A node of it.
pub(super) struct Embedding {
    pub table: ParamId,
    pub rows: usize,
}

impl Lower for Embedding {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, tokens, c) = (at.y()?, at.x(0)?, at.shape().c);
        at.push(EmbeddingOp::Forward { y, tokens, table: self.table, rows: self.rows, c });
        Ok(())
    }

    fn tangent(&self, _: &mut At) -> Result<()> {
        Err(no_tangent())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, tokens, c) = (at.dy()?, at.x(0)?, at.shape().c);
        at.push(EmbeddingOp::Gradient { table: self.table, dy, tokens, rows: self.rows, c });
        Ok(())
    }

    fn tangent_backward(&self, _: &mut At) -> Result<()> {
        Err(no_tangent())
    }
}

fn no_tangent() -> Error {
    Error::shape("embedding", "tokens, which have no tangent", "a tangent of them")
}

impl Builder<'_> {
    /// The rows of the table `name [rows, c]` that the token ids name; `ids` is what [`Builder::text`] gives.
    ///
    /// # Errors
    /// Where `ids` is another node, or the tensor is missing.
    pub fn embedding(&mut self, ids: NodeId, name: &str, rows: usize, c: usize) -> Result<NodeId> {
        let tokens = self.tokens_of_text("embedding", ids, 0)?;
        let table = self.param(name, &[rows, c], Order::Same, Role::Embedding)?;
        Ok(self.push(Op::Embedding { table, rows }, &[ids], Shape::new(1, tokens, c)))
    }

    /// The number of tokens of a text whose part `part` (ids, mask) this node is.
    pub(super) fn tokens_of_text(&self, op: &'static str, node: NodeId, part: usize) -> Result<usize> {
        let (whole, shape) = (self.shape(NodeId(0)), self.shape(node));
        let found = self.node(node);
        let of_input = found.op == Op::Tokens(part * whole.w) && found.inputs == [NodeId(0)];
        if !of_input || whole != Shape::new(2, whole.w, 1) || shape != Shape::new(1, whole.w, 1) {
            let expected = format!("the {} of a text", ["ids", "mask"][part]);
            return Err(Error::shape(op, expected, format!("{:?} of {:?}", found.op, found.inputs)));
        }
        Ok(whole.w)
    }
}
