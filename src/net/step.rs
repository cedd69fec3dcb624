//! What a step of training gives, how batch norm's running statistics move in it, and how long its gradient may be.

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

/// The factor that shortens a gradient of this norm to `longest`, where it is longer; a norm that is no number leaves it as
/// it is.
pub(super) fn shortened(norm: f64, longest: f64) -> f32 {
    if norm > longest { (longest / norm) as f32 } else { 1.0 }
}
