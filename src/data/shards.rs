//! Tar files as webdataset has them: files of one sample have the same name up to the first dot, as `0001.jpg` and
//! `0001.cls`. The label is in `.cls`, or in `.json` under `label` or a name like it. Pictures are read where they lie in the
//! file.

use std::collections::HashMap;
use std::io::{BufReader, Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::file::{StoredFile, open};
use super::listing::LABELS;
use super::pictures::{Pictures, Place, is_picture};
use super::tensors::read_unzipped;
use super::{classes, foreign};
use crate::error::{Error, Result};

/// What a tar has of one sample.
#[derive(Default)]
struct Member {
    picture: Option<(String, Range<u64>)>,
    class: Option<Range<u64>>,
    json: Option<Range<u64>>,
}

/// Lists the samples of tar files.
///
/// # Errors
/// Where a file is damaged, or a sample has a picture and no label.
pub(super) fn list(path: &Path, files: &[PathBuf]) -> Result<Pictures> {
    let (mut places, mut samples, mut words, mut several) = (vec![], vec![], vec![], false);
    for file in files {
        let packed = !file.extension().is_some_and(|end| end.eq_ignore_ascii_case("tar"));
        let (stored, members) = match packed {
            true => {
                let bytes = read_unzipped(file)?;
                let members = members(file, Cursor::new(&bytes))?;
                (StoredFile::of_bytes(file, bytes), members)
            }
            false => {
                let stored = StoredFile::open(file)?;
                foreign::check(&stored)?;
                (stored, members(file, BufReader::new(open(file)?))?)
            }
        };
        let stored = Arc::new(stored);
        for (key, member) in members {
            let Some((name, range)) = member.picture else { continue };
            let refuse = |reason: &str| Error::record(file, key.clone(), reason);
            let label = match (member.class, member.json) {
                (Some(class), _) => {
                    let text = String::from_utf8(stored.read(class)?);
                    vec![text.map_err(|_| refuse("has a .cls that is no text"))?.trim().to_string()]
                }
                (None, Some(json)) => {
                    let value: Option<Value> = serde_json::from_slice(&stored.read(json)?).ok();
                    let label = value.as_ref().and_then(|value| LABELS.iter().find_map(|key| value.get(key)));
                    several |= label.is_some_and(Value::is_array);
                    of_json(label.ok_or_else(|| refuse("has a .json without a label"))?)
                }
                (None, None) => return Err(refuse("has a picture, and neither .cls nor .json beside it")),
            };
            places.push(Place::Part(Arc::clone(&stored), range));
            samples.push(name);
            words.push(label);
        }
    }
    let labels = classes::labels(&words, several);
    let (y, classes) = labels.map_err(|(i, reason)| match i {
        Some(i) => Error::record(path, samples[i].clone(), reason),
        None => Error::data(path, reason),
    })?;
    Ok(Pictures { places, samples, y, classes, ..Pictures::of(path) })
}

/// The words of a label in JSON.
fn of_json(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![],
        Value::String(word) => vec![word.clone()],
        Value::Array(words) => words.iter().flat_map(of_json).collect(),
        other => vec![other.to_string()],
    }
}

/// The samples of a tar by name, in its order.
fn members(file: &Path, from: impl Read + Seek) -> Result<Vec<(String, Member)>> {
    let damaged = |error: std::io::Error| Error::data(file, format!("is no whole tar file: {error}"));
    let (mut members, mut numbers): (Vec<(String, Member)>, HashMap<String, usize>) = Default::default();
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let start = entry.raw_file_position();
        let range = start..start + entry.size();
        let begins = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[begins..].find('.').filter(|&dot| dot > 0) else { continue };
        let (key, end) = name.split_at(begins + dot);
        let number = *numbers.entry(key.to_string()).or_insert(members.len());
        if number == members.len() {
            members.push((key.to_string(), Member::default()));
        }
        let member = &mut members[number].1;
        match end.to_ascii_lowercase().as_str() {
            ".cls" => member.class = Some(range),
            ".json" => member.json = Some(range),
            _ if is_picture(Path::new(&name)) && member.picture.is_none() => {
                member.picture = Some((name, range))
            }
            _ => {}
        }
    }
    Ok(members)
}
