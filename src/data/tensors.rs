//! safetensors files: checked, and tensors read by name where they are needed; written to a temporary file and renamed.
//!
//! The format is an 8-byte little-endian header length, a JSON header, and the tensors back to back. A file whose
//! header is not UTF-8 or not JSON, whose offsets overlap, leave gaps or do not fit the shapes, or whose length differs
//! from the header's, is refused.

mod write;

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

pub use super::file::write_whole;
use super::file::{self, StoredFile};
use super::{foreign, unpack};
use crate::error::{Error, Result};
pub use write::{Tensor, Values, serialized, write};

/// The longest header that is read, the limit of the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;

/// A safetensors file, its header in memory.
pub struct TensorFile {
    file: StoredFile,
    data: usize,
    header: Metadata,
}

impl TensorFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Where it cannot be read or is not a well-formed safetensors file; the message gives the reason.
    pub fn open(path: &Path) -> Result<TensorFile> {
        TensorFile::of(StoredFile::open(path)?)
    }

    /// Checks the bytes of a file, which messages call `path`.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<TensorFile> {
        TensorFile::of(StoredFile::of_bytes(path, bytes))
    }

    /// Checks a file that is open.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn of(file: StoredFile) -> Result<TensorFile> {
        let path = file.path().to_path_buf();
        let start = file.read(0..file.len().min(foreign::KNOWN_BY))?;
        let found = match start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
            None => Err(SafeTensorError::HeaderTooSmall),
            Some(length) if length > LONGEST_HEADER => Err(SafeTensorError::HeaderTooLarge),
            Some(length) => header(&file.read(0..file.len().min(length + 8))?, file.len()),
        };
        let (data, header) = found.map_err(|error| match foreign::kind_or_text(&start) {
            Some(kind) => Error::data(&path, format!("no safetensors file: it is {kind}")),
            None => Error::data(&path, explain(&error, file.len())),
        })?;
        Ok(TensorFile { file, data, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file's bytes.
    pub fn file(&self) -> &StoredFile {
        &self.file
    }

    /// The names of the tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The file's `__metadata__`.
    pub fn metadata(&self) -> HashMap<String, String> {
        self.header.metadata().clone().unwrap_or_default()
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// The type of a tensor's elements.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.info(name)?.dtype)
    }

    /// The byte range of a tensor in the file.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn range(&self, name: &str) -> Result<Range<usize>> {
        let (start, end) = self.info(name)?.data_offsets;
        Ok(self.data + start..self.data + end)
    }

    /// The bytes of a tensor.
    ///
    /// # Errors
    /// Where there is none of that name, or they cannot be read.
    pub fn stored(&self, name: &str) -> Result<Vec<u8>> {
        let range = self.range(name)?;
        self.file.read(range.start as u64..range.end as u64)
    }

    /// A tensor of f64, f32, f16, bf16 or integers, as f64.
    ///
    /// # Errors
    /// Where there is none of that name, or its type is none of those.
    pub fn f64(&self, name: &str) -> Result<Vec<f64>> {
        let dtype = self.dtype(name)?;
        to_f64(dtype, &self.stored(name)?)
            .ok_or_else(|| self.refuse(name, format!("elements of type {dtype:?} cannot be read as numbers")))
    }

    /// The elements of a tensor of i64 or u64, of which f64 has not all; none where its type is another.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn wide_integers(&self, name: &str) -> Result<Option<Vec<i128>>> {
        let bytes = &self.stored(name)?;
        Ok(match self.dtype(name)? {
            Dtype::I64 => Some(numbers(bytes, |b| i128::from(i64::from_le_bytes(b)))),
            Dtype::U64 => Some(numbers(bytes, |b| i128::from(u64::from_le_bytes(b)))),
            _ => None,
        })
    }

    /// A tensor of f64, f32, f16, bf16 or integers, as f32.
    ///
    /// # Errors
    /// As [`TensorFile::f64`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        match self.dtype(name)? {
            Dtype::F32 => {
                let range = self.range(name)?;
                self.file.f32(range.start as u64..range.end as u64)
            }
            _ => Ok(self.f64(name)?.into_iter().map(|v| v as f32).collect()),
        }
    }

    /// A tensor of whole numbers, as labels.
    ///
    /// # Errors
    /// Where there is none of that name, or an element is no whole number from 0 to 2³²−1; the message names it.
    pub fn labels(&self, name: &str) -> Result<Vec<u32>> {
        let values = self.f64(name)?;
        let label = |(i, &v): (usize, &f64)| match v >= 0.0 && v <= f64::from(u32::MAX) && v.fract() == 0.0 {
            true => Ok(v as u32),
            false => Err(Error::record(
                self.path(),
                format!("tensor `{name}`, element {i}"),
                format!("{v} is no label: a whole number from 0 was expected"),
            )),
        };
        values.iter().enumerate().map(label).collect()
    }

    /// A tensor of integers of any type, or of booleans, exactly.
    ///
    /// # Errors
    /// Where there is none of that name, its type is another, or an element is beyond i64; the message names it.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let dtype = self.dtype(name)?;
        let bytes = &self.stored(name)?;
        let values = match dtype {
            Dtype::I64 => numbers(bytes, i64::from_le_bytes),
            Dtype::I32 => numbers(bytes, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I16 => numbers(bytes, |b| i64::from(i16::from_le_bytes(b))),
            Dtype::I8 => numbers(bytes, |b| i64::from(i8::from_le_bytes(b))),
            Dtype::U32 => numbers(bytes, |b| i64::from(u32::from_le_bytes(b))),
            Dtype::U16 => numbers(bytes, |b| i64::from(u16::from_le_bytes(b))),
            Dtype::U8 | Dtype::BOOL => numbers(bytes, |b: [u8; 1]| i64::from(b[0])),
            Dtype::U64 => {
                let values = numbers(bytes, u64::from_le_bytes);
                let whole: Option<Vec<i64>> = values.iter().map(|&v| i64::try_from(v).ok()).collect();
                whole.ok_or_else(|| self.refuse(name, "has an element above 2^63 - 1"))?
            }
            other => {
                return Err(self
                    .refuse(name, format!("has elements of type {other:?}, where integers were expected")));
            }
        };
        Ok(values)
    }

    /// Whether a tensor holds floating-point numbers.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn is_float(&self, name: &str) -> Result<bool> {
        Ok(matches!(self.dtype(name)?, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| {
            let mut names = self.names();
            let more = names.len().saturating_sub(12);
            names.truncate(12);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.refuse(name, format!("is not in the file, which has {}{rest}", names.join(", ")))
        })
    }

    fn refuse(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::record(self.path(), format!("tensor `{name}`"), reason)
    }
}

/// Reads a whole file.
///
/// # Errors
/// Where it is no file, cannot be read, or is what a download left in its place: a page, a pointer.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = bytes_of(path)?;
    match foreign::stand_in(&bytes) {
        None => Ok(bytes),
        Some(kind) => Err(Error::data(path, format!("is {kind}"))),
    }
}

/// Reads a text that this program wrote: a report, a page.
///
/// # Errors
/// Where it is no file, cannot be read, or is not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes_of(path)?).map_err(|_| Error::data(path, "is not UTF-8"))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    let mut file = file::open(path)?;
    let len = file.metadata().map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(usize::MAX));
    let mut bytes = vec![];
    // A file with holes may say any length.
    bytes.try_reserve_exact(len).map_err(|e| Error::data(path, format!("has {len} bytes: {e}")))?;
    file.read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// Reads a file whole, decompressed where its name ends in `.gz` or its content begins as gzip's.
///
/// # Errors
/// Where it cannot be read, or its compressed bytes are damaged or become far more than their number tells (docs/FUZZING.md).
pub fn read_unzipped(path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    let named = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
    if !named && !bytes.starts_with(b"\x1f\x8b") {
        return Ok(bytes);
    }
    let damaged = |e: std::io::Error| Error::data(path, format!("cannot be decompressed: {e}"));
    unpack::whole(flate2::read::MultiGzDecoder::new(&bytes[..]), bytes.len()).map_err(damaged)
}

fn numbers<const N: usize, T>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|&element| from(element)).collect()
}

/// The elements of any type of numbers as f64; none where the type is not one.
pub(crate) fn to_f64(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    Some(match dtype {
        Dtype::F64 => numbers(bytes, f64::from_le_bytes),
        Dtype::F32 => numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F16 => numbers(bytes, |b| half::f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => numbers(bytes, |b| half::bf16::from_le_bytes(b).to_f64()),
        Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => numbers(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::I16 => numbers(bytes, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::I8 => numbers(bytes, |b| f64::from(i8::from_le_bytes(b))),
        Dtype::U64 => numbers(bytes, |b| u64::from_le_bytes(b) as f64),
        Dtype::U32 => numbers(bytes, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::U16 => numbers(bytes, |b| f64::from(u16::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => numbers(bytes, |b: [u8; 1]| f64::from(b[0])),
        _ => return None,
    })
}

/// The header at the beginning of a file of `len` bytes, and where the tensors begin.
fn header(head: &[u8], len: u64) -> std::result::Result<(usize, Metadata), SafeTensorError> {
    let (data, header) = match SafeTensors::read_metadata(head) {
        Ok((length, header)) => (length + 8, header),
        // The header is right, and its tensors are not in `head`.
        Err(SafeTensorError::MetadataIncompleteBuffer) => {
            let header = serde_json::from_slice(&head[8..]);
            (head.len(), header.map_err(SafeTensorError::InvalidHeaderDeserialization)?)
        }
        Err(error) => return Err(error),
    };
    match (data + header.data_len()) as u64 == len {
        true => Ok((data, header)),
        false => Err(SafeTensorError::MetadataIncompleteBuffer),
    }
}

fn explain(error: &SafeTensorError, len: u64) -> String {
    let reason = match error {
        SafeTensorError::InvalidHeader(e) => format!("its header is not UTF-8: {e}"),
        SafeTensorError::InvalidHeaderDeserialization(e) => {
            format!("its header is not the JSON it should be: {e}")
        }
        SafeTensorError::HeaderTooLarge => "its header is longer than 100 MB".into(),
        SafeTensorError::HeaderTooSmall => {
            format!("it has {len} bytes, fewer than a header's length takes")
        }
        SafeTensorError::InvalidHeaderLength => "it ends within its header (truncated?)".into(),
        SafeTensorError::InvalidOffset(name) => {
            format!("the offsets of tensor `{name}` overlap or leave a gap")
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's offsets do not fit its shape and type".into(),
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("it has {len} bytes, not what its header says (truncated, or something follows)")
        }
        SafeTensorError::ValidationOverflow => "a tensor's shape is too large to be one".into(),
        other => other.to_string(),
    };
    format!("no readable safetensors file: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<TensorFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path)
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let tensors = [
            Tensor { name: "x", shape: vec![2, 1], values: Values::F32(&[1.5, -2.0]) },
            Tensor { name: "y", shape: vec![2], values: Values::I64(&[3, 0]) },
        ];
        write(&path, &tensors, HashMap::from([("k".into(), "v".into())])).unwrap();
        let read = TensorFile::open(&path).unwrap();
        assert_eq!(read.f32("x").unwrap(), [1.5, -2.0]);
        assert_eq!(read.labels("y").unwrap(), [3, 0]);
        assert_eq!(read.shape("x").unwrap(), [2, 1]);
        assert_eq!(read.metadata()["k"], "v");
        assert!(read.labels("x").unwrap_err().to_string().contains("element 0"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(serialized(&path, &tensors, HashMap::from([("k".into(), "v".into())])).unwrap(), bytes);
        let views = tensors.iter().map(|tensor| (tensor.name, tensor));
        let by_the_library = safetensors::serialize(views, Some(HashMap::from([("k".into(), "v".into())])));
        assert_eq!(by_the_library.unwrap(), bytes);
    }

    #[test]
    fn malformed_files_are_refused_with_the_reason() {
        let refused = |bytes: &[u8], word: &str| {
            let Err(error) = open(bytes) else { panic!("{word}: accepted") };
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("t.safetensors"), "{text}");
        };
        assert!(open(&file(GOOD, &[0; 8])).is_ok());
        refused(&file(GOOD, &[0; 7]), "truncated");
        refused(&file(GOOD, &[0; 9]), "something follows");
        refused(&file(GOOD, &[0; 8])[..30], "within its header");
        refused(&[1, 2, 3], "3 bytes");
        refused(&file("{\"a\": [", &[0; 8]), "JSON");
        let mut latin = file(GOOD, &[0; 8]);
        latin[10] = 0xff;
        refused(&latin, "UTF-8");
        let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        refused(&file(overlapping, &[0; 12]), "overlap");
        let misfit = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
        refused(&file(misfit, &[0; 8]), "shape");
    }
}
