//! Tables of .safetensors files: `X` `[n, p]` and, if there is one, `Y` `[n]`.

use std::path::Path;

use super::super::tensors::TensorFile;
use super::columns::{Table, other_length};
use super::stored::Numbers;
use crate::error::{Error, Result};

/// Reads a .safetensors file.
pub(super) fn read_tensors(path: &Path) -> Result<Table> {
    let file = TensorFile::open(path)?;
    let (n, p) = match file.shape("X")? {
        &[n, p] => (n, p),
        &[n] => (n, 1),
        other => {
            return Err(Error::record(path, "tensor `X`", format!("expected shape [n, p], found {other:?}")));
        }
    };
    let mut target = None;
    if file.has("Y") {
        match file.shape("Y")? {
            &[m] | &[m, 1] if m == n => {}
            other => return Err(other_length(path, n, other)),
        }
        target = Some(numbers(&file, "Y")?);
    }
    Ok(Table::unnamed(path, n, p, &numbers(&file, "X")?, target.as_ref()))
}

/// A tensor as numbers; integers exactly.
fn numbers(file: &TensorFile, name: &str) -> Result<Numbers> {
    Ok(match file.wide_integers(name)? {
        Some(integers) => Numbers::of_integers(integers),
        None => Numbers::Floats(file.f64(name)?),
    })
}
