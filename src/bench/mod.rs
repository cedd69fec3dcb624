//! Kernel benchmarks: the time of one operation at a shape, and the least time that the device needs for it.
//!
//! A [`Case`] makes the [`Work`] of a shape: inputs, a run, the bytes that must move and the operations that must be
//! done, and a check of the result against plain loops in f64. [`measure()`] times it, on CUDA by events in the stream.
//! Inputs rotate over more memory than a cache holds, and before each run on CUDA the cache is filled with something
//! else. The floor is the larger of bytes over bandwidth and operations over peak, both [`Ceilings`] measured in the same
//! run (roofline; Williams et al., CACM 2009).

mod affine;
mod case;
mod cases;
mod ceilings;
mod codec;
mod layers;
mod map;
mod measure;
mod measured;
mod whole;

pub use case::{Case, Check, Kernel, Sizes, Timer, Timing, Work, check};
pub use cases::{CASES, case};
pub use ceilings::{Ceilings, ceilings};
pub use measure::measure;
pub use measured::{Measured, measured};
