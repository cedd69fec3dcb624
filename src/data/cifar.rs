//! CIFAR's binary records: one label (or two in CIFAR-100, coarse and fine), then 32 by 32 pixels in planes of red, green
//! and blue.

use std::path::{Path, PathBuf};

use super::Names;
use super::encoding::read_text;
use super::pixels::{Numbers, Stored};
use super::tensors::read_unzipped;
use crate::error::{Error, Result};
use crate::ops::Shape;

/// The bytes of an image.
pub(super) const PIXELS: usize = 3 * 32 * 32;

/// The labels of CIFAR-100, which has two for each image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CifarLabels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 groups of them.
    Coarse,
}

crate::names::names!(CifarLabels {
    Fine = "fine": "the 100 classes",
    Coarse = "coarse": "the 20 groups of them",
});

/// Reads the records of these files; `path` is what was asked for.
///
/// # Errors
/// Where one is cut off, there is none, or coarse labels are wanted of images that have one label.
pub(super) fn read(
    path: &Path,
    files: &[PathBuf],
    wanted: CifarLabels,
) -> Result<(Stored, Names, Vec<String>)> {
    let (mut x, mut y): (Vec<u8>, Vec<u32>) = (vec![], vec![]);
    let mut known = None;
    for file in files {
        let bytes = read_unzipped(file)?;
        // One label a record, or two (coarse and fine) in CIFAR-100; a length can fit only one of them here.
        let fits = |labels: usize| bytes.len() % (labels + PIXELS) == 0;
        let labels = known.or_else(|| [1, 2].into_iter().find(|&labels| fits(labels))).unwrap_or(1);
        known = Some(labels);
        if !fits(labels) {
            let (record, left) = (bytes.len() / (labels + PIXELS), bytes.len() % (labels + PIXELS));
            let reason =
                format!("has {left} bytes, where a CIFAR record has {} (truncated?)", labels + PIXELS);
            return Err(Error::record(file, format!("record {record}"), reason));
        }
        let label = match wanted {
            CifarLabels::Fine => labels - 1,
            CifarLabels::Coarse if labels == 2 => 0,
            CifarLabels::Coarse => {
                return Err(Error::data(
                    file,
                    "has one label an image; coarse labels are those of CIFAR-100",
                ));
            }
        };
        for record in bytes.chunks_exact(labels + PIXELS) {
            y.push(u32::from(record[label]));
            x.extend(&record[labels..]);
        }
    }
    if y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    let lists = match wanted {
        CifarLabels::Fine => &["batches.meta.txt", "fine_label_names.txt"][..],
        CifarLabels::Coarse => &["coarse_label_names.txt"],
    };
    let names = Names { classes: named(&files[0], lists)?, ..Names::default() };
    let (shape, x) = (Shape::new(32, 32, 3), Numbers::Pixels(x));
    Ok((Stored { shape, x, y: y.into(), channels_last: false }, names, vec![]))
}

/// The names of classes, one a line, in the first of these files that is beside another.
pub(super) fn named(beside: &Path, files: &[&str]) -> Result<Option<Vec<String>>> {
    let Some(list) = files.iter().map(|name| beside.with_file_name(name)).find(|path| path.is_file()) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&read_text(&list)?).into_owned();
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
    Ok((!names.is_empty()).then_some(names))
}
