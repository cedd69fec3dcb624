//! SHA-256 of what a run is made of.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data;
use crate::data::file::{Part, StoredFile};
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
    for file in files {
        digest.update(file.left().to_le_bytes());
        pieces(file, &mut digest)?;
    }
    Ok(text(digest))
}

/// Adds the bytes of a file.
fn pieces(mut file: Part, digest: &mut Sha256) -> Result<()> {
    let path = file.path().to_path_buf();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).map_err(Error::io(&path))? {
            0 => return Ok(()),
            n => digest.update(&piece[..n]),
        }
    }
}

/// SHA-256 over the bytes of numbers, which are not gathered first.
pub fn of_numbers<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> String {
    let mut digest = Sha256::new();
    numbers.for_each(|bytes| digest.update(bytes));
    text(digest)
}

/// The most files of which [`of_files`] gives each a hash of its own.
const EACH: usize = 16;

/// SHA-256 of every file that [`data::load`] reads for a path, by file name, as `sha256sum` gives it. Of more than 16 files,
/// as in folders of pictures, one hash of all: over the name of each within the path, and its hash.
///
/// # Errors
/// Where one cannot be read.
pub fn of_files(path: &Path) -> Result<BTreeMap<String, String>> {
    let files = data::files(path)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let hash = |file: &PathBuf| -> Result<String> {
        let stored = StoredFile::open(file)?;
        let mut digest = Sha256::new();
        pieces(stored.whole(), &mut digest)?;
        Ok(text(digest))
    };
    let hashes = files.par_iter().map(hash).collect::<Result<Vec<_>>>()?;
    if files.len() <= EACH {
        return Ok(files.iter().map(|file| name(file)).zip(hashes).collect());
    }
    let within = |file: &PathBuf| file.strip_prefix(path).unwrap_or(file).to_string_lossy().into_owned();
    let parts = files.iter().zip(hashes).flat_map(|(file, hash)| [within(file), hash]);
    Ok([(name(path), of_parts(parts))].into())
}
