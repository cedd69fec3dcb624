//! The library's errors as Python's exceptions, which `scrubjay/_errors.py` defines.

use pyo3::prelude::*;
use scrubjay::Error;

mod python {
    pyo3::import_exception!(scrubjay._errors, ConfigError);
    pyo3::import_exception!(scrubjay._errors, DataError);
    pyo3::import_exception!(scrubjay._errors, DeviceError);
    pyo3::import_exception!(scrubjay._errors, FileError);
    pyo3::import_exception!(scrubjay._errors, Interrupted);
    pyo3::import_exception!(scrubjay._errors, ModelError);
    pyo3::import_exception!(scrubjay._errors, ScrubjayError);
    pyo3::import_exception!(scrubjay._errors, SolveError);
}

/// An error of the library, as Python raises it.
pub fn raised(error: Error) -> PyErr {
    let text = in_python(&error.to_string());
    match error {
        Error::Shape { .. } | Error::Config(_) => python::ConfigError::new_err(text),
        Error::Device { .. } | Error::Memory { .. } | Error::NoGpu { .. } => {
            python::DeviceError::new_err(text)
        }
        Error::Checkpoint { .. } => python::ModelError::new_err(text),
        Error::Data { .. } => python::DataError::new_err(text),
        Error::Solve { .. } | Error::NegativeCurvature { .. } => python::SolveError::new_err(text),
        Error::Io { source, .. } => python::FileError::new_err((source.raw_os_error(), text)),
        Error::Interrupted { .. } => python::Interrupted::new_err(text),
        _ => python::ScrubjayError::new_err(text),
    }
}

/// A refusal of what Python passed.
pub fn refused(text: impl Into<String>) -> PyErr {
    python::ConfigError::new_err(text.into())
}

/// A text of the library with options named as in Python: `--target-loss` is `target_loss`.
pub fn in_python(text: &str) -> String {
    let mut parts = text.split("--");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        if !part.starts_with(|c: char| c.is_ascii_lowercase()) {
            out.push_str("--");
            out.push_str(part);
            continue;
        }
        let end = part.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        out.push_str(&name.replace('-', "_"));
        out.push_str(rest);
    }
    out
}
