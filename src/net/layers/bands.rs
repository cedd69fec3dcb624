//! The positions of an image in another order: window by window, tokens as channels, neighbours joined.

use crate::error::{Error, Result};
use crate::net::instruction::{BandsOp, Instruction, Value};
use crate::net::{Builder, NodeId, Op, Shape};
use crate::ops::Bands;

use super::passes::Linear;

/// A node of it.
pub(super) struct Reorder {
    pub bands: Bands,
    pub back: bool,
}

impl Reorder {
    fn op(&self, y: Value, x: Value, back: bool, add: bool) -> Instruction {
        let c = y.len / (self.bands.rows * self.bands.columns);
        BandsOp { y, x, at: self.bands, c, back, add }.into()
    }
}

impl Linear for Reorder {
    fn map(&self, y: Value, x: Value, _: Shape, _: Shape) -> Instruction {
        self.op(y, x, self.back, false)
    }

    fn adjoint(&self, dx: Value, dy: Value, _: Shape, _: Shape) -> Instruction {
        self.op(dx, dy, !self.back, true)
    }
}

impl Builder<'_> {
    /// The values of `x`, as an image of `bands.rows` by `bands.columns`, in the order of bands, or `back` from it; the
    /// result has the shape `to`.
    ///
    /// # Errors
    /// Where the values are not as many, do not make such an image, or it has no whole bands.
    pub fn reorder(&mut self, x: NodeId, bands: Bands, back: bool, to: Shape) -> Result<NodeId> {
        let (from, Bands { rows, columns, height, down, right }) = (self.shape(x), bands);
        let positions = rows.checked_mul(columns).filter(|&positions| positions > 0);
        let len = to.h.checked_mul(to.w).and_then(|positions| positions.checked_mul(to.c));
        if positions.is_none_or(|positions| !from.len().is_multiple_of(positions)) || len != Some(from.len())
        {
            let expected = format!("values of {rows} x {columns} positions, and as many behind");
            return Err(Error::shape("bands", expected, format!("{from:?} and {to:?}")));
        }
        if height == 0 || !rows.is_multiple_of(height) || down >= rows || right >= columns {
            let expected = format!("rows in bands of {height}, and a shift within the image");
            return Err(Error::shape(
                "bands",
                expected,
                format!("{rows} x {columns}, shifted by {down}, {right}"),
            ));
        }
        Ok(self.push(Op::Bands { bands, back }, &[x], to))
    }

    /// Tokens as channels, and channels as tokens.
    ///
    /// # Errors
    /// Where there are no values.
    pub fn transpose(&mut self, x: NodeId) -> Result<NodeId> {
        let shape = self.shape(x);
        let (rows, columns) = (shape.positions(), shape.c);
        let bands = Bands { rows, columns, height: rows, down: 0, right: 0 };
        self.reorder(x, bands, false, Shape::new(1, columns, rows))
    }

    /// Each square of `side` by `side` positions as one position, its channels column by column.
    ///
    /// # Errors
    /// Where squares do not divide the image.
    pub fn join_squares(&mut self, x: NodeId, side: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        if side == 0 || !h.is_multiple_of(side) || !w.is_multiple_of(side) {
            return Err(Error::shape("bands", format!("squares of {side} x {side}"), format!("{h} x {w}")));
        }
        let bands = Bands { rows: h, columns: w, height: side, down: 0, right: 0 };
        self.reorder(x, bands, false, Shape::new(h / side, w / side, side * side * c))
    }
}
