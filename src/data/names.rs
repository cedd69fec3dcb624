//! What a set of samples calls its classes and its samples, so that a user need not count.

use crate::error::{Error, Result};

/// The names that came with a set of samples. What its files do not name is `None`, or has no column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The name of every class, by its number: as many as there are classes, also where no sample has one.
    pub classes: Option<Vec<String>>,
    /// The name of every sample `[n]`, such as the path of its file within a folder, with `/` between its parts.
    pub samples: Option<Vec<String>>,
    /// Further columns of a manifest: the column's name, and its word for every sample `[n]`.
    pub columns: Vec<(String, Vec<String>)>,
}

impl Names {
    /// Refuses names of another number of samples than there are.
    ///
    /// # Errors
    /// Where there are more or fewer.
    pub fn check(&self, n: usize) -> Result<()> {
        let columns = self.columns.iter().map(|(name, words)| (name.as_str(), words.len()));
        let mut all = columns.chain(self.samples.as_ref().map(|names| ("the names", names.len())));
        match all.find(|(_, len)| *len != n) {
            None => Ok(()),
            Some((what, len)) => {
                Err(Error::config(format!("{what} are of {len} samples, and there are {n}")))
            }
        }
    }
}
