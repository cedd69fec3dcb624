//! Images and labels in NumPy's .npz, as Keras and MedMNIST have them: read as the tensors of a safetensors file are.

use std::path::Path;

use safetensors::tensor::TensorView;

use super::table::{ArrayFile, members};
use super::tensors::{TensorFile, read};
use crate::error::{Error, Result};

/// Opens a file as one of tensors, which has its arrays under their names.
///
/// # Errors
/// Where it is damaged, or an array has elements that are no numbers.
pub(super) fn open(path: &Path) -> Result<TensorFile> {
    let bytes = read(path)?;
    let mut arrays = vec![];
    for (name, content) in members(path, &bytes)? {
        if let Some(name) = name.strip_suffix(".npy") {
            let found =
                ArrayFile::of(path, &content).and_then(|array| array.plain(path)).map_err(|e| match e {
                    Error::Data { reason, .. } => Error::record(path, format!("array `{name}`"), reason),
                    other => other,
                })?;
            arrays.push((name.to_string(), found));
        }
    }
    let damaged = |error: safetensors::SafeTensorError| Error::data(path, error.to_string());
    let views = arrays.iter().map(|(name, (dtype, shape, bytes))| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.clone(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(damaged)?;
    TensorFile::of_bytes(path, safetensors::serialize(views, None).map_err(damaged)?)
}
