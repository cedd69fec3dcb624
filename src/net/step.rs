//! What a step of training gives, how batch norm's running statistics move in it, and how long its gradient may be.

use super::network::Role;
use crate::ops::optimizer::{Decayed, Update};

/// PyTorch's default weight of a new batch in batch norm's running statistics.
pub(super) const MOMENTUM: f32 = 0.1;

/// What a step gives beside the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The mean loss of the batch.
    pub loss: f64,
    /// How many of the batch were right.
    pub correct: usize,
}

/// An optimizer's step on a parameter of this role.
pub(super) fn decaying(update: &Update, decayed: Decayed, role: Role) -> Update {
    let decay = match (decayed, role) {
        (Decayed::All, _) | (Decayed::Weights, Role::Weight(_)) => update.decay,
        (Decayed::Weights, Role::Bias(_) | Role::One | Role::Zero | Role::Embedding) => 0.0,
    };
    Update { decay, ..*update }
}

/// The factor that shortens a gradient of this norm to `longest`, where it is longer; a norm that is no number leaves it as
/// it is.
pub(super) fn shortened(norm: f64, longest: f64) -> f32 {
    if norm > longest { (longest / norm) as f32 } else { 1.0 }
}
