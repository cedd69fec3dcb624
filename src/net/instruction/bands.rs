//! The positions of an image in another order.

use super::operands::{Operands, Value};
use crate::ops::{Bands, Shape};

/// y = the positions of x in the order of bands, or `back` from it, or (`add`) y += them; positions have `c` floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BandsOp {
    pub y: Value,
    pub x: Value,
    pub at: Bands,
    pub c: usize,
    pub back: bool,
    pub add: bool,
}

impl BandsOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        let len = Shape::new(self.at.rows, self.at.columns, self.c).len();
        match self.add {
            true => all.add(self.y, len),
            false => all.write(self.y, len),
        }
        all.read(self.x, len);
        all.alike([self.y, self.x]);
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let Bands { height, down, right, .. } = self.at;
        let name = if self.back { "from-bands" } else { "bands" };
        (name, format!("of {height} rows, shifted by {down} and {right}"))
    }
}
