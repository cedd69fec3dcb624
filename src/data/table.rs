//! Tables of numbers for the dependence measure: .csv, .tsv (either also as .gz), .arff, .npy, .npz, .safetensors and, by
//! the feature `parquet`, .parquet files as named columns of f64.
//!
//! A csv file has a header if a cell of its first line is neither a number nor missing. Bad values are reported when
//! their column is used, so that a table may also have columns of text. A missing value is an empty cell, `?`, `NA`,
//! `null` or a NaN.

mod arrays;
#[cfg(feature = "parquet")]
mod columnar;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::tensors::{TensorFile, read, read_unzipped};
use crate::{Error, Result};

/// The columns of a file, and the `Y` of a .safetensors or .npz file.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    names: Vec<String>,
    n: usize,
    columns: Vec<Stored>,
    target: Option<Stored>,
}

/// The values of a column.
#[derive(Clone, Debug, Default)]
struct Stored {
    values: Vec<f64>, // [n], NaN where it is no finite number; codes of a categorical column
    missing: Option<Unusable>, // the first missing one
    unusable: Option<Unusable>, // the first that is neither a finite number nor missing
    categories: usize, // of a column that becomes one of zeros and ones per category, else 0
}

/// A cell that is not a finite number.
#[derive(Clone, Debug)]
struct Unusable {
    place: String,
    cell: String,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The column with this number, from 0.
    Number(usize),
    /// `Y` of a .safetensors or .npz file.
    Target,
}

/// How to treat rows with a missing value in a column that is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// As an error that names the first.
    #[default]
    Raise,
    /// Leave them out.
    Omit,
}

crate::names::names!(Missing { Raise = "raise", Omit = "omit" });

/// A column of categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Categorical {
    /// Its name or number.
    pub column: String,
    /// One column of zeros and ones per category, instead of one of their numbers in ascending order.
    pub onehot: bool,
}

impl std::str::FromStr for Categorical {
    type Err = String;

    /// `COL`, or `COL:onehot`.
    fn from_str(text: &str) -> std::result::Result<Categorical, String> {
        Ok(match text.strip_suffix(":onehot") {
            Some(column) => Categorical { column: column.into(), onehot: true },
            None => Categorical { column: text.into(), onehot: false },
        })
    }
}

/// Complete rows of some columns.
#[derive(Clone, Debug)]
pub struct Frame {
    /// `[p, n]`: one column after the other.
    pub values: Vec<f64>,
    /// Rows.
    pub n: usize,
    /// Rows left out.
    pub omitted: usize,
    /// For each column asked for, its columns in `values`: several for a one-hot column.
    pub spans: Vec<Range<usize>>,
}

impl Frame {
    /// The number of columns.
    pub fn p(&self) -> usize {
        self.spans.last().map_or(0, |span| span.end)
    }

    /// Column `j`, `[n]`.
    pub fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.n..(j + 1) * self.n]
    }
}

impl Table {
    /// Reads a table: .csv, .tsv, either of these with .gz, .arff, .parquet; .npy of one or two dimensions; .npz and .safetensors with
    /// `X` `[n, p]` and, if it has one, `Y` `[n]`; .npz of one array, or of one per column. Values are f64, f32 or
    /// whole numbers; columns of `categorical` become the numbers of their categories, which ascend as numbers where all
    /// are, else as text.
    ///
    /// # Errors
    /// Where the file cannot be read, is none of these, is malformed (rows of different length, bytes missing or left
    /// over), has no rows, or lacks a column of `categorical`.
    pub fn read(path: &Path, categorical: &[Categorical]) -> Result<Table> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let plain = name.strip_suffix(".gz").unwrap_or(name);
        let text = |read: fn(&Path, &[u8], &[Categorical]) -> Result<Table>| {
            let bytes = read_unzipped(path)?;
            read(path, bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes), categorical)
        };
        let numbers = |table: Result<Table>| table?.categorised(categorical);
        let table = match (plain.rsplit_once('.').map(|(_, end)| end), plain == name) {
            (Some("csv"), _) => text(|path, bytes, c| read_delimited(path, bytes, b',', None, 0, c)),
            (Some("tsv"), _) => text(|path, bytes, c| read_delimited(path, bytes, b'\t', None, 0, c)),
            (Some("arff"), _) => text(read_arff),
            (Some("npy"), true) => numbers(arrays::read_npy(path)),
            (Some("npz"), true) => numbers(arrays::read_npz(path)),
            (Some("safetensors"), true) => numbers(read_tensors(path)),
            #[cfg(feature = "parquet")]
            (Some("parquet"), true) => columnar::read_parquet(path, categorical),
            #[cfg(not(feature = "parquet"))]
            (Some("parquet"), true) => Err(Error::data(
                path,
                "this scrubjay was built without parquet; build it with `--features parquet`",
            )),
            _ => {
                read(path)?; // a directory or a missing file is named as such
                Err(Error::data(
                    path,
                    "expected a .csv, .npy or .safetensors file, or .tsv, .csv.gz, .arff, .npz, .parquet",
                ))
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

    /// The columns in a list such as `age,3,7-9`: names, numbers from 0, and ranges with both ends included. Names
    /// take precedence over numbers; `Y` is the target where no column has that name.
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

    /// Some columns, without the rows that lack a value in one of them.
    ///
    /// # Errors
    /// Where a value is neither a finite number nor missing, or is missing and `missing` says so; it is named by line and
    /// column.
    pub fn frame(&self, columns: &[Column], missing: Missing) -> Result<Frame> {
        let mut stored = Vec::with_capacity(columns.len());
        for &column in columns {
            let found = match column {
                Column::Number(j) => &self.columns[j],
                Column::Target => {
                    let target = self.target.as_ref();
                    target.ok_or_else(|| Error::data(&self.path, "has no tensor `Y` `[n]`"))?
                }
            };
            let raised = found.missing.as_ref().filter(|_| missing == Missing::Raise);
            if let Some(Unusable { place, cell }) = found.unusable.as_ref().or(raised) {
                let column = match column {
                    Column::Number(_) => format!("{place}, column `{}`", self.name(column)),
                    Column::Target => format!("tensor `Y`, {place}"),
                };
                return Err(Error::record(&self.path, column, format!("`{cell}` is not a finite number")));
            }
            stored.push(found);
        }
        let mut keep: Vec<bool> = vec![true; self.n];
        for column in stored.iter().filter(|column| column.missing.is_some()) {
            keep.iter_mut().zip(&column.values).for_each(|(keep, value)| *keep &= !value.is_nan());
        }
        let n = keep.iter().filter(|&&keep| keep).count();
        let width: usize = stored.iter().map(|column| column.categories.max(1)).sum();
        let values = Vec::with_capacity(n * width);
        let mut frame = Frame { values, n, omitted: self.n - n, spans: Vec::new() };
        let mut at = 0;
        for column in stored {
            let kept = || column.values.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(&value, _)| value);
            match column.categories {
                0 => frame.values.extend(kept()),
                count => (0..count).for_each(|code| {
                    frame.values.extend(kept().map(|value| f64::from(u8::from(value == code as f64))));
                }),
            }
            frame.spans.push(at..at + column.categories.max(1));
            at += column.categories.max(1);
        }
        Ok(frame)
    }

    /// Bytes of all columns and their names.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| size_of::<String>() + name.capacity()).sum();
        let columns = self.columns.iter().chain(&self.target);
        names + columns.map(|column| size_of::<Stored>() + size_of_val(&column.values[..])).sum::<usize>()
    }

    /// Turns columns of numbers into those of their categories.
    fn categorised(mut self, categorical: &[Categorical]) -> Result<Table> {
        for Categorical { column, onehot } in categorical {
            let stored = match self.find_one(column)? {
                Column::Number(j) => Some(&mut self.columns[j]),
                Column::Target => self.target.as_mut(),
            };
            let Some(stored) = stored else { continue };
            let mut distinct: Vec<f64> = stored.values.iter().copied().filter(|x| !x.is_nan()).collect();
            distinct.sort_unstable_by(f64::total_cmp);
            distinct.dedup_by(|a, b| a == b);
            for value in stored.values.iter_mut().filter(|value| !value.is_nan()) {
                *value = distinct.partition_point(|x| x < value) as f64;
            }
            stored.categories = if *onehot { distinct.len() } else { 0 };
        }
        Ok(self)
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
        let columns = (0..p).map(|j| Stored::numbers((0..n).map(|i| values[i * p + j]).collect())).collect();
        let names = (0..p).map(|j| j.to_string()).collect();
        Table { path: path.into(), names, n, columns, target: target.map(Stored::numbers) }
    }
}

impl Stored {
    /// A column of numbers; the place of a bad one is its row.
    fn numbers(mut values: Vec<f64>) -> Stored {
        let place = |values: &[f64], test: fn(&f64) -> bool| {
            let at = values.iter().position(test)?;
            Some(Unusable { place: format!("row {at}"), cell: values[at].to_string() })
        };
        let missing = place(&values, |x| x.is_nan());
        let unusable = place(&values, |x| x.is_infinite());
        values.iter_mut().filter(|x| x.is_infinite()).for_each(|x| *x = f64::NAN);
        Stored { values, missing, unusable, categories: 0 }
    }

    /// Appends a cell of text.
    fn push(&mut self, cell: &str, place: &str) {
        let value = cell.parse().unwrap_or(f64::NAN);
        if !value.is_finite() {
            let first = if is_missing(cell) { &mut self.missing } else { &mut self.unusable };
            first.get_or_insert_with(|| Unusable { place: place.into(), cell: cell.into() });
        }
        self.values.push(if value.is_finite() { value } else { f64::NAN });
    }
}

/// The categories of a column, numbered in order of appearance.
struct Codes {
    of: BTreeMap<String, f64>,
    onehot: bool,
}

impl Codes {
    /// The categorical columns of a table.
    fn of(table: &Table, categorical: &[Categorical]) -> Result<Vec<Option<Codes>>> {
        let mut codes: Vec<Option<Codes>> = table.names.iter().map(|_| None).collect();
        for Categorical { column, onehot } in categorical {
            if let Column::Number(j) = table.find_one(column)? {
                codes[j] = Some(Codes { of: BTreeMap::new(), onehot: *onehot });
            }
        }
        Ok(codes)
    }

    /// The number of a category.
    fn code(&mut self, label: &str) -> f64 {
        if let Some(&code) = self.of.get(label) {
            return code;
        }
        let next = self.of.len() as f64;
        self.of.insert(label.into(), next);
        next
    }

    /// Renumbers the categories of the whole column in ascending order: as numbers where all are numbers, else as text.
    fn finish(self, column: &mut Stored) {
        let mut ascending: Vec<(Option<f64>, f64)> =
            self.of.into_iter().map(|(label, code)| (label.parse().ok(), code)).collect();
        if ascending.iter().all(|(number, _)| number.is_some()) {
            ascending.sort_by(|a, b| a.0.unwrap_or(0.0).total_cmp(&b.0.unwrap_or(0.0)));
        }
        let mut code_of = vec![0.0; ascending.len()];
        ascending.iter().enumerate().for_each(|(code, found)| code_of[found.1 as usize] = code as f64);
        column.values.iter_mut().filter(|x| !x.is_nan()).for_each(|x| *x = code_of[*x as usize]);
        column.categories = if self.onehot { code_of.len() } else { 0 };
    }
}

/// Whether a cell marks a missing value.
fn is_missing(cell: &str) -> bool {
    matches!(cell, "" | "?" | "NA" | "N/A" | "NaN" | "nan" | "null")
}

/// Lines of cells; the names of the columns where they are known, and the lines of the file before these bytes.
fn read_delimited(
    path: &Path,
    bytes: &[u8],
    delimiter: u8,
    mut names: Option<Vec<String>>,
    lines_before: u64,
    categorical: &[Categorical],
) -> Result<Table> {
    let arff = names.is_some();
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter);
    if arff {
        reader.comment(Some(b'%')).quote(b'\'');
    }
    let mut columns: Vec<Stored> = vec![Stored::default(); names.as_ref().map_or(0, Vec::len)];
    let mut codes: Vec<Option<Codes>> = Vec::new(); // by column
    for record in reader.from_reader(bytes).byte_records() {
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let place = format!("line {}", lines_before + record.position().map_or(0, csv::Position::line));
        let cells = record
            .iter()
            .map(|cell| std::str::from_utf8(cell).map(str::trim))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Error::record(path, &*place, "is not UTF-8"))?;
        let mut is_header = false;
        if names.is_none() {
            columns = vec![Stored::default(); cells.len()];
            is_header = cells.iter().any(|cell| cell.parse::<f64>().is_err() && !is_missing(cell));
            names = Some(match is_header {
                true => cells.iter().map(|cell| cell.to_string()).collect(),
                false => (0..cells.len()).map(|j| j.to_string()).collect(),
            });
        }
        if codes.is_empty() {
            let names = names.clone().unwrap_or_default();
            let table = Table { path: path.into(), names, n: 0, columns: Vec::new(), target: None };
            codes = Codes::of(&table, categorical)?;
        }
        if is_header {
            continue;
        }
        if cells.len() != columns.len() {
            return Err(Error::record(
                path,
                place,
                format!("{} cells, where the first line has {}", cells.len(), columns.len()),
            ));
        }
        for ((cell, column), codes) in cells.iter().zip(&mut columns).zip(&mut codes) {
            match codes {
                Some(codes) if !is_missing(cell) => column.values.push(codes.code(cell)),
                _ => column.push(cell, &place),
            }
        }
    }
    for (column, codes) in columns.iter_mut().zip(codes) {
        codes.into_iter().for_each(|codes| codes.finish(column));
    }
    let n = columns.first().map_or(0, |column| column.values.len());
    Ok(Table { path: path.into(), names: names.unwrap_or_default(), n, columns, target: None })
}

/// Attribute-relation files: `@attribute NAME TYPE` lines, `@data`, lines of cells. Sparse rows are refused.
fn read_arff(path: &Path, bytes: &[u8], categorical: &[Categorical]) -> Result<Table> {
    let (mut names, mut at, mut lines) = (Vec::new(), 0, 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        lines += 1;
        let line = std::str::from_utf8(line)
            .map_err(|_| Error::record(path, format!("line {lines}"), "is not UTF-8"))?;
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word.to_ascii_lowercase().as_str() {
            "@attribute" => {
                let rest = rest.trim_start();
                let quoted =
                    ['\'', '"'].iter().find_map(|&quote| rest.strip_prefix(quote)?.split_once(quote));
                let name =
                    quoted.or_else(|| rest.split_once(char::is_whitespace)).map_or(rest, |(name, _)| name);
                names.push(name.to_string());
            }
            "@data" => {
                let rows = &bytes[at..];
                if rows.trim_ascii_start().starts_with(b"{") {
                    return Err(Error::data(path, "sparse rows `{..}` cannot be read"));
                }
                return read_delimited(path, rows, b',', Some(names), lines, categorical);
            }
            _ => {}
        }
    }
    Err(Error::data(path, "has no line `@data`"))
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
            other => return Err(other_length(path, n, other)),
        }
        target = Some(file.f64("Y")?);
    }
    Ok(Table::unnamed(path, n, p, &file.f64("X")?, target))
}

/// The error for a `Y` whose rows do not match those of `X`.
fn other_length(path: &Path, n: usize, found: &[usize]) -> Error {
    Error::record(path, "tensor `Y`", format!("expected shape [{n}], found {found:?}"))
}
