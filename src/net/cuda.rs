//! A network on a CUDA device: its parameters, the memory that its program runs in, and what comes back.
//!
//! Parameters are brought to the device once and stay until they are changed or memory is wanted. A chunk's images are
//! written where the program has them ([`execute`] runs it), and only logits, losses and activations come back; those that
//! units are chosen by stay ([`trace`]). Nothing is allocated between chunks. An affine node is one launch with its epilogue, which also sums what units are read of:
//! its own output. The launches of a chunk are recorded when they come a second time, and from then on replayed.
//!
//! A chunk is as many images as the device's free memory holds, found by halving from a number that does not depend on
//! it, so that a little more or less of it changes nothing.

mod chunk;
mod derivatives;
mod execute;
mod moments;
mod passes;
mod rows;
mod run;
mod sizes;
mod trace;
mod train;

pub(crate) use chunk::Outputs;
pub(crate) use derivatives::Derivatives;
pub(crate) use moments::{Wanted, moments_of};
pub(crate) use passes::open;
pub(crate) use trace::{TraceOnDevice, trace_on_device};
pub(super) use train::Training;
