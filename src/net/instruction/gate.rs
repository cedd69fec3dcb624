//! A map times a gate.

use super::operands::{Operands, Value};

/// What is done with a map and a gate of `c` channels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GateOp {
    /// y = x ∘ gate, or += that.
    Apply { y: Value, x: Value, gate: Value, c: usize, accumulate: bool },
    /// dgate += Σ dy ∘ x over positions.
    Gradient { dgate: Value, dy: Value, x: Value, c: usize },
}

impl GateOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        let whole = |len: usize, c: usize| len / c * c;
        match *self {
            GateOp::Apply { y, x, gate, c, accumulate } => {
                match accumulate {
                    true => all.add(y, whole(x.len, c)),
                    false => all.write(y, whole(x.len, c)),
                }
                all.read(x, y.len);
                all.read(gate, c);
                all.alike([y, x, gate]);
            }
            GateOp::Gradient { dgate, dy, x, c } => {
                all.add(dgate, c);
                all.read(dy, whole(x.len, c));
                all.read(x, dy.len);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            GateOp::Apply { .. } => "gate",
            GateOp::Gradient { .. } => "gate-gradient",
        };
        (name, String::new())
    }
}
