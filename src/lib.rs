//! scrubjay removes chosen training samples from a trained network without retraining it: L-CODEC deep
//! unlearning (Mehta, Pal, Singh, Ravi, CVPR 2022).

pub mod device;
mod error;

pub use error::{Error, Result};
