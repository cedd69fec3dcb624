//! Pictures in class folders and manifests: every form decoded as Pillow decodes it (`scripts/pictures.py` recorded it),
//! classes and samples in torchvision's order, faults named with the file.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use scrubjay::data::tensors::TensorFile;
use scrubjay::data::{Expected, Inputs, Labels, LoadOptions, Loaded, Normalise, files, load_with};
use scrubjay::hash;
use scrubjay::net::Shape;

use crate::tiny::Tiny;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pictures").join(name)
}

/// A folder of files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A copy of a recorded picture.
    fn copy(&self, of: &str, name: &str) -> PathBuf {
        self.write(name, std::fs::read(recorded(of)).unwrap())
    }

    /// A manifest beside the pictures `a.png`, `b.png` and `c.png`.
    fn manifest(name: &str, bytes: impl AsRef<[u8]>) -> (Folder, PathBuf) {
        let folder = Folder::new();
        ["a.png", "b.png", "c.png"].iter().for_each(|name| drop(folder.copy("rgb.png", name)));
        let path = folder.write(name, bytes);
        (folder, path)
    }
}

fn read(path: &Path) -> Loaded {
    load_with(path, &LoadOptions::default()).unwrap()
}

fn refused(path: &Path, words: &[&str]) {
    let error = load_with(path, &LoadOptions::default()).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
}

/// The pixels of a set of one picture, `[h, w, c]`.
fn pixels(loaded: &Loaded) -> Vec<u8> {
    loaded.samples.x.iter().map(|value| (value * 255.0).round() as u8).collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn every_form_of_a_picture_is_decoded_as_pillow_decodes_it() {
    let expected = TensorFile::open(&recorded("expected.safetensors")).unwrap();
    let rgb = Expected { channels: Some(3), ..Expected::default() };
    for name in expected.names().iter().filter(|name| !name.contains(' ')) {
        let folder = Folder::new();
        folder.copy(name, &format!("one/{name}"));
        let loaded =
            load_with(folder.0.path(), &LoadOptions { expected: rgb.clone(), ..Default::default() }).unwrap();
        let (found, recorded) = (pixels(&loaded), expected.stored(name).unwrap());
        assert_eq!(loaded.samples.shape(), Shape::new(13, 19, 3), "{name}");
        // Decoders of JPEG round differently, and fill in colour that is stored in half the size.
        let most = match name.strip_suffix(".jpg") {
            None => 0,
            Some("half" | "progressive") => 6,
            Some(_) => 3,
        };
        let worst = found.iter().zip(&recorded).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(found.len() == recorded.len() && worst <= most, "{name}: {worst}");
        assert_eq!(loaded.notes.len(), usize::from(name.starts_with("turned")), "{name}: {:?}", loaded.notes);
    }
    let folder = Folder::new();
    folder.copy("rgb.png", "one/rgb.png");
    let grey = Expected { channels: Some(1), ..Expected::default() };
    let loaded = load_with(folder.0.path(), &LoadOptions { expected: grey, ..Default::default() }).unwrap();
    assert_eq!(pixels(&loaded), expected.stored("grey of rgb.png").unwrap());
}

#[test]
fn pictures_are_grey_where_all_are_and_else_rgb() {
    for name in ["grey.png", "grey.bmp", "grey.jpg", "bits1.png", "grey16.tif", "grey-alpha.png", "max15.pgm"]
    {
        let folder = Folder::new();
        folder.copy(name, &format!("one/{name}"));
        assert_eq!(read(folder.0.path()).samples.shape().c, 1, "{name}");
        folder.copy("palette.png", "one/palette.png");
        assert_eq!(read(folder.0.path()).samples.shape().c, 3, "{name}");
    }
}

#[test]
fn class_folders_have_torchvisions_order() {
    let folder = Folder::new();
    for name in ["b/2.png", "b/10.PNG", "b/sub/1.png", "b/sub-1/0.png", "B/1.png", "a/1.png", ".hidden/1.png"]
    {
        folder.copy("rgb.png", name);
    }
    folder.write("readme.txt", "no class");
    folder.write("b/notes.txt", "no picture");
    folder.write("b/1.gif", "no picture for torchvision");
    let Loaded { samples, names, notes, .. } = read(folder.0.path());
    assert_eq!(names.classes.unwrap(), [".hidden", "B", "a", "b"]);
    let order =
        [".hidden/1.png", "B/1.png", "a/1.png", "b/10.PNG", "b/2.png", "b/sub/1.png", "b/sub-1/0.png"];
    assert_eq!(names.samples.unwrap(), order);
    assert_eq!(samples.y, Labels::Classes(vec![0, 1, 2, 3, 3, 3, 3]));
    assert!(notes.is_empty(), "{notes:?}");
    std::fs::create_dir(folder.at("empty")).unwrap();
    refused(folder.0.path(), &["empty", "class without pictures", ".webp"]);
}

#[test]
fn numbers_as_names_of_folders_are_told_to_be_names() {
    let folder = Folder::new();
    ["0", "2", "10"].iter().for_each(|class| drop(folder.copy("grey.png", &format!("{class}/1.png"))));
    let Loaded { names, notes, .. } = read(folder.0.path());
    assert_eq!(names.classes.unwrap(), ["0", "10", "2"]);
    assert!(notes[0].contains("folder 10 is class 1"), "{notes:?}");
}

#[test]
fn a_manifest_is_read_in_every_form() {
    let words = Labels::Classes(vec![1, 0, 1]);
    for (name, text) in [
        ("m.csv", "path,label\na.png,dog\nb.png,cat\nc.png,dog\n"),
        ("m.csv", "\u{feff}file_name;class\r\na.png;dog\r\nb.png;cat\r\n\r\nc.png;dog"),
        ("m.tsv", "label\tfile\ndog\ta.png\ncat\tb.png\ndog\t./c.png\n"),
        ("m.csv", "a.png, dog\nb.png, cat\nc.png, dog\n"),
        (
            "m.jsonl",
            "{\"image\": \"a.png\", \"label\": \"dog\"}\n{\"image\": \"b.png\", \"label\": \"cat\"}\n\n{\"image\": \"c.png\", \"label\": \"dog\"}",
        ),
        (
            "m.json",
            "[{\"path\": \"a.png\", \"label\": \"dog\"}, {\"path\": \"b.png\", \"label\": \"cat\"}, {\"path\": \"c.png\", \"label\": \"dog\"}]",
        ),
        ("m.json", "{\"a.png\": \"dog\", \"b.png\": \"cat\", \"c.png\": \"dog\"}"),
    ] {
        let (_folder, path) = Folder::manifest(name, text);
        let loaded = read(&path);
        assert_eq!(loaded.samples.y, words, "{text}");
        assert_eq!(loaded.names.classes.unwrap(), ["cat", "dog"], "{text}");
        assert_eq!(loaded.names.samples.unwrap().len(), 3, "{text}");
        assert_eq!(loaded.samples.shape(), Shape::new(13, 19, 3));
    }
    let (folder, path) =
        Folder::manifest("metadata.csv", "file_name,label,who\na.png,3,x\nb.png,0,y\nc.png,7.0,x\n");
    for path in [&path, folder.0.path()] {
        let loaded = read(path);
        assert_eq!(loaded.samples.y, Labels::Classes(vec![3, 0, 7]));
        assert_eq!((loaded.names.classes, loaded.names.columns.len()), (None, 1));
        assert_eq!(loaded.names.columns[0], ("who".to_string(), strings(&["x", "y", "x"])));
    }
    let all = files(&path).unwrap();
    assert_eq!((all.len(), &all[0]), (4, &path));
    let text = format!("path,label\n{},1\n", folder.at("b.png").display());
    assert_eq!(read(&Folder::new().write("absolute.csv", text)).samples.y, Labels::Classes(vec![1]));
}

#[test]
fn a_manifest_may_have_several_labels() {
    let rows = |rows: &[u32]| Labels::Multi { labels: rows.len() / 3, rows: rows.to_vec() };
    for (name, text, y, classes) in [
        (
            "m.jsonl",
            "{\"path\":\"a.png\",\"labels\":[\"b\",\"a\"]}\n{\"path\":\"b.png\",\"labels\":[]}\n{\"path\":\"c.png\",\"labels\":[\"b\"]}",
            rows(&[1, 1, 0, 0, 0, 1]),
            Some(["a", "b"]),
        ),
        ("m.csv", "path,labels\na.png,b;a\nb.png,\nc.png,b\n", rows(&[1, 1, 0, 0, 0, 1]), Some(["a", "b"])),
        ("m.csv", "path,labels\na.png,0|2\nb.png,1\nc.png,2\n", rows(&[1, 0, 1, 0, 1, 0, 0, 0, 1]), None),
        (
            "m.csv",
            "path,wet,cold\na.png,1,0\nb.png,0,0\nc.png,1,1\n",
            rows(&[1, 0, 0, 0, 1, 1]),
            Some(["wet", "cold"]),
        ),
    ] {
        let (_folder, path) = Folder::manifest(name, text);
        let loaded = read(&path);
        assert_eq!(loaded.samples.y, y, "{text}");
        assert_eq!(loaded.names.classes, classes.map(|names| strings(&names)), "{text}");
    }
}

#[test]
fn faults_of_a_manifest_name_the_line() {
    for (name, text, words) in [
        (
            "m.csv",
            "path,label\na.png,1\nmissing.png,2\n",
            &["m.csv", "line 3", "missing.png", "No such file"][..],
        ),
        ("m.csv", "path,label\na.png,1\nb.png\n", &["m.csv", "line 3", "1 cells"]),
        ("m.csv", "path,label\na.png,1\nb.png,\n", &["m.csv", "line 3", "no label"]),
        ("m.csv", "path,label\n", &["m.csv", "no samples"]),
        ("m.csv", "path,colour\na.png,blue\n", &["m.csv", "path, colour", "label"]),
        ("m.json", "[1]", &["m.json", "no JSON list of objects"]),
        (
            "m.jsonl",
            "{\"path\": \"a.png\", \"label\": 1}\n{\"label\": 1}",
            &["m.jsonl", "line 2", "names no file"],
        ),
    ] {
        let (_folder, path) = Folder::manifest(name, text);
        refused(&path, words);
    }
}

#[test]
fn what_is_no_set_of_pictures_is_refused_with_what_would_be() {
    let folder = Folder::new();
    refused(&folder.copy("rgb.png", "flat/one.png"), &["one.png", "one picture", "label"]);
    refused(&folder.at("flat"), &["pictures without labels", "metadata.csv"]);
    folder.copy("rgb.png", "parts/train/cat/1.png");
    folder.copy("rgb.png", "parts/val/cat/1.png");
    refused(&folder.at("parts"), &["parts of a data set", "parts/train"]);
    std::fs::create_dir(folder.at("none")).unwrap();
    refused(&folder.at("none"), &["none", "no data known here", "class folders"]);
}

#[test]
fn a_damaged_picture_is_named() {
    let folder = Folder::new();
    folder.copy("full.jpg", "a/jpeg-inside.png"); // what it is shows the content
    assert_eq!(read(folder.0.path()).samples.shape(), Shape::new(13, 19, 3));
    let whole = |name: &str| std::fs::read(recorded(name)).unwrap();
    for (name, bytes, word) in [
        ("cut.png", &whole("rgb.png")[..400], "PNG"),
        ("cut.jpg", &whole("full.jpg")[..700], "truncated"),
        ("no-end.jpg", &whole("full.jpg")[..whole("full.jpg").len() - 2], "truncated"),
        ("cut.webp", &whole("lossless.webp")[..300], "WEBP"),
        ("cut.tif", &whole("rgb.tif")[..300], "TIFF"),
        ("cut.bmp", &whole("rgb.bmp")[..300], "BMP"),
        ("empty.png", &[], "is empty"),
        ("text.png", b"a text", "is no picture"),
    ] {
        let path = folder.write(format!("a/{name}"), bytes);
        refused(folder.0.path(), &[&format!("a/{name}"), word]);
        std::fs::remove_file(path).unwrap();
    }
    folder.write("a/small.ppm", "P6 1 1 255 abc");
    refused(folder.0.path(), &["a/small.ppm", "1 x 1", "19 x 13"]);
}

#[test]
fn damaged_and_missing_pictures_may_be_left_out() {
    let text = "path,label,who\na.png,0,x\nmissing.png,1,y\nb.png,2,z\nc.png,3,w\n";
    let (folder, path) = Folder::manifest("m.csv", text);
    folder.write("c.png", "no picture");
    let options = LoadOptions { skip_corrupt: true, ..LoadOptions::default() };
    let Loaded { samples, names, notes, .. } = load_with(&path, &options).unwrap();
    assert_eq!((samples.y, samples.x.len()), (Labels::Classes(vec![0, 2]), 2 * 13 * 19 * 3));
    assert_eq!(
        (names.samples.unwrap(), &names.columns[0].1),
        (strings(&["a.png", "b.png"]), &strings(&["x", "z"]))
    );
    let words = ["2 of 4", "left out", "line 3", "missing.png"];
    assert!(words.iter().all(|word| notes[0].contains(word)), "{notes:?}");
    assert_eq!(hash::of_files(&path).unwrap()["missing.png"], "absent");
    folder.write("a.png", "");
    folder.write("b.png", "");
    assert!(load_with(&path, &options).unwrap_err().to_string().contains("a.png"));
}

#[test]
fn the_smallest_set_and_names_that_are_no_text_are_read() {
    let folder = Folder::new();
    folder.write("one/small.ppm", "P6 1 1 255 \u{3}\u{4}\u{5}");
    let loaded = read(folder.0.path());
    assert_eq!((loaded.samples.shape(), pixels(&loaded)), (Shape::new(1, 1, 3), vec![3, 4, 5]));
    let name = std::ffi::OsStr::from_bytes(b"one/\xff\xfe.ppm");
    folder.write(name, "P6 1 1 255 \u{3}\u{4}\u{5}");
    let names = read(folder.0.path()).names.samples.unwrap();
    assert_eq!(names, ["one/small.ppm", "one/\u{fffd}\u{fffd}.ppm"]);
}

#[test]
fn classes_have_the_numbers_that_a_model_gives_them() {
    let folder = Folder::new();
    ["cat", "owl"].iter().for_each(|class| drop(folder.copy("rgb.png", &format!("{class}/1.png"))));
    let load = |classes: Option<&[&str]>, outputs| {
        let expected = Expected { outputs, classes: classes.map(strings), ..Expected::default() };
        load_with(folder.0.path(), &LoadOptions { expected, ..Default::default() })
    };
    let loaded = load(Some(&["owl", "dog", "cat"]), Some(3)).unwrap();
    assert_eq!(loaded.samples.y, Labels::Classes(vec![2, 0]));
    assert_eq!(loaded.names.classes.unwrap(), ["owl", "dog", "cat"]);
    assert!(loaded.notes[0].contains("cat is 2"), "{:?}", loaded.notes);
    let other = load(Some(&["x", "y"]), Some(2)).unwrap();
    assert_eq!((other.samples.y, other.notes.len()), (Labels::Classes(vec![0, 1]), 0));
    let error = load(Some(&["owl", "dog", "hen"]), Some(3)).unwrap_err().to_string();
    assert!(error.contains("`cat`") && error.contains("owl, dog, hen"), "{error}");
    let error = load(None, Some(10)).unwrap_err().to_string();
    assert!(
        error.contains("2 classes") && error.contains("10 outputs") && error.contains("id2label"),
        "{error}"
    );
}

#[test]
fn the_hash_of_a_set_sees_names_and_contents() {
    let folder = Folder::new();
    (0..20).for_each(|i| drop(folder.copy("rgb.png", &format!("set/a/{i}.png"))));
    let hash = || hash::of_files(&folder.at("set")).unwrap();
    let first = hash();
    assert_eq!((first.len(), first.contains_key("set")), (1, true));
    assert_eq!(hash(), first);
    folder.copy("grey.png", "set/a/7.png");
    let second = hash();
    assert_ne!(second, first);
    std::fs::rename(folder.at("set/a/9.png"), folder.at("set/a/99.png")).unwrap();
    assert_ne!(hash(), second);
}

#[test]
fn a_model_trained_on_folders_keeps_the_names_of_its_classes() {
    let (tiny, folder) = (Tiny::new(), Folder::new());
    for (class, of) in [("cat", "rgb.png"), ("dog", "palette.png"), ("owl", "cmyk.tif")] {
        (0..4).for_each(|i| drop(folder.copy(of, &format!("train/{class}/{i}.png"))));
        folder.copy(of, &format!("val/{class}/0.png"));
    }
    std::fs::remove_dir_all(folder.at("val/cat")).unwrap();
    let (train, val) = (folder.at("train").display().to_string(), folder.at("val").display().to_string());
    let run =
        tiny.run(&format!("train --arch cnn:4+8 --data {train} --val {val} --epochs 1 --out @out --json"));
    assert_eq!(run.code, 0, "{}", run.err);
    let config = std::fs::read_to_string(tiny.at("out/config.json")).unwrap();
    assert!(config.contains("\"1\": \"dog\""), "{config}");
    let run = tiny.run(&format!("eval --model @out --data {val} --json"));
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((report["classes"][0]["n"].as_u64(), report["n"].as_u64()), (Some(0), Some(2)), "{report}");
    let run = tiny.run(&format!("inspect --data {train}"));
    assert!(run.out.contains("owl") && run.out.contains("12"), "{}", run.out);
    let run = tiny.run(&format!("inspect --model @out --data {val} --json"));
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["data"]["classes"][1], serde_json::json!({"class": 1, "name": "dog", "samples": 1}));
}

#[test]
fn a_set_that_is_larger_than_memory_gives_the_same_inputs() {
    let folder = Folder::new();
    for (i, of) in ["rgb.png", "grey.png", "palette.png", "full.jpg", "rgb.tif"].iter().enumerate() {
        folder.copy(of, &format!("set/{}/{i}.png", i % 2));
    }
    let normalise = Normalise { mean: Some(vec![0.5, 0.25, 0.125]), std: Some(vec![0.5]) };
    let load = |memory| {
        let options = LoadOptions { memory, normalise: normalise.clone(), ..LoadOptions::default() };
        load_with(&folder.at("set"), &options).unwrap().samples
    };
    let whole = load(None);
    let image = whole.shape().len();
    // The inputs fit; only the pixels do; nothing does.
    for (memory, streamed) in [(5 * image * 4, false), (5 * image, true), (0, true)] {
        let samples = load(Some(memory));
        assert_eq!((samples.stream.is_some(), samples.x.is_empty()), (streamed, streamed), "{memory}");
        let (mut x, mut y) = (vec![f32::NAN; 3 * image], vec![9; 3]);
        samples.subset(&[4, 0, 3]).fill(&mut x, &mut y, 0..3).unwrap();
        let expected = whole.copy(&[4, 0, 3]).unwrap();
        assert_eq!((x, &y[..]), (expected.x.clone(), expected.y.words()), "{memory}");
        assert_eq!(samples.copy(&[4, 0, 3]).unwrap(), expected);
        let mut all = vec![];
        samples.each(|image| all.extend_from_slice(image)).unwrap();
        assert_eq!(all, whole.x, "{memory}");
        let mut both = samples.clone();
        both.extend(whole.copy(&[1]).unwrap()).unwrap();
        assert_eq!(both.image(5).unwrap(), whole.image(1).unwrap());
        assert_eq!(both.image(2).unwrap(), whole.image(2).unwrap());
    }
    let samples = load(Some(0));
    folder.write("set/0/2.png", "gone");
    let error = samples.subset(&[1]).fill(&mut vec![0.0; image], &mut [0], 0..1).unwrap_err().to_string();
    assert!(error.contains("0/2.png") && error.contains("is no picture"), "{error}");
}
