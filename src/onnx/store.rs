//! The tensors of an ONNX model and the files that hold them, and what its graph was translated to.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;

use super::constant::count;
use super::message::{Data, Tensor};
use crate::data::file::StoredFile;
use crate::data::tensors::to_f64;
use crate::error::{Error, Result};
use crate::graph;

/// A stored tensor.
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) at: At,
}

impl Stored {
    /// Whether its values are floats.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

/// Where the values of a tensor are.
pub(super) enum At {
    File { file: usize, start: u64 },
    Numbers(Vec<i64>),
}

/// All tensors of a model, and the files that they are in.
pub(super) struct Stores {
    pub(super) files: Vec<StoredFile>,
    pub(super) tensors: HashMap<String, Stored>,
}

impl Stores {
    /// Takes note of a tensor.
    pub(super) fn add(&mut self, name: &str, tensor: &Tensor, folder: Option<&Path>) -> Result<()> {
        let path = self.files[0].path().to_path_buf();
        let refuse = |reason: String| Error::tensor(&path, name, reason);
        let sides = tensor.dims.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<Vec<_>>>();
        let shape = sides.ok_or_else(|| refuse(format!("has the shape {:?}", tensor.dims)))?;
        let len = count(&shape).ok_or_else(|| refuse(format!("has the shape {shape:?}")))?;
        // One of another type is refused where it is used.
        let Some(dtype) = dtype(tensor.dtype) else { return Ok(()) };
        let size = (len as u64).saturating_mul(dtype.bitsize() as u64 / 8);
        let at = match &tensor.data {
            Data::Raw(range) => {
                let found = range.end - range.start;
                if found != size {
                    return Err(refuse(format!("has {found} bytes, and its shape {shape:?} needs {size}")));
                }
                At::File { file: 0, start: range.start }
            }
            Data::Numbers(numbers) => {
                if numbers.len() != len {
                    return Err(refuse(format!("has {} values, and its shape {shape:?}", numbers.len())));
                }
                At::Numbers(numbers.clone())
            }
            Data::External { file, start, len } => {
                let number = self.outside(file, folder).map_err(|reason| refuse(reason.to_string()))?;
                let (end, whole) = (start.checked_add(size), self.files[number].len());
                if len.is_some_and(|len| len != size) || end.is_none_or(|end| end > whole) {
                    let reason =
                        format!("needs {size} bytes from byte {start} of `{file}`, which has {whole}");
                    return Err(refuse(reason));
                }
                At::File { file: number, start: *start }
            }
            Data::None if len == 0 => At::Numbers(vec![]),
            Data::None | Data::Other => return Ok(()),
        };
        if self.tensors.insert(name.into(), Stored { shape, dtype, at }).is_some() {
            return Err(refuse("is in the graph twice".into()));
        }
        Ok(())
    }

    /// The number of a file beside the model, opened once.
    fn outside(&mut self, name: &str, folder: Option<&Path>) -> Result<usize> {
        let folder = folder
            .ok_or_else(|| Error::config("its values are in another file, and the model is in memory"))?;
        if name.is_empty() || name.contains(['/', '\\']) || name == ".." {
            return Err(Error::config(format!(
                "its values are in `{name}`, which is no file beside the model"
            )));
        }
        let path = folder.join(name);
        match self.files.iter().position(|file| file.path() == path) {
            Some(number) => Ok(number),
            None => {
                self.files.push(StoredFile::open(&path)?);
                Ok(self.files.len() - 1)
            }
        }
    }

    /// The values of a tensor.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f64>> {
        let Some(stored) = self.tensors.get(name) else {
            return Err(Error::config(format!("tensor `{name}` is stored in a form that is not read")));
        };
        match &stored.at {
            At::Numbers(numbers) if matches!(stored.dtype, Dtype::F16 | Dtype::BF16) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|&bits| (bits as u16).to_le_bytes()).collect();
                Ok(to_f64(stored.dtype, &bytes).unwrap_or_default())
            }
            At::Numbers(numbers) => Ok(numbers.iter().map(|&number| number as f64).collect()),
            At::File { file, start } => {
                let len = stored.shape.iter().product::<usize>() as u64 * stored.dtype.bitsize() as u64 / 8;
                let bytes = self.files[*file].read(*start..*start + len)?;
                to_f64(stored.dtype, &bytes)
                    .ok_or_else(|| Error::config(format!("tensor `{name}` has values that are not read")))
            }
        }
    }
}

/// A type of ONNX's.
fn dtype(number: i64) -> Option<Dtype> {
    Some(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::BOOL,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::BF16,
        _ => return None,
    })
}

/// What a graph was translated to.
pub(super) struct Translated {
    pub(super) nodes: Vec<graph::Node>,
    /// The tensors that are parameters, in the shapes in which the nodes read them.
    pub(super) tensors: BTreeMap<String, Vec<usize>>,
    /// Channels, rows, columns.
    pub(super) input: [usize; 3],
    pub(super) notes: Vec<String>,
    /// Whether the graph ends with a sigmoid, so that its logits are one per label.
    pub(super) several_labels: bool,
}
