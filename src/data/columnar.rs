//! Image sets of Hugging Face in parquet files: a column of pictures (`bytes` and `path`) and one of labels. The names of
//! classes stand in the files' metadata.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use super::file::StoredFile;
use super::options::CifarLabels;
use super::pictures::{Pictures, Place};
use super::{Labels, classes};
use crate::error::{Error, Result};

const IMAGES: [&str; 3] = ["image", "img", "picture"];
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "class", "target"];

/// Lists the pictures of parquet files.
///
/// # Errors
/// Where a file is damaged, or lacks the columns or a value.
pub(super) fn list(path: &Path, files: &[PathBuf], wanted: CifarLabels) -> Result<Pictures> {
    let (mut places, mut samples, mut words, mut names) = (vec![], vec![], vec![], None);
    for file in files {
        let damaged = |e| Error::data(file, format!("no readable parquet file: {e}"));
        let reader =
            SerializedFileReader::new(File::open(file).map_err(Error::io(file))?).map_err(damaged)?;
        let metadata = reader.metadata().file_metadata();
        let fields = metadata.schema().get_fields();
        let column = |known: &[&str]| {
            let found = known.iter().find(|name| fields.iter().any(|field| field.name() == **name));
            found.map(ToString::to_string).ok_or_else(|| {
                let all: Vec<&str> = fields.iter().map(|field| field.name()).collect();
                Error::data(
                    file,
                    format!("has the columns {}, and none of {}", all.join(", "), known.join(", ")),
                )
            })
        };
        let label = match wanted {
            CifarLabels::Fine => column(&LABELS)?,
            CifarLabels::Coarse => column(&["coarse_label"])?,
        };
        let image = column(&IMAGES)?;
        names = names.or_else(|| class_names(metadata, &label));
        for (number, row) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
            let row = row.map_err(damaged)?;
            let refuse = |reason: &str| Error::record(file, format!("row {}", number + 1), reason);
            let of = |name: &str| row.get_column_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
            let (bytes, name) =
                of(&image).and_then(picture).ok_or_else(|| refuse("has no bytes of a picture"))?;
            samples.push(name.unwrap_or_else(|| format!("{number}")));
            let whole = 0..bytes.len() as u64;
            places.push(Place::Part(Arc::new(StoredFile::of_bytes(file, bytes)), whole));
            words.push(vec![of(&label).and_then(word).ok_or_else(|| refuse("has no label"))?]);
        }
    }
    let labels = classes::labels(&words, false).map_err(|(_, reason)| Error::data(path, reason))?;
    let by_name = labels.1.is_some();
    let names = match (labels, names) {
        ((y, None), Some(names)) if y.outputs() <= Vec::len(&names) => (y, Some(names)),
        (found, _) => found,
    };
    let (y, classes): (Labels, Option<Vec<String>>) = names;
    Ok(Pictures { places, samples, y, classes, by_name, exif: true, ..Pictures::of(path) })
}

/// The bytes of a picture, and its name.
fn picture(field: &Field) -> Option<(Vec<u8>, Option<String>)> {
    let Field::Group(row) = field else { return None };
    let of = |row: &Row, name: &str| {
        row.get_column_iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    };
    let Field::Bytes(bytes) = of(row, "bytes")? else { return None };
    let name = match of(row, "path") {
        Some(Field::Str(name)) => Some(name),
        _ => None,
    };
    Some((bytes.data().to_vec(), name))
}

/// A label as a word.
fn word(field: &Field) -> Option<String> {
    match field {
        Field::Null | Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => None,
        Field::Str(word) => Some(word.clone()),
        other => Some(other.to_string()),
    }
}

/// The names of the classes of a column, as the library `datasets` writes them.
pub(super) fn class_names(metadata: &FileMetaData, column: &str) -> Option<Vec<String>> {
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    let described = pairs.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
    let value: Value = serde_json::from_str(described?).ok()?;
    let names = value.get("info")?.get("features")?.get(column)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}
