//! What carries bytes between ranks. Every method is called by all ranks, in the same order.

use crate::error::Result;

/// The words that open an exchange: what it is, how the rank is, and how many bytes follow.
pub(super) type Opening = [u64; 3];

/// A way to exchange bytes between ranks.
pub(super) trait Transport: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// The opening of every rank, in order of ranks.
    fn openings(&self, mine: Opening) -> Result<Vec<Opening>>;

    /// The bytes of every rank, in order of ranks; rank r has `lens[r]` of them.
    fn gather(&self, mine: &[u8], lens: &[usize]) -> Result<Vec<Vec<u8>>>;

    /// Sends `parts[r]` to rank r, and returns what every rank sent here.
    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>>;

    /// Ends what was started, once all ranks have said goodbye.
    fn end(&self) {}
}
