//! scrubjay removes chosen training samples from a trained network without retraining it: L-CODEC deep
//! unlearning (Mehta, Pal, Singh, Ravi, CVPR 2022).

pub mod bench;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod comparison;
pub mod curvature;
pub mod data;
pub mod device;
mod error;
pub mod kfac;
pub mod loss;
pub mod net;
pub mod observe;
pub mod ops;
pub mod perturb;
pub mod receipt;
pub mod repair;
pub mod report;
pub mod select;
pub mod solve;
pub mod train;
pub mod unlearn;
pub mod update;
pub mod verify;
pub mod zoo;

pub use error::{Error, Result, check_stop};
