//! The folder of requests that come in. Other programs write to it at any time, so a name can lead to something else at each look:
//! what is read is a plain file, checked after it was opened, and never more of it than a request may have.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::spool::{Spool, flush};
use super::submission::{LONGEST, Submission, is_id};
use crate::error::{Error, Result};
use crate::hash;

/// A file that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// When it was written, its length and its number on the disk: what differs where it was replaced.
    pub stamp: (SystemTime, u64, u64),
    /// Whether it is a file, and no link or folder.
    pub is_file: bool,
}

impl Spool {
    /// Files that came in and are called as requests are: `*.json`, and no leading dot.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Incoming>> {
        let folder = self.incoming();
        let mut found = vec![];
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let entry = entry.map_err(Error::io(&folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || !name.ends_with(".json") {
                continue;
            }
            let Ok(meta) = std::fs::symlink_metadata(entry.path()) else { continue }; // it was taken away
            let written = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Incoming {
                path: entry.path(),
                name,
                stamp: (written, meta.len(), number(&meta)),
                is_file: meta.is_file(),
            });
        }
        found.sort_by(|a, b| (a.stamp.0, &a.name).cmp(&(b.stamp.0, &b.name)));
        Ok(found)
    }

    /// The bytes of a file that came in; none where it was taken away.
    ///
    /// # Errors
    /// [`Error::Config`] where it is no readable file of a request's size; the message tells why.
    pub fn read_incoming(&self, file: &Incoming) -> Result<Option<Vec<u8>>> {
        if file.is_file { read_plain(&file.path) } else { Err(not_plain()) }
    }

    /// Moves a file that is no request out of the way, beside the receipt `NAME.json`; one that was taken away is no error.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn set_aside(&mut self, file: &Incoming, name: &str) -> Result<()> {
        self.change("set aside")?;
        let to = self.root.join("refused").join(format!("{name}.rejected"));
        match std::fs::rename(&file.path, &to) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            moved => moved.map_err(Error::io(&file.path))?,
        }
        flush(&self.root.join("refused"))?;
        flush(&self.incoming())
    }

    /// Takes a request out of the incoming ones, unless another one, or what is no request, has come in its place.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn take_out(&mut self, id: &str, sha256: &str) -> Result<()> {
        let path = self.incoming().join(format!("{id}.json"));
        let bytes = match read_plain(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(Error::Config(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if Submission::parse(id, &bytes).is_ok_and(|found| found.sha256() == sha256) {
            self.change("take out")?;
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
            flush(&self.incoming())?;
        }
        Ok(())
    }
}

/// What a file that came in is called in the folder of refusals: its id, else a hash of its name.
pub fn name_of(file: &str) -> String {
    match file.strip_suffix(".json").filter(|id| is_id(id)) {
        Some(id) => id.into(),
        None => format!("name-{}", &hash::of_parts(std::iter::once(file))[..16]),
    }
}

/// The bytes of a plain file, none where there is nothing; of a length that a request may have.
fn read_plain(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(Error::config("cannot be read: permission denied"));
        }
        // A link or a socket cannot be opened.
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) => {
            return Err(not_plain());
        }
        Err(source) => return Err(Error::Io { path: path.into(), source }),
    };
    if !file.metadata().map_err(Error::io(path))?.is_file() {
        return Err(not_plain());
    }
    let mut bytes = vec![];
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::config(format!("has more than {LONGEST} bytes, the most that a request has")));
    }
    Ok(Some(bytes))
}

fn not_plain() -> Error {
    Error::config("is a link, a folder or a special file; a plain file was expected")
}

/// Opens a file to read. Links are not followed, and a pipe is opened without waiting for who writes to it.
#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(unix)]
fn number(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_neither_waited_for_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("plain"), "text").unwrap();
        assert_eq!(read_plain(&at("plain")).unwrap().unwrap(), b"text");
        assert!(read_plain(&at("missing")).unwrap().is_none());
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        for name in ["folder", "link", "endless", "socket", "pipe"] {
            let error = read_plain(&at(name)).unwrap_err().to_string();
            assert!(error.contains("a plain file was expected"), "{name}: {error}");
        }
        std::fs::write(at("long"), vec![b' '; LONGEST as usize + 1]).unwrap();
        assert!(read_plain(&at("long")).unwrap_err().to_string().contains("the most that a request has"));
    }
}
