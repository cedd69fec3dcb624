//! Labelled images of every format, made here byte by byte: the same samples whatever the container, and faults named
//! with the file and the sample.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use scrubjay::checkpoint::save;
use scrubjay::data::{
    CifarLabels, Labels, LoadOptions, Normalise, Samples, check_labels, class_count, files, load, load_with,
};
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
        assert_eq!(samples.shape(), Shape::new(SIDE, SIDE, 1), "{path:?}");
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
        (&[2, 1, 1, 1, 1][..], &[0, 1][..], &["tensor `x`", "[2, 1, 1, 1, 1]", "[n, c, h, w]"][..]),
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
        refused(&file.join(name), &["Not a directory"]);
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

/// A safetensors file of `x` and `y` of any types and shapes.
fn any(x: (Dtype, &[usize], &[u8]), y: (Dtype, &[usize], &[u8])) -> Vec<u8> {
    let view = |t: (Dtype, &[usize], &[u8])| TensorView::new(t.0, t.1.to_vec(), t.2.to_vec().leak()).unwrap();
    safetensors::serialize([("x", view(x)), ("y", view(y))], None).unwrap()
}

#[test]
fn labels_are_whole_numbers_of_any_type_in_a_row_or_a_column() {
    let folder = Folder::new();
    let x = (Dtype::U8, &[3usize, 1][..], &[0u8, 1, 2][..]);
    macro_rules! labels {
        ($($dtype:ident $type:ty),*) => {
            $(
                let y: Vec<u8> = [7 as $type, 0 as $type, 5 as $type].iter().flat_map(|v| v.to_le_bytes()).collect();
                for sides in [&[3usize][..], &[3, 1]] {
                    let path = folder.write("l.safetensors", &any(x, (Dtype::$dtype, sides, &y)));
                    assert_eq!(read(&path).y.words(), [7, 0, 5], "{:?} {sides:?}", Dtype::$dtype);
                }
            )*
        };
    }
    labels!(U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64, F32 f32, F64 f64);
    let y: Vec<u8> = (0..6i64).flat_map(i64::to_le_bytes).collect();
    refused(
        &folder.write("l.safetensors", &any(x, (Dtype::I64, &[3, 2], &y))),
        &["tensor `y`, sample 1, label 0", "2 is neither 0 nor 1"],
    );
    refused(&folder.write("l.safetensors", &any(x, (Dtype::I64, &[1, 3], &y[..24]))), &["[1, 3]"]);
    let half = floats([0.5, 1.0, 2.0].into_iter());
    refused(
        &folder.write("l.safetensors", &any(x, (Dtype::F32, &[3], &half))),
        &["tensor `y`, sample 0", "0.5 is no class"],
    );
}

#[test]
fn whole_numbers_of_images_are_pixels_whatever_their_type() {
    let folder = Folder::new();
    let y = (Dtype::U8, &[2usize][..], &[0u8, 1][..]);
    let pixels = [0u8, 255, 51, 1, 2, 3, 4, 5];
    let expected: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
    macro_rules! images {
        ($($dtype:ident $type:ty),*) => {
            $(
                let x: Vec<u8> = pixels.iter().flat_map(|&p| (p as $type).to_le_bytes()).collect();
                let path = folder.write("p.safetensors", &any((Dtype::$dtype, &[2, 1, 2, 2], &x), y));
                assert_eq!(read(&path).x, expected, "{:?}", Dtype::$dtype);
            )*
        };
    }
    images!(U8 u8, I16 i16, U16 u16, I32 i32, U32 u32, I64 i64, U64 u64);
    for bad in [-1i32, 256, 65_535] {
        let x: Vec<u8> = [0, 1, 2, 3, 4, bad, 6, 7].into_iter().flat_map(i32::to_le_bytes).collect();
        let path = folder.write("p.safetensors", &any((Dtype::I32, &[2, 1, 2, 2], &x), y));
        refused(&path, &["sample 1", &bad.to_string(), "0 to 255", "floats"]);
    }
    // Features are not pixels; numbers that look like pixels are pointed out.
    let x: Vec<u8> = [3i64, -7, 255, 0].into_iter().flat_map(i64::to_le_bytes).collect();
    let loaded = load_with(
        &folder.write("f.safetensors", &any((Dtype::I64, &[2, 2], &x), y)),
        &LoadOptions::default(),
    );
    let loaded = loaded.unwrap();
    assert_eq!((loaded.samples.x, loaded.notes.len()), (vec![3.0, -7.0, 255.0, 0.0], 0));
    let x: Vec<u8> = [3i64, 7, 255, 0].into_iter().flat_map(i64::to_le_bytes).collect();
    let path = folder.write("f.safetensors", &any((Dtype::I64, &[2, 2], &x), y));
    let loaded = load_with(&path, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.samples.x, [3.0, 7.0, 255.0, 0.0]);
    assert!(loaded.notes[0].contains("store pixels as U8"), "{:?}", loaded.notes);
}

#[test]
fn images_with_the_channels_last_are_the_same_images() {
    let folder = Folder::new();
    let y = (Dtype::U8, &[2usize][..], &[0u8, 1][..]);
    let (h, w, c) = (5, 6, 3);
    let at = |i: usize, ch: usize, r: usize, k: usize| pixel(((i * c + ch) * h + r) * w + k);
    let mut last = vec![];
    for (i, r, k) in (0..2).flat_map(|i| (0..h).flat_map(move |r| (0..w).map(move |k| (i, r, k)))) {
        last.extend((0..c).map(|ch| at(i, ch, r, k)));
    }
    let first: Vec<u8> = (0..2 * c * h * w).map(pixel).collect();
    let first = read(&folder.write("first.safetensors", &any((Dtype::U8, &[2, c, h, w], &first), y)));
    let path = folder.write("last.safetensors", &any((Dtype::U8, &[2, h, w, c], &last), y));
    let normalise = Normalise { mean: Some(vec![0.1, 0.2, 0.3]), std: None };
    let loaded = load_with(&path, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.samples, first);
    assert_eq!(loaded.notes, ["x [2, 5, 6, 3] is read as [n, h, w, c]"]);
    let scaled = load(&path, &normalise).unwrap();
    assert!((0..scaled.x.len()).all(|i| scaled.x[i] == first.x[i] - [0.1, 0.2, 0.3][i % 3]));
    // A number of channels in front stays one.
    let path = folder.write("first.safetensors", &any((Dtype::U8, &[2, 3, 5, 3], &[0; 90]), y));
    assert_eq!(read(&path).shape(), Shape::new(5, 3, 3));
}

#[test]
fn a_config_does_not_normalise_twice() {
    let folder = Folder::new();
    let y = (Dtype::U8, &[2usize][..], &[0u8, 1][..]);
    let (mean, std) = ([0.5f32, 0.25], [0.5f32, 0.2]);
    let config = Normalise { mean: Some(mean.to_vec()), std: Some(std.to_vec()) };
    let raw: Vec<f32> = (0..16).map(|i| i as f32 / 15.0).collect();
    let channel = |i: usize| i / 4 % 2;
    let done: Vec<f32> =
        raw.iter().enumerate().map(|(i, v)| (v - mean[channel(i)]) / std[channel(i)]).collect();
    let with = |values: &[f32], sides: &[usize], options: &LoadOptions| {
        let x = floats(values.iter().copied());
        load_with(&folder.write("n.safetensors", &any((Dtype::F32, sides, &x), y)), options)
    };
    let options = LoadOptions { config: config.clone(), ..LoadOptions::default() };
    let sides = [2, 2, 2, 2];
    let once = with(&raw, &sides, &options).unwrap();
    assert!(once.notes.is_empty());
    let twice = with(&done, &sides, &options).unwrap();
    assert_eq!(twice.samples, once.samples);
    assert!(twice.notes[0].contains("normalised already"), "{:?}", twice.notes);
    // What is asked for is done.
    let asked = LoadOptions { normalise: config, ..LoadOptions::default() };
    let asked = with(&done, &sides, &asked).unwrap();
    assert!(asked.notes.is_empty() && asked.samples.x[0] == (done[0] - 0.5) / 0.5);
    // Values that are neither are refused; features are normalised as the model was trained, and it is reported.
    let wide: Vec<f32> = raw.iter().map(|v| v * 255.0).collect();
    let error = with(&wide, &sides, &options).unwrap_err().to_string();
    for word in ["n.safetensors", "0 to 255", "--mean", "--std"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    let one = Normalise { mean: Some(vec![0.5]), std: Some(vec![0.5]) };
    let features = with(&wide, &[2, 8], &LoadOptions { config: one, ..LoadOptions::default() }).unwrap();
    assert_eq!((features.samples.x[1], features.notes.len()), ((17.0 - 0.5) / 0.5, 1));
}

#[test]
fn idx_files_are_found_and_read_in_every_form() {
    let (x, y) = grey();
    let (images, labels) = (idx(&[N, SIDE, SIDE], &x), idx(&[N], &y));
    let typed = |kind: u8, sides: &[usize], wide: Vec<u8>| {
        let mut bytes = idx(sides, &wide);
        bytes[2] = kind;
        bytes
    };
    let shorts = typed(11, &[N, SIDE, SIDE], x.iter().flat_map(|&p| i16::from(p).to_be_bytes()).collect());
    let ints = typed(12, &[N], y.iter().flat_map(|&label| i32::from(label).to_be_bytes()).collect());
    let (a, b) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    for (image, label, images, labels) in [
        (format!("{a}.gz"), b.to_string(), gz(&images), labels.clone()),
        (a.to_string(), format!("{b}.gz"), images.clone(), gz(&labels)),
        (a.to_string(), b.to_string(), gz(&images), labels.clone()), // packed, and not named so
        (a.replace("-idx3", ".idx3"), b.replace("-idx1", ".idx1"), images.clone(), labels.clone()),
        (a.replace("train", "test"), b.replace("train", "test"), images.clone(), labels.clone()),
        (a.to_string(), b.to_string(), shorts, ints),
    ] {
        let folder = Folder::new();
        folder.write(&image, &images);
        folder.write(&label, &labels);
        let samples = read(folder.0.path());
        assert_eq!(
            samples.y.words(),
            y.iter().map(|&label| u32::from(label)).collect::<Vec<_>>(),
            "{image} {label}"
        );
        assert_eq!(samples.x, x.iter().map(|&p| f32::from(p) / 255.0).collect::<Vec<_>>(), "{image} {label}");
    }
    let folder = Folder::new();
    folder.write(a, &images);
    folder.write(b, &typed(9, &[N], vec![0, 1, 2, 253, 4, 5, 6, 7, 8]));
    let error = load(folder.0.path(), &Normalise::default()).unwrap_err().to_string();
    assert!(error.contains("label 3") && error.contains("-3 is no label"), "{error}");
}

#[test]
fn cifar_100_has_coarse_labels_too() {
    let folder = Folder::new();
    let coarse = LoadOptions { labels: CifarLabels::Coarse, ..LoadOptions::default() };
    folder.write("hundred/train.bin", &cifar(3, |i| [i as u8 + 10, i as u8 + 60]));
    assert_eq!(load_with(&folder.at("hundred"), &coarse).unwrap().samples.y.words(), [10, 11, 12]);
    assert_eq!(read(&folder.at("hundred")).y.words(), [60, 61, 62]);
    let ten = folder.write("test_batch.bin", &cifar(2, |i| [i as u8]));
    let error = load_with(&ten, &coarse).unwrap_err().to_string();
    assert!(error.contains("one label an image"), "{error}");
    let other = folder.write("o.safetensors", &any((Dtype::U8, &[1, 1], &[0]), (Dtype::U8, &[1], &[0])));
    assert!(load_with(&other, &coarse).unwrap_err().to_string().contains("CIFAR-100"));
}

#[test]
fn a_number_of_classes_beyond_sense_is_refused() {
    let path = Path::new("d.safetensors");
    let count =
        |labels: &[u32], given: Option<usize>| class_count(path, &Labels::from(labels.to_vec()), given);
    assert_eq!((count(&[0, 2], None).unwrap(), count(&[0, 99], None).unwrap()), (3, 100));
    assert_eq!((count(&[0, 2], Some(10)).unwrap(), count(&[5000, 2], Some(5001)).unwrap()), (10, 5001));
    for labels in [[3, 2_000_000_000], [0, 5000], [0, u32::MAX]] {
        let error = count(&labels, None).unwrap_err().to_string();
        let expected = format!("d.safetensors: sample 1 has label {}, and there are 2 samples", labels[1]);
        assert!(error.starts_with(&expected) && error.contains("--classes"), "{error}");
    }
    assert!(count(&[0], Some(1 << 40)).is_err() && count(&[0], Some(0)).is_err());
}
