//! Labelled images from all supported formats: safetensors (`x`, `y`), MNIST's idx, CIFAR's binary records.
//!
//! Bytes become values from 0 to 1, then (value − mean) / std per channel. Floats of a safetensors file are left as
//! they are unless a mean is given. The result is NHWC.

use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::tensors::{TensorFile, read_unzipped};
use super::{Labels, Samples};
use crate::loss::Loss;
use crate::net::Shape;
use crate::{Error, Result};

/// The map from stored to normalised values, per channel; a single number is for all channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalise {
    /// Subtracted; 0 where there is none.
    pub mean: Option<Vec<f32>>,
    /// Divided by; 1 where there is none.
    pub std: Option<Vec<f32>>,
}

/// Images as stored: channel-major (NCHW), values not yet normalised.
struct Stored {
    shape: Shape,
    x: Vec<f32>,
    y: Labels,
}

/// Reads labelled images.
///
/// A `.safetensors` file has `x` `[n, c, h, w]` or `[n, features]` and `y`: `[n]` or `[n, 1]` of
/// classes, or `[n, labels]` of 0 and 1. An idx file of images (`.gz` or not)
/// has its label file beside it; of a directory with both training and test images, the training images are read. A
/// CIFAR file has records of one label (or two in CIFAR-100, of which the second counts) and 3,072 bytes; of a
/// directory all `data_batch_*.bin` are read, or `train.bin`.
///
/// # Errors
/// Where a file is missing, malformed, empty, or holds a value that is not finite; the message names the record.
pub fn load(path: &Path, normalise: &Normalise) -> Result<Samples> {
    let stored = match kind(path)? {
        Kind::Safetensors => from_tensors(path)?,
        Kind::Idx { images, labels } => from_idx(&images, &labels)?,
        Kind::Cifar(files) => from_cifar(path, &files)?,
    };
    if stored.y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    let samples = normalised(stored, normalise).map_err(|e| Error::data(path, e))?;
    let image = samples.shape.len();
    if let Some(i) = samples.x.iter().position(|v| !v.is_finite()) {
        return Err(Error::record(
            path,
            format!("sample {}", i / image),
            format!("holds the value {}", samples.x[i]),
        ));
    }
    Ok(samples)
}

/// The files that [`load`] reads for `path`, in its order.
///
/// # Errors
/// Where [`load`] would find nothing to read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(match kind(path)? {
        Kind::Safetensors => vec![path.into()],
        Kind::Idx { images, labels } => vec![images, labels],
        Kind::Cifar(files) => files,
    })
}

/// Refuses the labels of a file that do not fit a network with this loss and this number of logits: [`Labels::check`]
/// with the file's name.
///
/// # Errors
/// Where one does not fit; the message names file and sample.
pub fn check_labels(path: &Path, labels: &Labels, loss: Loss, classes: usize) -> Result<()> {
    labels.check(loss, classes, 0).map_err(|error| match error {
        Error::Config(reason) => Error::data(path, reason),
        other => other,
    })
}

enum Kind {
    Safetensors,
    Idx { images: PathBuf, labels: PathBuf },
    Cifar(Vec<PathBuf>),
}

/// The format of a path, by its name, or for a directory by the names in it.
fn kind(path: &Path) -> Result<Kind> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(Error::io(path))?;
        let mut names: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        names.sort();
        let called =
            |what: &str| names.iter().filter(|p| stem(p).contains(what)).cloned().collect::<Vec<_>>();
        if let Some(images) = called("train-images").first().or(called("t10k-images").first()) {
            return kind(images);
        }
        let mut batches = [called("data_batch_"), called("train.bin")].concat();
        batches.retain(|path| stem(path).trim_end_matches(".gz").ends_with(".bin"));
        if let Some(twice) =
            batches.iter().find(|path| path.with_extension("bin.gz").exists() && stem(path).ends_with(".bin"))
        {
            return Err(Error::data(
                twice,
                "is there packed too; one of the two must go, or each sample would count twice",
            ));
        }
        return match batches.is_empty() {
            false => Ok(Kind::Cifar(batches)),
            true => Err(Error::data(path, "is a directory that holds neither idx images nor CIFAR batches")),
        };
    }
    if !path.exists() {
        return Err(Error::Io { path: path.into(), source: std::io::ErrorKind::NotFound.into() });
    }
    if name.ends_with(".safetensors") {
        return Ok(Kind::Safetensors);
    }
    if name.contains("idx3") || name.contains("images") {
        let labels = path.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
        return match labels.exists() && labels != path {
            true => Ok(Kind::Idx { images: path.into(), labels }),
            false => Err(Error::data(path, format!("its labels, {}, are not beside it", labels.display()))),
        };
    }
    if name.trim_end_matches(".gz").ends_with(".bin") {
        return Ok(Kind::Cifar(vec![path.into()]));
    }
    Err(Error::data(path, "is no data that is known here: .safetensors, idx (images and labels), CIFAR .bin"))
}

fn stem(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn from_tensors(path: &Path) -> Result<Stored> {
    let file = TensorFile::open(path)?;
    let refuse = |tensor: &str, reason: String| Error::record(path, format!("tensor `{tensor}`"), reason);
    let shape = match file.shape("x")? {
        [_, c, h, w] => Shape::new(*h, *w, *c),
        [_, features] => Shape::new(1, 1, *features),
        other => {
            return Err(refuse(
                "x",
                format!("has shape {other:?}, where [n, c, h, w] or [n, features] was expected"),
            ));
        }
    };
    let n = file.shape("x")?[0];
    if n > 0 && shape.is_empty() {
        return Err(refuse("x", format!("has shape {:?}: images of no values", file.shape("x")?)));
    }
    let y = Labels::read(&file, n)?;
    let mut x = file.f32("x")?;
    if file.dtype("x")? == Dtype::U8 {
        x.iter_mut().for_each(|v| *v /= 255.0);
    }
    Ok(Stored { shape, x, y })
}

/// An idx file: two zero bytes, the element type (8: bytes), the number of axes, each axis big-endian, the elements.
fn idx(path: &Path, axes: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let bytes = read_unzipped(path)?;
    let header = 4 + 4 * axes;
    let magic = [0, 0, 8, axes as u8];
    if bytes.len() < header || bytes[..4] != magic {
        let found = &bytes[..bytes.len().min(4)];
        return Err(Error::data(
            path,
            format!("begins with {found:02x?}, where an idx file of {axes} axes has {magic:02x?}"),
        ));
    }
    let axis = |i: usize| bytes[4 + 4 * i..8 + 4 * i].iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
    let sides: Vec<usize> = (0..axes).map(axis).collect();
    let expected = header as u128 + sides.iter().map(|&side| side as u128).product::<u128>();
    if expected != bytes.len() as u128 {
        return Err(Error::data(
            path,
            format!("has {} bytes, where {sides:?} takes {expected} (truncated?)", bytes.len()),
        ));
    }
    Ok((sides, bytes[header..].to_vec()))
}

fn from_idx(images: &Path, labels: &Path) -> Result<Stored> {
    let (sides, pixels) = idx(images, 3)?;
    let (count, y) = idx(labels, 1)?;
    if count[0] != sides[0] {
        return Err(Error::data(labels, format!("has {} labels for {} images", count[0], sides[0])));
    }
    if sides[0] > 0 && sides[1] * sides[2] == 0 {
        return Err(Error::data(images, format!("has images of {} x {} pixels", sides[1], sides[2])));
    }
    let x = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    Ok(Stored { shape: Shape::new(sides[1], sides[2], 1), x, y: y.into_iter().map(u32::from).collect() })
}

fn from_cifar(path: &Path, files: &[PathBuf]) -> Result<Stored> {
    const PIXELS: usize = 3 * 32 * 32;
    let (mut x, mut y) = (vec![], vec![]);
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
        for record in bytes.chunks_exact(labels + PIXELS) {
            y.push(u32::from(record[labels - 1]));
            x.extend(record[labels..].iter().map(|&pixel| f32::from(pixel) / 255.0));
        }
    }
    if y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    Ok(Stored { shape: Shape::new(32, 32, 3), x, y: y.into() })
}

fn normalised(stored: Stored, normalise: &Normalise) -> std::result::Result<Samples, String> {
    let Stored { shape, x, y } = stored;
    let c = shape.c;
    let each = |values: &Option<Vec<f32>>, default: f32, name: &str| match values.as_deref() {
        None => Ok(vec![default; c]),
        Some([one]) => Ok(vec![*one; c]),
        Some(many) if many.len() == c => Ok(many.to_vec()),
        Some(many) => Err(format!("has {c} channels, {name} has {} values", many.len())),
    };
    let (mean, std) = (each(&normalise.mean, 0.0, "mean")?, each(&normalise.std, 1.0, "std")?);
    if std.iter().any(|std| std.is_nan() || *std <= 0.0) {
        return Err("cannot be normalised: a std is not above 0".into());
    }
    let positions = shape.positions();
    let mut out = vec![0.0; x.len()];
    for (image, out) in x.chunks_exact(shape.len()).zip(out.chunks_exact_mut(shape.len())) {
        for (position, out) in out.chunks_exact_mut(c).enumerate() {
            for (channel, out) in out.iter_mut().enumerate() {
                *out = (image[channel * positions + position] - mean[channel]) / std[channel];
            }
        }
    }
    Ok(Samples { shape, x: out, y })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use super::super::tensors::{Tensor, Values, write};
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn idx_bytes(sides: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, sides.len() as u8];
        sides.iter().for_each(|side| bytes.extend(side.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn error(path: &Path) -> String {
        load(path, &Normalise::default()).unwrap_err().to_string()
    }

    #[test]
    fn channels_come_last_and_are_normalised() {
        let dir = folder();
        let path = dir.path().join("d.safetensors");
        let tensors = [
            Tensor { name: "x", shape: vec![1, 2, 1, 2], values: Values::F32(&[1.0, 2.0, 3.0, 4.0]) },
            Tensor { name: "y", shape: vec![1], values: Values::I64(&[7]) },
        ];
        write(&path, &tensors, HashMap::new()).unwrap();
        let normalise = Normalise { mean: Some(vec![1.0, 3.0]), std: Some(vec![2.0]) };
        let samples = load(&path, &normalise).unwrap();
        assert_eq!((samples.shape, samples.y), (Shape::new(1, 2, 2), vec![7].into()));
        assert_eq!(samples.x, [0.0, 0.0, 0.5, 0.5]);
        let three = Normalise { mean: Some(vec![0.0; 3]), std: None };
        assert!(load(&path, &three).unwrap_err().to_string().contains("2 channels"));
        let zero = Normalise { mean: None, std: Some(vec![0.0]) };
        assert!(load(&path, &zero).unwrap_err().to_string().contains("std"));
    }

    #[test]
    fn values_that_are_not_finite_name_their_sample() {
        let dir = folder();
        let path = dir.path().join("d.safetensors");
        for bad in [f32::NAN, f32::INFINITY] {
            let tensors = [
                Tensor { name: "x", shape: vec![2, 2], values: Values::F32(&[0.0, 0.0, 0.0, bad]) },
                Tensor { name: "y", shape: vec![2], values: Values::I64(&[0, 1]) },
            ];
            write(&path, &tensors, HashMap::new()).unwrap();
            assert!(error(&path).contains("sample 1"), "{}", error(&path));
        }
    }

    #[test]
    fn idx_and_cifar_are_read_and_their_faults_named() {
        let dir = folder();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("train-images-idx3-ubyte"), idx_bytes(&[2, 1, 2], &[0, 255, 51, 0])).unwrap();
        assert!(error(&at("train-images-idx3-ubyte")).contains("labels"));
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(&idx_bytes(&[2], &[3, 9])).unwrap();
        std::fs::write(at("train-labels-idx1-ubyte"), idx_bytes(&[2], &[3, 9])).unwrap();
        let samples = load(dir.path(), &Normalise::default()).unwrap();
        assert_eq!((samples.x, samples.y), (vec![0.0, 1.0, 0.2, 0.0], vec![3, 9].into()));
        std::fs::write(at("train-labels-idx1-ubyte"), idx_bytes(&[1], &[3])).unwrap();
        assert!(error(dir.path()).contains("1 labels for 2 images"));
        std::fs::write(at("train-labels-idx1-ubyte"), [0, 0, 8]).unwrap();
        assert!(error(dir.path()).contains("begins with"));
        std::fs::write(at("train-images-idx3-ubyte"), idx_bytes(&[2, 1, 2], &[0, 255, 51])).unwrap();
        assert!(error(dir.path()).contains("truncated"));
        std::fs::write(at("t10k-images-idx3-ubyte.gz"), [1, 2, 3]).unwrap();
        std::fs::write(at("t10k-labels-idx1-ubyte.gz"), gz.finish().unwrap()).unwrap();
        assert!(error(&at("t10k-images-idx3-ubyte.gz")).contains("decompressed"));

        let record = [vec![4u8], vec![255; 1024], vec![0; 2048]].concat();
        std::fs::write(at("test.bin"), &record).unwrap();
        let samples = load(&at("test.bin"), &Normalise::default()).unwrap();
        assert_eq!((samples.y.words(), &samples.x[..4]), (&[4][..], &[1.0, 0.0, 0.0, 1.0][..]));
        std::fs::write(at("test.bin"), [&record[..], &record[..9]].concat()).unwrap();
        assert!(error(&at("test.bin")).contains("record 1"));
        std::fs::write(at("test.bin"), []).unwrap();
        assert!(error(&at("test.bin")).contains("no samples"));
        assert!(error(&at("absent.bin")).contains("absent.bin"));
        std::fs::create_dir(at("twice")).unwrap();
        for name in ["twice/data_batch_1.bin", "twice/data_batch_1.bin.md5"] {
            std::fs::write(at(name), &record).unwrap();
        }
        assert_eq!(load(&at("twice"), &Normalise::default()).unwrap().y, vec![4].into());
        std::fs::write(at("twice/data_batch_1.bin.gz"), &record).unwrap();
        assert!(error(&at("twice")).contains("twice"));
        std::fs::write(at("flat-images-idx3"), idx_bytes(&[2, 0, 5], &[])).unwrap();
        std::fs::write(at("flat-labels-idx1"), idx_bytes(&[2], &[0, 1])).unwrap();
        assert!(error(&at("flat-images-idx3")).contains("0 x 5"));
        std::fs::create_dir(at("empty")).unwrap();
        assert!(error(&at("empty")).contains("directory"));
    }
}
