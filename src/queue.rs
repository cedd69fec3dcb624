//! A queue of removal requests: files in a folder, carried out batch by batch, each batch a new version of the model
//! (docs/SERVE.md).
//!
//! ```text
//! incoming/ID.json ─Submission→ waiting ─Policy→ Journal ─Session::run→ versions/0001 ─ current
//!                        └──────────── refused/ID.json                └─ done/ID.json
//! ```
//!
//! A batch is carried out by the pipeline of every other request; this module keeps the books. Each change of the spool is one
//! file or folder that appears or goes, in an order in which a server that was killed at any point goes on to the same
//! model.

mod batch;
mod http;
mod incoming;
mod intake;
mod metrics;
mod policy;
mod receipt;
mod server;
mod spool;
mod submission;

pub use http::Responder;
pub use metrics::Metrics;
pub use policy::Policy;
pub use receipt::{Receipt, State};
pub use server::{QueueOptions, Served, Server, Turn};
pub use spool::Spool;
pub use submission::{Forget, LONGEST, Submission};
