//! What a step of training gives, and how batch norm's running statistics move in it.

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
