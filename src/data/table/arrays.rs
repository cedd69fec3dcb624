//! numpy's files: .npy, one array, and .npz, a zip file of them.

use std::io::Read;
use std::path::Path;

use safetensors::Dtype;

use super::super::tensors::read;
use super::super::unpack;
use super::columns::{Table, other_length};
use super::stored::Numbers;
use crate::error::{Error, Result};

/// Numbers `[n, p]`, row-major; or columns with names, of a structured array `[n]`.
struct Array {
    n: usize,
    p: usize,
    values: Numbers,
    fields: Vec<(String, Numbers)>,
}

impl Array {
    fn table(&self, path: &Path, target: Option<&Numbers>) -> Table {
        if self.fields.is_empty() {
            return Table::unnamed(path, self.n, self.p, &self.values, target);
        }
        let names = self.fields.iter().map(|(name, _)| name.clone()).collect();
        let columns = self.fields.iter().map(|(_, values)| values.column(self.n, 1, 0)).collect();
        let target = target.map(|target| target.column(self.n, 1, 0));
        Table { n: self.n, columns, target, ..Table::of(path, names) }
    }
}

/// One array, `[n, p]` or `[n]`.
pub(super) fn read_npy(path: &Path) -> Result<Table> {
    Ok(array(path, &read(path)?)?.table(path, None))
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
        return Ok(x.table(path, y.map(|y| &y.values)));
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
        arrays.into_iter().map(|(name, array)| (name, array.values.column(n, 1, 0))).unzip();
    Ok(Table { n, columns, ..Table::of(path, names) })
}

/// The files in a zip file, in the order of its directory: stored or deflated, not encrypted. Sizes of 2³² and more stand
/// in an extra field.
pub(in crate::data) fn members(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
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
    let (mut found, mut left) = (Vec::new(), unpack::most(bytes.len()));
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
        // Entries may share their bytes, so that it is the sum that is bounded.
        left = left.checked_sub(size).ok_or_else(|| {
            let reason = unpack::beyond(bytes.len());
            Error::data(path, format!("`{name}` is not read: {reason}"))
        })?;
        let content = start.saturating_add(30)
            + number(start.saturating_add(26), 2)?
            + number(start.saturating_add(28), 2)?;
        let content =
            content.checked_add(packed).and_then(|end| bytes.get(content..end)).ok_or_else(damaged)?;
        let content = match method {
            0 => content.to_vec(),
            8 => {
                let mut plain = Vec::new();
                let limit = size as u64 + 1; // no more than the directory states, which is bounded
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

/// A file of numpy's `save`: a magic number, the header's length, a Python dictionary, the elements.
pub(in crate::data) struct ArrayFile<'a> {
    shape: Vec<usize>,
    /// Whether the first index runs fastest.
    fortran: bool,
    /// The type of its elements, as in the header.
    descr: &'a str,
    elements: &'a [u8],
}

impl<'a> ArrayFile<'a> {
    /// Reads the header.
    pub fn of(path: &Path, bytes: &'a [u8]) -> Result<ArrayFile<'a>> {
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

        let missing = || refuse("its header lacks the type, the order or the shape");
        let fortran = entry(header, "fortran_order").ok_or_else(missing)?.starts_with("True");
        let shape =
            entry(header, "shape").and_then(|t| t.strip_prefix('(')?.split_once(')')).ok_or_else(missing)?.0;
        let shape = shape
            .split(',')
            .map(|length| length.trim().trim_end_matches('L')) // Python 2 writes 60L
            .filter(|length| !length.is_empty())
            .map(|length| length.parse::<usize>())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| refuse("its shape is no list of lengths"))?;
        let descr = entry(header, "descr").ok_or_else(missing)?;
        Ok(ArrayFile { shape, fortran, descr, elements })
    }

    /// The type, the shape and the little-endian, row-major elements of an array of one type.
    ///
    /// # Errors
    /// Where the elements are no numbers, or not as many as the shape has.
    pub fn plain(self, path: &Path) -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
        let ArrayFile { shape, fortran, descr, elements } = self;
        let name = quoted(descr).map_or(descr, |(name, _)| name);
        let element = Element::parse(name).zip(dtype(name));
        let (element, dtype) = element.ok_or_else(|| unreadable(path, name))?;
        let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side));
        if count.and_then(|count| count.checked_mul(element.width)) != Some(elements.len()) {
            let reason = format!("an array {shape:?} of `{name}` does not take {} bytes", elements.len());
            return Err(Error::data(path, reason));
        }
        let mut bytes = match fortran && !elements.is_empty() {
            true => row_major(elements, &shape, element.width),
            false => elements.to_vec(),
        };
        if element.big_endian {
            bytes.chunks_exact_mut(element.width).for_each(<[u8]>::reverse);
        }
        Ok((dtype, shape, bytes))
    }
}

/// Elements of this many bytes, of which the first index runs fastest, so that the last one does.
fn row_major(elements: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    // Element (i, j, ..) is at i + j n + ..
    let mut strides = vec![width; shape.len()];
    (1..shape.len()).for_each(|axis| strides[axis] = strides[axis - 1] * shape[axis - 1]);
    let (mut indices, mut from) = (vec![0; shape.len()], 0);
    let mut bytes = Vec::with_capacity(elements.len());
    while bytes.len() < elements.len() {
        bytes.extend_from_slice(&elements[from..from + width]);
        for axis in (0..shape.len()).rev() {
            (indices[axis], from) = (indices[axis] + 1, from + strides[axis]);
            if indices[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis];
            indices[axis] = 0;
        }
    }
    bytes
}

fn unreadable(path: &Path, dtype: &str) -> Error {
    let reason = format!(
        "elements of type `{dtype}` cannot be read as numbers; those of f2 to f8, i1 to i8, u1 to u8 and b1 are"
    );
    Error::data(path, reason)
}

/// A type of numpy in the words of safetensors.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name.trim_start_matches(['<', '>', '=', '|']) {
        "?" | "b1" => Dtype::BOOL,
        "u1" => Dtype::U8,
        "u2" => Dtype::U16,
        "u4" => Dtype::U32,
        "u8" => Dtype::U64,
        "i1" => Dtype::I8,
        "i2" => Dtype::I16,
        "i4" => Dtype::I32,
        "i8" => Dtype::I64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => return None,
    })
}

/// An array of one or two dimensions, or of named fields.
fn array(path: &Path, bytes: &[u8]) -> Result<Array> {
    let ArrayFile { shape, fortran, descr, elements } = ArrayFile::of(path, bytes)?;
    let missing =
        || Error::data(path, "no readable npy file: its header lacks the type, the order or the shape");
    let (n, p) = match shape[..] {
        [n, p] => (n, p),
        [n] => (n, 1),
        _ => return Err(Error::data(path, format!("expected one or two dimensions, found {}", shape.len()))),
    };
    let fields = fields(descr).ok_or_else(missing)?;
    let elements_of = |dtype: &str| Element::parse(dtype).ok_or_else(|| unreadable(path, dtype));
    let parsed = fields.iter().map(|(_, dtype)| elements_of(dtype)).collect::<Result<Vec<_>>>()?;
    let width: usize = parsed.iter().map(|element| element.width).sum();
    let dtype = fields.iter().map(|(_, dtype)| *dtype).collect::<Vec<_>>().join(", ");
    let expected = n.checked_mul(p).and_then(|count| count.checked_mul(width));
    if expected != Some(elements.len()) {
        let reason = format!("a {n} by {p} array of `{dtype}` does not take {} bytes", elements.len());
        return Err(Error::data(path, reason));
    }
    let mut columns = Vec::new();
    let mut offset = 0;
    for element in parsed {
        columns.push(element.read(elements, offset, width));
        offset += element.width;
    }
    match (columns.len(), &fields[0].0) {
        (1, None) => {
            let values = columns.remove(0);
            Ok(Array { n, p, values: if fortran { values.transposed(n, p) } else { values }, fields: vec![] })
        }
        _ if p != 1 => {
            Err(Error::data(path, format!("expected named fields in an array [n], found [{n}, {p}]")))
        }
        _ => {
            let names = fields.iter().map(|(name, _)| name.unwrap_or_default().to_string());
            let fields: Vec<_> = names.zip(columns).collect();
            Ok(Array { n, p: fields.len(), values: Numbers::Floats(vec![]), fields })
        }
    }
}

/// What follows a key of a Python dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let (_, rest) = quoted.iter().find_map(|key| header.split_once(key.as_str()))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// The types that a header describes: one without a name, or a list of names and types.
fn fields(descr: &str) -> Option<Vec<(Option<&str>, &str)>> {
    let Some(list) = descr.strip_prefix('[') else {
        return Some(vec![(None, quoted(descr)?.0)]);
    };
    let mut found = Vec::new();
    let mut rest = list.trim_start();
    while let Some(tuple) = rest.strip_prefix('(') {
        let (name, after) = quoted(tuple.trim_start())?;
        let (dtype, after) = quoted(after.trim_start().strip_prefix(',')?.trim_start())?;
        found.push((Some(name), dtype));
        rest = after.trim_start().strip_prefix(')')?.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    (rest.starts_with(']') && !found.is_empty()).then_some(found)
}

/// A text in quotes of either kind, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.split_once(quote))
}

/// A numpy type of real numbers.
#[derive(Clone, Copy)]
struct Element {
    kind: u8,
    width: usize, // bytes
    big_endian: bool,
}

impl Element {
    /// `<f8`, `>i2`, `|u1`, `=i4` or `i4` (the order of this machine), `?`; none where the type is no real number.
    fn parse(dtype: &str) -> Option<Element> {
        let plain = dtype.trim_start_matches(['<', '>', '=', '|']);
        let big_endian = dtype.starts_with('>') || cfg!(target_endian = "big") && !dtype.starts_with('<');
        let (kind, width) = match plain {
            "?" => (b'u', 1),
            "b1" | "u1" => (b'u', 1),
            "i1" | "i2" | "i4" | "i8" | "u2" | "u4" | "u8" | "f2" | "f4" | "f8" => {
                (plain.as_bytes()[0], usize::from(plain.as_bytes()[1] - b'0'))
            }
            _ => return None,
        };
        (dtype.len() <= plain.len() + 1).then_some(Element { kind, width, big_endian })
    }

    /// The elements at `offset` of each record of `stride` bytes.
    fn read(self, bytes: &[u8], offset: usize, stride: usize) -> Numbers {
        /// Each element's bytes, the least first.
        fn each<const N: usize>(
            bytes: &[u8],
            offset: usize,
            stride: usize,
            big_endian: bool,
        ) -> impl Iterator<Item = [u8; N]> {
            bytes.chunks_exact(stride).map(move |record| {
                std::array::from_fn(|at| record[offset + if big_endian { N - 1 - at } else { at }])
            })
        }
        macro_rules! floats {
            ($type:ty) => {
                Numbers::Floats(
                    each(bytes, offset, stride, self.big_endian)
                        .map(|b| f64::from(<$type>::from_le_bytes(b)))
                        .collect(),
                )
            };
        }
        macro_rules! integers {
            ($type:ty) => {
                Numbers::of_integers(
                    each(bytes, offset, stride, self.big_endian)
                        .map(|b| i128::from(<$type>::from_le_bytes(b)))
                        .collect(),
                )
            };
        }
        match (self.kind, self.width) {
            (b'f', 2) => floats!(half::f16),
            (b'f', 4) => floats!(f32),
            (b'f', _) => floats!(f64),
            (b'i', 1) => floats!(i8),
            (b'i', 2) => floats!(i16),
            (b'i', 4) => floats!(i32),
            (b'i', _) => integers!(i64),
            (_, 1) => floats!(u8),
            (_, 2) => floats!(u16),
            (_, 4) => floats!(u32),
            (_, _) => integers!(u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stored::Stored;
    use super::*;

    fn npy(version: u8, header: &str, elements: &[u8]) -> Vec<u8> {
        let len = match version {
            1 => (header.len() as u16).to_le_bytes().to_vec(),
            _ => (header.len() as u32).to_le_bytes().to_vec(),
        };
        [b"\x93NUMPY", &[version, 0][..], &len, header.as_bytes(), elements].concat()
    }

    fn columns(bytes: &[u8]) -> Result<Vec<Vec<f64>>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.npy");
        std::fs::write(&path, bytes).unwrap();
        let table = read_npy(&path)?;
        let all = |column: &Stored| column.kept(&vec![true; table.n]).ok().unwrap_or_default();
        Ok(table.columns.iter().map(all).collect())
    }

    #[test]
    fn every_order_of_bytes_and_every_type_is_read() {
        macro_rules! both {
            ($name:expr, $type:ty, $values:expr) => {{
                let values: [$type; 2] = $values;
                let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
                let expected: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                for (order, elements) in [("<", &little), (">", &big), ("=", &little), ("", &little)] {
                    let header =
                        format!("{{'descr': '{order}{}', 'fortran_order': False, 'shape': (2,), }}\n", $name);
                    assert_eq!(
                        columns(&npy(1, &header, elements)).unwrap(),
                        std::slice::from_ref(&expected),
                        "{header}"
                    );
                }
            }};
        }
        both!("f2", half::f16, [1.5, -2.5].map(half::f16::from_f64));
        both!("f4", f32, [1.5, -2.5]);
        both!("f8", f64, [1.5, -2.5]);
        both!("i1", i8, [1, -128]);
        both!("i2", i16, [300, -2]);
        both!("i4", i32, [70_000, -2]);
        both!("u1", u8, [1, 255]);
        both!("u2", u16, [300, 65_535]);
        both!("u4", u32, [70_000, u32::MAX]);
        for (name, elements) in [(">i8", (1i64 << 40).to_be_bytes()), ("<u8", (1u64 << 40).to_le_bytes())] {
            let header = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (1,), }}");
            assert_eq!(columns(&npy(1, &header, &elements)).unwrap(), [[(1u64 << 40) as f64]]);
        }
        let header = "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(columns(&npy(1, header, &[1, 0])).unwrap(), [[1.0, 0.0]]);
        for name in ["<c8", "<U3", "<M8[ns]", "|O", "<f16", "<<f4"] {
            let header = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (1,), }}");
            let error = columns(&npy(1, &header, &[0; 8])).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn headers_of_every_form_are_read() {
        let elements: Vec<u8> = [1i16, 2, 3, 4, 5, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
        for (version, header) in [
            (1, "{'descr': '>i2', 'fortran_order': False, 'shape': (3, 2), }      \n"),
            (2, "{'shape':(3,2),'fortran_order':False,'descr':'>i2'}"),
            (3, "{\"shape\": (3L, 2L), \"descr\": \">i2\", \"fortran_order\": False}\n"),
        ] {
            assert_eq!(
                columns(&npy(version, header, &elements)).unwrap(),
                [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
            );
        }
        let turned = "{'descr': '>i2', 'fortran_order': True, 'shape': (3, 2), }";
        assert_eq!(columns(&npy(1, turned, &elements)).unwrap(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let fields = "{'descr': [('x', '>i2'), ('y', '<u4')], 'fortran_order': False, 'shape': (2,), }";
        let records = [&elements[..2], &[7, 0, 0, 0], &elements[2..4], &[8, 0, 0, 0]].concat();
        assert_eq!(columns(&npy(1, fields, &records)).unwrap(), [[1.0, 2.0], [7.0, 8.0]]);
    }

    #[test]
    fn integers_beyond_2_to_the_53_stay_different() {
        let first = u64::MAX - 5;
        let elements: Vec<u8> = [first + 3, first, first + 1].iter().flat_map(|v| v.to_be_bytes()).collect();
        let header = "{'descr': '>u8', 'fortran_order': False, 'shape': (3,), }";
        assert_eq!(columns(&npy(1, header, &elements)).unwrap(), [[3.0, 0.0, 1.0]]);
    }
}
