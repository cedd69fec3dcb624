//! The operations of a network on the CPU: slices in, slices out. Each is run by one thread; the engine runs many chunks
//! side by side. What accumulates says so. Lengths that do not fit panic: a program's are checked when it is built.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod embedding;
pub(crate) mod exp;
pub mod gate;
pub(crate) mod gemm;
pub mod group_norm;
pub mod layer_norm;
pub mod means;
pub mod optimizer;
pub mod pointwise;
pub mod pool;
pub mod shape;
pub(crate) mod sums;

/// Refuses slices that do not fit.
///
/// # Panics
/// Where the lengths differ.
#[track_caller]
pub(crate) fn same(op: &str, expected: usize, found: usize) {
    assert!(expected == found, "{op}: expected {expected} values, found {found}");
}
