//! What a set of samples calls its classes and its samples, so that a user need not count.

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
