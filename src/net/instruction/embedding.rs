//! Rows of a table by integer tokens.

use super::operands::{Operands, Value};
use crate::net::ParamId;

/// What is done with a table of rows of `c` floats; `tokens` holds integers as the bits of floats.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EmbeddingOp {
    /// y = the rows that the tokens name.
    Forward { y: Value, tokens: Value, table: ParamId, rows: usize, c: usize },
    /// In training, the gradient of the row that each token names += its row of dy.
    Gradient { table: ParamId, dy: Value, tokens: Value, rows: usize, c: usize },
}

impl EmbeddingOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            EmbeddingOp::Forward { y, tokens, table, rows, c } => {
                all.write(y, tokens.len * c);
                all.read(tokens, y.len / c);
                all.param(table, rows * c);
            }
            EmbeddingOp::Gradient { table, dy, tokens, rows, c } => {
                all.gradient(table, rows * c);
                all.read(dy, tokens.len * c);
                all.read(tokens, dy.len / c);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, rows) = match self {
            EmbeddingOp::Forward { rows, .. } => ("embedding", rows),
            EmbeddingOp::Gradient { rows, .. } => ("embedding-gradient", rows),
        };
        (name, format!("{rows} rows"))
    }
}
