//! Class folders, as torchvision's `ImageFolder` reads them: each folder is a class, numbered in the order of the sorted
//! names, and has pictures at any depth. Hidden folders count; files of other kinds do not.

use std::path::{Path, PathBuf};

use super::Labels;
use super::pictures::{ENDINGS, Pictures, Place, is_picture};
use crate::error::{Error, Result};

/// Names of folders that hold the parts of a data set, and not a class.
const PARTS: [&str; 5] = ["train", "val", "valid", "validation", "test"];

/// What is in a folder, sorted by name: its folders, and its files. Links are followed.
pub(super) fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let listed = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.map_err(Error::io(folder))?.path());
    }
    paths.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(paths.into_iter().partition(|path| path.is_dir()))
}

/// A path within a folder, with `/` between its parts.
pub(super) fn within(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}

/// The class folders of a folder; none where it has no folder with a picture.
///
/// # Errors
/// Where it cannot be read, or has parts of a data set in place of classes.
pub(super) fn classes(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let (folders, _) = entries(folder)?;
    let mut found = false;
    for folder in &folders {
        found = found || !pictures(folder)?.is_empty();
    }
    let part = |path: &PathBuf| PARTS.contains(&within(folder, path).as_str());
    match found {
        true if folders.iter().all(part) => {
            let first = within(folder, &folders[0]);
            let reason = format!(
                "holds the parts of a data set and no classes; give one of them, as {}",
                folder.join(first).display()
            );
            Err(Error::data(folder, reason))
        }
        true => Ok(Some(folders)),
        false => Ok(None),
    }
}

/// Folders of a class at most: links that lead to the same folders double them at every level.
const MOST: usize = 1 << 16;

/// The pictures of a folder and of those in it, also by links: folders in the order of their paths, each with its files by name.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let real = |path: &Path| path.canonicalize().map_err(Error::io(path));
    // With what each folder lies in, since a link may lead back there.
    let mut open = vec![(folder.to_path_buf(), vec![real(folder)?])];
    let mut all = vec![];
    while let Some((next, above)) = open.pop() {
        let (folders, files) = entries(&next)?;
        for inner in folders {
            let own = real(&inner)?;
            if above.contains(&own) {
                return Err(Error::data(&inner, "is a link to a folder that it lies in"));
            }
            open.push((inner, [&above[..], &[own]].concat()));
        }
        all.push((next, files));
        if all.len() + open.len() > MOST {
            let reason = format!(
                "has more than {MOST} folders within it, counted once for each link that leads there"
            );
            return Err(Error::data(folder, reason));
        }
    }
    all.sort_by(|a, b| a.0.as_os_str().as_encoded_bytes().cmp(b.0.as_os_str().as_encoded_bytes()));
    Ok(all.into_iter().flat_map(|(_, files)| files).filter(|file| is_picture(file)).collect())
}

/// Lists the pictures of class folders.
///
/// # Errors
/// Where a class has no picture.
pub(super) fn list(root: &Path, folders: &[PathBuf]) -> Result<Pictures> {
    let (mut places, mut samples, mut y, mut classes) = (vec![], vec![], vec![], vec![]);
    for (class, folder) in folders.iter().enumerate() {
        let files = pictures(folder)?;
        if files.is_empty() {
            let reason = format!(
                "is a class without pictures ({}); remove it, or keep other folders elsewhere",
                ENDINGS.join(" ")
            );
            return Err(Error::data(folder, reason));
        }
        classes.push(within(root, folder));
        for file in files {
            samples.push(within(root, &file));
            places.push(Place::File(file));
            y.push(class as u32);
        }
    }
    let mut notes = vec![];
    let numbers: Option<Vec<u64>> = classes.iter().map(|class| class.parse().ok()).collect();
    if let Some(i) = numbers.and_then(|numbers| (0..numbers.len()).find(|&i| numbers[i] != i as u64)) {
        notes.push(format!(
            "classes are numbered by the order of their names, as torchvision does it: folder {} is class {i}",
            classes[i]
        ));
    }
    let (y, classes) = (Labels::Classes(y), Some(classes));
    Ok(Pictures { places, samples, y, classes, notes, ..Pictures::of(root) })
}
