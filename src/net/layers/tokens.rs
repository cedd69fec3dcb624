//! What transformers do with tokens: learned ones put before the others, a learned table or one learned row added to
//! them, and some of them out of all.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{Instruction, PointwiseOp, RowSource, Rows, RowsOp, Value};
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId, Shape};
use crate::ops::Strided;

use super::passes::{Linear, Lower};

/// One row an image of a value, from float `first` on.
fn of_image(value: Value, first: usize) -> Strided {
    Strided { first, stride: value.len }
}

/// One row an image: all of `x` from float `from` on, at float `to` of `y`.
fn row(y: Value, to: usize, x: Value, from: usize, len: usize) -> Rows {
    let source = RowSource::Value(x, of_image(x, from));
    Rows { y, to: of_image(y, to), source, count: 1, len }
}

/// A learned row, the same at float `to` of every image of `y`.
fn learned(y: Value, param: ParamId, len: usize) -> Rows {
    Rows { y, to: of_image(y, 0), source: RowSource::Param(param), count: 1, len }
}

/// A node of learned tokens, as the class token and registers.
pub(super) struct ClassToken(pub ParamId);

impl ClassToken {
    /// The floats of the learned tokens.
    fn len(at: &At) -> usize {
        at.shape().len() - at.from(0).len()
    }
}

impl Lower for ClassToken {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, len) = (at.y()?, at.x(0)?, ClassToken::len(at));
        at.push(RowsOp::Copy(learned(y, self.0, len)));
        at.push(RowsOp::Copy(row(y, len, x, 0, x.len)));
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x, len) = (at.tangent()?, at.tangent_of_input()?, ClassToken::len(at));
        at.push(PointwiseOp::Zero { y });
        at.push(RowsOp::Copy(row(y, len, x, 0, x.len)));
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, len) = (at.dy()?, ClassToken::len(at));
        if at.trains() {
            at.push(RowsOp::Sum { param: self.0, len, x: dy, count: 1 });
        }
        if let Some(dx) = at.dx(0) {
            at.push(RowsOp::Add(row(dx, 0, dy, len, dx.len)));
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

/// The node of a table of positions.
pub(super) struct Positions(pub ParamId);

impl Lower for Positions {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x) = (at.y()?, at.x(0)?);
        at.push(PointwiseOp::Copy { y, x });
        at.push(RowsOp::Add(learned(y, self.0, y.len)));
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x) = (at.tangent()?, at.tangent_of_input()?);
        at.push(PointwiseOp::Copy { y, x });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let dy = at.dy()?;
        if at.trains() {
            at.push(RowsOp::Sum { param: self.0, len: dy.len, x: dy, count: 1 });
        }
        if let Some(dx) = at.dx(0) {
            at.push(PointwiseOp::Add { y: dx, x: dy });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

/// The node of a row that is added to every token.
pub(super) struct RowToAll(pub ParamId);

impl Lower for RowToAll {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, c) = (at.y()?, at.x(0)?, at.shape().c);
        at.push(PointwiseOp::Copy { y, x });
        let to = Strided { first: 0, stride: c };
        let (source, count) = (RowSource::Param(self.0), y.len / c);
        at.push(RowsOp::Add(Rows { y, to, source, count, len: c }));
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x) = (at.tangent()?, at.tangent_of_input()?);
        at.push(PointwiseOp::Copy { y, x });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, c) = (at.dy()?, at.shape().c);
        if at.trains() {
            at.push(RowsOp::Sum { param: self.0, len: c, x: dy, count: dy.len / c });
        }
        if let Some(dx) = at.dx(0) {
            at.push(PointwiseOp::Add { y: dx, x: dy });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

/// A node that gives the tokens from this one on.
pub(super) struct Tokens(pub usize);

impl Linear for Tokens {
    fn map(&self, y: Value, x: Value, from: Shape, _: Shape) -> Instruction {
        RowsOp::Copy(row(y, 0, x, self.0 * from.c, y.len)).into()
    }

    fn adjoint(&self, dx: Value, dy: Value, from: Shape, _: Shape) -> Instruction {
        RowsOp::Add(row(dx, self.0 * from.c, dy, 0, dy.len)).into()
    }
}

impl Builder<'_> {
    /// The token `name [1, 1, c]` before the others.
    ///
    /// # Errors
    /// Where there is no such tensor.
    pub fn class_token(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        self.tokens_before(x, name, 1)
    }

    /// The tokens `name [1, count, c]`, or one token `[c]`, before the others.
    ///
    /// # Errors
    /// Where there is no such tensor.
    pub fn tokens_before(&mut self, x: NodeId, name: &str, count: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        let shape = if count == 1 && self.stored(name) == Some(&[c]) { vec![c] } else { vec![1, count, c] };
        let token = self.param(name, &shape, Order::Same, Role::Embedding)?;
        Ok(self.push(Op::ClassToken(token), &[x], Shape::new(1, h * w + count, c)))
    }

    /// The table `name [1, tokens, c]` added to the tokens.
    ///
    /// # Errors
    /// Where there is no such tensor.
    pub fn positions(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        let shape = self.shape(x);
        let table = self.param(name, &[1, shape.positions(), shape.c], Order::Same, Role::Embedding)?;
        Ok(self.push(Op::Positions(table), &[x], shape))
    }

    /// The first rows of the table `name [rows, c]` or `[1, rows, c]` added to the tokens, of which there may be fewer than rows.
    ///
    /// # Errors
    /// Where there are more tokens than rows, or no such tensor.
    pub fn position_rows(&mut self, x: NodeId, name: &str, rows: usize) -> Result<NodeId> {
        let shape = self.shape(x);
        if shape.positions() > rows {
            let found = format!("{}", shape.positions());
            return Err(Error::shape("positions", format!("at most {rows} tokens"), found));
        }
        let sides = match self.stored(name) {
            Some([1, ..]) if rows > 1 => vec![1, rows, shape.c],
            _ => vec![rows, shape.c],
        };
        let table = self.param(name, &sides, Order::Same, Role::Embedding)?;
        Ok(self.push(Op::Positions(table), &[x], shape))
    }

    /// Row 0 of the table `name [rows, c]` added to every token.
    ///
    /// # Errors
    /// Where there is no such tensor, or it has no rows.
    pub fn row_to_all(&mut self, x: NodeId, name: &str, rows: usize) -> Result<NodeId> {
        let shape = self.shape(x);
        if rows == 0 {
            return Err(Error::shape("row to all tokens", "a table of rows", "none"));
        }
        let table = self.param(name, &[rows, shape.c], Order::Same, Role::Embedding)?;
        Ok(self.push(Op::RowToAll(table), &[x], shape))
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
}
