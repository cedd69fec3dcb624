//! A model's files out: copies of the input files with the changed values patched; or a new file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::file::{Change, Counts, encoded};
use super::{BESIDE, Beside, Checkpoint, MODELS, Place, index_of};
use crate::data::tensors::{self, Tensor, Values};
use crate::error::{Error, Result};
use crate::net::{Network, Param};

impl Checkpoint {
    /// Writes the model to `folder`, under the names of the input's files, with the values in which `after` differs
    /// from `before` patched; copies config and preprocessor files beside it. Each file appears by rename.
    ///
    /// # Errors
    /// Where the file system refuses, or a patched tensor's type cannot be written.
    pub fn write_patched(&self, before: &Network, after: &Network, folder: &Path) -> Result<Patched> {
        let mut patched = Patched::default();
        for (file, changes) in self.files.iter().zip(self.changes(before, after)?) {
            let out = folder.join(file.file().path().file_name().unwrap_or_default());
            patched.count(file.write(&out, &changes)?);
            patched.files.push(out);
        }
        self.write_beside(folder)?;
        Ok(patched)
    }

    /// Writes what lies beside the model's files.
    pub(super) fn write_beside(&self, folder: &Path) -> Result<()> {
        match &self.beside {
            Beside::Folder => self.copy_beside(folder),
            Beside::Config(Some(text)) => tensors::write_whole(&folder.join("config.json"), text),
            Beside::Config(None) => Ok(()),
        }
    }

    fn copy_beside(&self, folder: &Path) -> Result<()> {
        let indices = MODELS.map(index_of);
        let indices = indices.iter().map(String::as_str).filter(|_| self.path.is_dir());
        for name in BESIDE.into_iter().chain(indices) {
            let file = self.folder().join(name);
            if file.is_file() {
                tensors::write_whole(&folder.join(name), &tensors::read(&file)?)?;
            }
        }
        Ok(())
    }

    /// The bytes that [`Checkpoint::write_patched`] writes to each of the model's files, in the order of
    /// [`Checkpoint::file_names`], with an account that names no files.
    ///
    /// # Errors
    /// Where a file cannot be read, or a patched tensor's type cannot be written.
    pub fn patched(&self, before: &Network, after: &Network) -> Result<(Patched, Vec<Vec<u8>>)> {
        let (mut patched, mut outs) = (Patched::default(), vec![]);
        for (file, changes) in self.files.iter().zip(self.changes(before, after)?) {
            let (bytes, counts) = file.edited(&changes)?;
            patched.count(counts);
            outs.push(bytes);
        }
        Ok((patched, outs))
    }

    /// The tensors of each file in which a network differs from another, checked.
    fn changes<'a>(&'a self, before: &'a Network, after: &'a Network) -> Result<Vec<Vec<Change<'a>>>> {
        let mut all: Vec<Vec<Change>> = self.files.iter().map(|_| vec![]).collect();
        for (old, new) in before.params.iter().zip(&after.params) {
            match self.place.get(&old.name) {
                Some(Place { file, stored }) => all[*file].push(change(stored, old, new)),
                None if old.value == new.value => {}
                None => return Err(Error::tensor(&self.path, &old.name, "is not in the model")),
            }
        }
        for (file, changes) in self.files.iter().zip(&all) {
            let known = changes.iter().map(|change| (change.name, change)).collect();
            changes.iter().filter(|change| change.any()).try_for_each(|change| file.check(change, &known))?;
        }
        Ok(all)
    }
}

/// What changed in a parameter.
fn change<'a>(stored: &'a str, old: &'a Param, new: &'a Param) -> Change<'a> {
    let value = |param: &'a Param| move |i: usize| param.value[param.order.kept(i)];
    let (before, after) = (value(old), value(new));
    Change {
        name: stored,
        len: old.value.len(),
        differs: Box::new(move |i| before(i).to_bits() != after(i).to_bits()),
        value: Box::new(move |dtype, i| encoded(dtype, after(i))),
    }
}

/// The result of [`Checkpoint::write_patched`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patched {
    /// The model files written.
    pub files: Vec<PathBuf>,
    /// Values that differ from the input's in the stored type.
    pub changed: usize,
    /// Values whose change was too small for the stored type, so that nothing changed in the file.
    pub vanished: usize,
}

impl Patched {
    fn count(&mut self, counts: Counts) {
        self.changed += counts.changed;
        self.vanished += counts.vanished;
    }
}

/// Writes a network to a new file, with PyTorch's names, shapes and order.
///
/// # Errors
/// Where the file system refuses.
pub fn save(path: &Path, net: &Network) -> Result<()> {
    with_tensors(net, |all, metadata| tensors::write(path, all, metadata))
}

/// The bytes that [`save`] writes; `path` is named in errors.
///
/// # Errors
/// Where a shape does not fit its values.
pub fn serialized(path: &Path, net: &Network) -> Result<Vec<u8>> {
    with_tensors(net, |all, metadata| tensors::serialized(path, all, metadata))
}

/// Calls `take` with the tensors of a network, whose values are brought to PyTorch's order when they are written.
fn with_tensors<R>(net: &Network, take: impl FnOnce(&[Tensor], HashMap<String, String>) -> R) -> R {
    let stored: Vec<_> = net
        .params
        .iter()
        .map(|param| || bytemuck::cast_slice(&param.order.to_stored(&param.value)).to_vec())
        .collect();
    let all: Vec<Tensor> = net
        .params
        .iter()
        .zip(&stored)
        .map(|(Param { name, shape, value, .. }, stored)| Tensor {
            name,
            shape: shape.clone(),
            values: Values::Made(value.len(), stored),
        })
        .collect();
    take(&all, HashMap::from([("format".into(), "pt".into())]))
}
