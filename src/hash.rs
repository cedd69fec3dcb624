//! SHA-256 of what a run is made of.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::data::{self, file::Part, tensors};
use crate::error::{Error, Result};

fn text(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over parts, each with its length before it.
pub fn of_parts<P: AsRef<[u8]>>(parts: impl Iterator<Item = P>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.as_ref().len() as u64).to_le_bytes());
        digest.update(part.as_ref());
    }
    text(digest)
}

/// [`of_parts`] of files, which are read piece by piece.
///
/// # Errors
/// Where one cannot be read.
pub fn of_files_at<'a>(files: impl Iterator<Item = Part<'a>>) -> Result<String> {
    let mut digest = Sha256::new();
    for mut file in files {
        digest.update(file.left().to_le_bytes());
        let path = file.path().to_path_buf();
        let mut piece = vec![0; 1 << 16];
        loop {
            match file.read(&mut piece).map_err(Error::io(&path))? {
                0 => break,
                n => digest.update(&piece[..n]),
            }
        }
    }
    Ok(text(digest))
}

/// SHA-256 over the bytes of numbers, which are not gathered first.
pub fn of_numbers<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> String {
    let mut digest = Sha256::new();
    numbers.for_each(|bytes| digest.update(bytes));
    text(digest)
}

/// SHA-256 of every file that [`data::load`] reads for a path, by file name, as `sha256sum` gives it.
///
/// # Errors
/// Where one cannot be read.
pub fn of_files(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for file in data::files(path)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        hashes.insert(name, text(Sha256::new().chain_update(tensors::read(&file)?)));
    }
    Ok(hashes)
}
