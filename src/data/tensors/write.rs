//! Writing safetensors files, tensor by tensor.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, View};

use super::LONGEST_HEADER;
use crate::data::file;
use crate::error::{Error, Result};

/// One tensor to be written.
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Values<'a>,
}

/// The elements of a tensor to be written.
pub enum Values<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f64.
    F64(&'a [f64]),
    /// i64.
    I64(&'a [i64]),
    /// The bytes of this many f32, made when they are written.
    Made(usize, &'a (dyn Fn() -> Vec<u8> + 'a)),
}

impl Values<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::Made(len, _) => *len,
        }
    }
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) | Values::Made(..) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
            Values::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::F32(v) => bytemuck::cast_slice(v).into(),
            Values::F64(v) => bytemuck::cast_slice(v).into(),
            Values::I64(v) => bytemuck::cast_slice(v).into(),
            Values::Made(_, make) => make().into(),
        }
    }

    fn data_len(&self) -> usize {
        self.values.count() * self.dtype().bitsize() / 8
    }
}

/// Writes a safetensors file: to a temporary file beside `path`, tensor by tensor, flushed, then renamed.
///
/// The format's library has a function for it, too. What that one leaves when it is killed has a name that nobody knows.
///
/// # Errors
/// Where the file system refuses, or a shape does not fit its values.
pub fn write(path: &Path, tensors: &[Tensor], metadata: HashMap<String, String>) -> Result<()> {
    let (header, sorted) = laid_out(path, tensors, metadata)?;
    file::write_with(path, |file| {
        let parts = std::iter::once(header.into()).chain(sorted.iter().map(View::data));
        { parts }.try_for_each(|part| file.write_all(&part)).map_err(Error::io(path))
    })
}

/// The bytes that [`write()`] writes; `path` is named in errors.
///
/// # Errors
/// Where a shape does not fit its values.
pub fn serialized(path: &Path, tensors: &[Tensor], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let (mut bytes, sorted) = laid_out(path, tensors, metadata)?;
    sorted.iter().for_each(|tensor| bytes.extend_from_slice(&tensor.data()));
    Ok(bytes)
}

/// The bytes before the first tensor, and the tensors in the order of the format's library: wide elements first, then by name.
fn laid_out<'a, 'b>(
    path: &Path,
    tensors: &'a [Tensor<'b>],
    metadata: HashMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'a Tensor<'b>>)> {
    check(path, tensors)?;
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|a, b| b.dtype().cmp(&a.dtype()).then(a.name.cmp(b.name)));
    let mut end = 0;
    let info = |tensor: &&Tensor| {
        let begin = end;
        end += tensor.data_len();
        let info =
            TensorInfo { dtype: tensor.dtype(), shape: tensor.shape.clone(), data_offsets: (begin, end) };
        (tensor.name.to_string(), info)
    };
    let infos = sorted.iter().map(info).collect();
    let header = Metadata::new(Some(metadata), infos).map_err(|e| Error::data(path, e.to_string()))?;
    let mut json = serde_json::to_vec(&header).map_err(|e| Error::data(path, e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' '); // the first tensor begins at a multiple of 8 bytes
    if json.len() as u64 > LONGEST_HEADER {
        return Err(Error::data(
            path,
            format!("its header of {} bytes is too long to be read again", json.len()),
        ));
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok((bytes, sorted))
}

/// Refuses shapes that do not fit their values.
fn check(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let len = |tensor: &Tensor| tensor.shape.iter().product::<usize>() * tensor.dtype().bitsize() / 8;
    match tensors.iter().find(|tensor| len(tensor) != tensor.data_len()) {
        None => Ok(()),
        Some(Tensor { name, shape, .. }) => {
            let reason = format!("tensor `{name}` of shape {shape:?} has another number of values");
            Err(Error::data(path, reason))
        }
    }
}
