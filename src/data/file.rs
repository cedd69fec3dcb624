//! A file of which ranges are read where they are needed, so that a model of many gigabytes is opened in the memory of
//! its header; and files that appear complete or not at all: written under another name, flushed, then renamed.
//!
//! The file stays open, so that a later file of the same name is never taken for it. Ranges are read and not mapped: a
//! file that another program cuts off is then an error and not the end of the process.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Opens a file. A directory is an error that says so, and so is what has no end or may never answer: a device, a pipe.
///
/// # Errors
/// Where it is none, or cannot be opened.
pub(crate) fn open(path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(Error::io(path))?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => File::open(path).map_err(Error::io(path)),
        (_, true) => Err(Error::data(path, "is a directory; a file was expected")),
        _ => Err(Error::data(path, "is a device or a pipe; a file was expected")),
    }
}

/// An open file, or one in memory.
pub struct StoredFile {
    path: PathBuf,
    bytes: Bytes,
    len: u64,
}

enum Bytes {
    File(Mutex<File>),
    Memory(Vec<u8>),
}

impl StoredFile {
    /// Opens a file; a directory is an error that says so.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path) -> Result<StoredFile> {
        let file = open(path)?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(StoredFile { path: path.into(), bytes: Bytes::File(Mutex::new(file)), len })
    }

    /// A file in memory, which messages call `path`.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> StoredFile {
        StoredFile { path: path.into(), len: bytes.len() as u64, bytes: Bytes::Memory(bytes) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of a range.
    ///
    /// # Errors
    /// Where the range is beyond the end, or cannot be read.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > self.len {
            let reason = format!("ends at byte {}, before byte {} (truncated?)", self.len, range.end);
            return Err(Error::data(&self.path, reason));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.part(range).read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// The little-endian f32 of a range, read piece by piece.
    ///
    /// # Errors
    /// As [`StoredFile::read`].
    pub fn f32(&self, range: Range<u64>) -> Result<Vec<f32>> {
        const PIECE: u64 = 1 << 20;
        let mut values =
            Vec::with_capacity((self.len.min(range.end).saturating_sub(range.start) / 4) as usize);
        for start in range.clone().step_by(PIECE as usize) {
            let bytes = self.read(start..range.end.min(start + PIECE))?;
            values.extend(bytes.as_chunks().0.iter().map(|&element| f32::from_le_bytes(element)));
        }
        Ok(values)
    }

    /// A reader of a range; what is beyond the end of the file is not there.
    pub fn part(&self, range: Range<u64>) -> Part<'_> {
        Part { file: self, at: range.start, end: range.end.min(self.len) }
    }

    /// A reader of the whole file.
    pub fn whole(&self) -> Part<'_> {
        self.part(0..self.len)
    }
}

/// A reader of a part of a file.
pub struct Part<'a> {
    file: &'a StoredFile,
    at: u64,
    end: u64,
}

impl Part<'_> {
    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// How many bytes are left.
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let read = match &self.file.bytes {
            Bytes::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(self.at))?;
                file.read(buffer)?
            }
            Bytes::Memory(bytes) => {
                let at = self.at as usize; // below the length
                buffer.copy_from_slice(&bytes[at..at + most]);
                most
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

/// What can be changed in place.
pub trait Editable: Read + Write + Seek {}

impl<T: Read + Write + Seek> Editable for T {}

/// Writes a file so that it appears complete or not at all: a temporary file (its name with `.part` appended) is
/// written beside it, flushed to disk, and renamed.
///
/// # Errors
/// Where the file system refuses; the temporary file is then removed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes).map_err(Error::io(path)))
}

/// [`write_whole`] of a copy of another file that `edit` changes.
///
/// # Errors
/// As there, and those of `edit`.
pub fn write_edited(
    path: &Path,
    from: &StoredFile,
    edit: impl FnOnce(&mut dyn Editable) -> Result<()>,
) -> Result<()> {
    write_with(path, |file| {
        let copied = io::copy(&mut from.whole(), file).map_err(Error::io(path))?;
        match copied == from.len {
            true => edit(file),
            false => Err(Error::data(&from.path, format!("has {copied} bytes, and had {} before", from.len))),
        }
    })
}

/// Refuses the name of a file that [`write_whole`] could not write, before the work that gives its content.
///
/// # Errors
/// Where it is a folder, its folder is not there, or nothing can be written into that.
pub fn check_file(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(is_directory(path));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let is = if folder.exists() { "is no folder" } else { "is not there; make it first" };
        let reason = format!("the folder {} {is}", folder.display());
        return Err(Error::io(path)(io::Error::new(io::ErrorKind::NotFound, reason)));
    }
    try_to_write_in(folder.unwrap_or(Path::new(""))).map_err(Error::io(path))
}

/// Refuses a folder into which nothing can be written, or that could not be made, before the work that fills it.
///
/// # Errors
/// Where it is a file, or it or the folder that it would be made in cannot be written to.
pub fn check_folder(path: &Path) -> Result<()> {
    let Some(there) = path.ancestors().find(|folder| folder.exists()) else {
        return try_to_write_in(Path::new("")).map_err(Error::io(path)); // it would be made here
    };
    match there.is_dir() {
        true => try_to_write_in(there).map_err(Error::io(path)),
        false if there == path => {
            Err(Error::io(path)(io::Error::other("is a file, and a folder is to be written")))
        }
        false => {
            let reason = format!("{} is a file, and would have to be a folder", there.display());
            Err(Error::io(path)(io::Error::other(reason)))
        }
    }
}

/// Makes a file without a name, so that nothing is left of it, whenever the program is killed.
fn try_to_write_in(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    tempfile::tempfile_in(folder).map(drop)
}

fn is_directory(path: &Path) -> Error {
    Error::data(path, "is a directory; a file was to be written")
}

/// Where a file is written before it gets its name.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// [`write_whole`] by what writes the temporary file.
///
/// # Errors
/// As there, and those of `write`.
pub(super) fn write_with(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    if path.is_dir() {
        return Err(is_directory(path));
    }
    let part = part_of(path);
    let open = || File::options().read(true).write(true).create(true).truncate(true).open(&part);
    let written = open().map_err(Error::io(path)).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(Error::io(path))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part); // the first error is the one to report
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_may_try_the_same_folder_at_a_time_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let tries =
            || (0..50).try_for_each(|_| check_folder(dir.path()).and(check_file(&dir.path().join("a"))));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
