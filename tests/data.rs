//! Labelled images of every format, made here byte by byte: the same samples whatever the container, and faults named
//! with the file and the sample.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use scrubjay::checkpoint::save;
use scrubjay::data::{Normalise, Samples, check_labels, files, load};
use scrubjay::loss::Loss;
use scrubjay::net::Shape;
use scrubjay::zoo;
use serde_json::Value;
use tempfile::TempDir;

const SIDE: usize = 5;
const N: usize = 9;

fn pixel(i: usize) -> u8 {
    (i * 37 % 256) as u8
}

/// Grey images and their labels, 0 to 8.
fn grey() -> (Vec<u8>, Vec<u8>) {
    ((0..N * SIDE * SIDE).map(pixel).collect(), (0..N as u8).collect())
}

/// An idx file of bytes.
fn idx(sides: &[usize], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sides.len() as u8];
    sides.iter().for_each(|&side| bytes.extend((side as u32).to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// A safetensors file of `x` and `y`.
fn tensors(x: (Dtype, &[usize], &[u8]), y: (Dtype, &[u8])) -> Vec<u8> {
    let size = if y.0 == Dtype::I64 { 8 } else { 1 };
    let views = [
        ("x", TensorView::new(x.0, x.1.to_vec(), x.2).unwrap()),
        ("y", TensorView::new(y.0, vec![y.1.len() / size], y.1).unwrap()),
    ];
    safetensors::serialize(views, None).unwrap()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// `count` records of a CIFAR file; every record begins with `labels(i)`.
fn cifar<const L: usize>(count: usize, labels: impl Fn(usize) -> [u8; L]) -> Vec<u8> {
    let record = |i: usize| labels(i).into_iter().chain((0..3072).map(move |p| pixel(i * 11 + p)));
    (0..count).flat_map(record).collect()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// The grey images in every container that there is for them.
    fn grey(&self) -> [PathBuf; 5] {
        let (x, y) = grey();
        let (images, labels) = (idx(&[N, SIDE, SIDE], &x), idx(&[N], &y));
        self.write("plain/train-images-idx3-ubyte", &images);
        self.write("plain/train-labels-idx1-ubyte", &labels);
        self.write("plain/t10k-images-idx3-ubyte", &idx(&[1, SIDE, SIDE], &x[..25]));
        self.write("plain/t10k-labels-idx1-ubyte", &idx(&[1], &[3]));
        let packed = self.write("packed/train-images-idx3-ubyte.gz", &gz(&images));
        self.write("packed/train-labels-idx1-ubyte.gz", &gz(&labels));
        let sides = [N, 1, SIDE, SIDE];
        let bytes = tensors((Dtype::U8, &sides, &x), (Dtype::U8, &y));
        let wide = floats(x.iter().map(|&p| f32::from(p) / 255.0));
        let labels: Vec<u8> = y.iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
        let float = tensors((Dtype::F32, &sides, &wide), (Dtype::I64, &labels));
        [
            self.at("plain"),
            self.at("packed"),
            packed,
            self.write("bytes.safetensors", &bytes),
            self.write("floats.safetensors", &float),
        ]
    }
}

fn read(path: &Path) -> Samples {
    load(path, &Normalise::default()).unwrap()
}

/// What is said of a file that cannot be read as samples: its name, and these words.
fn refused(path: &Path, words: &[&str]) {
    let error = load(path, &Normalise::default()).unwrap_err().to_string();
    for word in words.iter().copied().chain([path.to_string_lossy().as_ref()]) {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn the_samples_are_the_same_in_every_container() {
    let folder = Folder::new();
    let (x, y) = grey();
    for path in folder.grey() {
        let samples = read(&path);
        assert_eq!(samples.shape, Shape::new(SIDE, SIDE, 1), "{path:?}");
        assert_eq!(samples.y, y.iter().map(|&label| u32::from(label)).collect(), "{path:?}");
        assert_eq!(samples.x, x.iter().map(|&p| f32::from(p) / 255.0).collect::<Vec<_>>(), "{path:?}");
    }
    let test = folder.at("plain/t10k-images-idx3-ubyte");
    assert_eq!((read(&test).y, files(&test).unwrap().len()), (vec![3].into(), 2));
}

#[test]
fn a_model_says_the_same_of_them_through_the_program() {
    let folder = Folder::new();
    let made = zoo::create("mlp:6", Shape::new(SIDE, SIDE, 1), 9, 1).unwrap();
    folder.write("model/config.json", made.config.to_string().as_bytes());
    save(&folder.at("model/model.safetensors"), &made.network).unwrap();
    let eval = |data: &Path| -> Value {
        let run = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
            .args(["eval", "--json", "--device", "cpu", "--mean", "0.5", "--std", "0.25", "--model"])
            .args([folder.at("model").as_path(), Path::new("--data"), data])
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_slice(&run.stdout).unwrap()
    };
    let results = folder.grey().map(|path| eval(&path));
    for result in &results {
        assert_eq!((&result["loss"], &result["classes"]), (&results[0]["loss"], &results[0]["classes"]));
    }
}

#[test]
fn channels_of_colour_images_come_last() {
    let folder = Folder::new();
    let x: Vec<u8> = (0..2 * 3 * 4).map(pixel).collect();
    let path = folder.write("c.safetensors", &tensors((Dtype::U8, &[2, 3, 2, 2], &x), (Dtype::U8, &[1, 0])));
    let samples = read(&path);
    for (i, &value) in samples.x.iter().enumerate() {
        let (image, position, channel) = (i / 12, i % 12 / 3, i % 3);
        assert_eq!(value, f32::from(pixel(image * 12 + channel * 4 + position)) / 255.0, "{i}");
    }
    let normalise = Normalise { mean: Some(vec![0.0, 0.5, 1.0]), std: Some(vec![1.0, 2.0, 0.5]) };
    let scaled = load(&path, &normalise).unwrap();
    for (i, (&value, &plain)) in scaled.x.iter().zip(&samples.x).enumerate() {
        assert_eq!(value, (plain - [0.0, 0.5, 1.0][i % 3]) / [1.0, 2.0, 0.5][i % 3], "{i}");
    }
}

#[test]
fn cifar_10_has_one_label_a_record_and_cifar_100_two() {
    let folder = Folder::new();
    let ten = read(&folder.write("ten/test_batch.bin", &cifar(3, |i| [i as u8 + 4])));
    let hundred = read(&folder.write("hundred/test.bin", &cifar(3, |i| [77, i as u8 + 94])));
    assert_eq!((ten.y, hundred.y), (vec![4, 5, 6].into(), vec![94, 95, 96].into()));
    assert_eq!(ten.x, hundred.x);
    for (i, &value) in ten.x.iter().enumerate() {
        let (image, position, channel) = (i / 3072, i % 3072 / 3, i % 3);
        assert_eq!(value, f32::from(pixel(image * 11 + channel * 1024 + position)) / 255.0);
    }
    // A directory of batches is read in name order, without the test batch; packed or not.
    folder.write("ten/data_batch_2.bin", &cifar(1, |_| [2]));
    folder.write("ten/data_batch_1.bin.gz", &gz(&cifar(2, |i| [i as u8])));
    folder.write("ten/batches.meta.txt", b"names");
    assert_eq!(read(&folder.at("ten")).y.words(), [0, 1, 2]);
    let names = files(&folder.at("ten")).unwrap();
    assert_eq!(names, [folder.at("ten/data_batch_1.bin.gz"), folder.at("ten/data_batch_2.bin")]);
    folder.write("hundred/train.bin", &cifar(2, |i| [0, i as u8]));
    assert_eq!(read(&folder.at("hundred")).y.words(), [0, 1]);
}

#[test]
fn labels_that_are_no_class_are_named_with_file_and_sample() {
    let folder = Folder::new();
    let path = folder.write("test_batch.bin", &cifar(9, |i| [if i == 7 { 9 } else { i as u8 }]));
    let samples = read(&path);
    let error = check_labels(&path, &samples.y, Loss::default(), 9).unwrap_err().to_string();
    let expected = format!("{}: sample 7 has label 9, classes are 0 to 8", path.display());
    assert_eq!(error, expected);
    check_labels(&path, &samples.y, Loss::default(), 10).unwrap();
    for (labels, word) in [([-1i64, 0], "-1"), ([1 << 40, 0], "1099511627776")] {
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let all = tensors((Dtype::U8, &[2, 1], &[0, 0]), (Dtype::I64, &bytes));
        refused(&folder.write("labels.safetensors", &all), &["sample 0", word, "no class"]);
    }
}

#[test]
fn files_that_end_early_or_begin_wrongly_are_refused() {
    let folder = Folder::new();
    let (x, y) = grey();
    let (images, labels) = (idx(&[N, SIDE, SIDE], &x), idx(&[N], &y));
    let with = |images: &[u8], labels: &[u8], end: &str, words: &[&str]| {
        let path = folder.write(&format!("train-images-idx3-ubyte{end}"), images);
        folder.write(&format!("train-labels-idx1-ubyte{end}"), labels);
        let error = load(&path, &Normalise::default()).unwrap_err().to_string();
        for word in words.iter().chain(&[end, "train-"]) {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    };
    let cut = images.len() - 3;
    with(&images[..cut], &labels, "", &["images", "238 bytes", "takes 241", "truncated"]);
    with(&images, &labels[..9], "", &["labels", "9 bytes", "truncated"]);
    with(&[&images[..], &[0]].concat(), &labels, "", &["242 bytes"]);
    with(&labels, &labels, "", &["images", "begins with", "3 axes"]);
    with(&images, &images, "", &["labels", "begins with", "1 axes"]);
    with(&[&[0, 0, 13, 3], &images[4..]].concat(), &labels, "", &["begins with", "0d"]);
    with(&images[..7], &labels, "", &["begins with"]);
    with(&[], &labels, "", &["begins with"]);
    with(&images, &idx(&[N - 1], &y[1..]), "", &["labels", "8 labels for 9 images"]);
    with(&idx(&[0, 5, 5], &[]), &idx(&[0], &[]), "", &["no samples"]);
    let packed = gz(&images);
    with(&packed[..packed.len() / 2], &gz(&labels), ".gz", &["decompressed"]);
    with(&images, &gz(&labels), ".gz", &["decompressed"]);
    with(&gz(&images[..40]), &gz(&labels), ".gz", &["40 bytes", "truncated"]);

    let whole = cifar(2, |i| [i as u8]);
    for (len, record) in [(3073 + 9, "record 1"), (9, "record 0"), (3072, "record 0")] {
        refused(&folder.write("test_batch.bin", &whole[..len]), &[record, "truncated"]);
    }
    refused(&folder.write("test_batch.bin", &[]), &["no samples"]);
    folder.write("batches/data_batch_1.bin", &whole);
    let second = folder.write("batches/data_batch_2.bin", &whole[..4000]);
    let error = load(&folder.at("batches"), &Normalise::default()).unwrap_err().to_string();
    assert!(error.contains(&*second.to_string_lossy()) && error.contains("record 1"), "{error}");

    let file = tensors((Dtype::U8, &[2, 1], &[0, 0]), (Dtype::U8, &[0, 1]));
    refused(&folder.write("cut.safetensors", &file[..file.len() - 1]), &["truncated"]);
    refused(&folder.write("cut.safetensors", &file[..20]), &["truncated"]);
    for (x, y, words) in [
        (&[2, 1, 1][..], &[0, 1][..], &["tensor `x`", "[2, 1, 1]", "[n, c, h, w]"][..]),
        (&[2, 1], &[0], &["tensor `y`", "[1]", "[2]"]),
        (&[2, 1], &[0, 1, 2], &["tensor `y`", "[3]", "[2]"]),
    ] {
        let all = tensors((Dtype::U8, x, &[0, 0]), (Dtype::U8, y));
        refused(&folder.write("shapes.safetensors", &all), words);
    }
    let bad = floats([0.0, 1.0, f32::NAN, 0.0].into_iter());
    let all = tensors((Dtype::F32, &[2, 2], &bad), (Dtype::U8, &[0, 1]));
    refused(&folder.write("nan.safetensors", &all), &["sample 1", "NaN"]);
}

/// These fail for every user, the superuser included.
#[test]
fn what_cannot_be_opened_is_named() {
    let folder = Folder::new();
    let file = folder.write("file.bin", &cifar(1, |_| [0]));
    for name in ["below.bin", "below.safetensors", "train-images-idx3-ubyte"] {
        refused(&file.join(name), &["not found"]);
    }
    for name in ["a.safetensors", "b.bin", "c-images-idx3"] {
        std::fs::create_dir(folder.at(name)).unwrap();
        refused(&folder.at(name), &["directory"]);
    }
    // Directories where files belong, within a directory of data.
    for (name, beside) in [
        ("ten/data_batch_1.bin", None),
        ("idx/train-labels-idx1-ubyte", Some(("idx/train-images-idx3-ubyte", idx(&[1, 1, 1], &[0])))),
    ] {
        std::fs::create_dir_all(folder.at(name)).unwrap();
        beside.iter().for_each(|(name, bytes)| drop(folder.write(name, bytes)));
        let set = folder.at(name).parent().unwrap().to_path_buf();
        let error = load(&set, &Normalise::default()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("is a directory"), "{error}");
    }
    refused(&folder.write("notes.txt", b"x"), &["no data that is known here"]);
    let alone = folder.write("alone-images-idx3-ubyte", &idx(&[1, 1, 1], &[0]));
    refused(&alone, &["labels", "not beside it"]);
}
