//! The parts of a data set: `DATA#test` names the test part of a path that has several.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Val,
    Test,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Train, Part::Val, Part::Test];

    /// Its name after `#`, and in the names of arrays.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Val => "val",
            Part::Test => "test",
        }
    }

    /// The beginnings of the names of its files and folders.
    pub fn beginnings(self) -> &'static [&'static str] {
        match self {
            Part::Train => &["train"],
            Part::Val => &["val", "dev"],
            Part::Test => &["test", "t10k"],
        }
    }

    /// The part that a file or folder of this name belongs to.
    pub fn of_name(name: &str) -> Option<Part> {
        let name = name.to_ascii_lowercase();
        Part::ALL.into_iter().find(|part| part.beginnings().iter().any(|begin| name.starts_with(begin)))
    }
}

/// A path and the part of it that is asked for. What exists under the whole name is that.
pub(super) fn split(path: &Path) -> (PathBuf, Option<Part>) {
    let bytes = path.as_os_str().as_bytes();
    let asked = Part::ALL.into_iter().find_map(|part| {
        let before = bytes.strip_suffix(part.name().as_bytes())?.strip_suffix(b"#")?;
        Some((PathBuf::from(OsStr::from_bytes(before)), Some(part)))
    });
    asked.filter(|_| !path.exists()).unwrap_or((path.into(), None))
}
