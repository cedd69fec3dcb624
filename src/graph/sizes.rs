//! Numbers of a graph file within reason.

use crate::error::{Error, Result};

/// The largest setting that a node may have.
const LARGEST: usize = 1 << 20;

/// A setting that is not 0 and not beyond reason.
pub(super) fn within(what: &str, number: usize) -> Result<usize> {
    match (1..=LARGEST).contains(&number) {
        true => Ok(number),
        false => Err(Error::config(format!("\"{what}\" is {number}, where 1 to {LARGEST} was expected"))),
    }
}
