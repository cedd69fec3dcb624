//! The receipt: one record per batch, on disk before the next batch begins, so that an interrupted run can be resumed.
//!
//! `events.jsonl` holds a header line that identifies inputs and options, then one line per batch with its account and
//! the new values of the block, bit for bit. An incomplete last line (the machine stopped) is dropped when the file is
//! opened again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::block::Block;
use crate::data::tensors;
use crate::net::{Network, UnitId};
use crate::{Error, Result};

/// The first line: it identifies the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the records.
    pub version: u32,
    /// A hash of the model, the data, the request and every option that decides the result.
    pub identity: String,
}

/// The version of the records that this program writes.
pub const VERSION: u32 = 1;

/// What happened to one batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The batch's number, from 0.
    pub batch: usize,
    /// The samples, by index in the training data.
    pub indices: Vec<usize>,
    /// Whether they were removed; if not, the model is as it was before the batch.
    pub removed: bool,
    /// Remarks: why it was not removed, or on how it was.
    pub notes: Vec<String>,
    /// The chosen units, `[layer, row]`, in order of choice.
    pub units: Vec<(String, usize)>,
    /// The account: selection, solver, length, measures before and after, seconds.
    pub account: Value,
    /// Whether `values` are those of every unit, in unit order (noise was added outside the block), and not only the
    /// block's.
    pub every_unit: bool,
    /// The new values, f32 little-endian in hexadecimal.
    pub values: String,
}

/// The values of a block as text, bit for bit.
pub fn to_hex(values: &[f32]) -> String {
    values.iter().map(|v| format!("{:08x}", v.to_bits().swap_bytes())).collect()
}

/// The inverse of [`to_hex`].
pub fn from_hex(text: &str) -> Option<Vec<f32>> {
    let word = |i: usize| u32::from_str_radix(text.get(i..i + 8)?, 16).ok();
    let whole = text.len().is_multiple_of(8) && text.is_ascii();
    whole
        .then(|| (0..text.len()).step_by(8).map(|i| Some(f32::from_bits(word(i)?.swap_bytes()))).collect())?
}

impl Record {
    /// Applies a record to the network that it was made on.
    ///
    /// # Errors
    /// Where it does not fit the network: the record belongs to another model.
    pub fn replay(&self, net: &mut Network) -> Result<()> {
        if !self.removed {
            return Ok(());
        }
        let misfit = || Error::config(format!("record {} does not fit the model", self.batch));
        let values = from_hex(&self.values).ok_or_else(misfit)?;
        let chosen = self
            .units
            .iter()
            .map(|(layer, row)| net.units().find(net.layer_named(layer)?, *row))
            .collect::<Result<Vec<UnitId>>>()?;
        let block = if self.every_unit { Block::all(net)? } else { Block::of(net, &chosen)? };
        if values.len() != block.len() {
            return Err(misfit());
        }
        block.assign(net, &values);
        Ok(())
    }
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
            if header.version != VERSION || header.identity != identity {
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
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(batch: usize) -> Record {
        Record {
            batch,
            indices: vec![batch],
            removed: true,
            notes: vec![],
            units: vec![("fc".into(), 1)],
            every_unit: false,
            account: Value::Null,
            values: to_hex(&[1.5, -0.0, f32::MIN_POSITIVE]),
        }
    }

    #[test]
    fn values_come_back_bit_for_bit() {
        let values = [1.5, -0.0, f32::MIN_POSITIVE, 1e-40, f32::MAX];
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&from_hex(&to_hex(&values)).unwrap()), bits(&values));
        assert_eq!(to_hex(&[1.0]), "0000803f");
        assert!(
            from_hex("0000803").is_none() && from_hex("0000803x").is_none() && from_hex("ééé0").is_none()
        );
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
    }
}
