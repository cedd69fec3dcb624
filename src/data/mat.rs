//! SVHN's files, in version 5 of MATLAB's format: pictures `X` `[h, w, 3, n]` of bytes, the first axis the fastest, and
//! labels `y` of 1 to 10, of which 10 is the digit 0, as torchvision reads them.
//!
//! A file is a header of 128 bytes and elements: type, number of bytes, content, padded to 8 bytes. A compressed element
//! (zlib) has another one. An array's element has four: flags, axes, name and values.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::pixels::{Numbers, Stored};
use super::tensors::read as read_whole;
use super::{Labels, Names, unpack};
use crate::error::{Error, Result};
use crate::ops::Shape;

const HEADER: usize = 128;
/// Types of elements.
const U8: u32 = 2;
const ARRAY: u32 = 14;
const COMPRESSED: u32 = 15;

/// What is wrong, in words.
type Fault = String;
/// What was parsed.
type Parsed<T> = std::result::Result<T, Fault>;

/// The content of an element.
struct Element<'a> {
    kind: u32,
    content: &'a [u8],
}

/// An array of numbers.
struct Array {
    name: String,
    shape: Vec<usize>,
    /// The type of the values as they are stored.
    kind: u32,
    values: Vec<u8>,
}

/// Reads pictures and labels.
///
/// # Errors
/// Where the file is of another version, is cut off, or has other arrays or labels.
pub(super) fn read(path: &Path) -> Result<(Stored, Names, Vec<String>)> {
    let refuse = |reason: Fault| Error::data(path, reason);
    let bytes = read_whole(path)?;
    let little = byte_order(&bytes).map_err(refuse)?;
    let (mut x, mut y) = (None, None);
    let mut rest = &bytes[HEADER..];
    while !rest.is_empty() && (x.is_none() || y.is_none()) {
        let array = match next(&mut rest, little).map_err(refuse)? {
            Element { kind: ARRAY, content } => array(content, little),
            Element { kind: COMPRESSED, content } => {
                unpacked(content, little).and_then(|content| array(&content, little))
            }
            _ => continue,
        };
        match array.map_err(refuse)? {
            Some(array) if array.name == "X" => x = Some(array),
            Some(array) if array.name == "y" => y = Some(array),
            _ => {}
        }
    }
    let (Some(x), Some(y)) = (x, y) else {
        let reason = "has no arrays `X` and `y` of numbers, as SVHN's files have; scipy.io.loadmat reads others, and \
                      numpy.savez saves them as .npz with `x` [n, h, w, c] and `y` [n]";
        return Err(refuse(reason.into()));
    };
    let &[h, w, c @ (1 | 3), n] = &x.shape[..] else {
        let reason = format!("has `X` of {:?}, where [height, width, 3, pictures] was expected", x.shape);
        return Err(refuse(reason));
    };
    if x.kind != U8 {
        return Err(refuse(
            "has `X` of other numbers than bytes (uint8), which pixels were expected to be".into(),
        ));
    }
    let labels = classes(path, &y, little)?;
    if labels.len() != n || y.shape.iter().all(|&axis| axis != n) {
        return Err(refuse(format!("has {n} pictures and {} labels", labels.len())));
    }
    let mut pixels = vec![0; x.values.len()];
    if h * w > 0 {
        for (plane, columns) in pixels.chunks_exact_mut(h * w).zip(x.values.chunks_exact(h * w)) {
            plane.iter_mut().enumerate().for_each(|(at, pixel)| *pixel = columns[at % w * h + at / w]);
        }
    }
    let stored =
        Stored { shape: Shape::new(h, w, c), x: Numbers::Pixels(pixels), y: labels, channels_last: false };
    Ok((stored, Names::default(), vec![]))
}

/// Labels as classes: 10 is 0, where no label is 0 already.
fn classes(path: &Path, y: &Array, little: bool) -> Result<Labels> {
    let words = numbers(y, little);
    let most = if words.contains(&0.0) { 9.0 } else { 10.0 };
    let class = |(i, &word): (usize, &f64)| match word.fract() == 0.0 && (0.0..=most).contains(&word) {
        true => Ok(word as u32 % 10),
        false => {
            let reason =
                format!("is {word}, where SVHN's 1 to 10 (10 for the digit 0), or 0 to 9, was expected");
            Err(Error::record(path, format!("label {i}"), reason))
        }
    };
    words.iter().enumerate().map(class).collect::<Result<Vec<u32>>>().map(Labels::from)
}

/// Whether numbers are little endian, of a file of version 5.
fn byte_order(bytes: &[u8]) -> Parsed<bool> {
    if bytes.starts_with(b"MATLAB 7.3") || bytes.starts_with(b"\x89HDF") {
        return Err("is a MATLAB file of version 7.3 (HDF5); MATLAB's `save(.., '-v7')` writes the version that is read".into());
    }
    match bytes.get(124..HEADER) {
        Some([0, 1, b'I', b'M']) => Ok(true),
        Some([1, 0, b'M', b'I']) => Ok(false),
        _ => Err("is no MATLAB file of version 5, as SVHN's are (cut off, or of version 4?)".into()),
    }
}

fn word(bytes: &[u8], little: bool) -> Option<u32> {
    let bytes = bytes.first_chunk::<4>()?;
    Some(if little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) })
}

/// Takes an element from the front.
fn next<'a>(rest: &mut &'a [u8], little: bool) -> Parsed<Element<'a>> {
    let cut = || Fault::from("ends within an array (truncated?)");
    let first = word(rest, little).ok_or_else(cut)?;
    // Up to four bytes are kept in the tag itself, with their number in its upper half.
    let (kind, len, start, end) = match first >> 16 {
        0 => {
            let len = word(rest.get(4..).unwrap_or_default(), little).ok_or_else(cut)? as usize;
            let padded = if first == COMPRESSED { len } else { len.next_multiple_of(8) };
            (first, len, 8, 8 + padded)
        }
        len => (first & 0xffff, len as usize, 4, 8),
    };
    let content = rest.get(start..start + len).filter(|_| start + len <= end).ok_or_else(cut)?;
    *rest = rest.get(end..).unwrap_or_default(); // the last one may lack its padding
    Ok(Element { kind, content })
}

/// The content of the array in a compressed element.
fn unpacked(content: &[u8], little: bool) -> Parsed<Vec<u8>> {
    let damaged = |e: std::io::Error| format!("has an array that cannot be decompressed: {e}");
    let mut decoder = ZlibDecoder::new(content);
    let mut tag = [0; 8];
    decoder.read_exact(&mut tag).map_err(damaged)?;
    let len = word(&tag[4..], little).unwrap_or(0);
    if len as usize > unpack::most(content.len()) {
        return Err(format!("has an array that is not read: {}", unpack::beyond(content.len())));
    }
    let mut bytes = vec![];
    decoder.take(len.into()).read_to_end(&mut bytes).map_err(damaged)?;
    match bytes.len() == len as usize && word(&tag, little) == Some(ARRAY) {
        true => Ok(bytes),
        false => Err(format!("has an array of {} bytes, where its tag says {len}", bytes.len())),
    }
}

/// An array of real numbers; none of other kinds, such as cells and text.
fn array(mut rest: &[u8], little: bool) -> Parsed<Option<Array>> {
    let flags = next(&mut rest, little)?;
    let class = word(flags.content, little).ok_or("has an array without its class")?;
    let axes = next(&mut rest, little)?.content.chunks_exact(4);
    let shape: Vec<usize> = axes.filter_map(|axis| Some(word(axis, little)? as usize)).collect();
    let name = String::from_utf8_lossy(next(&mut rest, little)?.content).into_owned();
    const COMPLEX: u32 = 1 << 11;
    if !(6..=15).contains(&(class & 0xff)) || class & COMPLEX != 0 {
        return Ok(None);
    }
    let Element { kind, content } = next(&mut rest, little)?;
    let size = size(kind).ok_or_else(|| format!("has `{name}` of the unknown type {kind}"))?;
    let count = shape.iter().try_fold(size, |count, &axis| count.checked_mul(axis));
    match count == Some(content.len()) {
        true => Ok(Some(Array { name, shape, kind, values: content.to_vec() })),
        false => Err(format!("has `{name}` of {shape:?} in {} bytes", content.len())),
    }
}

/// The bytes of a number of a type.
fn size(kind: u32) -> Option<usize> {
    match kind {
        1 | 2 => Some(1),
        3 | 4 => Some(2),
        5..=7 => Some(4),
        9 | 12 | 13 => Some(8),
        _ => None,
    }
}

/// The values of an array; those that an f64 does not hold are no labels anyway.
fn numbers(array: &Array, little: bool) -> Vec<f64> {
    let size = size(array.kind).unwrap_or(1);
    let number = |bytes: &[u8]| {
        let mut word = [0; 8];
        match little {
            true => word[..size].copy_from_slice(bytes),
            false => word[..size].iter_mut().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from),
        }
        let unsigned = u64::from_le_bytes(word);
        let unused = 64 - 8 * size as u32;
        match array.kind {
            7 => f64::from(f32::from_bits(unsigned as u32)),
            9 => f64::from_bits(unsigned),
            1 | 3 | 5 | 12 => ((unsigned << unused) as i64 >> unused) as f64,
            _ => unsigned as f64,
        }
    };
    array.values.chunks_exact(size).map(number).collect()
}
