//! Tables of numbers for the dependence measure: .csv, .tsv, .arff (each also as .gz), .npy, .npz, .safetensors and, by the
//! feature `parquet`, .parquet files as named columns of f64.
//!
//! docs/DATA.md states the rules. Bad values are reported when their column is used, so that a table may also have
//! columns of text.

mod arff;
mod arrays;
mod categories;
#[cfg(feature = "parquet")]
mod columnar;
mod columns;
mod delimited;
mod layout;
mod options;
mod stored;
mod tensors;

use std::path::Path;

pub(super) use arrays::{ArrayFile, members};
pub use columns::{Column, Frame, Table};
pub(super) use delimited::check_quotes;
pub use options::{Categorical, Decimal, Delimiter, Header, Missing, TableOptions};

use super::encoding::read_text;
use super::tensors::read;
use crate::error::{Error, Result};

impl Table {
    /// Reads a table: .csv, .tsv and .arff, also with .gz; .parquet; .npy of one or two dimensions, or of one with named
    /// fields; .npz and .safetensors with `X` `[n, p]` and, if it has one, `Y` `[n]`; .npz of one array, or of one per
    /// column. Extensions may be upper-case. Values are f64, f32, f16 or whole numbers; categorical columns become the numbers
    /// of their categories, which ascend as numbers where all are, else as text, or are in the order that an .arff file
    /// declares.
    ///
    /// # Errors
    /// Where the file cannot be read, is none of these, is malformed (rows of different length, a quote that is never
    /// closed, bytes missing or left over), leaves open what its options can settle, has no rows, or lacks a column that
    /// the options name.
    pub fn read(path: &Path, options: &TableOptions) -> Result<Table> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let end = plain.rsplit_once('.').map(|(_, end)| end);
        let text = matches!(end, Some("csv" | "tsv" | "arff"));
        check_options(path, options, matches!(end, Some("csv" | "tsv")), text)?;
        let numbers = |table: Result<Table>| table?.categorised(&options.categorical);
        let table = match (end, plain == name) {
            (Some("csv"), _) => delimited::read_delimited(path, &read_text(path)?, None, options),
            (Some("tsv"), _) => delimited::read_delimited(path, &read_text(path)?, Some(b'\t'), options),
            (Some("arff"), _) => arff::read_arff(path, &read_text(path)?, options),
            (Some("npy"), true) => numbers(arrays::read_npy(path)),
            (Some("npz"), true) => numbers(arrays::read_npz(path)),
            (Some("safetensors"), true) => numbers(tensors::read_tensors(path)),
            #[cfg(feature = "parquet")]
            (Some("parquet"), true) => columnar::read_parquet(path, options),
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
}

/// Refuses options that have no meaning for a kind of file.
fn check_options(path: &Path, options: &TableOptions, delimited: bool, text: bool) -> Result<()> {
    let given = [
        ("--header", options.header != Header::Auto, delimited),
        ("--delimiter", options.delimiter.is_some(), delimited),
        ("--decimal", options.decimal.is_some(), delimited),
        ("--na", !options.na.is_empty(), text),
    ];
    match given.iter().find(|(_, given, read)| *given && !read) {
        Some((option, _, _)) => Err(Error::config(format!(
            "{}: {option} is for {} files",
            path.display(),
            if *option == "--na" { ".csv, .tsv and .arff" } else { ".csv and .tsv" }
        ))),
        None => Ok(()),
    }
}
