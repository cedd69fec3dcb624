//! Rows of named cells, as people keep labelled texts: .jsonl or .ndjson (an object a line), .json (a list of objects),
//! .csv and .tsv (the first line names the columns), .parquet; and lines of a label and a text, without names.
//!
//! A cell is a JSON value; those of .csv and .tsv are strings, as they stand there. Nothing is converted here.

#[cfg(feature = "parquet")]
mod columnar;
mod rows;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(super) use rows::{Object, Records};

use super::encoding::read_text;
use super::table::check_quotes;
use crate::error::{Error, Result};

/// The columns of lines that name none.
pub(super) const UNNAMED: [&str; 2] = ["label", "text"];

/// Whether a file has rows: by the end of its name, one of those above or `.label`; with another name, or none, where its
/// first line is text with a tab.
pub(super) fn is_known(path: &Path) -> bool {
    match ending(path).as_str() {
        "csv" | "tsv" | "jsonl" | "ndjson" | "json" | "parquet" | "label" => true,
        "txt" | "" => {
            let first = File::open(path).map(|file| BufReader::new(file.take(1 << 16)).split(b'\n').next());
            let line = first.ok().flatten().and_then(|line| String::from_utf8(line.ok()?).ok());
            line.is_some_and(|line| line.contains('\t') && !line.contains('\0'))
        }
        _ => false,
    }
}

/// The end of a file's name, in lower case and without `.gz`.
pub(super) fn ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map_or("", |(_, end)| end).to_string()
}

/// The files of a folder that have the rows of a part, whose names begin with one of these words: `train.csv`, or
/// `train-00000-of-00002.jsonl` and the like, all of one ending, in the order of their names. None where there is no such file.
///
/// # Errors
/// Where there are such files of several endings.
pub(super) fn of_folder(folder: &Path, begin: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let of_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let behind = begin.iter().find_map(|word| name.strip_prefix(word)).unwrap_or_default();
        let known = !["", "txt"].contains(&ending(path).as_str()) && is_known(path);
        behind.starts_with(['.', '-', '_']) && known && path.is_file()
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(of_part).collect();
    files.sort();
    match files.iter().find(|file| ending(file) != ending(&files[0])) {
        None => Ok(files),
        Some(other) => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let reason = format!("has {} and {}; name the one that is meant", name(&files[0]), name(other));
            Err(Error::data(folder, reason))
        }
    }
}

/// Reads the rows of a file. The first line of a `.csv` file names the columns; that of another file of lines does where
/// `names` says so of its cells between tabs. Otherwise each line is a label, a tab and a text, or in a `.label` file a
/// label, a blank and a text.
///
/// # Errors
/// Where a row is malformed or no UTF-8, rows have other numbers of cells than there are columns, or a column is there
/// twice; the message names the line.
pub(super) fn read(path: &Path, names: impl Fn(&[&str]) -> bool) -> Result<Records> {
    let ending = ending(path);
    let records = match ending.as_str() {
        "parquet" => parquet(path)?,
        "jsonl" | "ndjson" => named_columns(path, objects_by_line(path, &read_text(path)?)?)?,
        "json" => named_columns(path, list_of_objects(path, &read_text(path)?)?)?,
        "csv" => cells(path, &read_text(path)?, None)?,
        "label" => labelled(path, &read_text(path)?, ' ')?,
        _ => {
            let bytes = read_text(path)?;
            let first =
                String::from_utf8_lossy(bytes.split(|&byte| byte == b'\n').next().unwrap_or_default());
            let first: Vec<&str> = first.trim_end().split('\t').map(|cell| cell.trim_matches('"')).collect();
            match names(&first) {
                true => cells(path, &bytes, Some(b'\t'))?,
                false => labelled(path, &bytes, '\t')?,
            }
        }
    };
    match records.rows.is_empty() {
        false => Ok(records),
        true => Err(Error::data(path, "holds no samples")),
    }
}

/// Whether a parquet file has pictures, as Hugging Face writes them, and no texts alone.
#[cfg(feature = "parquet")]
pub(super) fn has_pictures(path: &Path) -> bool {
    columnar::has_pictures(path)
}

/// Without the feature that reads them, parquet files are taken for what is refused.
#[cfg(not(feature = "parquet"))]
pub(super) fn has_pictures(_: &Path) -> bool {
    true
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path) -> Result<Records> {
    columnar::read(path)
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path) -> Result<Records> {
    let reason =
        "is a parquet file; build with `--features parquet` to read it, or save it as .jsonl or .csv";
    Err(Error::data(path, reason))
}

/// A cell's or a line's text; the file was read as text.
fn utf8<'a>(path: &Path, line: u64, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::record(path, format!("line {line}"), "is not UTF-8"))
}

/// The lines of a file that are not blank, with their numbers.
fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<(u64, &'a str)>> {
    let whole = bytes.split(|&byte| byte == b'\n').zip(1u64..);
    let text = move |(line, number): (&'a [u8], u64)| Ok((number, utf8(path, number, line)?));
    let blank = |line: &Result<(u64, &str)>| line.as_ref().is_ok_and(|(_, line)| line.trim().is_empty());
    whole.map(text).filter(move |line| !blank(line))
}

/// Objects as rows of all keys.
///
/// # Errors
/// Where nearly all cells would be empty.
pub(super) fn named_columns(path: &Path, objects: Vec<(String, Object)>) -> Result<Records> {
    rows::of_objects(objects).map_err(|reason| Error::data(path, reason))
}

/// The objects of a file that has one a line, each with its place.
pub(super) fn objects_by_line(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Object)>> {
    let object = |line: Result<(u64, &str)>| {
        let (number, text) = line?;
        let place = format!("line {number}");
        let object = serde_json::from_str(text).map_err(|e| {
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default(); // of this one line
            Error::record(path, place.as_str(), format!("is no JSON object: {reason}"))
        })?;
        Ok((place, object))
    };
    lines(path, bytes).map(object).collect()
}

/// The objects of a list, each with its place.
pub(super) fn list_of_objects(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Object)>> {
    let objects: Vec<Object> = serde_json::from_slice(bytes)
        .map_err(|e| Error::data(path, format!("is no JSON list of objects: {e}")))?;
    Ok(objects.into_iter().zip(1..).map(|(object, i)| (format!("item {i}"), object)).collect())
}

/// A name that is there twice, of those that are not empty.
pub(super) fn named_twice<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.iter().copied().find(|name| !name.is_empty() && !seen.insert(*name))
}

/// Cells between commas, or what the first line has instead.
fn cells(path: &Path, bytes: &[u8], delimiter: Option<u8>) -> Result<Records> {
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: &u8| first.iter().filter(|byte| *byte == delimiter).count();
    // Of equally many, the last of these.
    let delimiter =
        delimiter.unwrap_or_else(|| *b"|\t;,".iter().max_by_key(|byte| count(byte)).unwrap_or(&b','));
    check_quotes(path, bytes, delimiter)?;
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter);
    let mut records = Records::default();
    for record in reader.from_reader(bytes).byte_records() {
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let cells = record.iter().map(|cell| utf8(path, line, cell)).collect::<Result<Vec<_>>>()?;
        if records.columns.is_empty() {
            records.columns = cells.iter().map(|name| name.trim().to_string()).collect();
            if let Some(name) = named_twice(&cells) {
                return Err(Error::record(path, format!("line {line}"), format!("names `{name}` twice")));
            }
            continue;
        }
        if cells.len() != records.columns.len() {
            let (found, expected) = (cells.len(), records.columns.len());
            let reason = format!("has {found} cells, where the first line names {expected} columns");
            return Err(Error::record(path, format!("line {line}"), reason));
        }
        records.rows.push((format!("line {line}"), cells.into_iter().map(Value::from).collect()));
    }
    Ok(records)
}

/// Lines of a label, a mark and a text.
fn labelled(path: &Path, bytes: &[u8], mark: char) -> Result<Records> {
    let row = |line: Result<(u64, &str)>| {
        let (number, line) = line?;
        let place = format!("line {number}");
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (label, text) = line.split_once(mark).ok_or_else(|| {
            let reason = match mark {
                ' ' => "has no blank; a label, a blank and a text were expected",
                _ => "has no tab; a label, a tab and a text were expected, or a first line that names the columns",
            };
            Error::record(path, place.as_str(), reason)
        })?;
        if mark == '\t' && text.contains(mark) {
            let reason = "has several tabs; a label, a tab and a text were expected, or a first line that names the columns";
            return Err(Error::record(path, place, reason));
        }
        Ok((place, vec![Value::from(label), Value::from(text)]))
    };
    let rows = lines(path, bytes).map(row).collect::<Result<_>>()?;
    Ok(Records { columns: UNNAMED.map(String::from).into(), rows, classes: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, bytes: impl AsRef<[u8]>) -> Result<Records> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path, |first| first.contains(&"text"))
    }

    /// The cells of all rows as JSON.
    fn cells(name: &str, bytes: impl AsRef<[u8]>) -> (String, String) {
        let Records { columns, rows, .. } = read_as(name, bytes).unwrap();
        (
            columns.join(" "),
            Value::from(rows.into_iter().map(|(_, cells)| Value::from(cells)).collect::<Vec<_>>())
                .to_string(),
        )
    }

    #[test]
    fn every_form_gives_the_same_cells() {
        let expected = ("label text".to_string(), r#"[["ham","a, \"b\"\n c "],["spam","é"]]"#.to_string());
        let csv = "label,text\nham,\"a, \"\"b\"\"\n c \"\nspam,é\n";
        let windows = format!("\u{feff}{}", csv.replace("é\n", "é\r\n"));
        for (name, text) in [
            ("a.csv", csv),
            ("a.csv", windows.as_str()),
            ("a.CSV", "label;text\nham;\"a, \"\"b\"\"\n c \"\n\nspam;é"),
            ("a.tsv", "label\ttext\nham\t\"a, \"\"b\"\"\n c \"\nspam\té\n"),
            (
                "a.jsonl",
                "{\"label\": \"ham\", \"text\": \"a, \\\"b\\\"\\n c \"}\r\n\n{\"label\":\"spam\",\"text\":\"é\"}\n",
            ),
            (
                "a.json",
                "[{\"label\": \"ham\", \"text\": \"a, \\\"b\\\"\\n c \"}, {\"label\":\"spam\",\"text\":\"é\"}]",
            ),
        ] {
            assert_eq!(cells(name, text), expected, "{name} {text}");
        }
        let plain = ("label text".to_string(), r#"[["ham","\"Ok\" lar, "],["spam","é"]]"#.to_string());
        assert_eq!(cells("SMSSpamCollection", "ham\t\"Ok\" lar, \r\n\nspam\té"), plain);
        assert_eq!(cells("a.label", "ham \"Ok\" lar, \nspam é\n"), plain);
        let wide = "{\"text\": 5, \"a\": null}\n{\"b\": [1], \"text\": \"x\"}";
        assert_eq!(cells("a.ndjson", wide), ("text a b".into(), r#"[[5,null,null],["x",null,[1]]]"#.into()));
        let mut long = String::from("label,text\n0,");
        long.push_str(&"word ".repeat(2 << 20));
        assert_eq!(read_as("a.csv", long).unwrap().rows[0].1[1].as_str().unwrap().len(), 5 * (2 << 20));
    }

    #[test]
    fn files_are_known_by_their_names_or_their_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert!(
            is_known(&at("a.JSONL", b""))
                && is_known(&at("a.csv.gz", b""))
                && is_known(&at("sms", b"ham\tx\n"))
        );
        assert!(
            !is_known(&at("a.png", b""))
                && !is_known(&at("notes.txt", b"x"))
                && !is_known(&at("bits", b"\0\t\n"))
        );
        assert_eq!(of_folder(dir.path(), &["train"]).unwrap(), Vec::<PathBuf>::new());
        let (one, two) = (at("train-00000-of-00002.parquet", b""), at("train-00001-of-00002.parquet", b""));
        at("trainer.json", b"");
        at("test.parquet", b"");
        assert_eq!(of_folder(dir.path(), &["train"]).unwrap(), [one, two]);
        at("train.csv", b"");
        assert!(of_folder(dir.path(), &["train"]).unwrap_err().to_string().contains("train.csv"));
    }

    #[test]
    fn faults_name_the_line() {
        let refused = |name: &str, bytes: &[u8], words: &[&str]| {
            let error = read_as(name, bytes).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
        };
        refused("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", &["a.csv: line 3", "not UTF-8", "0xe9"]);
        refused("a.jsonl", b"{\"text\": \"caf\xe9\"}", &["line 1", "not UTF-8"]);
        refused("a.csv", b"text,label,text\nx,1,y\n", &["line 1", "`text` twice"]);
        refused(
            "a.jsonl",
            b"{\"text\": \"x\"}\n{\"text\": \"x\", \"text\": \"y\"}",
            &["line 2", "`text`", "twice"],
        );
        refused("a.jsonl", b"{}\n{\"text\": \n", &["line 2", "no JSON object"]);
        refused("a.jsonl", b"[1]\n", &["line 1", "an object such as"]);
        refused("a.json", b"{\"text\": \"x\"}", &["no JSON list of objects"]);
        refused("a.csv", b"text,label\nx,1\ny,z,0\n", &["line 3", "3 cells", "2 columns"]);
        refused("a.csv", b"text,label\n\"x,1\n", &["line 2", "never closed"]);
        refused("a.csv", b"text,label\n", &["no samples"]);
        refused("a.csv", b"", &["no samples"]);
        refused("a", b"ham\tx\nspam y\n", &["a: line 2", "no tab"]);
        refused("a.txt", b"ham\tx\nspam\ty\tz\n", &["line 2", "several tabs"]);
        refused("a.label", b"ham\n", &["line 1", "no blank"]);
        if !cfg!(feature = "parquet") {
            refused("a.parquet", b"PAR1", &["--features parquet"]);
        }
    }
}
