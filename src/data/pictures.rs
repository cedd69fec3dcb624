//! Sets of picture files: where each is, and all of them decoded, in parallel, to one shape.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::Labels;
#[cfg(feature = "images")]
use super::decode::decode;
use super::file::StoredFile;
use super::names::numbers;
use super::options::{Expected, LoadOptions, MEMORY};
use super::picture::{Decoded, Picture};
use super::pipeline::Pipeline;
use super::tensors::read;
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
    #[cfg_attr(not(any(feature = "images", feature = "parquet")), allow(dead_code))]
    // tars and tables alone have these
    Part(Arc<StoredFile>, Range<u64>),
}

impl Place {
    fn read(&self) -> std::result::Result<Vec<u8>, String> {
        match self {
            Place::File(path) => match read(path) {
                Ok(bytes) => Ok(bytes),
                Err(Error::Io { source, .. }) => Err(format!("cannot be read: {source}")),
                Err(Error::Data { reason, .. }) => Err(reason),
                Err(other) => Err(other.to_string()),
            },
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
    /// The place of each in its manifest, as `line 3`; empty where there is none.
    pub rows: Vec<String>,
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

/// How pictures become pixels.
pub(super) struct Ready {
    pipeline: Pipeline,
    /// The shape of each.
    pub shape: Shape,
}

/// Pictures, each of which can be read.
pub(super) struct Opened {
    pub pictures: Pictures,
    pub ready: Ready,
    /// `[n, h, w, c]`; none where they are more than is to be kept.
    pub pixels: Option<Vec<u8>>,
}

impl Pictures {
    /// None yet, of a folder or file.
    pub fn of(path: &Path) -> Pictures {
        Pictures {
            path: path.into(),
            places: vec![],
            samples: vec![],
            rows: vec![],
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
        let record = match self.rows.get(i) {
            Some(row) => format!("{row}: {}", self.samples[i]),
            None => self.samples[i].clone(),
        };
        Error::record(&self.path, record, reason)
    }

    /// Decodes picture `i`, with the channels that are expected, and brings it to its size.
    fn one(&self, i: usize, pipeline: &Pipeline, channels: Option<usize>) -> Result<Decoded> {
        let decoded = self.places[i].read().and_then(|bytes| decode(&bytes, self.exif));
        let Decoded { picture, turned } = decoded.map_err(|reason| self.fault(i, reason))?;
        let picture = match channels {
            Some(channels) => picture.with_channels(channels),
            None => picture,
        };
        let picture = pipeline.apply(picture).map_err(|reason| self.fault(i, reason))?;
        Ok(Decoded { picture, turned })
    }

    /// The pixels of picture `i`, `[h, w, c]`.
    ///
    /// # Errors
    /// Where it cannot be read any more, or has another size than it had.
    pub fn pixels(&self, i: usize, Ready { pipeline, shape }: &Ready) -> Result<Vec<u8>> {
        let picture = self.one(i, pipeline, Some(shape.c))?.picture;
        match (picture.h, picture.w) == (shape.h, shape.w) {
            true => Ok(picture.pixels),
            false => Err(self.fault(i, "has another size than it had when the set was opened".into())),
        }
    }

    /// Decodes all of them and brings them to one size, with the channels that are expected, else grey where every picture
    /// is, else RGB. Pixels are kept where they fit in memory.
    ///
    /// # Errors
    /// Where one cannot be read, and is not to be left out, or gets another size than the first, the message names it; where
    /// the classes are not those that are expected.
    pub fn read(mut self, pipeline: &Pipeline, options: &LoadOptions) -> Result<Opened> {
        self.number(&options.expected)?;
        let channels = options.expected.channels;
        let n = self.places.len();
        let first = match options.skip_corrupt {
            false => (n > 0).then(|| self.one(0, pipeline, channels)).transpose()?,
            true => (0..n).find_map(|i| self.one(i, pipeline, channels).ok()),
        };
        let bytes = first.map_or(0, |first| first.picture.h * first.picture.w * channels.unwrap_or(3));
        let kept = n.saturating_mul(bytes) <= options.memory.unwrap_or(MEMORY);
        let one = |i: usize| -> Result<Decoded> {
            let mut one = self.one(i, pipeline, channels)?;
            if !kept {
                one.picture.pixels = vec![]; // it was only to be seen whether it can be read
            }
            Ok(one)
        };
        let all = (0..n).into_par_iter().map(one);
        let decoded = match options.skip_corrupt {
            false => all.collect::<Result<Vec<Decoded>>>()?,
            true => {
                let all = all.collect();
                self.readable(all)?
            }
        };
        let shape = self.shape(&decoded)?;
        let turned = decoded.iter().filter(|one| one.turned).count();
        if turned > 0 && !self.exif {
            self.notes.push(format!(
                "{turned} pictures have an EXIF orientation, which torchvision and timm do not apply, nor is it here"
            ));
        }
        let gathered = || {
            let mut x = Vec::with_capacity(decoded.len() * shape.len());
            decoded.into_iter().for_each(|one| x.extend(one.picture.with_channels(shape.c).pixels));
            x
        };
        let pixels = kept.then(gathered);
        Ok(Opened { pictures: self, ready: Ready { pipeline: pipeline.clone(), shape }, pixels })
    }

    /// The shape that all have.
    fn shape(&self, decoded: &[Decoded]) -> Result<Shape> {
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
        Ok(Shape::new(h, w, c))
    }

    /// What could be read; the rest is left out, and told of in a note.
    ///
    /// # Errors
    /// The first fault, where nothing could be read.
    fn readable(&mut self, all: Vec<Result<Decoded>>) -> Result<Vec<Decoded>> {
        let n = all.len();
        let (mut decoded, mut kept, mut fault) = (vec![], vec![], None);
        for (i, one) in all.into_iter().enumerate() {
            match one {
                Ok(one) => {
                    decoded.push(one);
                    kept.push(i);
                }
                Err(error) => drop(fault.get_or_insert(error)),
            }
        }
        let Some(fault) = fault else { return Ok(decoded) };
        if kept.is_empty() {
            return Err(fault);
        }
        let (left, verb) = (n - kept.len(), if n - kept.len() == 1 { "is" } else { "are" });
        self.notes.push(format!(
            "{left} of {n} pictures cannot be read and {verb} left out, and samples are numbered without them; the first: {fault}"
        ));
        let mut i = 0..n;
        self.places.retain(|_| i.next().is_some_and(|i| kept.binary_search(&i).is_ok()));
        let of = |words: &[String]| kept.iter().map(|&i| words[i].clone()).collect::<Vec<_>>();
        self.samples = of(&self.samples);
        self.columns.iter_mut().for_each(|(_, words)| *words = of(words));
        self.rows = kept.iter().filter_map(|&i| self.rows.get(i).cloned()).collect();
        self.y = self.y.subset(&kept);
        Ok(decoded)
    }

    /// Numbers the classes as they are expected, where their names are.
    fn number(&mut self, expected: &Expected) -> Result<()> {
        let Some(found) = &self.classes else { return Ok(()) };
        let refuse = |reason: String| Error::data(&self.path, reason);
        let numbers = match &expected.classes {
            // The data's own numbers, and its names at the same places as far as they are known.
            Some(known)
                if !self.by_name
                    && found
                        .iter()
                        .zip(known)
                        .all(|(name, other)| name == other || !known.contains(name)) =>
            {
                return Ok(());
            }
            Some(known) => numbers(found, known).map_err(refuse)?.zip(Some(known)),
            None => None,
        };
        let Some((numbers, known)) = numbers else {
            return match (expected.outputs, &self.y) {
                (Some(outputs), Labels::Classes(_)) if self.by_name && outputs != found.len() => {
                    Err(refuse(format!(
                        "has {} classes by name, and the model has {outputs} outputs; give the class of each output by `id2label` \
                         in the model's config.json, or the labels as whole numbers in a manifest",
                        found.len()
                    )))
                }
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
