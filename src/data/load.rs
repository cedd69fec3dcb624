//! Labelled images from all supported formats: safetensors (`x`, `y`), MNIST's idx, CIFAR's binary records; and labelled
//! texts from safetensors.
//!
//! Pixels are whole numbers from 0 to 255 and become values from 0 to 1, then (value − mean) / std per channel. Floats of a
//! safetensors file are left as they are unless a mean is given. The result is NHWC. docs/DATA.md states the rules.

use std::path::{Path, PathBuf};

use super::idx::Idx;
use super::pixels::{self, Normalise, Stored};
use super::tensors::{TensorFile, read_unzipped};
use super::{Labels, Names, Samples, text};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::ops::Shape;

/// How labelled data are read, where the file leaves it open.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Asked for: applied whatever the values are.
    pub normalise: Normalise,
    /// From the model's config, for values from 0 to 1; used where `normalise` gives nothing.
    pub config: Normalise,
    /// Which labels of CIFAR-100.
    pub labels: CifarLabels,
}

/// The labels of CIFAR-100, which has two for each image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CifarLabels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 groups of them.
    Coarse,
}

crate::names::names!(CifarLabels { Fine = "fine", Coarse = "coarse" });

/// Labelled images or texts, and how the file was read where it could have been read otherwise.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images or texts.
    pub samples: Samples,
    /// What the files call their classes and samples.
    pub names: Names,
    /// One sentence each, for the user.
    pub notes: Vec<String>,
}

/// Reads labelled images or texts, normalised as asked; [`load_with`] without its notes.
///
/// # Errors
/// As [`load_with`].
pub fn load(path: &Path, normalise: &Normalise) -> Result<Samples> {
    let options = LoadOptions { normalise: normalise.clone(), ..LoadOptions::default() };
    Ok(load_with(path, &options)?.samples)
}

/// Reads labelled images or texts.
///
/// A `.safetensors` file has `x` `[n, c, h, w]`, `[n, h, w, c]` or `[n, features]` and `y`: `[n]` or `[n, 1]` of classes,
/// or `[n, labels]` of 0 and 1; one with `input_ids` `[n, t]` and `attention_mask` `[n, t]` in place of `x` has texts. An idx file of images (`.gz` or not) has its label file beside it; of a directory with
/// both training and test images, the training images are read. A CIFAR file has records of one label (or two in
/// CIFAR-100, of which `options` choose one) and 3,072 bytes; of a directory all `data_batch_*.bin` are read, or
/// `train.bin`.
///
/// # Errors
/// Where a file is missing, malformed, empty, or has texts that are to be normalised; where it holds a value that is not finite, or one outside 0 to 1 that the
/// config's mean and std cannot be meant for; the message names the record.
pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Loaded> {
    let kind = kind(path)?;
    if options.labels == CifarLabels::Coarse && !matches!(kind, Kind::Cifar(_)) {
        return Err(Error::config(format!(
            "{}: coarse labels are those of CIFAR-100's .bin files",
            path.display()
        )));
    }
    let (stored, mut notes) = match kind {
        Kind::Safetensors => {
            let file = TensorFile::open(path)?;
            if file.has(text::IDS) {
                return texts(&file, &options.normalise);
            }
            pixels::from_tensors(&file)?
        }
        Kind::Idx { images, labels } => (from_idx(&images, &labels)?, vec![]),
        Kind::Cifar(files) => (from_cifar(path, &files, options.labels)?, vec![]),
    };
    if stored.y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    let image = stored.shape.len();
    if let Some(i) = stored.x.iter().position(|v| !v.is_finite()) {
        let reason = format!("holds the value {}", stored.x[i]);
        return Err(Error::record(path, format!("sample {}", i / image), reason));
    }
    let normalise = stored
        .normalisation(&options.normalise, &options.config, &mut notes)
        .map_err(|e| Error::data(path, e))?;
    let samples = stored.normalised(&normalise).map_err(|e| Error::data(path, e))?;
    if let Some(i) = samples.x.iter().position(|v| !v.is_finite()) {
        let reason = format!("holds the value {} once it is normalised", samples.x[i]);
        return Err(Error::record(path, format!("sample {}", i / image), reason));
    }
    Ok(Loaded { samples, names: Names::default(), notes })
}

/// Texts, which nothing normalises.
fn texts(file: &TensorFile, normalise: &Normalise) -> Result<Loaded> {
    if file.has("x") {
        let reason =
            format!("has both `x` and `{}`: images and texts are read from files of their own", text::IDS);
        return Err(Error::data(file.path(), reason));
    }
    if *normalise != Normalise::default() {
        return Err(Error::data(file.path(), "holds texts, and --mean and --std are for images"));
    }
    Ok(Loaded { samples: text::read(file)?, names: Names::default(), notes: vec![] })
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

/// The largest number of classes that a network is made for.
const MOST_CLASSES: usize = 1 << 20;

/// The number of outputs of a new network: as given, else one more than the largest class, or one for each label.
///
/// # Errors
/// Where that is beyond sense: more than 1,000 classes and more than samples, unless it is given; or more than 2²⁰.
pub fn class_count(path: &Path, labels: &Labels, given: Option<usize>) -> Result<usize> {
    let count = given.unwrap_or(labels.outputs());
    if let Labels::Classes(classes) = labels
        && given.is_none()
        && count > 1000.max(classes.len())
    {
        let largest = (count - 1) as u32;
        let sample = classes.iter().position(|&class| class == largest).unwrap_or(0);
        return Err(Error::data(
            path,
            format!(
                "sample {sample} has label {largest}, and there are {} samples; renumber the labels from 0, or give --classes",
                classes.len()
            ),
        ));
    }
    match count {
        1..=MOST_CLASSES => Ok(count),
        _ => Err(Error::config(format!("--classes {count}: 1 to {MOST_CLASSES} classes were expected"))),
    }
}

enum Kind {
    Safetensors,
    Idx { images: PathBuf, labels: PathBuf },
    Cifar(Vec<PathBuf>),
}

/// Names of idx files of images; the first that a directory has is read.
const IMAGES: [&str; 3] = ["train-images", "t10k-images", "test-images"];

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
        if let Some(images) = IMAGES.iter().find_map(|name| called(name).into_iter().next()) {
            return kind(&images);
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
    let lower = name.to_lowercase();
    if lower.ends_with(".safetensors") {
        return Ok(Kind::Safetensors);
    }
    if name.contains("idx3") || name.contains("images") {
        let beside = path.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
        let other = match name.strip_suffix(".gz") {
            Some(_) => beside.with_extension(""),
            None => PathBuf::from(format!("{}.gz", beside.display())),
        };
        let found = [&beside, &other].into_iter().find(|labels| labels.exists() && labels.as_path() != path);
        return match found {
            Some(labels) => Ok(Kind::Idx { images: path.into(), labels: labels.clone() }),
            None => Err(Error::data(
                path,
                format!("its labels, {} or {}, are not beside it", beside.display(), other.display()),
            )),
        };
    }
    if lower.trim_end_matches(".gz").ends_with(".bin") {
        return Ok(Kind::Cifar(vec![path.into()]));
    }
    Err(Error::data(path, "is no data that is known here: .safetensors, idx (images and labels), CIFAR .bin"))
}

fn stem(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn from_idx(images: &Path, labels: &Path) -> Result<Stored> {
    let (pixels, y) = (Idx::read(images, 3)?, Idx::read(labels, 1)?);
    let sides = &pixels.sides;
    if y.sides[0] != sides[0] {
        return Err(Error::data(labels, format!("has {} labels for {} images", y.sides[0], sides[0])));
    }
    if sides[0] > 0 && sides[1] * sides[2] == 0 {
        return Err(Error::data(images, format!("has images of {} x {} pixels", sides[1], sides[2])));
    }
    let shape = Shape::new(sides[1], sides[2], 1);
    let x = pixels::scaled(images, "image", pixels.elements(), shape.len())?;
    Ok(Stored { shape, x, y: y.labels(labels)?.into(), channels_last: false, pixels: true })
}

fn from_cifar(path: &Path, files: &[PathBuf], wanted: CifarLabels) -> Result<Stored> {
    const PIXELS: usize = 3 * 32 * 32;
    let shape = Shape::new(32, 32, 3);
    let (mut x, mut y): (Vec<f32>, Vec<u32>) = (vec![], vec![]);
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
            x.extend(record[labels..].iter().map(|&pixel| f32::from(pixel) / 255.0));
        }
    }
    if y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    Ok(Stored { shape, x, y: y.into(), channels_last: false, pixels: true })
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
        assert_eq!((samples.shape(), samples.y), (Shape::new(1, 2, 2), vec![7].into()));
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
