//! Manifests: a .csv, .tsv, .json or .jsonl file with a row for each picture, which names its file and its labels.
//!
//! The file is in a column `path`, `file`, `file_name`, `filename` or `image`, relative to the manifest; the label in
//! `label`, `labels`, `class`, `class_name` or `target`. Labels that are all whole numbers are classes; words are
//! classes in the order of the sorted words. A list in JSON, or a column `labels` with words between `;` or `|`, gives
//! several. Without a column of labels, columns that are all 0 and 1 are one label each. Other columns are kept as names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::encoding::read_text;
use super::pictures::{Pictures, Place, is_picture};
use super::records::{Object, Records, ending, list_of_objects, named_columns, named_twice, objects_by_line};
use super::table::check_quotes;
use super::{Labels, classes};
use crate::error::{Error, Result};

const PATHS: [&str; 7] = ["path", "file", "file_name", "filename", "image", "image_path", "img"];
pub(super) const LABELS: [&str; 5] = ["label", "labels", "class", "class_name", "target"];

/// A cell: no word, one, or a list of them.
type Cell = Vec<String>;

/// A manifest's rows.
struct Rows {
    columns: Vec<String>,
    /// Of each row its place, as `line 3` or `item 2`, and its cells.
    rows: Vec<(String, Vec<Cell>)>,
    /// The columns with lists.
    lists: BTreeSet<usize>,
}

/// Whether a file is a manifest of pictures, by its name and its columns; of a damaged one, by the words of its first line.
pub(super) fn is_listing(path: &Path) -> bool {
    if !["csv", "tsv", "jsonl", "ndjson", "json"].contains(&ending(path).as_str()) {
        return false;
    }
    if let Ok(rows) = rows(path, Some(1)) {
        return place_of(&rows.columns, &PATHS).is_some();
    }
    let text = read_text(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mut words = text.lines().next().unwrap_or_default().split([',', ';', '\t', '"', '{', ':', ' ']);
    words.any(|word| PATHS.iter().any(|path| word.trim().eq_ignore_ascii_case(path)))
}

/// The files of the pictures of a manifest.
///
/// # Errors
/// Where it is no such table, or a row has no file.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let (_, pictures, _) = pictures(path)?;
    Ok(pictures.files())
}

/// Lists the pictures of a manifest, with labels from the columns that are `chosen`, else from those of usual names.
///
/// # Errors
/// Where it is no such table, or a row has no file or no label.
pub(super) fn list(path: &Path, chosen: &[String]) -> Result<Pictures> {
    let (mut rows, pictures, at) = pictures(path)?;
    let (y, classes, used) = labels(path, &mut rows, at, chosen)?;
    let words = |column: usize| rows.rows.iter().map(|(_, cells)| cells[column].join(";")).collect();
    let others = (0..rows.columns.len()).filter(|column| *column != at && !used.contains(column));
    let columns = others.map(|column| (rows.columns[column].clone(), words(column))).collect();
    let rows = rows.rows.into_iter().map(|(row, _)| row).collect();
    Ok(Pictures { rows, y, classes, columns, ..pictures })
}

/// The rows of a manifest, the files that they name, and the column of these.
fn pictures(path: &Path) -> Result<(Rows, Pictures, usize)> {
    let rows = rows(path, None)?;
    let at = place_of(&rows.columns, &PATHS).ok_or_else(|| {
        let reason = format!("has the columns {}, and none of {}", rows.columns.join(", "), PATHS.join(", "));
        Error::data(path, reason)
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut places, mut samples) = (vec![], vec![]);
    for (row, cells) in &rows.rows {
        let [file] = cells[at].as_slice() else {
            return Err(Error::record(path, row.as_str(), "names no file"));
        };
        places.push(Place::File(folder.join(file)));
        samples.push(file.clone());
    }
    Ok((rows, Pictures { places, samples, ..Pictures::of(path) }, at))
}

/// The first of these names that is a column, in any case.
fn place_of(columns: &[String], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
}

/// The labels, the names of their classes, and the columns that they are read from.
fn labels(
    path: &Path,
    rows: &mut Rows,
    files: usize,
    chosen: &[String],
) -> Result<(Labels, Option<Vec<String>>, Vec<usize>)> {
    let mut used: Vec<usize> = (0..rows.columns.len()).filter(|&column| column != files).collect();
    if !chosen.is_empty() {
        let place = |name: &String| {
            place_of(&rows.columns, &[name]).ok_or_else(|| {
                let reason = format!("has the columns {}, and no `{name}`", rows.columns.join(", "));
                Error::data(path, reason)
            })
        };
        used = chosen.iter().map(place).collect::<Result<_>>()?;
    }
    let one = match (&used[..], chosen) {
        (_, []) => place_of(&rows.columns, &LABELS),
        (&[one], _) => Some(one),
        _ => None, // several, of 0 and 1
    };
    let Some(at) = one else {
        let one = |cell: &Cell| cell.first().and_then(|word| classes::whole(word)).filter(|&value| value < 2);
        let bits: Option<Vec<u32>> =
            rows.rows.iter().flat_map(|(_, cells)| used.iter().map(|&column| one(&cells[column]))).collect();
        let names = used.iter().map(|&column| rows.columns[column].clone()).collect();
        return match bits.filter(|_| !used.is_empty()) {
            Some(bits) => Ok((Labels::Multi { labels: used.len(), rows: bits }, Some(names), used)),
            None => {
                let (found, known) = (rows.columns.join(", "), LABELS.join(", "));
                let reason = match chosen {
                    [] => format!(
                        "has the columns {found}, and none of {known}; --label-column names the labels"
                    ),
                    _ => format!(
                        "has others than 0 and 1 in the columns {}, which are several labels",
                        chosen.join(", ")
                    ),
                };
                Err(Error::data(path, reason))
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
        Some(i) => Error::record(path, rows.rows[i].0.as_str(), reason),
        None => Error::data(path, reason),
    })?;
    Ok((y, names, vec![at]))
}

/// The rows of a manifest; of a table of text at most this many, where its columns alone are asked for.
fn rows(path: &Path, most: Option<usize>) -> Result<Rows> {
    let bytes = read_text(path)?;
    let usual = match ending(path).as_str() {
        "json" => return objects(path, items(path, &bytes)?),
        "jsonl" | "ndjson" => return objects(path, objects_by_line(path, &bytes)?),
        "tsv" => b'\t',
        _ => b',',
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::data(path, "is not UTF-8"))?;
    cells(path, &text, usual, most)
}

/// The rows of a JSON file: a list of objects, or an object of files and labels, which are sorted.
fn items(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Object)>> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return list_of_objects(path, bytes);
    }
    let reason = "is neither a list of objects nor an object of files and their labels";
    let Object(files) =
        serde_json::from_slice(bytes).map_err(|e| Error::data(path, format!("{reason}: {e}")))?;
    if files.iter().any(|(_, label)| label.is_object()) {
        return Err(Error::data(path, reason));
    }
    let mut files: Vec<_> = files.into_iter().zip(1..).collect();
    files.sort_by(|((one, _), _), ((other, _), _)| one.cmp(other));
    let object = |(file, label): (String, Value)| vec![("path".into(), file.into()), ("label".into(), label)];
    Ok(files.into_iter().map(|(pair, i)| (format!("item {i}"), Object(object(pair)))).collect())
}

/// Objects as rows, with the keys of each in the order of their names.
fn objects(path: &Path, mut objects: Vec<(String, Object)>) -> Result<Rows> {
    if objects.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    objects.iter_mut().for_each(|(_, Object(pairs))| pairs.sort_by(|(one, _), (other, _)| one.cmp(other)));
    let Records { columns, rows, .. } = named_columns(path, objects)?;
    let word = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let mut lists = BTreeSet::new();
    let mut cell = |(column, value): (usize, &Value)| match value {
        Value::Array(words) => {
            lists.insert(column);
            words.iter().filter_map(word).collect()
        }
        value => word(value).into_iter().collect(),
    };
    let cells = |(row, cells): (String, Vec<Value>)| (row, cells.iter().enumerate().map(&mut cell).collect());
    let rows = rows.into_iter().map(cells).collect();
    Ok(Rows { columns, rows, lists })
}

/// The rows of a table of text. One that begins with the file of a picture has no header: its columns are the file and
/// the label.
fn cells(path: &Path, text: &str, usual: u8, most: Option<usize>) -> Result<Rows> {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: &u8| first.bytes().filter(|byte| byte == delimiter).count();
    let others = [usual, b';', b'\t'];
    let delimiter =
        if count(&usual) > 0 { usual } else { others.into_iter().max_by_key(count).unwrap_or(usual) };
    if most.is_none() {
        check_quotes(path, text.as_bytes(), delimiter)?;
    }
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter).trim(csv::Trim::All);
    let mut columns: Option<Vec<String>> = None;
    let mut rows = vec![];
    for record in reader.from_reader(text.as_bytes()).records() {
        if most == Some(rows.len()) {
            break;
        }
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let place = format!("line {}", record.position().map_or(0, csv::Position::line));
        if record.iter().all(str::is_empty) {
            continue;
        }
        let Some(columns) = &columns else {
            let headless = record.get(0).is_some_and(|file| is_picture(Path::new(file)));
            let names = if headless { vec!["path", "label"] } else { record.iter().collect() };
            if let Some(name) = named_twice(&names) {
                return Err(Error::record(path, place, format!("names `{name}` twice")));
            }
            columns = Some(names.into_iter().map(String::from).collect());
            if headless {
                rows.push(row(path, &record, place, 2)?);
            }
            continue;
        };
        rows.push(row(path, &record, place, columns.len())?);
    }
    match (columns, rows.is_empty()) {
        (Some(columns), false) => Ok(Rows { columns, rows, lists: BTreeSet::new() }),
        _ => Err(Error::data(path, "holds no samples")),
    }
}

fn row(path: &Path, record: &csv::StringRecord, place: String, width: usize) -> Result<(String, Vec<Cell>)> {
    if record.len() != width {
        let reason = format!("has {} cells, where the first line has {width}", record.len());
        return Err(Error::record(path, place, reason));
    }
    let cell = |word: &str| if word.is_empty() { vec![] } else { vec![word.to_string()] };
    Ok((place, record.iter().map(cell).collect()))
}
