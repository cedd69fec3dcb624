//! `scrubjay._native`: the library for the Python package that lies beside it.
//!
//! It checks and converts, and calls the library; the package (`scrubjay/*.py`) turns what Python programs have (tensors,
//! modules, data sets, tables) into what is taken here. Options and reports go as JSON, so that their names are the library's
//! own. `values.rs` has arrays and samples, `model.rs` models, `session.rs` sessions, requests and outcomes, `training.rs` training, `passes.rs`
//! gradients, products and traces, `compare.rs` the comparison with retrained models, `files.rs` delta files and graphs, `codec.rs` the measure, the selection
//! and the graph on tables, `machine.rs` devices and benchmarks, `watched.rs` work that lets Python go on meanwhile, `errors.rs` exceptions.

mod codec;
mod compare;
mod errors;
mod files;
mod machine;
mod model;
mod passes;
mod session;
mod training;
mod values;
mod watched;

use pyo3::prelude::*;

/// The library, for the Python package `scrubjay`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::codec::{codec, foci, graph, plot, read_table};
    #[pymodule_export]
    use super::compare::{compare_files, compared};
    #[pymodule_export]
    use super::files::{export, take};
    #[pymodule_export]
    use super::machine::{bench, bench_cases, devices};
    #[pymodule_export]
    use super::model::{Model, encode, inspect_data};
    #[pymodule_export]
    use super::passes::{gradient, hvp, logits, scores, solve, traces};
    #[pymodule_export]
    use super::session::{Outcome, Request, Session};
    #[pymodule_export]
    use super::training::{Trained, train, train_files};
    #[pymodule_export]
    use super::values::{Device, Samples, digits};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
