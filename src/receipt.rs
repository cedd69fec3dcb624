//! The receipt: one record per batch, on disk before the next batch begins, so that an interrupted run can be resumed.
//!
//! `events.jsonl` holds a header line that identifies inputs and options, then one line per batch with its account and
//! the new values of the block, bit for bit. An incomplete last line (the machine stopped) is dropped when the file is
//! opened again.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::tensors;
use crate::error::{Error, Result};
use crate::outcome::Record;

/// The first line: it identifies the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the records.
    pub version: u32,
    /// What decides the result, as a hash (`identity.rs`).
    pub identity: String,
}

/// The version of the records that this program writes.
pub const VERSION: u32 = 4;

/// The records of a run that was finished in `folder`, whatever its inputs and options.
///
/// # Errors
/// Where the file cannot be read, or holds a malformed record.
pub fn records(folder: &Path) -> Result<Vec<Record>> {
    let path = folder.join("events.jsonl");
    let text = tensors::read(&path)?;
    let lines = text.split(|&b| b == b'\n').enumerate().skip(1).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(i, line)| {
            serde_json::from_slice(line)
                .map_err(|e| Error::record(&path, format!("line {}", i + 1), e.to_string()))
        })
        .collect()
}

/// `events.jsonl` of one run.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Opens the events of a run in `folder`, new or interrupted, and returns the complete records. Events with another
    /// identity are refused and left as they are.
    ///
    /// # Errors
    /// Where the file cannot be read or written, was begun with other inputs or options, or holds a malformed record.
    pub fn open(folder: &Path, identity: &str) -> Result<(Events, Vec<Record>)> {
        let path = folder.join("events.jsonl");
        let io = |path: &Path, source| Error::Io { path: path.into(), source };
        let text = if path.exists() { tensors::read(&path)? } else { vec![] };
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<&[u8]> =
            text[..whole].split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect();
        let wrong =
            |i: usize, e: serde_json::Error| Error::record(&path, format!("line {}", i + 1), e.to_string());
        let header = Header { version: VERSION, identity: identity.into() };
        if lines.is_empty() && !serde_json::to_vec(&header).is_ok_and(|ours| ours.starts_with(&text)) {
            let reason = "does not begin as a run of these inputs and options does; choose another --out, or remove it";
            return Err(Error::Config(format!("{}: {reason}", path.display())));
        }
        let mut records = vec![];
        if let Some((first, rest)) = lines.split_first() {
            let header: Header = serde_json::from_slice(first).map_err(|e| wrong(0, e))?;
            if header.version != VERSION {
                return Err(Error::config(format!(
                    "{}: was begun by another version of scrubjay (its records are of version {}, this one writes version \
                     {VERSION}); finish it with that version, choose another --out, or remove it",
                    folder.display(),
                    header.version
                )));
            }
            if header.identity != identity {
                let reason = "was begun with another model, data, request or options; choose another --out, or remove it";
                return Err(Error::Config(format!("{}: {reason}", folder.display())));
            }
            for (i, line) in rest.iter().enumerate() {
                let record: Record = serde_json::from_slice(line).map_err(|e| wrong(i + 1, e))?;
                if record.batch != i {
                    return Err(Error::record(
                        &path,
                        format!("line {}", i + 2),
                        format!("is record {}", record.batch),
                    ));
                }
                records.push(record);
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| io(&path, e))?;
        if whole < text.len() {
            file.set_len(whole as u64).map_err(|e| io(&path, e))?;
        }
        if lines.is_empty() {
            append(&mut file, &header).map_err(|e| io(&path, e))?;
            // Flush the folder too, so that the file's name is on disk.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| io(folder, e))?;
        }
        Ok((Events { path, file }, records))
    }

    /// Writes a record and waits until it is on the disk.
    ///
    /// # Errors
    /// Where the file system refuses; a partly written record is removed.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let before = self.file.metadata().map(|meta| meta.len());
        append(&mut self.file, record).map_err(|source| {
            if let Ok(before) = before {
                let _ = self.file.set_len(before); // if this fails, the next opening drops it
            }
            Error::Io { path: self.path.clone(), source }
        })
    }
}

fn append(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 16, &mut *file);
    serde_json::to_writer(&mut buffered, line)?;
    buffered.write_all(b"\n")?;
    buffered.into_inner()?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::{Performance, Snapshot};
    use crate::outcome::{Account, Changed, Fate, SelectionAccount};
    use crate::select::Selection;

    fn record(batch: usize) -> Record {
        let performance = Performance { loss: 0.5, accuracy: 1.0 };
        Record {
            batch,
            indices: vec![batch],
            fate: Fate::Removed,
            notes: vec![],
            units: vec![("fc".into(), 1)],
            changed: Changed::Block,
            soft_labels: vec![],
            account: Account {
                n: 2,
                m: 1,
                selection: SelectionAccount::from(&Selection::default()),
                before: Snapshot { forget: performance, retain: performance, validation: None },
                step: None,
                hold: None,
                seconds: BTreeMap::new(),
            },
            values: vec![1.5, -0.0, f32::MIN_POSITIVE],
        }
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, records) = Events::open(dir.path(), "a").unwrap();
        assert!(records.is_empty());
        events.write(&record(0)).unwrap();
        events.write(&record(1)).unwrap();
        let path = dir.path().join("events.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..40 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut events, records) = Events::open(dir.path(), "a").unwrap();
            assert_eq!(records, [record(0)]);
            events.write(&record(1)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        std::fs::write(&path, &whole[..5]).unwrap(); // not even the header
        assert!(Events::open(dir.path(), "a").unwrap().1.is_empty());
    }

    #[test]
    fn a_folder_begun_with_others_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (mut events, _) = Events::open(dir.path(), "a").unwrap();
        events.write(&record(0)).unwrap();
        let path = dir.path().join("events.jsonl");
        let before = std::fs::read(&path).unwrap();
        let Err(error) = Events::open(dir.path(), "b") else { panic!() };
        assert_eq!(error.exit_code(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // A run of the version before, whatever its identity.
        let old = "{\"version\":1,\"identity\":\"a\"}\n";
        std::fs::write(&path, old).unwrap();
        let Err(error) = Events::open(dir.path(), "a") else { panic!() };
        assert!(
            error.exit_code() == 2 && error.to_string().contains("another version of scrubjay"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), old);
    }
}
