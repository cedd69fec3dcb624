//! scrubjay removes chosen training samples from a trained network without retraining it: by a hold, which trains the network
//! on for a few epochs, or by L-CODEC deep unlearning (Mehta, Pal, Singh, Ravi, CVPR 2022).
//!
//! ```
//! # use scrubjay::{checkpoint, data, data::tensors::{self, Tensor, Values}, train, zoo};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let at = |name: &str| folder.path().join(name);
//! # let (model, train_data, out) = (at("model.safetensors"), at("train.safetensors"), at("scrubbed"));
//! # let digits = data::digits()?;
//! # let (x, y) = (digits.x[..300 * 64].to_vec(), digits.y.part(0..300).to_vec());
//! # let labels: Vec<i64> = y.iter().map(|&y| i64::from(y)).collect();
//! # tensors::write(&train_data, &[
//! #     Tensor { name: "x", shape: vec![300, 64], values: Values::F32(&x) },
//! #     Tensor { name: "y", shape: vec![300], values: Values::I64(&labels) },
//! # ], Default::default())?;
//! # let samples = data::load(&train_data, &Default::default())?;
//! # let mut net = zoo::create("mlp:40", samples.shape(), 10, 1)?.network;
//! # let recipe = train::Recipe { epochs: 30, batch: 32, rate: 0.1, weight_decay: 0.0, seed: 1, ..Default::default() };
//! # train::train(&Device::cpu()?, &mut net, &samples, &Vec::from_iter(0..300), &recipe, &mut |_, _| Ok(true))?;
//! # checkpoint::save(&model, &net)?;
//! use scrubjay::{Device, Ended, Request, ScrubOptions, Session, Sources};
//!
//! let session = Session::open(Device::cpu()?, Sources::new(&model, &train_data))?;
//! let request = Request::new(&session, "class:3", &ScrubOptions::DEFAULT)?;
//! if let Ended::Now(outcome, _) = session.run(&request, &out)? {
//!     println!("{} samples removed, {} not", outcome.removed, outcome.not_removed);
//! #   assert_eq!(outcome.removed + outcome.not_removed, labels.iter().filter(|&&y| y == 3).count());
//! #   assert!(outcome.removed > 0 && out.join("model.safetensors").is_file(), "{:?}", outcome.records);
//! }
//! # assert!(matches!(session.run(&request, &out)?, Ended::Before(_)));
//! # Ok(())
//! # }
//! ```
//!
//! `out` then holds the model with only the touched values changed, `report.json` and `report.html`. [`session`] shows how to
//! do the same with values in memory, [`options`] what can be asked for, [`outcome`] what comes back. Usable alone are
//! [`codec`] (a measure of conditional dependence and the selection of features that it drives), [`curvature`] and
//! [`solve`] (products with the Hessian of a network's loss and solvers over them), [`zoo`] and [`data`].

pub mod audit;
mod batch;
#[doc(hidden)] // for the command `bench`
pub mod bench;
pub mod block;
mod budget;
pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod communicator;
pub mod comparison;
pub mod curvature;
pub mod data;
pub mod device;
pub mod doubt;
mod error;
pub mod estimate;
pub mod evidence;
pub mod graph;
pub mod hash;
pub mod hold;
mod identity;
pub mod inspection;
pub mod kfac;
pub mod loss;
pub mod manifest;
pub mod memory;
pub mod moving;
mod names;
pub mod net;
pub mod newton;
pub mod observe;
mod onnx;
mod operator;
#[doc(hidden)] // single operations on slices and buffers: for tests and benches
pub mod ops;
pub mod options;
pub mod outcome;
pub mod perturb;
mod pickle;
pub mod proxy;
pub mod queue;
pub mod receipt;
pub mod relearn;
pub mod report;
pub mod request;
pub mod run;
pub mod select;
pub mod session;
pub mod soft_label;
pub mod solve;
pub mod stage;
pub mod target;
pub mod task;
pub mod train;
pub mod training;
pub mod unlearn;
pub mod update;
pub mod verification;
pub mod verify;
pub mod zoo;

pub use device::Device;
pub use error::{Error, Result, check_stop};
pub use estimate::Estimate;
pub use ops::Precision;
pub use options::{Pick, ScrubOptions};
pub use outcome::{Account, Outcome, Record};
pub use request::Request;
pub use run::{Ended, Scrubbed};
pub use session::{Session, Sources};
pub use train::{Optimizer, Schedule};
pub use training::{TrainOptions, Training};
