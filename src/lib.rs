//! scrubjay removes chosen training samples from a trained network without retraining it: L-CODEC deep
//! unlearning (Mehta, Pal, Singh, Ravi, CVPR 2022).

pub mod audit;
pub mod bench;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod comparison;
pub mod curvature;
pub mod data;
pub mod device;
mod error;
pub mod estimate;
pub mod hash;
mod identity;
pub mod kfac;
pub mod manifest;
mod names;
pub mod net;
pub mod newton;
pub mod observe;
mod operator;
pub mod ops;
pub mod outcome;
pub mod perturb;
pub mod receipt;
pub mod repair;
pub mod report;
pub mod request;
pub mod run;
pub mod select;
pub mod session;
pub mod solve;
pub mod target;
pub mod task;
pub mod train;
pub mod unlearn;
pub mod update;
pub mod verify;
pub mod zoo;

pub use error::{Error, Result, check_stop};
