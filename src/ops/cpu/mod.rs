//! The operations of a network on the CPU: slices in, slices out, one thread; the engine runs many chunks of images side by
//! side. What accumulates says so. A slice of another length than its operands imply is a panic: shapes are checked where
//! a network is planned.

pub mod embedding;
pub mod gate;
pub mod group_norm;
