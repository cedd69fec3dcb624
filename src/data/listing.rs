//! Manifests: a .csv, .tsv, .json or .jsonl file with a row for each picture, which names its file and its labels.
//!
//! The file is in a column `path`, `file`, `file_name`, `filename` or `image`, relative to the manifest; the label in
//! `label`, `labels`, `class`, `class_name` or `target`. Labels that are all whole numbers are classes; words are
//! classes in the order of the sorted words. A list in JSON, or a column `labels` with words between `;` or `|`, gives
//! several. Without a column of labels, columns that are all 0 and 1 are one label each. Other columns are kept as names.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::encoding::read_text;
use super::pictures::{Pictures, Place, is_picture};
use super::{Labels, classes};
use crate::error::{Error, Result};

const PATHS: [&str; 7] = ["path", "file", "file_name", "filename", "image", "image_path", "img"];
pub(super) const LABELS: [&str; 5] = ["label", "labels", "class", "class_name", "target"];

/// A cell: no word, one, or a list of them.
type Cell = Vec<String>;

/// A manifest's rows.
struct Rows {
    columns: Vec<String>,
    /// Of each row its line, or number in a JSON list, and its cells.
    rows: Vec<(usize, Vec<Cell>)>,
    /// The columns with lists.
    lists: BTreeSet<usize>,
}

/// Whether a file is a manifest of pictures, by its name and its columns.
pub(super) fn is_listing(path: &Path) -> bool {
    kind(path).is_some() && rows(path).is_ok_and(|rows| place_of(&rows.columns, &PATHS).is_some())
}

/// The kind of a manifest by its name, in lower case and without `.gz`.
fn kind(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let name = name.trim_end_matches(".gz");
    [".csv", ".tsv", ".jsonl", ".ndjson", ".json"].into_iter().find(|ending| name.ends_with(ending))
}

/// Lists the pictures of a manifest.
///
/// # Errors
/// Where it is no such table, or a row has no file or no label.
pub(super) fn list(path: &Path) -> Result<Pictures> {
    let mut rows = rows(path)?;
    let at = place_of(&rows.columns, &PATHS).ok_or_else(|| {
        let reason = format!("has the columns {}, and none of {}", rows.columns.join(", "), PATHS.join(", "));
        Error::data(path, reason)
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut places, mut samples, mut lines) = (vec![], vec![], vec![]);
    for (line, cells) in &rows.rows {
        let [file] = cells[at].as_slice() else {
            return Err(Error::record(path, format!("line {line}"), "names no file"));
        };
        places.push(Place::File(folder.join(file)));
        samples.push(file.clone());
        lines.push(*line);
    }
    let (y, classes, used) = labels(path, &mut rows, at)?;
    let words = |column: usize| rows.rows.iter().map(|(_, cells)| cells[column].join(";")).collect();
    let others = (0..rows.columns.len()).filter(|column| *column != at && !used.contains(column));
    let columns = others.map(|column| (rows.columns[column].clone(), words(column))).collect();
    Ok(Pictures { places, samples, lines, y, classes, columns, ..Pictures::of(path) })
}

/// The first of these names that is a column, in any case.
fn place_of(columns: &[String], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
}

/// The labels, the names of their classes, and the columns that they are read from.
fn labels(path: &Path, rows: &mut Rows, files: usize) -> Result<(Labels, Option<Vec<String>>, Vec<usize>)> {
    let Some(at) = place_of(&rows.columns, &LABELS) else {
        let used: Vec<usize> = (0..rows.columns.len()).filter(|&column| column != files).collect();
        let one = |cell: &Cell| cell.first().and_then(|word| classes::whole(word)).filter(|&value| value < 2);
        let bits: Option<Vec<u32>> =
            rows.rows.iter().flat_map(|(_, cells)| used.iter().map(|&column| one(&cells[column]))).collect();
        let names = used.iter().map(|&column| rows.columns[column].clone()).collect();
        return match bits.filter(|_| !used.is_empty()) {
            Some(bits) => Ok((Labels::Multi { labels: used.len(), rows: bits }, Some(names), used)),
            None => {
                let (found, known) = (rows.columns.join(", "), LABELS.join(", "));
                Err(Error::data(path, format!("has the columns {found}, and none of {known}")))
            }
        };
    };
    let split = |word: &str| word.split([';', '|']).any(|part| part.len() < word.len());
    let plural = rows.columns[at].eq_ignore_ascii_case("labels");
    if plural && rows.rows.iter().any(|(_, cells)| cells[at].first().is_some_and(|word| split(word))) {
        rows.lists.insert(at);
        for (_, cells) in &mut rows.rows {
            let words = cells[at].iter().flat_map(|word| word.split([';', '|'])).map(str::trim);
            cells[at] = words.filter(|word| !word.is_empty()).map(String::from).collect();
        }
    }
    let words: Vec<Vec<String>> = rows.rows.iter().map(|(_, cells)| cells[at].clone()).collect();
    let labels = classes::labels(&words, rows.lists.contains(&at));
    let (y, names) = labels.map_err(|(i, reason)| match i {
        Some(i) => Error::record(path, format!("line {}", rows.rows[i].0), reason),
        None => Error::data(path, reason),
    })?;
    Ok((y, names, vec![at]))
}

fn rows(path: &Path) -> Result<Rows> {
    let text = String::from_utf8(read_text(path)?).map_err(|_| Error::data(path, "is not UTF-8"))?;
    match kind(path) {
        Some(".csv") => cells(path, &text, b','),
        Some(".tsv") => cells(path, &text, b'\t'),
        Some(".json") => {
            let value =
                serde_json::from_str(&text).map_err(|e| Error::data(path, format!("is not JSON: {e}")))?;
            objects(path, items(path, value)?)
        }
        _ => {
            let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
            let object = |(text, line): (&str, usize)| match serde_json::from_str(text) {
                Ok(Value::Object(object)) => Ok((line, object)),
                Ok(_) => Err(Error::record(path, format!("line {line}"), "is no JSON object")),
                Err(e) => Err(Error::record(path, format!("line {line}"), format!("is not JSON: {e}"))),
            };
            objects(path, lines.map(object).collect::<Result<_>>()?)
        }
    }
}

/// The rows of a JSON file: a list of objects, or an object of files and labels.
fn items(path: &Path, value: Value) -> Result<Vec<(usize, Map<String, Value>)>> {
    let pair = |(file, label): (String, Value)| {
        [("path".to_string(), Value::String(file)), ("label".to_string(), label)].into_iter().collect()
    };
    let numbered = |(i, item): (usize, Value)| match item {
        Value::Object(object) => Ok((i + 1, object)),
        _ => Err(Error::record(path, format!("item {}", i + 1), "is no JSON object")),
    };
    match value {
        Value::Array(items) => items.into_iter().enumerate().map(numbered).collect(),
        Value::Object(files) if files.values().all(|label| !label.is_object()) => {
            Ok(files.into_iter().map(pair).enumerate().map(|(i, object)| (i + 1, object)).collect())
        }
        _ => Err(Error::data(path, "is neither a list of objects nor an object of files and their labels")),
    }
}

fn objects(path: &Path, objects: Vec<(usize, Map<String, Value>)>) -> Result<Rows> {
    let mut columns: Vec<String> = vec![];
    for (_, object) in &objects {
        columns.extend(object.keys().filter(|key| !columns.contains(key)).cloned().collect::<Vec<_>>());
    }
    let mut lists = BTreeSet::new();
    let word = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let mut rows = vec![];
    for (line, object) in &objects {
        let cells = columns.iter().enumerate().map(|(i, column)| match object.get(column) {
            Some(Value::Array(words)) => {
                lists.insert(i);
                words.iter().filter_map(word).collect()
            }
            Some(value) => word(value).into_iter().collect(),
            None => vec![],
        });
        rows.push((*line, cells.collect()));
    }
    match rows.is_empty() {
        false => Ok(Rows { columns, rows, lists }),
        true => Err(Error::data(path, "holds no samples")),
    }
}

/// The rows of a table of text. One that begins with the file of a picture has no header: its columns are the file and
/// the label.
fn cells(path: &Path, text: &str, usual: u8) -> Result<Rows> {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: &u8| first.bytes().filter(|byte| byte == delimiter).count();
    let others = [usual, b';', b'\t'];
    let delimiter =
        if count(&usual) > 0 { usual } else { others.into_iter().max_by_key(count).unwrap_or(usual) };
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter).trim(csv::Trim::All);
    let (mut columns, mut rows): (Option<Vec<String>>, Vec<(usize, Vec<Cell>)>) = (None, vec![]);
    for record in reader.from_reader(text.as_bytes()).records() {
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        if record.iter().all(str::is_empty) {
            continue;
        }
        let Some(columns) = &columns else {
            let headless = record.get(0).is_some_and(|file| is_picture(Path::new(file)));
            columns = Some(match headless {
                true => ["path", "label"].map(String::from).into(),
                false => record.iter().map(String::from).collect(),
            });
            if headless {
                rows.push((line, row(path, &record, line, 2)?));
            }
            continue;
        };
        rows.push((line, row(path, &record, line, columns.len())?));
    }
    match (columns, rows.is_empty()) {
        (Some(columns), false) => Ok(Rows { columns, rows, lists: BTreeSet::new() }),
        _ => Err(Error::data(path, "holds no samples")),
    }
}

fn row(path: &Path, record: &csv::StringRecord, line: usize, width: usize) -> Result<Vec<Cell>> {
    if record.len() != width {
        let reason = format!("has {} cells, where the first line has {width}", record.len());
        return Err(Error::record(path, format!("line {line}"), reason));
    }
    let cell = |word: &str| if word.is_empty() { vec![] } else { vec![word.to_string()] };
    Ok(record.iter().map(cell).collect())
}
