//! What lies on a disk where a file was expected: links that lead back, devices and pipes, files that pack gigabytes,
//! pointers and pages in place of a download, and files that change while they are read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::table::{Table, TableOptions};
use scrubjay::data::tokenizer::Tokenizer;
use scrubjay::data::{LoadOptions, TokenizerSource, load_with};
use scrubjay::net::Shape;
use scrubjay::{Error, zoo};

pub fn trials() -> Vec<Trial> {
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(concat!("by hand/", stringify!($name)), || { $name(); Ok(()) })),*]
        };
    }
    trials![
        links_are_followed_but_not_in_circles,
        devices_and_pipes_are_no_files,
        the_length_of_a_file_with_holes_is_not_believed,
        what_unpacks_to_far_too_much_is_refused,
        pictures_have_a_largest_size,
        shards_lie_beside_their_index,
        a_page_or_a_pointer_in_place_of_a_file_is_named,
        files_that_change_or_vanish_are_errors,
        many_keys_and_sparse_rows_are_no_large_table,
        names_with_many_dots_take_little_time,
        a_long_word_and_a_long_text_take_little_time_and_memory,
    ]
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Two class folders with two pictures each.
fn classes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for class in ["one", "two"] {
        std::fs::create_dir(folder.path().join(class)).unwrap();
        for (from, to) in [("rgb.png", "a.png"), ("grey.png", "b.png")] {
            std::fs::copy(data("pictures").join(from), folder.path().join(class).join(to)).unwrap();
        }
    }
    folder
}

/// Checks that an error has these words in one line.
fn refused<T>(found: Result<T, Error>, words: &[&str]) {
    let error =
        found.err().unwrap_or_else(|| panic!("not refused, where {words:?} was expected")).to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    assert!(!error.contains('\n'), "{error}");
}

fn load(path: &Path) -> Result<usize, Error> {
    load_with(path, &LoadOptions::default()).map(|loaded| loaded.samples.y.len())
}

fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let folder = classes();
    let at = |name: &str| folder.path().join(name);
    symlink(at("one"), at("two/linked")).unwrap();
    assert_eq!(load(folder.path()).unwrap(), 6);
    // To the folder itself, to one above it, and by way of another folder; two links at a level would make 2^40 paths.
    for (links, last) in [
        (&[("two/back", "two"), ("two/again", "two")][..], "two/again"),
        (&[("two/back", ".")], "back"),
        (&[("two/back", "one"), ("one/back", "two")], "back"),
    ] {
        links.iter().for_each(|(link, to)| symlink(at(to), at(link)).unwrap());
        refused(load(folder.path()), &[last, "is a link to a folder that it lies in"]);
        links.iter().for_each(|(link, _)| std::fs::remove_file(at(link)).unwrap());
    }
    // Two links at each of 18 levels, in no circle: 2^18 paths.
    let outside = tempfile::tempdir().unwrap();
    let level = |i: usize| outside.path().join(format!("level{i}"));
    for i in 0..18 {
        std::fs::create_dir(level(i)).unwrap();
        let to = if i == 17 { at("one") } else { level(i + 1) };
        ["a", "b"].iter().for_each(|name| symlink(&to, level(i).join(name)).unwrap());
    }
    symlink(level(0), at("two/many")).unwrap();
    refused(load(folder.path()), &["two", "more than 65536 folders"]);
    std::fs::remove_file(at("two/many")).unwrap();
    // A link to nothing is a picture that cannot be read.
    symlink(at("absent.png"), at("two/c.png")).unwrap();
    refused(load(folder.path()), &["two/c.png", "cannot be read"]);
}

fn devices_and_pipes_are_no_files() {
    let folder = classes();
    let at = |name: &str| folder.path().join(name);
    let list = at("list.csv");
    std::fs::write(&list, "path,label\n/dev/zero,0\none/a.png,1\n").unwrap();
    refused(load(&list), &["list.csv", "line 2", "/dev/zero", "a device or a pipe"]);
    let pipe = |name: &str| assert!(Command::new("mkfifo").arg(at(name)).status().unwrap().success());
    pipe("two/p.png");
    refused(load(folder.path()), &["two/p.png", "a device or a pipe"]);
    ["p.csv", "p.npz", "p.safetensors", "p.pth", "p.tar", "p.mat", "p.jsonl"]
        .iter()
        .for_each(|name| pipe(name));
    for name in ["p.csv", "p.npz", "p.safetensors"] {
        refused(Table::read(&at(name), &TableOptions::default()), &[name, "a device or a pipe"]);
    }
    for name in ["p.safetensors", "p.pth"] {
        refused(Checkpoint::open(&at(name)), &[name, "a device or a pipe"]);
    }
    for name in ["p.tar", "p.mat", "p.npz", "p.jsonl"] {
        refused(load(&at(name)), &[name, "a device or a pipe"]);
    }
}

fn the_length_of_a_file_with_holes_is_not_believed() {
    let folder = classes();
    let at = |name: &str| folder.path().join(name);
    for (name, len) in [("t.csv", 1 << 42), ("two/c.png", 1 << 42)] {
        std::fs::File::create(at(name)).unwrap().set_len(len).unwrap();
    }
    refused(Table::read(&at("t.csv"), &TableOptions::default()), &["t.csv", "4398046511104 bytes"]);
    refused(load(folder.path()), &["two/c.png"]);
}

fn what_unpacks_to_far_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let packed = |name: &str, rows: usize, row: &str| {
        let path = folder.path().join(name);
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(b"a,b\n").unwrap();
        (0..rows).for_each(|_| gz.write_all(row.as_bytes()).unwrap());
        std::fs::write(&path, gz.finish().unwrap()).unwrap();
        path
    };
    let zeros = "0".repeat(1 << 20);
    refused(
        Table::read(&packed("bomb.csv.gz", 70, &zeros), &TableOptions::default()),
        &["bomb.csv.gz", "cannot be decompressed", "unpack it first"],
    );
    // A table of one value that packs well is read.
    let table = Table::read(&packed("plain.csv.gz", 100_000, "0,0\n"), &TableOptions::default()).unwrap();
    assert_eq!((table.n(), table.names().len()), (100_000, 2));
}

fn pictures_have_a_largest_size() {
    let folder = classes();
    std::fs::write(folder.path().join("two/a.ppm"), b"P6 65535 65535 255\n").unwrap();
    refused(load(folder.path()), &["two/a.ppm", "65535 x 65535 pixels", "at most 178956970"]);
    std::fs::remove_file(folder.path().join("two/a.ppm")).unwrap();
    let mut options = LoadOptions::default();
    options.steps.resize = Some("65536x65536".parse().unwrap());
    refused(load_with(folder.path(), &options), &["one/a.png", "65536 x 65536 pixels"]);
}

fn shards_lie_beside_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    std::fs::copy(data("nets/small_cnn.safetensors"), folder.path().join("other.safetensors")).unwrap();
    let absolute = folder.path().join("other.safetensors").to_string_lossy().into_owned();
    for name in ["../other.safetensors", &absolute, "..", ".", "", "..\\other.safetensors"] {
        let index = serde_json::json!({ "weight_map": { "a": name } });
        std::fs::write(inner.join("model.safetensors.index.json"), index.to_string()).unwrap();
        refused(Checkpoint::open(&inner), &["model"]);
    }
}

fn a_page_or_a_pointer_in_place_of_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 132735\n";
    let page = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>label,path</body></html>\n";
    for (text, words) in [(pointer, "git lfs pull"), (page, "HTML page")] {
        for name in ["m.safetensors", "m.pth", "m.onnx", "m.bin"] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let model = Checkpoint::open(&path).and_then(|checkpoint| zoo::load(&checkpoint, None, None));
            refused(model, &[name, words]);
        }
        for name in ["t.csv", "t.tsv", "t.arff", "t.npy", "t.npz", "t.safetensors"] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            refused(Table::read(&path, &TableOptions::default()), &[name, words]);
        }
        let names = [
            "d.csv",
            "d.tsv",
            "d.json",
            "d.jsonl",
            "d.npz",
            "d.safetensors",
            "d.tar",
            "d.tgz",
            "d.mat",
            "d.bin",
            "train-images-idx3-ubyte",
        ];
        for name in names {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::write(folder.path().join("train-labels-idx1-ubyte"), text).unwrap();
            refused(load(&path), &[name, words]);
        }
        for name in ["tokenizer.json", "vocab.txt"] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            refused(Tokenizer::open(&path), &[name, words]);
            std::fs::remove_file(&path).unwrap();
        }
        let pictures = classes();
        std::fs::write(pictures.path().join("one/a.png"), text).unwrap();
        refused(load(pictures.path()), &["one/a.png", words]);
    }
}

fn files_that_change_or_vanish_are_errors() {
    // Pictures that are read again whenever they are used.
    let folder = classes();
    let options = LoadOptions { memory: Some(0), ..LoadOptions::default() };
    let samples = load_with(folder.path(), &options).unwrap().samples;
    assert!(samples.image(3).is_ok());
    std::fs::remove_file(folder.path().join("two/b.png")).unwrap();
    refused(samples.image(3), &["two/b.png", "cannot be read"]);
    std::fs::copy(data("pictures/bits1.png"), folder.path().join("two/b.png")).unwrap();
    let other = samples.image(3);
    if let Err(error) = other {
        assert!(error.to_string().contains("another size"), "{error}");
    }
    std::fs::write(folder.path().join("two/b.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    refused(samples.image(3), &["two/b.png", "is no readable PNG"]);
    // A model that is cut off after its header was read; one that another replaces stays as it was.
    let path = folder.path().join("m.safetensors");
    let created = zoo::create("mlp:40", Shape::new(8, 8, 1), 10, 1).unwrap().network;
    scrubjay::checkpoint::save(&path, &created).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let before = zoo::load(&checkpoint, None, None).unwrap().network;
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    std::fs::write(&path, b"another").unwrap();
    assert_eq!(zoo::load(&checkpoint, None, None).unwrap().network, before);
    let moved = std::fs::OpenOptions::new().write(true).open(folder.path().join("moved")).unwrap();
    moved.set_len(2000).unwrap();
    refused(zoo::load(&checkpoint, None, None), &["m.safetensors"]);
}

fn a_long_word_and_a_long_text_take_little_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\n").unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    let word = "a".repeat(1 << 20);
    assert!(seconds(|| assert_eq!(tokenizer.encode(&word, 9).unwrap().ids, [2, 1, 3])) < 20.0);
    let mut texts = vec![String::from("a"); 10_000];
    texts[0] = "a ".repeat(10_000);
    let error = tokenizer.rows(&texts, usize::MAX).unwrap_err().to_string();
    assert!(
        error.contains("10000 texts of 3 tokens on average") && error.contains("--max-tokens"),
        "{error}"
    );
}

/// The seconds that something took.
fn seconds(of: impl FnOnce()) -> f64 {
    let begun = std::time::Instant::now();
    of();
    begun.elapsed().as_secs_f64()
}

fn many_keys_and_sparse_rows_are_no_large_table() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // Another key in every row: 400 million cells of a file of half a megabyte.
    let rows =
        put("keys.jsonl", (0..20_000).map(|i| format!("{{\"text\": \"a\", \"k{i}\": 0}}\n")).collect());
    refused(load(&rows), &["keys.jsonl", "20000 objects of 20001 different keys"]);
    let rows = put(
        "keys.json",
        format!(
            "[{{\"path\": \"a\"}}{}]",
            (0..20_000).map(|i| format!(",{{\"k{i}\": 0}}")).collect::<String>()
        ),
    );
    refused(load(&rows), &["keys.json", "20001 objects of 20001 different keys"]);
    // A label of a large number makes a row as long for every sample; so do other words in every list.
    let mut rows = String::from("path,labels\na,1048575;0\n");
    (0..300).for_each(|_| rows += "a,0\n");
    refused(load(&put("labels.csv", rows)), &["labels.csv", "1048576 different labels for 301 samples"]);
    let mut rows = String::new();
    (0..10_000).for_each(|i| rows += &format!("{{\"text\": \"red\", \"labels\": [\"w{i}\"]}}\n"));
    let mut options = LoadOptions::default();
    options.texts.tokenizer = TokenizerSource::Made(100);
    let labels = load_with(&put("labels.jsonl", rows), &options);
    refused(labels, &["labels.jsonl", "10000 different labels for 10000 samples"]);
    // Sparse rows without an entry: 40 million zeros.
    let attributes: String = (0..2000).map(|i| format!("@attribute a{i} real\n")).collect();
    let sparse = put("sparse.arff", format!("{attributes}@data\n{}", "{}\n".repeat(20_000)));
    refused(Table::read(&sparse, &TableOptions::default()), &["sparse.arff", "has more than"]);
    // Many columns take time in proportion.
    let names: String = (0..100_000).map(|i| format!("c{i},")).collect();
    let wide = put("wide.csv", format!("{names}text\n{}a\n", "1,".repeat(100_000)));
    assert!(seconds(|| drop(load(&wide))) < 20.0);
}

fn names_with_many_dots_take_little_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dots.safetensors");
    let header =
        format!(r#"{{"{}w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, "a.".repeat(200_000));
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat())
        .unwrap();
    assert!(seconds(|| drop(Checkpoint::open(&path))) < 20.0);
    let model = Checkpoint::open(&path).and_then(|checkpoint| zoo::load(&checkpoint, None, None));
    let error = model.err().unwrap().to_string();
    assert!(error.len() < 10_000 && error.contains("dots.safetensors"), "{} bytes", error.len());
}
