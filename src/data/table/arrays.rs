//! numpy's files: .npy, one array, and .npz, a zip file of them.

use std::io::Read;
use std::path::Path;

use super::super::tensors::read;
use super::{Stored, Table, other_length};
use crate::{Error, Result};

/// Numbers `[n, p]`, row-major.
struct Array {
    n: usize,
    p: usize,
    values: Vec<f64>,
}

/// One array, `[n, p]` or `[n]`.
pub(super) fn read_npy(path: &Path) -> Result<Table> {
    let found = array(path, &read(path)?)?;
    Ok(Table::unnamed(path, found.n, found.p, &found.values, None))
}

/// `X` and perhaps `Y`; or a single array; or arrays of one dimension, which are columns of their names.
pub(super) fn read_npz(path: &Path) -> Result<Table> {
    let bytes = read(path)?;
    let mut arrays = Vec::new();
    for (name, content) in members(path, &bytes)? {
        if let Some(name) = name.strip_suffix(".npy") {
            let found = array(path, &content).map_err(|e| match e {
                Error::Data { reason, .. } => Error::record(path, format!("array `{name}`"), reason),
                other => other,
            })?;
            arrays.push((name.to_string(), found));
        }
    }
    let of = |wanted: &str| arrays.iter().find(|(name, _)| name == wanted).map(|(_, array)| array);
    let single = if arrays.len() == 1 { arrays.first().map(|(_, array)| array) } else { None };
    if let Some(x) = of("X").or(single) {
        let y = of("Y").filter(|_| arrays.len() > 1);
        if let Some(y) = y.filter(|y| (y.n, y.p) != (x.n, 1)) {
            return Err(other_length(path, x.n, &[y.n, y.p]));
        }
        return Ok(Table::unnamed(path, x.n, x.p, &x.values, y.map(|y| y.values.clone())));
    }
    let n = arrays.first().map_or(0, |(_, array)| array.n);
    if let Some((name, other)) = arrays.iter().find(|(_, array)| (array.n, array.p) != (n, 1)) {
        return Err(Error::record(
            path,
            format!("array `{name}`"),
            format!("expected `X`, or arrays of shape [{n}], found [{}, {}]", other.n, other.p),
        ));
    }
    let (names, columns) =
        arrays.into_iter().map(|(name, array)| (name, Stored::numbers(array.values))).unzip();
    Ok(Table { path: path.into(), names, n, columns, target: None })
}

/// The files in a zip file, in the order of its directory: stored or deflated, not encrypted. Sizes of 2³² and more stand
/// in an extra field.
fn members(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let damaged = || Error::data(path, "no readable npz file: its zip directory is damaged");
    let number = |at: usize, width: usize| -> Result<usize> {
        let digits = at.checked_add(width).and_then(|end| bytes.get(at..end)).ok_or_else(damaged)?;
        let value = digits.iter().rev().fold(0u64, |value, &digit| value << 8 | u64::from(digit));
        usize::try_from(value).map_err(|_| damaged())
    };
    let end = bytes.windows(4).rposition(|four| four == b"PK\x05\x06").ok_or_else(damaged)?;
    let (mut count, mut at) = (number(end + 10, 2)?, number(end + 16, 4)?);
    if (count == 0xffff || at == 0xffff_ffff)
        && end >= 20
        && bytes.get(end - 20..end - 16) == Some(b"PK\x06\x07")
    {
        let end = number(end - 12, 8)?;
        (count, at) = (number(end.saturating_add(32), 8)?, number(end.saturating_add(48), 8)?);
    }
    let mut found = Vec::new();
    for _ in 0..count {
        if at
            .checked_add(46)
            .and_then(|end| bytes.get(at..end))
            .is_none_or(|entry| !entry.starts_with(b"PK\x01\x02"))
        {
            return Err(damaged());
        }
        let (method, name_len, extra_len) = (number(at + 10, 2)?, number(at + 28, 2)?, number(at + 30, 2)?);
        let name = bytes.get(at + 46..at + 46 + name_len).ok_or_else(damaged)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let mut wide = [number(at + 24, 4)?, number(at + 20, 4)?, number(at + 42, 4)?]; // size, packed size, start
        let (mut extra, extra_end) = (at + 46 + name_len, at + 46 + name_len + extra_len);
        while extra + 4 <= extra_end {
            let (kind, len) = (number(extra, 2)?, number(extra + 2, 2)?);
            if kind == 1 {
                let mut from = extra + 4;
                for value in wide.iter_mut().filter(|value| **value == 0xffff_ffff) {
                    *value = number(from, 8)?;
                    from += 8;
                }
            }
            extra += 4 + len;
        }
        let [size, packed, start] = wide;
        let content = start.saturating_add(30)
            + number(start.saturating_add(26), 2)?
            + number(start.saturating_add(28), 2)?;
        let content =
            content.checked_add(packed).and_then(|end| bytes.get(content..end)).ok_or_else(damaged)?;
        let content = match method {
            0 => content.to_vec(),
            8 => {
                let mut plain = Vec::new();
                let limit = size as u64 + 1; // no more than the directory states
                let inflated = flate2::read::DeflateDecoder::new(content).take(limit).read_to_end(&mut plain);
                inflated.map_err(|e| Error::data(path, format!("`{name}` cannot be decompressed: {e}")))?;
                plain
            }
            other => {
                return Err(Error::data(
                    path,
                    format!("`{name}` is packed by method {other}, not stored or deflated"),
                ));
            }
        };
        if content.len() != size {
            return Err(damaged());
        }
        found.push((name, content));
        at += 46 + name_len + extra_len + number(at + 32, 2)?;
    }
    Ok(found)
}

/// Reads the format of numpy's `save`: a magic number, the header's length, a Python dictionary, the elements.
fn array(path: &Path, bytes: &[u8]) -> Result<Array> {
    let refuse = |reason: &str| Error::data(path, format!("no readable npy file: {reason}"));
    let long = match bytes.get(..8) {
        Some([0x93, b'N', b'U', b'M', b'P', b'Y', version @ 1..=3, _]) => *version > 1,
        _ => return Err(refuse("it does not begin as one")),
    };
    let (header_at, header_len) = match (long, bytes.get(8..10), bytes.get(8..12)) {
        (false, Some(&[a, b]), _) => (10, usize::from(u16::from_le_bytes([a, b]))),
        (true, _, Some(&[a, b, c, d])) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(refuse("its header is cut off")),
    };
    let header = bytes[header_at..].get(..header_len).ok_or_else(|| refuse("its header is cut off"))?;
    let header = std::str::from_utf8(header).map_err(|_| refuse("its header is not UTF-8"))?;
    let elements = &bytes[header_at + header_len..];

    let entry = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let missing = || refuse("its header lacks the type, the order or the shape");
    let dtype = entry("descr").and_then(|t| t.strip_prefix('\'')?.split_once('\'')).ok_or_else(missing)?.0;
    let fortran = entry("fortran_order").ok_or_else(missing)?.starts_with("True");
    let shape = entry("shape").and_then(|t| t.strip_prefix('(')?.split_once(')')).ok_or_else(missing)?.0;
    let shape = shape
        .split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty())
        .map(|length| length.parse::<usize>())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|_| refuse("its shape is no list of lengths"))?;
    let (n, p) = match shape[..] {
        [n, p] => (n, p),
        [n] => (n, 1),
        _ => return Err(Error::data(path, format!("expected one or two dimensions, found {}", shape.len()))),
    };
    let (width, decode) = decoder(dtype)
        .ok_or_else(|| Error::data(path, format!("elements of type `{dtype}` cannot be read as numbers")))?;
    let expected = n.checked_mul(p).and_then(|count| count.checked_mul(width));
    if expected != Some(elements.len()) {
        return Err(Error::data(
            path,
            format!("a {n} by {p} array of `{dtype}` does not take {} bytes", elements.len()),
        ));
    }
    let values: Vec<f64> = elements.chunks_exact(width).map(decode).collect();
    if !fortran {
        return Ok(Array { n, p, values });
    }
    let values = (0..n * p).map(|at| values[at % p * n + at / p]).collect();
    Ok(Array { n, p, values })
}

/// Reads one element from its bytes.
type Decoder = fn(&[u8]) -> f64;

/// The size in bytes of an element of a numpy type, and its decoder; none where the type is not a real number.
fn decoder(dtype: &str) -> Option<(usize, Decoder)> {
    /// The bytes as an array; `decode` gets exactly as many as it asked for.
    fn exact<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes[at])
    }
    macro_rules! reader {
        ($type:ty, $from:ident, $cast:expr) => {
            (size_of::<$type>(), |bytes| $cast(<$type>::$from(exact(bytes))))
        };
    }
    Some(match dtype {
        "<f8" => reader!(f64, from_le_bytes, f64::from),
        ">f8" => reader!(f64, from_be_bytes, f64::from),
        "<f4" => reader!(f32, from_le_bytes, f64::from),
        ">f4" => reader!(f32, from_be_bytes, f64::from),
        "<f2" => reader!(half::f16, from_le_bytes, f64::from),
        "<i8" => reader!(i64, from_le_bytes, |v| v as f64),
        ">i8" => reader!(i64, from_be_bytes, |v| v as f64),
        "<u8" => reader!(u64, from_le_bytes, |v| v as f64),
        "<i4" => reader!(i32, from_le_bytes, f64::from),
        ">i4" => reader!(i32, from_be_bytes, f64::from),
        "<u4" => reader!(u32, from_le_bytes, f64::from),
        "<i2" => reader!(i16, from_le_bytes, f64::from),
        "<u2" => reader!(u16, from_le_bytes, f64::from),
        "|i1" => reader!(i8, from_le_bytes, f64::from),
        "|u1" | "|b1" => reader!(u8, from_le_bytes, f64::from),
        _ => return None,
    })
}
