//! Labelled images of every format ([`super::format`] lists them), and labelled texts from safetensors or as rows of text.
//!
//! Pixels are whole numbers from 0 to 255 and become values from 0 to 1, then (value − mean) / std per channel. Floats of a
//! safetensors file are left as they are unless a mean is given. The result is NHWC. docs/DATA.md states the rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{Format, format};
use super::normalise::Normalise;
use super::options::{Expected, LoadOptions, MEMORY};
use super::part::Part;
use super::pictures::{Opened, Pictures};
use super::pipeline::{Pipeline, Steps};
use super::pixels::{self, Numbers, Stored};
use super::tensors::TensorFile;
use super::tokenizer::{self, Tokenizer};
use super::{
    CifarLabels, Labels, Names, Samples, cifar, folder, idx, listing, mat, npz, pickled, stl, text, texts,
};
use crate::error::{Error, Result};
use crate::loss::Loss;

/// Labelled images or texts, and how the file was read where it could have been read otherwise.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images or texts.
    pub samples: Samples,
    /// What the files call their classes and samples.
    pub names: Names,
    /// The steps by which pixels became the inputs; none where the data are no pixels.
    pub pipeline: Option<Pipeline>,
    /// The mean and std that were applied.
    pub normalise: Normalise,
    /// What made token ids of texts, where they were words.
    pub tokenizer: Option<Arc<Tokenizer>>,
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
/// docs/DATA.md lists the formats.
///
/// # Errors
/// Where a file is missing, malformed, empty, or has texts that are to be normalised; where it holds a value that is not finite, or one outside 0 to 1 that the
/// config's mean and std cannot be meant for; the message names the record.
pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Loaded> {
    let format = format(path)?;
    if options.labels == CifarLabels::Coarse && !format.has_coarse_labels() {
        return Err(Error::config(format!(
            "{}: coarse labels are those of CIFAR-100's files",
            path.display()
        )));
    }
    let mut pipeline = None;
    let (mut stored, names, mut notes) = match format {
        Format::Tensors(file, part) => {
            let file = TensorFile::open(&file)?;
            if file.has(text::IDS) {
                return texts(&file, options);
            }
            tensors(&file, part)?
        }
        Format::Npz(file, part) => tensors(&npz::open(&file)?, part)?,
        Format::Idx { images, labels } => (idx::read(&images, &labels)?, Names::default(), vec![]),
        Format::Cifar(files) => cifar::read(path, &files, options.labels)?,
        Format::Pickles(files) => pickled::read(&files, options.labels)?,
        Format::Stl { images, labels } => stl::read(&images, &labels)?,
        Format::Mat(file) => mat::read(&file)?,
        Format::Folders(root, folders) => {
            of_pictures(folder::list(&root, &folders)?, options, &mut pipeline)?
        }
        Format::Listing(file) => {
            of_pictures(listing::list(&file, &options.texts.labels)?, options, &mut pipeline)?
        }
        Format::Texts(files) => return rows_of_text(path, &files, options),
        Format::Shards(files) => of_pictures(shards(path, &files)?, options, &mut pipeline)?,
        Format::Parquet(files) => of_pictures(
            parquet(path, &files, options.labels, &options.texts.labels)?,
            options,
            &mut pipeline,
        )?,
    };
    if stored.y.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    if pipeline.is_none() && stored.is_pixels() {
        let steps = options.preprocess.of_pixels(&options.steps);
        stored = stored
            .through(&steps)
            .map_err(|(i, reason)| Error::record(path, format!("sample {i}"), reason))?;
        pipeline = Some(steps);
    }
    let image = stored.shape.len();
    let mut config = &options.config;
    let none = Normalise::default();
    if let Numbers::Floats(x) = &stored.x {
        if options.steps != Steps::default() {
            return Err(Error::data(
                path,
                "holds floats, and --resize, --crop and --interpolation are for pixels",
            ));
        }
        if let Some(i) = x.iter().position(|v| !v.is_finite()) {
            return Err(Error::record(
                path,
                format!("sample {}", i / image),
                format!("holds the value {}", x[i]),
            ));
        }
        if options.floats_are_inputs {
            config = &none;
        }
    }
    let normalise =
        stored.normalisation(&options.normalise, config, &mut notes).map_err(|e| Error::data(path, e))?;
    let samples =
        stored.normalised(&normalise, options.memory.unwrap_or(MEMORY)).map_err(|e| Error::data(path, e))?;
    if let Some(i) = samples.x.iter().position(|v| !v.is_finite()) {
        let reason = format!("holds the value {} once it is normalised", samples.x[i]);
        return Err(Error::record(path, format!("sample {}", i / image), reason));
    }
    Ok(Loaded { samples, names, pipeline, normalise, tokenizer: None, notes })
}

/// Texts as words.
fn rows_of_text(path: &Path, files: &[PathBuf], options: &LoadOptions) -> Result<Loaded> {
    check_plain(path, options)?;
    let Expected { classes, positions, .. } = &options.expected;
    let texts::Read { samples, names, notes, tokenizer } =
        texts::read(files, &options.texts, classes.as_deref(), *positions)?;
    let normalise = Normalise::default();
    Ok(Loaded { samples, names, pipeline: None, normalise, tokenizer: Some(tokenizer), notes })
}

/// The token ids of texts that a program has, and notes on their lengths; by the tokenizer of the options, and with at most
/// as many tokens as the model takes.
///
/// # Errors
/// Where there are no texts or no tokenizer, or the options are for images.
pub fn encode(texts: &[String], options: &LoadOptions) -> Result<(tokenizer::Rows, Vec<String>)> {
    let path = Path::new("the data");
    check_plain(path, options)?;
    if texts.is_empty() {
        return Err(Error::data(path, "holds no samples"));
    }
    let encoded = texts::encode(path, texts, &options.texts, options.expected.positions)?;
    Ok((encoded.rows, encoded.notes))
}

/// Refuses what is for images where there are texts.
fn check_plain(path: &Path, options: &LoadOptions) -> Result<()> {
    match options.normalise == Normalise::default() && options.steps == Steps::default() {
        true => Ok(()),
        false => {
            let reason =
                "holds texts, and --mean, --std, --resize, --crop and --interpolation are for images";
            Err(Error::data(path, reason))
        }
    }
}

/// Pictures, brought to one size.
fn of_pictures(
    pictures: Pictures,
    options: &LoadOptions,
    pipeline: &mut Option<Pipeline>,
) -> Result<(Stored, Names, Vec<String>)> {
    let steps = options.preprocess.of_pictures(&options.steps);
    let steps = steps.map_err(|reason| Error::data(&pictures.path, reason))?;
    let Opened { mut pictures, ready, pixels } = pictures.read(pipeline.insert(steps), options)?;
    let (shape, y) = (ready.shape, pictures.y.clone());
    let (classes, columns) = (pictures.classes.take(), std::mem::take(&mut pictures.columns));
    let names = Names { classes, samples: Some(pictures.samples.clone()), columns };
    let notes = std::mem::take(&mut pictures.notes);
    let x = match pixels {
        Some(pixels) => Numbers::Pixels(pixels),
        None => Numbers::Pictures(Box::new(pictures), ready),
    };
    Ok((Stored { shape, x, y, channels_last: true }, names, notes))
}

/// The images of a file of tensors, which names nothing.
fn tensors(file: &TensorFile, part: Option<Part>) -> Result<(Stored, Names, Vec<String>)> {
    let (stored, notes) = pixels::from_tensors(file, part)?;
    Ok((stored, Names::default(), notes))
}

#[cfg(feature = "images")]
use super::shards::list as shards;

#[cfg(not(feature = "images"))]
fn shards(path: &Path, _: &[PathBuf]) -> Result<Pictures> {
    Err(Error::data(path, "is of tar files, and this scrubjay was built without its feature `images`"))
}

#[cfg(feature = "parquet")]
use super::columnar::list as parquet;

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _: &[PathBuf], _: CifarLabels, _: &[String]) -> Result<Pictures> {
    let reason =
        "is of parquet files, and this scrubjay was built without them; build it with `--features parquet`";
    Err(Error::data(path, reason))
}

/// Texts, which nothing normalises.
fn texts(file: &TensorFile, options: &LoadOptions) -> Result<Loaded> {
    if file.has("x") {
        let reason =
            format!("has both `x` and `{}`: images and texts are read from files of their own", text::IDS);
        return Err(Error::data(file.path(), reason));
    }
    check_plain(file.path(), options)?;
    let (names, normalise) = (Names::default(), Normalise::default());
    Ok(Loaded {
        samples: text::read(file)?,
        names,
        pipeline: None,
        normalise,
        tokenizer: None,
        notes: vec![],
    })
}

/// The files that [`load`] reads for `path`, in its order.
///
/// # Errors
/// Where [`load`] would find nothing to read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(match format(path)? {
        Format::Tensors(file, _) | Format::Npz(file, _) | Format::Mat(file) => vec![file],
        Format::Idx { images, labels } | Format::Stl { images, labels } => vec![images, labels],
        Format::Cifar(files)
        | Format::Pickles(files)
        | Format::Shards(files)
        | Format::Parquet(files)
        | Format::Texts(files) => files,
        Format::Folders(root, folders) => folder::list(&root, &folders)?.files(),
        Format::Listing(file) => {
            let pictures = listing::files(&file)?;
            [vec![file], pictures].concat()
        }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use super::super::tensors::{Tensor, Values, write};
    use super::*;
    use crate::ops::Shape;

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
