//! The columns of a table, as every reader makes them: found by name or number, and their complete rows.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::options::{Categorical, Missing};
use super::stored::{Collision, Numbers, Stored, Unusable};
use crate::error::{Error, Result};

/// The columns of a file, and the `Y` of a .safetensors or .npz file.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) path: PathBuf,
    pub(super) names: Vec<String>,
    pub(super) n: usize,
    pub(super) columns: Vec<Stored>,
    pub(super) target: Option<Stored>,
    pub(super) layout: Option<String>,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The column with this number, from 0.
    Number(usize),
    /// `Y` of a .safetensors or .npz file.
    Target,
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
    /// In words, how the text of a .csv, .tsv or .arff file was read: header, delimiter, decimal mark.
    pub fn layout(&self) -> Option<&str> {
        self.layout.as_deref()
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

    /// Every column, and then the target, where there is one.
    pub fn all(&self) -> Vec<Column> {
        let target = self.has_target().then_some(Column::Target);
        (0..self.names.len()).map(Column::Number).chain(target).collect()
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
            if let Some(bad) = &found.unusable {
                return Err(self.refuse(column, &bad.place, self.not_a_number(column, &bad.cell)));
            }
            if let Some(Unusable { place, cell }) = raised {
                let reason = format!(
                    "`{cell}` is a missing value, not a finite number; --missing omit leaves its row out"
                );
                return Err(self.refuse(column, place, reason));
            }
            stored.push((column, found));
        }
        let mut keep: Vec<bool> = vec![true; self.n];
        for (_, column) in stored.iter().filter(|(_, column)| column.missing.is_some()) {
            keep.iter_mut().zip(&column.values).for_each(|(keep, value)| *keep &= !value.is_nan());
        }
        let n = keep.iter().filter(|&&keep| keep).count();
        let width: usize = stored.iter().map(|(_, column)| column.categories.max(1)).sum();
        let values = Vec::with_capacity(n * width);
        let mut frame = Frame { values, n, omitted: self.n - n, spans: Vec::new() };
        let mut at = 0;
        for (asked, column) in stored {
            let kept = column.kept(&keep).map_err(|Collision(a, b)| {
                let name = self.name(asked);
                let reason = format!(
                    "{a} and {b} would become the same number; --categorical {name} numbers the values in ascending order"
                );
                self.refuse(asked, "", reason)
            })?;
            match column.categories {
                0 => frame.values.extend(kept),
                count => (0..count).for_each(|code| {
                    frame.values.extend(kept.iter().map(|&value| f64::from(u8::from(value == code as f64))));
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
        names + columns.map(Stored::bytes).sum::<usize>()
    }

    /// Turns columns of numbers into those of their categories.
    pub(super) fn categorised(mut self, categorical: &[Categorical]) -> Result<Table> {
        for Categorical { column, onehot } in categorical {
            let stored = match self.find_one(column)? {
                Column::Number(j) => Some(&mut self.columns[j]),
                Column::Target => self.target.as_mut(),
            };
            if let Some(stored) = stored {
                stored.categorise(*onehot);
            }
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
        if self.names.is_empty() {
            return Err(Error::data(&self.path, "has no columns"));
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
    pub(super) fn unnamed(
        path: &Path,
        n: usize,
        p: usize,
        values: &Numbers,
        target: Option<&Numbers>,
    ) -> Table {
        let p = if n == 0 { 0 } else { p }; // a file without values may state any number of columns
        let names = (0..p).map(|j| j.to_string()).collect();
        let columns = (0..p).map(|j| values.column(n, p, j)).collect();
        let target = target.map(|target| target.column(n, 1, 0));
        Table { n, columns, target, ..Table::of(path, names) }
    }

    /// A table of these columns, still without rows.
    pub(super) fn of(path: &Path, names: Vec<String>) -> Table {
        Table { path: path.into(), names, n: 0, columns: Vec::new(), target: None, layout: None }
    }

    /// An error about a column, or about one place in it.
    fn refuse(&self, column: Column, place: &str, reason: String) -> Error {
        let place = match (column, place) {
            (Column::Number(_), "") => format!("column `{}`", self.name(column)),
            (Column::Number(_), place) => format!("{place}, column `{}`", self.name(column)),
            (Column::Target, "") => "tensor `Y`".into(),
            (Column::Target, place) => format!("tensor `Y`, {place}"),
        };
        Error::record(&self.path, place, reason)
    }

    /// What is wrong with a cell that is no number, and the options that help.
    fn not_a_number(&self, column: Column, cell: &str) -> String {
        let name = self.name(column);
        let point = cell.replacen(',', ".", 1);
        let digits = cell.replace([',', '.', '\'', ' '], "");
        match self.layout {
            None => format!("`{cell}` is not a finite number"),
            Some(_) if cell != point && point.parse::<f64>().is_ok() => {
                format!(
                    "`{cell}` is not a finite number: --decimal , reads it as {point}; thousands separators are not read"
                )
            }
            Some(_) if cell != digits && digits.parse::<f64>().is_ok() => {
                format!("`{cell}` is not a finite number: thousands separators are not read")
            }
            Some(_) => format!(
                "`{cell}` is not a finite number: --na {cell} makes it a missing value, --categorical {name} a category"
            ),
        }
    }
}

/// The error for a `Y` whose rows do not match those of `X`.
pub(super) fn other_length(path: &Path, n: usize, found: &[usize]) -> Error {
    Error::record(path, "tensor `Y`", format!("expected shape [{n}], found {found:?}"))
}
