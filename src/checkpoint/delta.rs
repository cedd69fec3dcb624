//! Delta files: the rows in which one model's files differ from another's, with which the other can be made of either.
//!
//! A delta is a safetensors file. For each tensor that differs, `rows/NAME` are the rows concerned, `new/NAME` their new values
//! as they are stored, and, where the change shall be taken back, `old/NAME` their old ones; a row is what lies at one index of
//! the first dimension. Its header has the hashes of the model's files before and after, so that it is applied to its own model
//! alone, and the result is the other model, byte for byte.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::Checkpoint;
use super::file::{Change, ModelFile, pad};
use crate::data::file::StoredFile;
use crate::data::tensors::{TensorFile, write_whole};
use crate::error::{Error, Result};
use crate::hash;

/// The key of the header in the file's metadata, and the version of the format.
const KEY: &str = "scrubjay.delta";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    /// SHA-256 of the model's files before and after, as in a scrub's report.
    before: String,
    after: String,
    /// The keys by which the weights of PyTorch files were chosen.
    weights: Vec<String>,
}

/// Which way a delta is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the model before to the one after.
    Apply,
    /// Back again.
    Revert,
}

/// What a delta has, or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Tensors.
    pub tensors: usize,
    /// Their rows.
    pub rows: usize,
    /// The values of these.
    pub values: usize,
}

/// A file that was opened as a delta.
pub struct Delta {
    file: TensorFile,
    header: Header,
}

/// One tensor of a delta on its way to the file.
struct Part {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes the delta from one model to another, with the old values too where `old` says so.
///
/// # Errors
/// Where the models' files have other tensors, or the file system refuses.
pub fn write_delta(
    before: &Checkpoint,
    after: &Checkpoint,
    weights: &[String],
    old: bool,
    path: &Path,
) -> Result<Rows> {
    let (mut parts, mut counts) = (vec![], Rows::default());
    for (was, is) in before.files.iter().zip(&after.files) {
        for name in was.names() {
            let (shape, dtype) = (was.shape(&name)?.to_vec(), was.dtype(&name)?);
            if is.shape(&name)? != shape || is.dtype(&name)? != dtype {
                return Err(Error::tensor(&after.path, name, "has another shape or type than before"));
            }
            let (a, b) = (was.stored(&name)?, is.stored(&name)?);
            let n = shape.first().copied().unwrap_or(1);
            let len = a.len() / n.max(1);
            let at = |i: usize| i * len..(i + 1) * len;
            let rows: Vec<usize> = (0..n).filter(|&i| a[at(i)] != b[at(i)]).collect();
            if rows.is_empty() {
                continue;
            }
            let mut shape = if shape.is_empty() { vec![1] } else { shape };
            shape[0] = rows.len();
            counts.tensors += 1;
            counts.rows += rows.len();
            counts.values += shape.iter().product::<usize>();
            let gather =
                |bytes: &[u8]| rows.iter().flat_map(|&i| &bytes[at(i)]).copied().collect::<Vec<u8>>();
            let mut put = |kind: &str, dtype, shape: &[usize], bytes| {
                parts.push(Part { name: format!("{kind}/{name}"), dtype, shape: shape.to_vec(), bytes });
            };
            let indices = rows.iter().flat_map(|&i| (i as i64).to_le_bytes()).collect();
            put("rows", Dtype::I64, &[rows.len()], indices);
            put("new", dtype, &shape, gather(&b));
            if old {
                put("old", dtype, &shape, gather(&a));
            }
        }
    }
    let header = Header {
        version: VERSION,
        before: hash::of_files_at(before.contents())?,
        after: hash::of_files_at(after.contents())?,
        weights: weights.to_vec(),
    };
    let text = serde_json::to_string(&header).map_err(|e| Error::data(path, e.to_string()))?;
    let views = parts.iter().map(|part| {
        TensorView::new(part.dtype, part.shape.clone(), &part.bytes).map(|view| (part.name.clone(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>();
    let bytes =
        views.and_then(|views| safetensors::serialize(views, Some(HashMap::from([(KEY.to_string(), text)]))));
    write_whole(path, &bytes.map_err(|e| Error::data(path, e.to_string()))?)?;
    Ok(counts)
}

impl Delta {
    /// Opens a delta file.
    ///
    /// # Errors
    /// Where it cannot be read, is none, or is one of another version of the format.
    pub fn open(path: &Path) -> Result<Delta> {
        let file = TensorFile::open(path)?;
        let metadata = file.metadata();
        let text = metadata.get(KEY).ok_or_else(|| {
            Error::data(
                path,
                "is no delta: its header has no hashes of a model before and after (scrub --delta-file)",
            )
        })?;
        let header: Header = serde_json::from_str(text)
            .map_err(|e| Error::data(path, format!("is no delta: its header is malformed: {e}")))?;
        match header.version {
            VERSION => Ok(Delta { file, header }),
            other => Err(Error::data(
                path,
                format!("is a delta of version {other}; this program reads version {VERSION}"),
            )),
        }
    }

    /// The keys by which the weights of PyTorch files were chosen, for [`Checkpoint::open_with`].
    pub fn weights(&self) -> &[String] {
        &self.header.weights
    }

    /// Writes to `folder`, under the model's own names, the model that the delta makes of it, and copies config files beside
    /// it.
    ///
    /// # Errors
    /// Where the model is not the one that the delta is for, the delta has no old values and is to be taken back, or the result
    /// is not the model that it shall be; then no model is left in the folder.
    pub fn take(&self, model: &Checkpoint, way: Way, folder: &Path) -> Result<(Vec<PathBuf>, Rows)> {
        let Header { before, after, .. } = &self.header;
        let (from, to, kind) = match way {
            Way::Apply => (before, after, "new"),
            Way::Revert => (after, before, "old"),
        };
        let found = hash::of_files_at(model.contents())?;
        if found != *from {
            let side =
                |hash: &String| if *hash == found { ": it is the one that this would make" } else { "" };
            return Err(Error::checkpoint(
                model.path(),
                format!(
                    "is not the model that {} is for{}; its SHA-256 is {found}, expected was {from}",
                    self.file.path().display(),
                    side(to)
                ),
            ));
        }
        let names: Vec<String> = self
            .file
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix("rows/"))
            .map(String::from)
            .collect();
        if let Some(name) = names.iter().find(|name| !self.file.has(&format!("{kind}/{name}"))) {
            let reason = match way {
                Way::Apply => "has no new values",
                Way::Revert => {
                    "has no old values: it was written with --delta-file new, and cannot be taken back"
                }
            };
            return Err(Error::record(self.file.path(), format!("tensor `{name}`"), reason));
        }
        let (mut written, mut counts) = (vec![], Rows::default());
        for file in &model.files {
            let changes = self.changes(file, &names, kind, &mut counts)?;
            let known = changes.iter().map(|change| (change.name, change)).collect();
            changes.iter().try_for_each(|change| file.check(change, &known))?;
            let out = folder.join(file.file().path().file_name().unwrap_or_default());
            file.write(&out, &changes)?;
            written.push(out);
        }
        let stored = written.iter().map(|path| StoredFile::open(path)).collect::<Result<Vec<_>>>()?;
        if counts.tensors < names.len() || hash::of_files_at(stored.iter().map(StoredFile::whole))? != *to {
            for path in &written {
                std::fs::remove_file(path).map_err(Error::io(path))?;
            }
            return Err(Error::data(
                self.file.path(),
                "does not make the model that its header names; it is damaged",
            ));
        }
        model.write_beside(folder)?;
        Ok((written, counts))
    }

    /// The changes of those tensors that are in a file.
    fn changes<'a>(
        &self,
        file: &ModelFile,
        names: &'a [String],
        kind: &str,
        counts: &mut Rows,
    ) -> Result<Vec<Change<'a>>> {
        let (mut changes, of_file) = (vec![], file.names());
        for name in names.iter().filter(|name| of_file.contains(name)) {
            let refuse = |reason: String| Error::record(self.file.path(), format!("tensor `{name}`"), reason);
            let (key, shape, dtype) = (format!("{kind}/{name}"), file.shape(name)?, file.dtype(name)?);
            let (theirs, n) = (self.file.shape(&key)?, shape.first().copied().unwrap_or(1));
            let rows: Vec<usize> =
                self.file.labels(&format!("rows/{name}"))?.iter().map(|&i| i as usize).collect();
            let fits = theirs.first() == Some(&rows.len()) && theirs[1..] == shape[shape.len().min(1)..];
            if !fits || self.file.dtype(&key)? != dtype || rows.iter().any(|&i| i >= n) {
                let found = format!("{theirs:?} of {:?}", self.file.dtype(&key)?);
                return Err(refuse(format!(
                    "does not fit the model's {shape:?} of {dtype:?}: it is {found}"
                )));
            }
            let (mut bytes, values) = (file.stored(name)?, self.file.stored(&key)?);
            let (size, len) = (dtype.bitsize() / 8, bytes.len() / n.max(1));
            if size == 0 {
                return Err(refuse(format!("is of {dtype:?}, of which a value is less than a byte")));
            }
            for (&row, new) in rows.iter().zip(values.chunks_exact(len.max(1))) {
                bytes[row * len..(row + 1) * len].copy_from_slice(new);
            }
            let each = len / size;
            let mut changed = vec![false; n];
            rows.iter().for_each(|&row| changed[row] = true);
            counts.tensors += 1;
            counts.rows += rows.len();
            counts.values += rows.len() * each;
            let differs = Box::new(move |i: usize| changed[i / each]);
            let value = Box::new(move |_, i: usize| pad(&bytes[i * size..(i + 1) * size]));
            changes.push(Change { name, len: n * each, differs, value });
        }
        Ok(changes)
    }
}
