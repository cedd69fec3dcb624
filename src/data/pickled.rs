//! CIFAR-10 and CIFAR-100 as Python pickles, the form that torchvision downloads: dictionaries of `data`, an array
//! `[n, 3072]` of planes, and `labels`, or `fine_labels` and `coarse_labels`. Names of classes lie in `batches.meta` or `meta`.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::cifar::{CifarLabels, PIXELS};
use super::file::StoredFile;
use super::foreign::{KNOWN_BY, is_pickle};
use super::pixels::{Numbers, Stored};
use super::{Labels, Names};
use crate::error::{Error, Result};
use crate::ops::Shape;
use crate::pickle::{Array, Object, Pickle, read_with_bytes};

/// Whether a file begins as a pickle.
pub(super) fn begins_as_one(path: &Path) -> bool {
    let start = StoredFile::open(path).and_then(|file| file.read(0..file.len().min(KNOWN_BY)));
    start.is_ok_and(|start| is_pickle(&start))
}

fn open(path: &Path) -> Result<Pickle> {
    let file = StoredFile::open(path)?;
    read_with_bytes(&mut BufReader::new(file.whole())).map_err(|reason| Error::data(path, reason))
}

/// Reads the images of these files.
///
/// # Errors
/// Where one is damaged, has not these keys, or other labels are wanted than it has.
pub(super) fn read(files: &[PathBuf], wanted: CifarLabels) -> Result<(Stored, Names, Vec<String>)> {
    let (mut x, mut y, mut samples) = (vec![], vec![], vec![]);
    for file in files {
        let pickle = open(file)?;
        let refuse = |key: &str, reason: String| Error::record(file, format!("`{key}`"), reason);
        let Some(Object::Array(array)) = pickle.under("data") else {
            return Err(refuse("data", "is no array of NumPy; a batch of CIFAR was expected".into()));
        };
        let n = match array.shape[..] {
            [n, PIXELS] if &*array.dtype == "u1" && array.bytes.len() == n * PIXELS => n,
            _ => {
                let Array { shape, dtype, .. } = &**array;
                return Err(refuse(
                    "data",
                    format!("is {shape:?} of `{dtype}`, where [n, {PIXELS}] of `u1` was expected"),
                ));
            }
        };
        x.extend_from_slice(&array.bytes);
        let keys = match wanted {
            CifarLabels::Fine => &["labels", "fine_labels"][..],
            CifarLabels::Coarse => &["coarse_labels"],
        };
        let found = keys.iter().find_map(|key| Some((key, pickle.under(key)?)));
        let (key, labels) = found.ok_or_else(|| refuse(keys[0], "is not there".into()))?;
        let labels = whole_numbers(&pickle, labels).filter(|labels| labels.len() == n);
        y.extend(labels.ok_or_else(|| refuse(key, format!("is no list of {n} whole numbers from 0")))?);
        samples.extend(pickle.under("filenames").and_then(|names| words(&pickle, names)).unwrap_or_default());
    }
    let samples = Some(samples).filter(|names| names.len() == y.len());
    let names = Names { classes: classes(files, wanted)?, samples, ..Names::default() };
    let (shape, x) = (Shape::new(32, 32, 3), Numbers::Pixels(x));
    Ok((Stored { shape, x, y: Labels::Classes(y), channels_last: false }, names, vec![]))
}

fn whole_numbers(pickle: &Pickle, object: &Object) -> Option<Vec<u32>> {
    match object {
        Object::List(items) => items
            .iter()
            .map(|&id| match pickle.get(id) {
                Object::Int(label) => u32::try_from(*label).ok(),
                _ => None,
            })
            .collect(),
        Object::Array(array) => {
            let bytes = match &*array.dtype {
                "u1" => 1,
                "i4" => 4,
                "i8" => 8,
                _ => return None,
            };
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
            array.bytes.chunks_exact(bytes).map(|bytes| u32::try_from(number(bytes)).ok()).collect()
        }
        _ => None,
    }
}

fn words(pickle: &Pickle, object: &Object) -> Option<Vec<String>> {
    let Object::List(items) = object else { return None };
    let word = |id: &usize| match pickle.get(*id) {
        Object::Text(text) => Some(text.to_string()),
        Object::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    items.iter().map(word).collect()
}

/// The names of the classes, from the file beside the batches.
fn classes(files: &[PathBuf], wanted: CifarLabels) -> Result<Option<Vec<String>>> {
    let Some(folder) = files.first().and_then(|file| file.parent()) else { return Ok(None) };
    let keys = match wanted {
        CifarLabels::Fine => ["label_names", "fine_label_names"],
        CifarLabels::Coarse => ["coarse_label_names"; 2],
    };
    for name in META {
        let path = folder.join(name);
        if path.is_file() {
            let pickle = open(&path)?;
            return Ok(keys.iter().find_map(|key| words(&pickle, pickle.under(key)?)));
        }
    }
    Ok(None)
}

/// The files that name the classes.
pub(super) const META: [&str; 2] = ["batches.meta", "meta"];
