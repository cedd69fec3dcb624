//! The rows of all files of a set, and the file of each.

use std::path::Path;

use serde_json::Value;

use super::super::records::Records;
use crate::error::{Error, Result};

/// Rows, and the file of each.
pub struct Rows<'a> {
    /// The first file.
    pub path: &'a Path,
    pub records: Records,
    /// The file of each row.
    pub files: Vec<&'a Path>,
}

impl Rows<'_> {
    /// The error of a row.
    pub fn refuse(&self, row: usize, reason: impl Into<String>) -> Error {
        Error::record(self.files[row], self.records.rows[row].0.as_str(), reason)
    }

    /// The cells of a column.
    pub fn column(&self, at: usize) -> impl Iterator<Item = &Value> {
        self.records.rows.iter().map(move |(_, cells)| &cells[at])
    }

    /// The texts of a column.
    pub fn texts(&self, at: usize) -> Result<Vec<String>> {
        let name = &self.records.columns[at];
        let text = |(row, cell): (usize, &Value)| match cell {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Err(self.refuse(row, format!("has no `{name}`, the text"))),
            other => Err(self.refuse(row, format!("has `{name}` {other}, where a text was expected"))),
        };
        self.column(at).enumerate().map(text).collect()
    }

    /// The columns that are neither texts nor labels, as words.
    pub fn others(&self, text: usize, labels: &[usize]) -> Vec<(String, Vec<String>)> {
        let others = (0..self.records.columns.len()).filter(|at| *at != text && !labels.contains(at));
        let named = others.filter(|&at| !self.records.columns[at].is_empty());
        named.map(|at| (self.records.columns[at].clone(), self.column(at).map(word).collect())).collect()
    }
}

/// A cell as a word; empty where there is none.
pub fn word(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.trim().to_string(),
        Value::Bool(value) => u8::from(*value).to_string(),
        other => other.to_string(),
    }
}
