//! The loss at the logits: where backward passes begin (MATH.md, Eq. 5).

use crate::net::program::{Operands, Value};

/// What is done with the loss; all values are a row of logits an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LossOp {
    /// d = the gradient of each image's loss, or what replaces it ([`crate::net::program::Seed`]).
    Gradient { d: Value, logits: Value },
    /// back = the loss's second derivative times the logits' tangent.
    Curvature { back: Value, tangent: Value, logits: Value },
    /// back = the gradient times its product with the logits' tangent: the empirical Fisher matrix's form.
    Fisher { back: Value, tangent: Value, logits: Value },
}

impl LossOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            LossOp::Gradient { d, logits } => {
                all.write(d, logits.len);
                all.read(logits, d.len);
            }
            LossOp::Curvature { back, tangent, logits } | LossOp::Fisher { back, tangent, logits } => {
                all.write(back, logits.len);
                [tangent, logits].into_iter().for_each(|value| all.read(value, back.len));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            LossOp::Gradient { .. } => "loss-gradient",
            LossOp::Curvature { .. } => "loss-curvature",
            LossOp::Fisher { .. } => "loss-fisher",
        };
        (name, String::new())
    }
}
