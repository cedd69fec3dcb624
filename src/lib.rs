//! scrubjay removes chosen training samples from a trained network without retraining it: L-CODEC deep
//! unlearning (Mehta, Pal, Singh, Ravi, CVPR 2022).

pub mod data;
pub mod device;
mod error;
pub mod net;

pub use error::{Error, Result};
