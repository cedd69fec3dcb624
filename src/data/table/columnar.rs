//! Parquet files: flat columns of numbers, booleans and text, of any number of row groups.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};

use super::super::file::open;
use super::categories::Codes;
use super::columns::Table;
use super::options::{Decimal, TableOptions};
use super::stored::{Stored, Unusable};
use crate::error::{Error, Result};

/// Reads one column after another. Null and NaN are missing values, true is 1 and false is 0. Dates, times, decimals,
/// bytes and nested columns are not numbers, which is an error where they are used.
pub(super) fn read_parquet(path: &Path, options: &TableOptions) -> Result<Table> {
    let damaged = |e| Error::data(path, format!("no readable parquet file: {e}"));
    let file = open(path)?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let fields = reader.metadata().file_metadata().schema().get_fields().to_vec();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_string()).collect();
    let mut table = Table::of(path, names);
    let mut codes = Codes::of(&table, options)?;
    let mut nested = Vec::new();
    for (j, (field, codes)) in fields.iter().zip(&mut codes).enumerate() {
        let mut column = Stored::default();
        if field.is_primitive() {
            read(&mut column, &reader, field, codes.as_mut())
                .map_err(|e| Error::record(path, format!("column `{}`", field.name()), e.to_string()))?;
            if nested.len() < j && column.values.len() != table.n {
                let reason = format!("{} values, where other columns have {}", column.values.len(), table.n);
                return Err(Error::record(path, format!("column `{}`", field.name()), reason));
            }
            table.n = column.values.len();
        } else {
            nested.push(j);
        }
        table.columns.push(column);
    }
    for j in nested {
        table.columns[j].values = vec![f64::NAN; table.n];
        table.columns[j].unusable = Some(Unusable { place: "row 0".into(), cell: "a nested value".into() });
    }
    for (column, codes) in table.columns.iter_mut().zip(codes) {
        codes.into_iter().for_each(|codes| codes.finish(column, Decimal::Point));
    }
    Ok(table)
}

/// Appends all values of one field.
fn read(
    column: &mut Stored,
    reader: &SerializedFileReader<File>,
    field: &TypePtr,
    mut codes: Option<&mut Codes>,
) -> parquet::errors::Result<()> {
    let projection = Type::group_type_builder("schema").with_fields(vec![Arc::clone(field)]).build()?;
    for (at, row) in reader.get_row_iter(Some(projection))?.enumerate() {
        let row = row?;
        let found = row.get_column_iter().next().map_or(&Field::Null, |(_, found)| found);
        let text = || match found {
            Field::Str(text) => text.clone(),
            other => other.to_string(),
        };
        let value = number(found);
        let missing = matches!(found, Field::Null) || value.is_some_and(f64::is_nan);
        match (codes.as_mut().filter(|_| !missing), value) {
            (Some(codes), _) => column.values.extend(codes.code(&text())),
            (None, Some(value)) if value.is_finite() => column.push_number(value, integer(found)),
            _ => column.push_unusable(missing, &format!("row {at}"), &text()),
        }
    }
    Ok(())
}

/// A value as an integer, where it is one of 64 bits or a small whole number.
fn integer(field: &Field) -> Option<i128> {
    match *field {
        Field::Long(value) => Some(value.into()),
        Field::ULong(value) => Some(value.into()),
        _ => number(field)
            .filter(|value| value.fract() == 0.0 && value.abs() < 1e15)
            .map(|value| value as i128),
    }
}

/// A value as a number, where it is one.
fn number(field: &Field) -> Option<f64> {
    Some(match *field {
        Field::Bool(value) => f64::from(u8::from(value)),
        Field::Byte(value) => f64::from(value),
        Field::Short(value) => f64::from(value),
        Field::Int(value) => f64::from(value),
        Field::Long(value) => value as f64,
        Field::UByte(value) => f64::from(value),
        Field::UShort(value) => f64::from(value),
        Field::UInt(value) => f64::from(value),
        Field::ULong(value) => value as f64,
        Field::Float16(value) => f64::from(value),
        Field::Float(value) => f64::from(value),
        Field::Double(value) => value,
        _ => return None,
    })
}
