//! Rows of values that are copied, added or summed: tokens, channels side by side, learned tables.

use super::operands::{Operands, Value};
use crate::net::ParamId;
use crate::ops::Strided;

/// Where rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowSource {
    /// In a value.
    Value(Value, Strided),
    /// The first floats of the parameter as one row, the same for every row that is written.
    Param(ParamId),
}

/// Rows that move: `count` of `len` floats an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    /// The value that is written.
    pub y: Value,
    /// Where in it.
    pub to: Strided,
    /// What is read.
    pub source: RowSource,
    /// Rows an image.
    pub count: usize,
    /// Floats a row.
    pub len: usize,
}

/// What is done with rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowsOp {
    /// Rows of y = the source's.
    Copy(Rows),
    /// Rows of y += the source's.
    Add(Rows),
    /// In training, the first floats of a parameter's gradient += the sum over images of rows of x.
    Sum {
        /// The parameter.
        param: ParamId,
        /// Floats a row.
        len: usize,
        /// The value.
        x: Value,
        /// Rows an image, as far apart as fit.
        count: usize,
    },
}

/// What a value must have for this many rows an image to be the same distance apart over all images: its length, if the
/// last row ends within a stride.
fn expected(at: Strided, count: usize, len: usize) -> usize {
    if at.first + len <= at.stride { count * at.stride } else { usize::MAX }
}

impl RowsOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match self {
            RowsOp::Copy(rows) => {
                all.write(rows.y, expected(rows.to, rows.count, rows.len));
                rows.source(all);
            }
            RowsOp::Add(rows) => {
                all.add(rows.y, expected(rows.to, rows.count, rows.len));
                rows.source(all);
            }
            RowsOp::Sum { param, len, x, count } => {
                all.gradient_start(*param, *len);
                all.read(*x, x.len.max(count * len));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            RowsOp::Copy(rows) | RowsOp::Add(rows) => {
                let from = match rows.source {
                    RowSource::Value(_, from) => format!(" from {}", from.first),
                    RowSource::Param(_) => String::new(),
                };
                ("rows", format!("{} of {}{from} to {}", rows.count, rows.len, rows.to.first))
            }
            RowsOp::Sum { len, count, .. } => ("sum-rows", format!("{count} of {len}")),
        }
    }
}

impl Rows {
    fn source(&self, all: &mut Operands) {
        match self.source {
            RowSource::Value(x, from) => {
                all.read(x, expected(from, self.count, self.len));
                all.alike([self.y, x]);
            }
            RowSource::Param(param) => all.param_start(param, self.len),
        }
    }
}
