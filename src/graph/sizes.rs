//! The check of the numbers in a graph file: from 1 to a bound beyond which a number is a mistake.

use crate::error::{Error, Result};

/// The largest setting that a node may have.
const LARGEST: usize = 1 << 20;

/// A setting from 1 to [`LARGEST`].
pub(super) fn within(what: &str, number: usize) -> Result<usize> {
    match (1..=LARGEST).contains(&number) {
        true => Ok(number),
        false => Err(Error::config(format!("\"{what}\" is {number}, where 1 to {LARGEST} was expected"))),
    }
}
