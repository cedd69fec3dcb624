//! The loss at the logits: where backward passes begin (MATH.md, Eq. 5).

use super::operands::{Operands, Value};
use crate::loss::LogitProduct;

/// What is done with the loss; all values are a row of logits an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LossOp {
    /// d = the gradient of each image's loss, or what replaces it ([`crate::net::program::Seed`]).
    Gradient { d: Value, logits: Value },
    /// back = a matrix at the logits times their tangent.
    Product { matrix: LogitProduct, back: Value, tangent: Value, logits: Value },
}

impl LossOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            LossOp::Gradient { d, logits } => {
                all.write(d, logits.len);
                all.read(logits, d.len);
            }
            LossOp::Product { back, tangent, logits, .. } => {
                all.write(back, logits.len);
                [tangent, logits].into_iter().for_each(|value| all.read(value, back.len));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            LossOp::Gradient { .. } => "loss-gradient",
            LossOp::Product { matrix: LogitProduct::Curvature, .. } => "loss-curvature",
            LossOp::Product { matrix: LogitProduct::Fisher, .. } => "loss-fisher",
        };
        (name, String::new())
    }
}
