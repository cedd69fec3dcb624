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

/// The number that each of these names has among the known ones; none where not one is known, and there are as many.
///
/// # Errors
/// Where some are known and others not, or none is and there are fewer or more, in words.
pub(super) fn numbers(found: &[String], known: &[String]) -> std::result::Result<Option<Vec<u32>>, String> {
    let numbers: Vec<Option<u32>> =
        found.iter().map(|name| known.iter().position(|other| other == name).map(|i| i as u32)).collect();
    match numbers.iter().position(Option::is_none) {
        None => Ok(numbers.into_iter().collect()),
        Some(_) if found.len() == known.len() && numbers.iter().all(Option::is_none) => Ok(None),
        Some(i) => {
            let some: Vec<&str> = known.iter().take(12).map(String::as_str).collect();
            let more = if known.len() > some.len() { " .." } else { "" };
            Err(format!(
                "has a class `{}`, which is none of the {} known: {}{more}",
                found[i],
                known.len(),
                some.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_among_the_known() {
        let names = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let known = names("dog cat owl");
        assert_eq!(numbers(&names("cat dog"), &known), Ok(Some(vec![1, 0])));
        assert_eq!(numbers(&names("n01 n02 n03"), &known), Ok(None));
        assert!(numbers(&names("cat hen"), &known).unwrap_err().contains("`hen`"));
        assert!(numbers(&names("n01 n02"), &known).unwrap_err().contains("3 known: dog, cat, owl"));
    }
}
