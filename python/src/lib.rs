//! `scrubjay._native`: the library for the Python package that lies beside it.
//!
//! It checks and converts, and calls the library; the package (`scrubjay/*.py`) turns what Python programs have (tensors,
//! modules, data sets, tables) into what is taken here. Options and reports go as JSON, so that their names are the library's
//! own. `values.rs` has arrays and samples, `model.rs` models, `session.rs` sessions, requests and outcomes, `passes.rs`
//! gradients, products and traces, `compare.rs` the comparison with retrained models, `files.rs` delta files and graphs, `codec.rs` the measure and the selection
//! on tables, `watched.rs` work that lets Python go on meanwhile, `errors.rs` exceptions.

mod codec;
mod compare;
mod errors;
mod files;
mod model;
mod passes;
mod session;
mod values;
mod watched;

use pyo3::prelude::*;

/// The library, for the Python package `scrubjay`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::codec::{codec, foci};
    #[pymodule_export]
    use super::compare::{compare_files, compared};
    #[pymodule_export]
    use super::files::{export, take};
    #[pymodule_export]
    use super::model::{Model, encode};
    #[pymodule_export]
    use super::passes::{gradient, hvp, logits, solve, traces};
    #[pymodule_export]
    use super::session::{Outcome, Request, Session};
    #[pymodule_export]
    use super::values::{Device, Samples, digits};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
