//! Tables of numbers for the dependence measure: .csv, .npy and .safetensors files as named columns of f64.
//!
//! A csv file has a header if one cell of its first line is no number. What is wrong in a column is reported when the
//! column is used, so that a table may also have columns of text.

use std::path::{Path, PathBuf};

use super::tensors::{TensorFile, read};
use crate::{Error, Result};

/// Columns of a file, and of a .safetensors file its `Y`.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    names: Vec<String>,
    n: usize,
    values: Vec<f64>, // [p, n]
    target: Option<Vec<f64>>,
    unusable: Vec<Option<Unusable>>, // by column
}

/// The first cell of a column that is no finite number.
#[derive(Clone, Debug)]
struct Unusable {
    place: String,
    cell: String,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The column of this number, from 0.
    Number(usize),
    /// `Y` of a .safetensors file.
    Target,
}

impl Table {
    /// Reads a table: .csv; .npy of one or two dimensions; .safetensors with `X` `[n, p]` and, if it has one, `Y` `[n]`.
    /// Values are f64, f32 or whole numbers.
    ///
    /// # Errors
    /// Where the file cannot be read, is none of these, is malformed (rows of different length, bytes missing or left
    /// over), or has no rows.
    pub fn read(path: &Path) -> Result<Table> {
        let table = match path.extension().and_then(|e| e.to_str()) {
            Some("csv") => read_csv(path),
            Some("npy") => read_npy(path),
            Some("safetensors") => read_tensors(path),
            _ => {
                read(path)?; // a directory or a missing file is named as such
                Err(Error::data(path, "expected a .csv, .npy or .safetensors file"))
            }
        }?;
        match (table.n, table.names.len()) {
            (0, _) => Err(Error::data(path, "has no rows")),
            (_, 0) => Err(Error::data(path, "has no columns")),
            _ => Ok(table),
        }
    }

    /// The number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The names of the columns; their numbers where the file has none.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there is a `Y` beside the columns.
    pub fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// The columns that a list such as `age,3,7-9` names: names, numbers from 0, and ranges with both ends included. A
    /// name is looked for first; `Y` is the target where no column is called so.
    ///
    /// # Errors
    /// Where there is no such column, or two of that name.
    pub fn find(&self, list: &str) -> Result<Vec<Column>> {
        if let Some(column) = self.named(list.trim())? {
            return Ok(vec![column]);
        }
        let mut found = Vec::new();
        for part in list.split(',').map(str::trim) {
            if let Some(column) = self.named(part)? {
                found.push(column);
            } else if let Ok(number) = part.parse::<usize>() {
                found.push(self.numbered(number, part)?);
            } else if let Some((Ok(first), Ok(last))) =
                part.split_once('-').map(|(a, b)| (a.trim().parse::<usize>(), b.trim().parse::<usize>()))
            {
                if first > last {
                    return Err(Error::config(format!("the range `{part}` is empty")));
                }
                self.numbered(last, part)?;
                found.extend((first..=last).map(Column::Number));
            } else {
                return Err(Error::config(format!(
                    "{} has no column `{part}`; it has {}",
                    self.path.display(),
                    self.listing()
                )));
            }
        }
        Ok(found)
    }

    /// The one column that `text` names.
    ///
    /// # Errors
    /// As [`Table::find`], and where it names several.
    pub fn find_one(&self, text: &str) -> Result<Column> {
        match self.find(text)?[..] {
            [column] => Ok(column),
            _ => Err(Error::config(format!("`{text}` names several columns where one is needed"))),
        }
    }

    /// The name of a column.
    pub fn name(&self, column: Column) -> &str {
        match column {
            Column::Number(j) => self.names.get(j).map_or("?", String::as_str),
            Column::Target => "Y",
        }
    }

    /// The values of a column, `[n]`.
    ///
    /// # Errors
    /// Where one of them is no finite number; it is named by line and column.
    pub fn column(&self, column: Column) -> Result<&[f64]> {
        let j = match column {
            Column::Number(j) => j,
            Column::Target => {
                let target = self.target.as_deref();
                return target.ok_or_else(|| Error::data(&self.path, "has no tensor `Y` `[n]`"));
            }
        };
        match &self.unusable[j] {
            Some(Unusable { place, cell }) => Err(Error::record(
                &self.path,
                format!("{place}, column `{}`", self.names[j]),
                format!("`{cell}` is not a finite number"),
            )),
            None => Ok(&self.values[j * self.n..(j + 1) * self.n]),
        }
    }

    fn named(&self, name: &str) -> Result<Option<Column>> {
        let mut found = self.names.iter().enumerate().filter(|(_, own)| *own == name);
        match (found.next(), found.next()) {
            (Some((a, _)), Some((b, _))) => {
                Err(Error::config(format!("columns {a} and {b} are both called `{name}`; use a number")))
            }
            (Some((j, _)), None) => Ok(Some(Column::Number(j))),
            (None, _) => Ok((name == "Y" && self.has_target()).then_some(Column::Target)),
        }
    }

    fn numbered(&self, number: usize, part: &str) -> Result<Column> {
        if number < self.names.len() {
            return Ok(Column::Number(number));
        }
        Err(Error::config(format!(
            "{} has no column `{part}`: its columns are 0 to {}",
            self.path.display(),
            self.names.len() - 1
        )))
    }

    fn listing(&self) -> String {
        const SHOWN: usize = 12;
        let more = self.names.len().saturating_sub(SHOWN);
        let shown = self.names[..self.names.len() - more].join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }

    /// A table of `values` `[n, p]` without names; the place of a bad one is its row.
    fn unnamed(path: &Path, n: usize, p: usize, values: &[f64], target: Option<Vec<f64>>) -> Table {
        let mut columns = Vec::with_capacity(n * p);
        (0..p).for_each(|j| columns.extend((0..n).map(|i| values[i * p + j])));
        let bad = |j: usize| {
            let column: &[f64] = &columns[j * n..(j + 1) * n];
            let at = column.iter().position(|x| !x.is_finite())?;
            Some(Unusable { place: format!("row {at}"), cell: column[at].to_string() })
        };
        let unusable = (0..p).map(bad).collect();
        let names = (0..p).map(|j| j.to_string()).collect();
        Table { path: path.into(), names, n, values: columns, target, unusable }
    }
}

fn read_csv(path: &Path) -> Result<Table> {
    let bytes = read(path)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut names: Option<Vec<String>> = None;
    let mut columns: Vec<Vec<f64>> = Vec::new();
    let mut unusable: Vec<Option<Unusable>> = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let line = format!("line {}", record.position().map_or(0, csv::Position::line));
        let cells = record
            .iter()
            .map(|cell| std::str::from_utf8(cell).map(str::trim))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Error::record(path, &*line, "is not UTF-8"))?;
        if names.is_none() {
            columns = vec![Vec::new(); cells.len()];
            unusable = vec![None; cells.len()];
            if cells.iter().any(|cell| cell.parse::<f64>().is_err()) {
                names = Some(cells.iter().map(|cell| cell.to_string()).collect());
                continue;
            }
            names = Some((0..cells.len()).map(|j| j.to_string()).collect());
        }
        if cells.len() != columns.len() {
            return Err(Error::record(
                path,
                line,
                format!("{} cells, where the first line has {}", cells.len(), columns.len()),
            ));
        }
        for ((cell, column), unusable) in cells.iter().zip(&mut columns).zip(&mut unusable) {
            let value = cell.parse().unwrap_or(f64::NAN);
            if !value.is_finite() && unusable.is_none() {
                *unusable = Some(Unusable { place: line.clone(), cell: cell.to_string() });
            }
            column.push(value);
        }
    }
    let n = columns.first().map_or(0, Vec::len);
    Ok(Table {
        path: path.into(),
        names: names.unwrap_or_default(),
        n,
        values: columns.concat(),
        target: None,
        unusable,
    })
}

fn read_tensors(path: &Path) -> Result<Table> {
    let file = TensorFile::open(path)?;
    let (n, p) = match file.shape("X")? {
        &[n, p] => (n, p),
        &[n] => (n, 1),
        other => {
            return Err(Error::record(path, "tensor `X`", format!("expected shape [n, p], found {other:?}")));
        }
    };
    let mut target = None;
    if file.has("Y") {
        match file.shape("Y")? {
            &[m] | &[m, 1] if m == n => {}
            other => {
                return Err(Error::record(
                    path,
                    "tensor `Y`",
                    format!("expected shape [{n}], found {other:?}"),
                ));
            }
        }
        let y = file.f64("Y")?;
        if let Some(i) = y.iter().position(|y| !y.is_finite()) {
            return Err(Error::record(
                path,
                format!("tensor `Y`, row {i}"),
                format!("`{}` is not a finite number", y[i]),
            ));
        }
        target = Some(y);
    }
    Ok(Table::unnamed(path, n, p, &file.f64("X")?, target))
}

/// The format of numpy's `save`: a magic number, the header's length, a Python dictionary, the elements.
fn read_npy(path: &Path) -> Result<Table> {
    let bytes = read(path)?;
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
        return Ok(Table::unnamed(path, n, p, &values, None));
    }
    let rows: Vec<f64> = (0..n * p).map(|at| values[at % p * n + at / p]).collect();
    Ok(Table::unnamed(path, n, p, &rows, None))
}

/// Reads one element from its bytes.
type Decoder = fn(&[u8]) -> f64;

/// The bytes of one element of a numpy type, and how it is read; none where it is no real number.
fn decoder(dtype: &str) -> Option<(usize, Decoder)> {
    /// The bytes as an array; `decode` gets exactly as many as it asked for.
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes[at])
    }
    macro_rules! reader {
        ($type:ty, $from:ident, $cast:expr) => {
            (size_of::<$type>(), |bytes| $cast(<$type>::$from(array(bytes))))
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
