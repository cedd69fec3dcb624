//! Operations on slices: one chunk of `n` images, outputs before inputs before shapes before scalars. Each is run by
//! one thread; the engine runs many chunks side by side. What accumulates says so.

pub mod activation;
pub mod attention;
pub mod conv;
mod gemm;
pub mod layer_norm;
pub mod loss;
pub mod philox;
pub mod pool;
pub mod shape;
