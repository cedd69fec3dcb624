//! Rows of parquet files: flat columns and lists of strings, numbers and booleans. The names of classes are those that
//! Hugging Face's `datasets` writes into the file.

use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::TypePtr;
use serde_json::Value;

use super::super::columnar::class_names;
use super::super::file::open;
use super::rows::Records;
use crate::error::{Error, Result};

/// Reads all rows.
pub(super) fn read(path: &Path) -> Result<Records> {
    let damaged = |e| Error::data(path, format!("no readable parquet file: {e}"));
    let file = open(path)?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let about = reader.metadata().file_metadata();
    let columns: Vec<String> =
        about.schema().get_fields().iter().map(|field| field.name().to_string()).collect();
    let classes = columns.iter().filter_map(|column| Some((column.clone(), class_names(about, column)?)));
    let classes = classes.collect();
    let mut rows = vec![];
    for (row, i) in reader.get_row_iter(None).map_err(damaged)?.zip(1..) {
        let row = row.map_err(damaged)?;
        rows.push((format!("row {i}"), row.get_column_iter().map(|(_, field)| value(field)).collect()));
    }
    Ok(Records { columns, rows, classes })
}

/// Whether a column has pictures: their bytes and a path, as Hugging Face writes them. A file that cannot be read has none.
pub(super) fn has_pictures(path: &Path) -> bool {
    let Some(reader) = open(path).ok().and_then(|file| SerializedFileReader::new(file).ok()) else {
        return false;
    };
    let schema = reader.metadata().file_metadata().schema();
    let bytes =
        |field: &TypePtr| field.is_group() && field.get_fields().iter().any(|part| part.name() == "bytes");
    schema.get_fields().iter().any(bytes)
}

/// A cell as JSON; of another type than those above, its type in words.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(value) => value.as_str().into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}
