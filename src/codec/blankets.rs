//! A file of the finished columns of a graph, from which an interrupted search continues. The first line identifies the values
//! and the options; each further line is a column, in the order in which they were finished. A line counts once its line
//! break is written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::foci::Foci;
use super::options::FociOptions;
use crate::error::{Error, Result};

/// The file of finished columns.
pub struct Blankets {
    path: PathBuf,
    file: Mutex<File>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    identity: String,
}

#[derive(Serialize, Deserialize)]
struct Finished {
    column: usize,
    #[serde(flatten)]
    blanket: Foci,
}

/// A hash of what determines the blankets: the values `[p, n]` and the options.
fn identity(values: &[f64], n: usize, options: &FociOptions) -> String {
    let FociOptions { max_features, all, standardize, ties, noise, seed, .. } = options;
    let mut hash = Sha256::new();
    hash.update(format!("{n} {max_features:?} {all} {standardize:?} {ties:?} {noise:?} {seed} "));
    values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Blankets {
    /// Opens or creates the file of a graph of columns `values` `[p, n]`; returns the columns that are complete.
    ///
    /// # Errors
    /// Where it cannot be read or written, was written with other values or options, or holds a malformed line.
    pub fn open(
        path: &Path,
        values: &[f64],
        n: usize,
        options: &FociOptions,
    ) -> Result<(Blankets, BTreeMap<usize, Foci>)> {
        let identity = identity(values, n, options);
        let io = |source| Error::Io { path: path.into(), source };
        let text = if path.exists() { std::fs::read(path).map_err(io)? } else { Vec::new() };
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let header = serde_json::to_vec(&Header { identity }).unwrap_or_default();
        let mut lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let same = lines.next().map_or(header.starts_with(&text), |line| line == header);
        if !same {
            let reason = "was written with other values or options; name another file, or remove it";
            return Err(Error::config(format!("{}: {reason}", path.display())));
        }
        let mut known = BTreeMap::new();
        for (at, line) in lines.enumerate() {
            let found: Finished = serde_json::from_slice(line)
                .map_err(|e| Error::record(path, format!("line {}", at + 2), e.to_string()))?;
            known.insert(found.column, found.blanket);
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        file.set_len(whole as u64).map_err(io)?;
        if whole == 0 {
            append(&mut file, header).map_err(io)?;
        }
        Ok((Blankets { path: path.into(), file: Mutex::new(file) }, known))
    }

    /// Writes a finished column and waits until it is on the disk.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write(&self, column: usize, blanket: &Foci) -> Result<()> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let line = serde_json::to_vec(&Finished { column, blanket: blanket.clone() });
        let line = line.map_err(|e| io(e.into()))?;
        append(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner), line).map_err(io)
    }
}

fn append(file: &mut File, mut line: Vec<u8>) -> std::io::Result<()> {
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}
