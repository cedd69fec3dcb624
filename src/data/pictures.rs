//! Sets of picture files: where each is, and all of them decoded, in parallel, to one shape.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

#[cfg(feature = "images")]
use super::decode::decode;
use super::file::StoredFile;
use super::names::numbers;
use super::options::Expected;
use super::picture::{Decoded, Picture};
use super::pipeline::Pipeline;
use super::pixels::{Numbers, Stored};
use super::{Labels, Names};
use crate::error::{Error, Result};
use crate::ops::Shape;

/// The endings of picture files, those that torchvision's `ImageFolder` takes.
pub(super) const ENDINGS: [&str; 9] =
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];

/// Whether a file's name ends as that of a picture.
pub(super) fn is_picture(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Where the bytes of a picture are.
pub(super) enum Place {
    /// A file.
    File(PathBuf),
    /// Bytes of a larger file, or in memory.
    Part(Arc<StoredFile>, Range<u64>),
}

impl Place {
    fn read(&self) -> std::result::Result<Vec<u8>, String> {
        match self {
            Place::File(path) => std::fs::read(path).map_err(|e| format!("cannot be read: {e}")),
            Place::Part(file, range) => file.read(range.clone()).map_err(|e| e.to_string()),
        }
    }
}

/// Pictures with their labels, not yet read.
pub(super) struct Pictures {
    /// The folder or manifest that lists them.
    pub path: PathBuf,
    /// Where each is.
    pub places: Vec<Place>,
    /// What each is called.
    pub samples: Vec<String>,
    /// The line of each in its manifest; empty where there is none.
    pub lines: Vec<usize>,
    /// Their labels.
    pub y: Labels,
    /// The names of the classes.
    pub classes: Option<Vec<String>>,
    /// Whether classes are numbered by the order of their names, and not by the data.
    pub by_name: bool,
    /// Whether pictures are turned as their EXIF data say.
    pub exif: bool,
    /// Further columns of a manifest.
    pub columns: Vec<(String, Vec<String>)>,
    /// For the user.
    pub notes: Vec<String>,
}

impl Pictures {
    /// None yet, of a folder or file.
    pub fn of(path: &Path) -> Pictures {
        Pictures {
            path: path.into(),
            places: vec![],
            samples: vec![],
            lines: vec![],
            y: Labels::Classes(vec![]),
            classes: None,
            by_name: true,
            exif: false,
            columns: vec![],
            notes: vec![],
        }
    }

    /// The files.
    pub fn files(self) -> Vec<PathBuf> {
        let file = |place| match place {
            Place::File(path) => Some(path),
            Place::Part(..) => None,
        };
        self.places.into_iter().filter_map(file).collect()
    }

    /// A fault of picture `i`.
    fn fault(&self, i: usize, reason: String) -> Error {
        let record = match self.lines.get(i) {
            Some(line) => format!("line {line}: {}", self.samples[i]),
            None => self.samples[i].clone(),
        };
        Error::record(&self.path, record, reason)
    }

    /// Decodes all of them and brings them to one size, with the channels that are expected, else grey where every picture
    /// is, else RGB.
    ///
    /// # Errors
    /// Where one cannot be read, or gets another size than the first, the message names it; where the classes are not those
    /// that are expected.
    pub fn read(mut self, pipeline: &Pipeline, expected: &Expected) -> Result<(Stored, Names, Vec<String>)> {
        self.number(expected)?;
        let one = |i: usize| -> Result<Decoded> {
            let decoded = self.places[i].read().and_then(|bytes| decode(&bytes, self.exif));
            let Decoded { picture, turned } = decoded.map_err(|reason| self.fault(i, reason))?;
            let picture = match expected.channels {
                Some(channels) => picture.with_channels(channels),
                None => picture,
            };
            let picture = pipeline.apply(picture).map_err(|reason| self.fault(i, reason))?;
            Ok(Decoded { picture, turned })
        };
        let decoded = (0..self.places.len()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
        let c = decoded.iter().map(|one| one.picture.c).max().unwrap_or(1);
        let Some(&Picture { h, w, .. }) = decoded.first().map(|one| &one.picture) else {
            return Err(Error::data(&self.path, "holds no samples"));
        };
        if let Some(i) = decoded.iter().position(|one| (one.picture.h, one.picture.w) != (h, w)) {
            let Picture { h: high, w: wide, .. } = decoded[i].picture;
            let reason = format!(
                "has {wide} x {high} pixels, and {} has {w} x {h}; --resize and --crop make them equal",
                self.samples[0]
            );
            return Err(self.fault(i, reason));
        }
        let turned = decoded.iter().filter(|one| one.turned).count();
        if turned > 0 && !self.exif {
            self.notes.push(format!("{turned} pictures have an EXIF orientation, which torchvision and timm do not apply, nor is it here"));
        }
        let shape = Shape::new(h, w, c);
        let mut x = Vec::with_capacity(decoded.len() * shape.len());
        for Decoded { picture, .. } in decoded {
            x.extend(picture.with_channels(c).pixels);
        }
        let names = Names { classes: self.classes, samples: Some(self.samples), columns: self.columns };
        Ok((Stored { shape, x: Numbers::Pixels(x), y: self.y, channels_last: true }, names, self.notes))
    }

    /// Numbers the classes as they are expected, where their names are.
    fn number(&mut self, expected: &Expected) -> Result<()> {
        let Some(found) = self.classes.as_ref().filter(|_| self.by_name) else { return Ok(()) };
        let refuse = |reason: String| Error::data(&self.path, reason);
        let numbers = match &expected.classes {
            Some(known) => numbers(found, known).map_err(refuse)?.zip(Some(known)),
            None => None,
        };
        let Some((numbers, known)) = numbers else {
            return match (expected.outputs, &self.y) {
                (Some(outputs), Labels::Classes(_)) if outputs != found.len() => Err(refuse(format!(
                    "has {} classes by name, and the model {outputs} outputs; which is which can be said by whole numbers                      as labels in a manifest, or by `id2label` in the model's config.json",
                    found.len()
                ))),
                _ => Ok(()),
            };
        };
        if let Some(i) = (0..numbers.len()).find(|&i| numbers[i] as usize != i) {
            self.notes.push(format!(
                "classes have the numbers that the model knows them by: {} is {}",
                found[i], numbers[i]
            ));
        }
        self.y = match &self.y {
            Labels::Classes(y) => y.iter().map(|&class| numbers[class as usize]).collect(),
            Labels::Multi { labels, rows } => {
                let mut all = vec![0; rows.len() / labels * known.len()];
                for (row, to) in rows.chunks_exact(*labels).zip(all.chunks_exact_mut(known.len())) {
                    row.iter().zip(&numbers).for_each(|(&bit, &number)| to[number as usize] = bit);
                }
                Labels::Multi { labels: known.len(), rows: all }
            }
        };
        self.classes = Some(known.clone());
        Ok(())
    }
}

#[cfg(not(feature = "images"))]
fn decode(_: &[u8], _: bool) -> std::result::Result<Decoded, String> {
    Err("is a picture, which needs scrubjay built with its feature `images`".into())
}
