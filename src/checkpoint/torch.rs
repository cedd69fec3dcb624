//! PyTorch's files (`.pth`, `.pt`, `.bin`, `.pth.tar`), as torch.save has written them in two forms: a zip archive of a
//! pickle and one entry for each storage, and before version 1.6 a row of pickles with the storages behind them. In both, the bytes
//! of a storage lie in the file as they are, so that a changed value is a few changed bytes.
//!
//! A tensor is a view of a storage: an offset, a shape and strides. Tensors may share a storage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::choose::{self, Weights};
use super::zip::Zip;
use crate::data::file::{Editable, StoredFile};
use crate::error::{Error, Result};
use crate::pickle::{self, Object, Pickle, Tensor};

/// The number with which files of the older form begin, as pickled.
const MAGIC: &[u8] = &[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The longest pickle that is read, of an archive.
const LONGEST_PICKLE: u64 = 1 << 31;

/// A PyTorch file, its pickle in memory.
#[derive(Debug)]
pub(super) struct TorchFile {
    /// The key of the weights; empty where they are the whole file.
    pub key: String,
    /// Other keys of the file that have tensors.
    pub others: Vec<String>,
    names: Vec<String>,
    views: BTreeMap<String, View>,
    storages: Vec<Place>,
    /// The archive, in the newer form.
    zip: Option<Zip>,
}

/// Where a storage is.
#[derive(Debug)]
struct Place {
    range: Range<u64>,
    /// Its entry of the archive.
    entry: String,
}

/// A tensor: element `first + Σ index · stride` of a storage.
#[derive(Debug)]
struct View {
    dtype: Dtype,
    storage: usize,
    first: u64,
    shape: Vec<usize>,
    strides: Vec<u64>,
    /// Elements.
    len: usize,
    /// Elements of the storage from the first to the last that is read.
    span: u64,
}

/// Bytes an element.
fn size(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

/// Whether a file begins as those of this kind do.
pub(super) fn is_torch(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(MAGIC)
}

impl TorchFile {
    /// Reads a file's pickle, and of it the weights under the first of these keys, or the only ones.
    ///
    /// # Errors
    /// Where the file is damaged, is no PyTorch file, or [`choose::weights`] finds none.
    pub fn open(file: &StoredFile, start: &[u8], keys: &[String]) -> Result<TorchFile> {
        match start.starts_with(MAGIC) {
            true => of_row(file, keys),
            false => of_zip(file, keys),
        }
    }

    /// The names of the tensors, in the order of the dictionary.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn view(&self, file: &StoredFile, name: &str) -> Result<&View> {
        self.views.get(name).ok_or_else(|| Error::tensor(file.path(), name, "is not in the file"))
    }

    /// The shape of a tensor.
    pub fn shape(&self, file: &StoredFile, name: &str) -> Result<&[usize]> {
        Ok(&self.view(file, name)?.shape)
    }

    /// The type of a tensor's elements.
    pub fn dtype(&self, file: &StoredFile, name: &str) -> Result<Dtype> {
        Ok(self.view(file, name)?.dtype)
    }

    /// The bytes of a tensor, in the order of its elements.
    pub fn stored(&self, file: &StoredFile, name: &str) -> Result<Vec<u8>> {
        let view = self.view(file, name)?;
        let (size, start) = (size(view.dtype), self.storages[view.storage].range.start);
        let from = start + view.first * size;
        let bytes = file.read(from..from + view.span * size)?;
        if view.is_contiguous() {
            return Ok(bytes);
        }
        let size = size as usize;
        let mut gathered = Vec::with_capacity(view.len * size);
        for i in 0..view.len {
            let at = view.place(i) as usize * size;
            gathered.extend_from_slice(&bytes[at..at + size]);
        }
        Ok(gathered)
    }

    /// Where in the file element `i` of a tensor is.
    pub fn place(&self, file: &StoredFile, name: &str, i: usize) -> Result<u64> {
        let view = self.view(file, name)?;
        let start = self.storages[view.storage].range.start;
        Ok(start + (view.first + view.place(i)) * size(view.dtype))
    }

    /// The tensors that have bytes in a range that `name` has bytes in too, itself among them where its own elements
    /// overlap.
    pub fn overlapping(&self, name: &str) -> Vec<&str> {
        let Some(view) = self.views.get(name) else { return vec![] };
        let range = |view: &View| {
            let size = size(view.dtype);
            view.first * size..(view.first + view.span) * size
        };
        let own = range(view);
        let meets = |(other, at): &(&String, &View)| {
            let theirs = range(at);
            at.storage == view.storage
                && theirs.start < own.end
                && own.start < theirs.end
                && (*other != name || view.len as u64 > view.span || !view.is_contiguous())
        };
        self.views.iter().filter(meets).map(|(name, _)| name.as_str()).collect()
    }

    /// Puts right what depends on the changed bytes, in a copy of the file.
    pub fn mend(&self, file: &StoredFile, copy: &mut dyn Editable, touched: &BTreeSet<u64>) -> Result<()> {
        let Some(zip) = &self.zip else { return Ok(()) };
        for Place { range, entry } in &self.storages {
            if touched.range(range.clone()).next().is_some() {
                zip.mend(file, copy, entry)?;
            }
        }
        Ok(())
    }

    /// The tensors of a dictionary over storages that lie at `places`, by key.
    fn of(path: &Path, weights: Weights, places: &HashMap<String, Place>) -> Result<TorchFile> {
        let (mut names, mut views) = (vec![], BTreeMap::new());
        let (mut numbers, mut storages) = (HashMap::new(), vec![]);
        for (name, tensor) in weights.tensors {
            let refuse = |reason: String| Error::tensor(path, &name, reason);
            let key = &*tensor.storage.key;
            let place =
                places.get(key).ok_or_else(|| refuse(format!("has no storage `{key}` in the file")))?;
            let number = *numbers.entry(key.to_string()).or_insert_with(|| {
                storages.push(Place { range: place.range.clone(), entry: place.entry.clone() });
                storages.len() - 1
            });
            let view = View::of(&tensor, number, &place.range).map_err(refuse)?;
            names.push(name.clone());
            views.insert(name, view);
        }
        Ok(TorchFile { key: weights.key, others: weights.others, names, views, storages, zip: None })
    }
}

impl View {
    /// A tensor over a storage that lies at `range`, with every element in it.
    fn of(tensor: &Tensor, storage: usize, range: &Range<u64>) -> std::result::Result<View, String> {
        let Tensor { storage: of, offset, shape, strides } = tensor;
        let dtype = of.dtype.ok_or_else(|| format!("has elements of {}, which is not read here", of.kind))?;
        let stored = (range.end - range.start) / size(dtype);
        let inside = |view: &View| {
            let end = view.first.checked_add(view.span);
            end.is_some_and(|end| end <= of.first.saturating_add(of.len) && end <= stored)
        };
        let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side));
        let len = count.filter(|&len| len as u64 <= stored);
        let reach = |span: u64, (&side, &stride): (&usize, &u64)| {
            span.checked_add((side as u64 - 1).checked_mul(stride)?)
        };
        let span = match len {
            Some(0) => Some(0),
            Some(_) => shape.iter().zip(strides).try_fold(1, reach),
            None => None,
        };
        let first = of.first.checked_add(*offset);
        let found = first.zip(span).zip(len).map(|((first, span), len)| {
            let (shape, strides) = (shape.clone(), strides.clone());
            View { dtype, storage, first, shape, strides, len, span }
        });
        found.filter(inside).ok_or_else(|| {
            format!("of shape {shape:?} reaches beyond its storage of {stored} elements (truncated?)")
        })
    }

    /// Where element `i` is, from the first.
    fn place(&self, mut i: usize) -> u64 {
        let mut place = 0;
        for (&side, &stride) in self.shape.iter().zip(&self.strides).rev() {
            place += (i % side) as u64 * stride;
            i /= side;
        }
        place
    }

    fn is_contiguous(&self) -> bool {
        let mut dense = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == dense;
            dense *= side as u64;
            fits
        })
    }
}

/// A file of the newer form.
fn of_zip(file: &StoredFile, keys: &[String]) -> Result<TorchFile> {
    let refuse = |reason: String| Error::checkpoint(file.path(), reason);
    let zip = Zip::open(file)?;
    let pickled =
        zip.names().find(|name| name.ends_with("/data.pkl") || *name == "data.pkl").map(String::from);
    let Some(pickled) = pickled else {
        return Err(refuse("is a zip archive that torch.save did not write: it has no data.pkl".into()));
    };
    let root = pickled.trim_end_matches("data.pkl");
    if zip.names().any(|name| name.strip_prefix(root).is_some_and(|rest| rest.starts_with("code/"))) {
        let reason = "is a TorchScript program; save its weights instead: torch.save(torch.jit.load(\"FILE\").state_dict(), \
                      \"weights.pth\")";
        return Err(refuse(reason.into()));
    }
    if let Some(range) = zip.range(file, &format!("{root}byteorder"))?
        && file.read(range.start..range.end.min(range.start + 16))? != b"little"
    {
        return Err(refuse("was written on a big-endian machine, which is not read here".into()));
    }
    let range = zip.range(file, &pickled)?.unwrap_or(0..0);
    if range.end - range.start > LONGEST_PICKLE {
        return Err(refuse("has a pickle of more than 2 GiB".into()));
    }
    let pickle = pickle::read(&mut BufReader::new(file.part(range))).map_err(refuse)?;
    let weights = choose::weights(&pickle, keys).map_err(refuse)?;
    let mut places = HashMap::new();
    for (_, tensor) in &weights.tensors {
        let entry = format!("{root}data/{}", tensor.storage.key);
        if let Some(range) = zip.range(file, &entry)? {
            places.insert(tensor.storage.key.to_string(), Place { range, entry });
        }
    }
    apart(file, &places)?;
    Ok(TorchFile { zip: Some(zip), ..TorchFile::of(file.path(), weights, &places)? })
}

/// Checks that no two storages share bytes: a change in one would be one in the other.
fn apart(file: &StoredFile, places: &HashMap<String, Place>) -> Result<()> {
    let mut sorted: Vec<&Place> = places.values().filter(|place| !place.range.is_empty()).collect();
    sorted.sort_by_key(|place| place.range.start);
    match sorted.windows(2).find(|pair| pair[1].range.start < pair[0].range.end) {
        None => Ok(()),
        Some(pair) => {
            let reason = format!("entries `{}` and `{}` overlap", pair[0].entry, pair[1].entry);
            Err(Error::checkpoint(file.path(), reason))
        }
    }
}

/// A file of the older form: the magic number, the protocol, the machine's sizes, what was saved, the keys of the
/// storages; then each storage behind its number of elements.
fn of_row(file: &StoredFile, chosen: &[String]) -> Result<TorchFile> {
    let refuse = |reason: String| Error::checkpoint(file.path(), reason);
    let mut counted = Counted { inner: BufReader::new(file.whole()), read: 0 };
    let mut next = || pickle::read(&mut counted).map_err(refuse);
    let (_magic, protocol, machine, saved, keys) = (next()?, next()?, next()?, next()?, next()?);
    if *protocol.root() != Object::Int(1001) {
        return Err(refuse("has a form of torch.save that is not known here".into()));
    }
    if has(&machine, "little_endian", &Object::Bool(false)) {
        return Err(refuse("was written on a big-endian machine, which is not read here".into()));
    }
    let weights = choose::weights(&saved, chosen).map_err(refuse)?;
    let Object::List(listed) = keys.root() else {
        return Err(refuse("has no list of storages where one should be (truncated?)".into()));
    };
    // Only a storage's type tells how long it is.
    let sizes: HashMap<&str, Option<Dtype>> = saved.storages().map(|s| (&*s.key, s.dtype)).collect();
    let (mut places, mut at) = (HashMap::new(), counted.read);
    for &id in listed {
        let Object::Text(key) = keys.get(id) else {
            return Err(refuse("has a storage without a key".into()));
        };
        let Some(Some(dtype)) = sizes.get(&**key) else {
            return Err(refuse(format!("has a storage `{key}` of a type that is not read here")));
        };
        let head = file.read(at..at.saturating_add(8))?;
        let count = head.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        let end = count.checked_mul(size(*dtype)).and_then(|bytes| (at + 8).checked_add(bytes));
        let end = end.filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| refuse(format!("ends within its storage `{key}` (truncated?)")))?;
        let place = Place { range: at + 8..end, entry: String::new() };
        if places.insert(key.to_string(), place).is_some() {
            return Err(refuse(format!("has two storages `{key}`")));
        }
        at = end;
    }
    TorchFile::of(file.path(), weights, &places)
}

/// Whether a pickled dictionary has this value.
fn has(pickle: &Pickle, key: &str, value: &Object) -> bool {
    match pickle.root() {
        Object::Dict(dict) => dict.iter().any(|&(k, v)| {
            matches!(pickle.get(k), Object::Text(text) if &**text == key) && pickle.get(v) == value
        }),
        _ => false,
    }
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}
