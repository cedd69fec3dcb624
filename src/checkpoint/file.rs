//! One model file, safetensors, torch.save's or ONNX, by name: its tensors in, and out a copy with some values changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Cursor, SeekFrom};
use std::path::Path;

use safetensors::Dtype;

use super::choose;
use super::torch::{self, TorchFile};
use crate::data::file::{Editable, StoredFile, write_edited};
use crate::data::foreign;
use crate::data::tensors::{TensorFile, to_f64};
use crate::error::{Error, Result};
use crate::onnx::Place;

/// A model file.
pub(super) enum ModelFile {
    Safetensors(TensorFile),
    Torch(StoredFile, TorchFile),
    /// An ONNX file, or one beside it, with its tensors.
    Onnx(StoredFile, BTreeMap<String, Place>),
}

/// New values of a tensor, and which of them changed, in the file's order. They are worked out where they are asked for, so that the
/// change of a whole model takes no memory.
pub(super) struct Change<'a> {
    /// The tensor's name in the file.
    pub name: &'a str,
    /// How many elements it has.
    pub len: usize,
    /// Whether an element changed.
    pub differs: Box<dyn Fn(usize) -> bool + 'a>,
    /// The value of an element as it is stored in this type, in the first bytes.
    pub value: Box<dyn Fn(Dtype, usize) -> [u8; 8] + 'a>,
}

impl Change<'_> {
    /// The elements that changed, ascending.
    pub fn changed(&self) -> impl Iterator<Item = usize> {
        (0..self.len).filter(|&i| (self.differs)(i))
    }

    /// Whether one did.
    pub fn any(&self) -> bool {
        self.changed().next().is_some()
    }
}

/// How many values of a file changed, and how many did not although they should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub changed: usize,
    pub vanished: usize,
}

impl ModelFile {
    /// Reads a safetensors or a PyTorch file, or bytes in memory, of the kind that the first bytes tell; of a PyTorch file,
    /// the weights under the first of these keys that it has. An ONNX file, which may have others beside it, is read by
    /// [`super::described::files`].
    ///
    /// # Errors
    /// Where it is of neither kind, damaged, or has no such weights.
    pub fn of(file: StoredFile, keys: &[String]) -> Result<ModelFile> {
        let path = file.path().to_path_buf();
        let path = path.as_path();
        let start = file.read(0..file.len().min(foreign::KNOWN_BY))?;
        if start.get(8) != Some(&b'{') {
            if torch::is_torch(&start) {
                let torch = TorchFile::open(&file, &start, keys)?;
                return Ok(ModelFile::Torch(file, torch));
            }
            if let Some(kind) = foreign::kind_or_text(&start) {
                let reason =
                    format!("is no safetensors file, none of torch.save's and no ONNX file: it is {kind}");
                return Err(Error::checkpoint(path, reason));
            }
        }
        if !keys.is_empty() && !keys.iter().any(|key| key == choose::OWN) {
            let keys = keys.join("` and `");
            let reason = format!(
                "has no weights under `{keys}`: it is no PyTorch file; `--weights {}` beside these takes its own tensors",
                choose::OWN
            );
            return Err(Error::checkpoint(path, reason));
        }
        Ok(ModelFile::Safetensors(TensorFile::of(file)?))
    }

    /// Where a tensor of an ONNX file is.
    fn onnx(&self, name: &str) -> Result<&Place> {
        let place = match self {
            ModelFile::Onnx(_, tensors) => tensors.get(name),
            _ => None,
        };
        place.ok_or_else(|| Error::tensor(self.file().path(), name, "is not in the file"))
    }

    /// The file itself.
    pub fn file(&self) -> &StoredFile {
        match self {
            ModelFile::Safetensors(file) => file.file(),
            ModelFile::Torch(file, _) | ModelFile::Onnx(file, _) => file,
        }
    }

    /// The names of the tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        match self {
            ModelFile::Safetensors(file) => file.names(),
            ModelFile::Torch(_, torch) => torch.names().to_vec(),
            ModelFile::Onnx(_, tensors) => tensors.keys().cloned().collect(),
        }
    }

    /// The key of the dictionary that the weights are, where it is not the whole file.
    pub fn key(&self) -> Option<&str> {
        match self {
            ModelFile::Safetensors(_) | ModelFile::Onnx(..) => None,
            ModelFile::Torch(_, torch) => Some(torch.key.as_str()).filter(|key| !key.is_empty()),
        }
    }

    /// Other keys of the file that have tensors.
    pub fn others(&self) -> &[String] {
        match self {
            ModelFile::Safetensors(_) | ModelFile::Onnx(..) => &[],
            ModelFile::Torch(_, torch) => &torch.others,
        }
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        match self {
            ModelFile::Safetensors(file) => file.shape(name),
            ModelFile::Torch(file, torch) => torch.shape(file, name),
            ModelFile::Onnx(..) => Ok(&self.onnx(name)?.shape),
        }
    }

    /// The type of a tensor's elements.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        match self {
            ModelFile::Safetensors(file) => file.dtype(name),
            ModelFile::Torch(file, torch) => torch.dtype(file, name),
            ModelFile::Onnx(..) => Ok(self.onnx(name)?.dtype),
        }
    }

    /// The bytes of a tensor, in the order of its elements.
    pub fn stored(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            ModelFile::Safetensors(file) => file.stored(name),
            ModelFile::Torch(file, torch) => torch.stored(file, name),
            ModelFile::Onnx(file, _) => {
                let Place { dtype, shape, start } = self.onnx(name)?;
                let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
                file.read(*start..start + len as u64)
            }
        }
    }

    /// A tensor of floats.
    ///
    /// # Errors
    /// Where its elements are no floats.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let dtype = self.dtype(name)?;
        let bytes = self.stored(name)?;
        let values = match dtype {
            Dtype::F32 => {
                Some(bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)).collect())
            }
            Dtype::F64 | Dtype::F16 | Dtype::BF16 => {
                to_f64(dtype, &bytes).map(|all| all.into_iter().map(|v| v as f32).collect())
            }
            _ => None,
        };
        values.ok_or_else(|| {
            let reason = format!("has elements of type {dtype:?}, where floats were expected");
            Error::tensor(self.file().path(), name, reason)
        })
    }

    /// Where in the file element `i` of a tensor is.
    fn place(&self, name: &str, i: usize, size: usize) -> Result<u64> {
        match self {
            ModelFile::Safetensors(file) => Ok((file.range(name)?.start + i * size) as u64),
            ModelFile::Torch(file, torch) => torch.place(file, name, i),
            ModelFile::Onnx(..) => Ok(self.onnx(name)?.start + (i * size) as u64),
        }
    }

    /// Checks that new values can be written: their type, and that no two of them are for the same bytes and differ.
    /// `others` has the new values of every tensor of the network that is in this file.
    ///
    /// # Errors
    /// Where they cannot.
    pub fn check(&self, change: &Change, others: &HashMap<&str, &Change>) -> Result<()> {
        let refuse = |reason: String| Error::tensor(self.file().path(), change.name, reason);
        let dtype = self.dtype(change.name)?;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
            return Err(refuse(format!("type {dtype:?} cannot be written")));
        }
        let ModelFile::Torch(_, torch) = self else { return Ok(()) };
        let overlapping = torch.overlapping(change.name);
        if overlapping.is_empty() {
            return Ok(());
        }
        let size = dtype.bitsize() / 8;
        let mut new = HashMap::new();
        for name in std::iter::once(change.name).chain(overlapping) {
            let shared = || {
                refuse(format!(
                    "shares its memory with `{name}`, which would change with it; save the model with a clone() of each \
                     tensor"
                ))
            };
            let other = others.get(name).ok_or_else(shared)?;
            if self.dtype(name)? != dtype {
                return Err(shared());
            }
            let len = self.shape(name)?.iter().product();
            for i in 0..len {
                let bytes = (other.value)(dtype, i);
                if new.insert(self.place(name, i, size)?, bytes).is_some_and(|earlier| earlier != bytes) {
                    return Err(shared());
                }
            }
        }
        Ok(())
    }

    /// Writes a copy of the file with values changed, rounded to their type; [`ModelFile::check`] has been asked.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write(&self, out: &Path, changes: &[Change]) -> Result<Counts> {
        let mut counts = Counts::default();
        write_edited(out, self.file(), |copy| {
            counts = self.edit(copy, out, changes)?;
            Ok(())
        })?;
        Ok(counts)
    }

    /// The bytes that [`ModelFile::write`] writes.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn edited(&self, changes: &[Change]) -> Result<(Vec<u8>, Counts)> {
        let file = self.file();
        let mut copy = Cursor::new(file.read(0..file.len())?);
        let counts = self.edit(&mut copy, file.path(), changes)?;
        Ok((copy.into_inner(), counts))
    }

    /// Changes values in a copy of the file, which messages call `out`.
    fn edit(&self, copy: &mut dyn Editable, out: &Path, changes: &[Change]) -> Result<Counts> {
        let (mut counts, mut touched) = (Counts::default(), BTreeSet::new());
        for change in changes.iter().filter(|change| change.any()) {
            self.patch(copy, out, change, &mut counts, &mut touched)?;
        }
        match self {
            ModelFile::Safetensors(_) | ModelFile::Onnx(..) => {}
            ModelFile::Torch(file, torch) => torch.mend(file, copy, &touched)?,
        }
        Ok(counts)
    }

    /// Writes the changed values of a tensor, in runs of neighbours.
    fn patch(
        &self,
        copy: &mut dyn Editable,
        out: &Path,
        change: &Change,
        counts: &mut Counts,
        touched: &mut BTreeSet<u64>,
    ) -> Result<()> {
        let dtype = self.dtype(change.name)?;
        let (size, old) = (dtype.bitsize() / 8, self.stored(change.name)?);
        let (mut start, mut run) = (0, Vec::new());
        let mut flush = |start: u64, run: &mut Vec<u8>| {
            if !run.is_empty() {
                touched.insert(start);
                copy.seek(SeekFrom::Start(start))
                    .and_then(|_| copy.write_all(run))
                    .map_err(Error::io(out))?;
                run.clear();
            }
            Ok(())
        };
        for i in change.changed() {
            let (bytes, place) = ((change.value)(dtype, i), self.place(change.name, i, size)?);
            match old[i * size..(i + 1) * size] == bytes[..size] {
                true => counts.vanished += 1,
                false => counts.changed += 1,
            }
            if place != start + run.len() as u64 {
                flush(start, &mut run)?;
                start = place;
            }
            run.extend_from_slice(&bytes[..size]);
        }
        flush(start, &mut run)
    }
}

/// A value rounded to a type, in its first bytes.
pub(super) fn encoded(dtype: Dtype, value: f32) -> [u8; 8] {
    match dtype {
        Dtype::F64 => f64::from(value).to_le_bytes(),
        Dtype::F16 => pad(&half::f16::from_f32(value).to_le_bytes()),
        Dtype::BF16 => pad(&half::bf16::from_f32(value).to_le_bytes()),
        _ => pad(&value.to_le_bytes()),
    }
}

/// At most 8 bytes, and zeros behind them.
pub(super) fn pad(bytes: &[u8]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}
