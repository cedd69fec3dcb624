//! Categories of text, numbered: in ascending order, or in the order that the file declares.

use std::collections::BTreeMap;

use super::columns::{Column, Table};
use super::options::{Decimal, TableOptions};
use super::stored::Stored;
use crate::error::Result;

/// The categories of a column, numbered in order of appearance, or as declared.
pub(super) struct Codes {
    of: BTreeMap<String, f64>,
    onehot: bool,
    declared: bool,
}

impl Codes {
    /// The categorical columns of a table.
    pub fn of(table: &Table, options: &TableOptions) -> Result<Vec<Option<Codes>>> {
        let mut codes: Vec<Option<Codes>> = table.names.iter().map(|_| None).collect();
        for categorical in &options.categorical {
            if let Column::Number(j) = table.find_one(&categorical.column)? {
                codes[j] = Some(Codes { of: BTreeMap::new(), onehot: categorical.onehot, declared: false });
            }
        }
        Ok(codes)
    }

    /// Declares all categories in their order.
    pub fn declare(&mut self, labels: &[String]) {
        self.of = labels.iter().cloned().zip((0u32..).map(f64::from)).collect();
        self.declared = true;
    }

    /// Whether the categories are declared.
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// The number of a category; none where others are declared.
    pub fn code(&mut self, label: &str) -> Option<f64> {
        if let Some(&code) = self.of.get(label) {
            return Some(code);
        }
        if self.declared {
            return None;
        }
        let next = self.of.len() as f64;
        self.of.insert(label.into(), next);
        Some(next)
    }

    /// Renumbers the categories of the whole column in ascending order, unless they are declared: as numbers where all are
    /// numbers (exactly, where all are integers), else as text.
    pub fn finish(self, column: &mut Stored, decimal: Decimal) {
        let count = self.of.len();
        if !self.declared {
            let mut ascending: Vec<(String, f64)> = self.of.into_iter().collect();
            let integer = |label: &str| label.parse::<i128>().ok();
            let number = |label: &str| decimal.number(label).unwrap_or(0.0);
            if ascending.iter().all(|(label, _)| integer(label).is_some()) {
                ascending.sort_by_key(|(label, _)| integer(label));
            } else if ascending.iter().all(|(label, _)| decimal.number(label).is_some()) {
                ascending.sort_by(|a, b| number(&a.0).total_cmp(&number(&b.0)));
            }
            let mut code_of = vec![0.0; count];
            ascending.iter().enumerate().for_each(|(code, found)| code_of[found.1 as usize] = code as f64);
            column.values.iter_mut().filter(|x| !x.is_nan()).for_each(|x| *x = code_of[*x as usize]);
        }
        column.categories = if self.onehot { count } else { 0 };
    }
}
