//! The labels of rows: numbers, words, several columns, or lists.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::Labels;
use super::super::classes::{check_count, whole};
use super::super::names::numbers;
use super::rows::{Rows, word};
use crate::error::{Error, Result};

/// Labels, with the names of their classes.
pub struct Found {
    pub labels: Labels,
    pub names: Option<Vec<String>>,
    /// How the classes are numbered, for the user.
    pub note: Option<String>,
}

/// Words as numbers of classes.
struct Order {
    /// Of each word.
    numbers: Vec<u32>,
    /// Of every class.
    names: Vec<String>,
    note: String,
}

impl Rows<'_> {
    /// The labels in these columns. `known` are the names of classes that a model gives.
    ///
    /// # Errors
    /// Where a row has none, or one that is no class; the message names the line.
    pub fn labels(&self, columns: &[usize], known: Option<&[String]>) -> Result<Found> {
        let &[at] = columns else { return self.labels_of_columns(columns, known) };
        let lists = self.column(at).any(Value::is_array);
        if lists {
            return self.labels_of_lists(at, known);
        }
        let name = &self.records.columns[at];
        let words: Vec<String> = self.column(at).map(word).collect();
        if let Some(row) = words.iter().position(String::is_empty) {
            return Err(self.refuse(row, format!("has no `{name}`, the label")));
        }
        if let Some(row) = self.column(at).position(Value::is_object) {
            return Err(self.refuse(row, format!("has an object as `{name}`, where a label was expected")));
        }
        if words.iter().all(|word| word.parse::<f64>().is_ok()) {
            return self.labels_of_numbers(name, &words, known);
        }
        let sorted: Vec<String> = words.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if sorted.len() > 1000 && 2 * sorted.len() > words.len() {
            let reason = format!(
                "column `{name}` has {} different words in {} rows, which are no classes; --label-column names the labels",
                sorted.len(),
                words.len()
            );
            return Err(Error::data(self.path, reason));
        }
        let Order { numbers, names, note } = self.order(name, &sorted, known)?;
        let number = |word: &String| numbers[sorted.binary_search(word).unwrap_or(0)];
        Ok(Found { labels: words.iter().map(number).collect(), names: Some(names), note: Some(note) })
    }

    /// Whole numbers as classes; those that the file itself names are looked up among the known ones.
    fn labels_of_numbers(&self, name: &str, words: &[String], known: Option<&[String]>) -> Result<Found> {
        let class = |(row, word): (usize, &String)| {
            whole(word).ok_or_else(|| {
                let expected = "which is no class: whole numbers from 0, or words, were expected";
                self.refuse(row, format!("has `{name}` {word}, {expected}"))
            })
        };
        let classes = words.iter().enumerate().map(class).collect::<Result<Vec<u32>>>()?;
        let last = classes.iter().max().map_or(0, |&last| last as usize);
        match self.records.classes.iter().find(|(column, names)| column == name && names.len() > last) {
            None => {
                let names = known.map(<[String]>::to_vec).filter(|names| names.len() > last);
                Ok(Found { labels: classes.into(), names, note: None })
            }
            Some((_, named)) => {
                let Order { numbers, names, .. } = self.order(name, named, known)?;
                let labels = classes.iter().map(|&class| numbers[class as usize]).collect();
                let note = Some(format!("classes as the file names them: {}", listed(named)));
                Ok(Found { labels, names: Some(names), note })
            }
        }
    }

    /// The numbers of words, and the names of all classes.
    fn order(&self, column: &str, words: &[String], known: Option<&[String]>) -> Result<Order> {
        let refuse = |reason| Error::record(self.path, format!("column `{column}`"), reason);
        if let Some(known) = known
            && let Some(numbers) = numbers(words, known).map_err(refuse)?
        {
            let note = format!("classes as the model names them: {}", listed(known));
            return Ok(Order { numbers, names: known.to_vec(), note });
        }
        let note = format!("classes in the order of the sorted words: {}", listed(words));
        Ok(Order { numbers: (0..words.len() as u32).collect(), names: words.to_vec(), note })
    }

    /// A label for each of several columns of 0 and 1.
    fn labels_of_columns(&self, columns: &[usize], known: Option<&[String]>) -> Result<Found> {
        let names: Vec<String> = columns.iter().map(|&at| self.records.columns[at].clone()).collect();
        let Order { numbers, names, note } = self.order(&names.join("`, `"), &names, known)?;
        let labels = names.len();
        let mut rows = vec![0; labels * self.records.rows.len()];
        for (&at, &number) in columns.iter().zip(&numbers) {
            for (row, cell) in self.column(at).enumerate() {
                let bit = whole(&word(cell)).filter(|&bit| bit < 2).ok_or_else(|| {
                    let name = &self.records.columns[at];
                    self.refuse(row, format!("has `{name}` {cell}, where 0 or 1 was expected"))
                })?;
                rows[row * labels + number as usize] = bit;
            }
        }
        Ok(Found { labels: Labels::Multi { labels, rows }, names: Some(names), note: Some(note) })
    }

    /// Lists of words, or of 0 and 1.
    fn labels_of_lists(&self, at: usize, known: Option<&[String]>) -> Result<Found> {
        let name = &self.records.columns[at];
        let list = |(row, cell): (usize, &Value)| match cell {
            Value::Array(list) => Ok(list.iter().map(word).collect::<Vec<String>>()),
            other => Err(self
                .refuse(row, format!("has `{name}` {other}, where a list was expected, as in other rows"))),
        };
        let lists = self.column(at).enumerate().map(list).collect::<Result<Vec<_>>>()?;
        let words: Vec<String> =
            lists.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if words.iter().any(|word| word.parse::<f64>().is_ok()) {
            let labels = lists[0].len();
            let rows = lists.iter().enumerate().map(|(row, list)| {
                let bits: Option<Vec<u32>> = list.iter().map(|word| whole(word).filter(|&bit| bit < 2)).collect();
                bits.filter(|bits| bits.len() == labels && labels > 1).ok_or_else(|| {
                    let reason = "which is neither a list of words nor one of 0 and 1 for each label, as long as the first";
                    self.refuse(row, format!("has `{name}` [{}], {reason}", list.join(", ")))
                })
            });
            let rows = rows.collect::<Result<Vec<_>>>()?.concat();
            let names = known.filter(|known| known.len() == labels).map(<[String]>::to_vec);
            return Ok(Found { labels: Labels::Multi { labels, rows }, names, note: None });
        }
        if words.is_empty() {
            return Err(Error::record(self.path, format!("column `{name}`"), "has no label in any row"));
        }
        let Order { numbers, names, note } = self.order(name, &words, known)?;
        let labels = names.len();
        check_count(labels, lists.len(), lists.iter().map(Vec::len).sum())
            .map_err(|reason| Error::record(self.path, format!("column `{name}`"), reason))?;
        let mut rows = vec![0; labels * lists.len()];
        for (row, list) in lists.iter().enumerate() {
            for word in list {
                rows[row * labels + numbers[words.binary_search(word).unwrap_or(0)] as usize] = 1;
            }
        }
        Ok(Found { labels: Labels::Multi { labels, rows }, names: Some(names), note: Some(note) })
    }
}

/// The first few of some names.
fn listed(names: &[String]) -> String {
    let some = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 8 { format!("{some} .. ({} in all)", names.len()) } else { some }
}
