//! Image sets of Hugging Face in parquet files: a column of pictures (`bytes` and `path`) and one of labels. What `datasets`
//! writes into the files' metadata tells which columns these are, where their names do not, and the names of the classes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type as Physical};
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::file::{StoredFile, open};
use super::options::CifarLabels;
use super::pictures::{Pictures, Place};
use super::{Labels, classes};
use crate::error::{Error, Result};

const IMAGES: [&str; 6] = ["image", "img", "picture", "jpg", "jpeg", "png"];
const LABELS: [&str; 7] = ["label", "labels", "fine_label", "class", "target", "cls", "class_name"];

/// What is read of the columns of a file.
#[derive(PartialEq)]
struct Columns {
    image: String,
    label: String,
    /// The names of the label's classes.
    classes: Option<Vec<String>>,
    /// Those with one word for each picture.
    others: Vec<String>,
}

/// The rows of all files.
#[derive(Default)]
struct Rows {
    places: Vec<Place>,
    samples: Vec<String>,
    /// The file and the row in it.
    origins: Vec<(usize, usize)>,
    labels: Vec<Vec<String>>,
    several: bool,
    /// Of each of the other columns.
    words: Vec<Vec<String>>,
}

/// Lists the pictures of parquet files, with labels from the column that is `chosen`.
///
/// # Errors
/// Where a file is damaged, lacks the columns or a value, or has other columns than the first.
pub(super) fn list(
    path: &Path,
    files: &[PathBuf],
    wanted: CifarLabels,
    chosen: &[String],
) -> Result<Pictures> {
    let (mut known, mut rows): (Option<Columns>, Rows) = Default::default();
    for (number, file) in files.iter().enumerate() {
        let damaged = |e| Error::data(file, format!("no readable parquet file: {e}"));
        let reader = SerializedFileReader::new(open(file)?).map_err(damaged)?;
        let columns = Columns::of(file, reader.metadata().file_metadata(), wanted, chosen)?;
        if known.as_ref().is_some_and(|known| *known != columns) {
            let reason = format!("has other columns, or other names of classes, than {}", files[0].display());
            return Err(Error::data(file, reason));
        }
        let columns = known.get_or_insert(columns);
        let schema = columns.schema(reader.metadata().file_metadata()).map_err(damaged)?;
        for (i, row) in reader.get_row_iter(Some(schema)).map_err(damaged)?.enumerate() {
            rows.push(file, (number, i), &row.map_err(damaged)?, columns)?;
        }
    }
    let Some(columns) = known.filter(|_| !rows.samples.is_empty()) else {
        return Err(Error::data(path, "holds no samples"));
    };
    let refuse = |(i, reason): (Option<usize>, String)| match i.map(|i| rows.origins[i]) {
        Some((file, row)) => Error::record(&files[file], format!("row {}", row + 1), reason),
        None => Error::data(path, reason),
    };
    let (y, names) = labels(&rows.labels, rows.several, columns.classes.as_deref()).map_err(refuse)?;
    let by_name = names.is_some();
    let classes = names.or(columns.classes);
    let columns = columns.others.into_iter().zip(rows.words).collect();
    Ok(Pictures {
        places: rows.places,
        samples: rows.samples,
        y,
        classes,
        by_name,
        exif: true,
        columns,
        ..Pictures::of(path)
    })
}

impl Columns {
    /// Of a file: those of usual names, else the one of its kind.
    fn of(file: &Path, metadata: &FileMetaData, wanted: CifarLabels, chosen: &[String]) -> Result<Columns> {
        let fields = metadata.schema().get_fields();
        let all = || fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(", ");
        let named = |known: &[&str], fits: &dyn Fn(&TypePtr) -> bool| {
            let of_name = |name: &&str| fields.iter().find(|field| field.name() == *name && fits(field));
            known.iter().find_map(of_name).map(|field| field.name().to_string())
        };
        let one = |found: Vec<String>| <[String; 1]>::try_from(found).ok().map(|[one]| one);
        let of = |fits: &dyn Fn(&TypePtr) -> bool| -> Vec<String> {
            fields.iter().filter(|field| fits(field)).map(|field| field.name().to_string()).collect()
        };
        let missing = |what: &str, known: &[&str], option: &str| {
            let reason = format!("has the columns {}, and no {what}: {}{option}", all(), known.join(", "));
            Error::data(file, reason)
        };
        let image = named(&IMAGES, &is_picture).or_else(|| one(of(&is_picture)));
        let image = image.ok_or_else(|| missing("one of pictures", &IMAGES, ""))?;
        let label = match (chosen, wanted) {
            ([name], _) => named(&[name], &|_| true),
            ([], CifarLabels::Coarse) => named(&["coarse_label"], &|_| true),
            ([], CifarLabels::Fine) => named(&LABELS, &|field| field.name() != image)
                .or_else(|| one(of(&|field| class_names(metadata, field.name()).is_some()))),
            _ => {
                let reason = format!(
                    "--label-column {}: of pictures in parquet files one column is read",
                    chosen.join(",")
                );
                return Err(Error::data(file, reason));
            }
        };
        let expected: Vec<&str> = match (chosen, wanted) {
            ([name], _) => vec![name],
            (_, CifarLabels::Coarse) => vec!["coarse_label"],
            _ => LABELS.to_vec(),
        };
        let label = label.ok_or_else(|| missing("one of labels", &expected, "; --label-column names it"))?;
        let others = of(&|field| field.is_primitive() && is_text_or_number(field) && field.name() != label);
        Ok(Columns { classes: class_names(metadata, &label), image, label, others })
    }

    /// The schema of these columns alone.
    fn schema(&self, metadata: &FileMetaData) -> parquet::errors::Result<Type> {
        let whole = metadata.schema();
        let wanted = |field: &&TypePtr| {
            let name = field.name();
            name == self.image || name == self.label || self.others.iter().any(|other| other == name)
        };
        let fields = whole.get_fields().iter().filter(wanted).cloned().collect();
        Type::group_type_builder(whole.name()).with_fields(fields).build()
    }
}

impl Rows {
    /// Takes a row of a file.
    fn push(&mut self, file: &Path, origin: (usize, usize), row: &Row, columns: &Columns) -> Result<()> {
        let refuse = |reason: String| Error::record(file, format!("row {}", origin.1 + 1), reason);
        let of = |name: &str| row.get_column_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        let (image, label) = (&columns.image, &columns.label);
        let (bytes, name) = of(image).map_or(Err("nothing".into()), picture).map_err(|found: String| {
            refuse(format!("has {found} as `{image}`, where the bytes of a picture were expected"))
        })?;
        let whole = 0..bytes.len() as u64;
        self.places.push(Place::Part(Arc::new(StoredFile::of_bytes(file, bytes)), whole));
        self.samples.push(name.unwrap_or_else(|| format!("{}", self.samples.len())));
        self.origins.push(origin);
        let (words, several) = match of(label) {
            Some(Field::ListInternal(list)) => (list.elements().iter().map(word).collect(), true),
            Some(one) => (word(one).map(|word| vec![word]), false),
            None => (None, false),
        };
        let words: Vec<String> = words.ok_or_else(|| refuse(format!("has no `{label}`, the label")))?;
        let class = |word: &String| {
            word.parse()
                .ok()
                .filter(|class: &usize| columns.classes.as_ref().is_none_or(|names| *class < names.len()))
        };
        if let (Some(names), Some(word)) = (&columns.classes, words.iter().find(|word| class(word).is_none()))
        {
            let hidden =
                if word == "-1" { "; -1 stands for a label that is withheld, as in test sets" } else { "" };
            let reason = format!(
                "has `{label}` {word}, where the file names the classes 0 to {}{hidden}",
                names.len().saturating_sub(1)
            );
            return Err(refuse(reason));
        }
        self.labels.push(words);
        self.several |= several;
        self.words.resize(columns.others.len(), vec![]);
        for (words, name) in self.words.iter_mut().zip(&columns.others) {
            words.push(of(name).and_then(word).unwrap_or_default());
        }
        Ok(())
    }
}

/// The labels of rows, and the names of their classes where these are words. Of several labels each, lists of classes; or
/// lists of equal length of 0 and 1, one for each label.
fn labels(
    words: &[Vec<String>],
    several: bool,
    names: Option<&[String]>,
) -> std::result::Result<classes::Named, classes::Fault> {
    let (y, found) = match (several, marks(words, names)) {
        (true, Some(marked)) => (marked, None),
        _ => classes::labels(words, several)?,
    };
    match (y, names) {
        // As many labels as are named, also where no row has the last of them.
        (Labels::Multi { labels, rows }, Some(names)) if labels < names.len() => {
            let row = |row: &[u32]| [row, &vec![0; names.len() - labels]].concat();
            let rows = rows.chunks_exact(labels).flat_map(row).collect();
            Ok((Labels::Multi { labels: names.len(), rows }, found))
        }
        (y, _) => Ok((y, found)),
    }
}

/// Lists of 0 and 1: of equal length, as long as there are names, or with a number that is there twice.
fn marks(words: &[Vec<String>], names: Option<&[String]>) -> Option<Labels> {
    let labels = words.first().map(Vec::len).filter(|&labels| labels > 1)?;
    let twice = words.iter().any(|row| {
        row.iter().filter(|word| *word == "0").count() > 1
            || row.iter().filter(|word| *word == "1").count() > 1
    });
    if names.map_or(!twice, |names| names.len() != labels) || words.iter().any(|row| row.len() != labels) {
        return None;
    }
    let bit = |word: &String| word.parse().ok().filter(|bit: &u32| *bit < 2);
    let rows = words.iter().flatten().map(bit).collect::<Option<_>>()?;
    Some(Labels::Multi { labels, rows })
}

/// The bytes of a picture, and its name.
///
/// # Errors
/// What there is in place of its bytes.
fn picture(field: &Field) -> std::result::Result<(Vec<u8>, Option<String>), String> {
    const REMEDY: &str = "`datasets` writes the pictures themselves after `ds = ds.with_format(\"arrow\").map(\
                          datasets.table.embed_table_storage, batched=True)`";
    let row = match field {
        Field::Bytes(bytes) => return Ok((bytes.data().to_vec(), None)),
        Field::Group(row) => row,
        _ => return Err("nothing".into()),
    };
    let of = |name: &str| row.get_column_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    let name = match of("path") {
        Some(Field::Str(name)) => Some(name.clone()),
        _ => None,
    };
    match (of("bytes"), name) {
        (Some(Field::Bytes(bytes)), name) => Ok((bytes.data().to_vec(), name)),
        (_, Some(name)) => Err(format!("the path {name} alone ({REMEDY})")),
        _ => Err("nothing".into()),
    }
}

/// A value as a word.
fn word(field: &Field) -> Option<String> {
    match field {
        Field::Null | Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => None,
        Field::Str(word) => Some(word.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether a column has pictures: their bytes with a path, as Hugging Face writes them, or bytes under a usual name.
pub(super) fn is_picture(field: &TypePtr) -> bool {
    match field.is_group() {
        true => field.get_fields().iter().any(|part| part.name() == "bytes"),
        false => IMAGES.contains(&field.name()) && is_bytes(field) && !is_text_or_number(field),
    }
}

fn is_bytes(field: &TypePtr) -> bool {
    field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY
}

/// Bytes are text where the schema says so.
fn is_text_or_number(field: &TypePtr) -> bool {
    let info = field.get_basic_info();
    let is_text = || {
        let logical = info.logical_type_ref();
        matches!(logical, Some(LogicalType::String | LogicalType::Enum))
            || info.converted_type() == parquet::basic::ConvertedType::UTF8
    };
    field.is_primitive() && (!is_bytes(field) || is_text())
}

/// The names of the classes of a column, or of the elements of its lists, as the library `datasets` writes them.
pub(super) fn class_names(metadata: &FileMetaData, column: &str) -> Option<Vec<String>> {
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    let described = pairs.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
    let value: Value = serde_json::from_str(described?).ok()?;
    let feature = value.get("info")?.get("features")?.get(column)?;
    let element = feature.get("feature").or_else(|| feature.get(0)).unwrap_or(feature);
    let names = element.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}
