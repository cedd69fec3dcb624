//! Every format that is read, as a function of bytes: it writes them to a file, hands the file to the library's own
//! readers, and goes on as far as a command would. The fuzz targets and `tests/corpus.rs` call the same functions.
//!
//! Whatever the bytes are, a reader returns a value or an error in few lines of text. A panic ends the process, and so does a
//! request for more memory than [`Format::memory`] (`memory.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scrubjay::checkpoint::{Checkpoint, Delta, Way};
use scrubjay::data::table::{Decimal, Delimiter, Header, Missing, Table, TableOptions};
use scrubjay::data::tensors::TensorFile;
use scrubjay::data::tokenizer::Tokenizer;
use scrubjay::data::{self, CifarLabels, Labels, LoadOptions, Names, Normalise, Spec, TokenizerSource};
use scrubjay::manifest::Manifest;
use scrubjay::receipt::Events;
use scrubjay::stage::Stages;
use scrubjay::{Result, zoo};

use crate::memory;

/// A format.
pub struct Format {
    /// The name of its target and of its folder in `tests/corpus`.
    pub name: &'static str,
    /// The most bytes of memory that its readers may ask for, whatever a file of up to a megabyte says.
    pub memory: usize,
    read: fn(&Ground, &[u8]),
}

const MIB: usize = 1 << 20;

/// All formats.
pub const FORMATS: &[Format] = &[
    Format { name: "safetensors", memory: 64 * MIB, read: safetensors },
    Format { name: "index", memory: 64 * MIB, read: index },
    Format { name: "torch", memory: 64 * MIB, read: torch },
    Format { name: "pickle", memory: 64 * MIB, read: pickle },
    Format { name: "onnx", memory: 512 * MIB, read: onnx },
    Format { name: "config", memory: 64 * MIB, read: config },
    Format { name: "graph", memory: 64 * MIB, read: config },
    Format { name: "preprocessor", memory: 256 * MIB, read: preprocessor },
    Format { name: "npy", memory: 64 * MIB, read: npy },
    Format { name: "npz", memory: 512 * MIB, read: npz },
    Format { name: "idx", memory: 512 * MIB, read: idx },
    Format { name: "cifar", memory: 512 * MIB, read: cifar },
    Format { name: "stl", memory: 512 * MIB, read: stl },
    Format { name: "mat", memory: 512 * MIB, read: mat },
    Format { name: "csv", memory: 512 * MIB, read: csv },
    Format { name: "arff", memory: 512 * MIB, read: arff },
    Format { name: "parquet", memory: 256 * MIB, read: parquet },
    Format { name: "texts", memory: 512 * MIB, read: texts },
    Format { name: "manifest", memory: 512 * MIB, read: manifest },
    Format { name: "tar", memory: 512 * MIB, read: tar },
    Format { name: "picture", memory: 2048 * MIB, read: picture },
    Format { name: "tokenizer", memory: 256 * MIB, read: tokenizer },
    Format { name: "tokenizer_config", memory: 256 * MIB, read: tokenizer_config },
    Format { name: "vocabulary", memory: 256 * MIB, read: vocabulary },
    Format { name: "spec", memory: 512 * MIB, read: spec },
    Format { name: "delta", memory: 64 * MIB, read: delta },
    Format { name: "events", memory: 64 * MIB, read: events },
    Format { name: "stage", memory: 64 * MIB, read: stage },
    Format { name: "train", memory: 64 * MIB, read: train },
];

/// The format of a name.
#[allow(dead_code)] // of targets alone
pub fn format(name: &str) -> &'static Format {
    let found = FORMATS.iter().find(|format| format.name == name);
    found.unwrap_or_else(|| panic!("no format `{name}`"))
}

impl Format {
    /// Reads bytes as a file of this format, in no more memory than it may take.
    pub fn read(&self, ground: &Ground, bytes: &[u8]) {
        let _limited = memory::limit(self.memory);
        (self.read)(ground, bytes);
    }
}

/// Networks of `tests/data/nets`, whose tensors a config or a graph is read with.
const NETS: [&str; 8] = [
    "small_cnn",
    "bert_tiny",
    "swin_timm",
    "mixer_timm",
    "preact_bottleneck_cifar",
    "vit_layer_scale_tiny",
    "mobilenet_v3_small_tiny",
    "vgg_dropout",
];

/// A folder to write files to, with what lies beside them.
pub struct Ground {
    folder: tempfile::TempDir,
    tokenizer: Arc<Tokenizer>,
}

impl Ground {
    /// A folder in memory where there is such a file system. `data` is the folder `tests/data`.
    pub fn new(data: &Path) -> Ground {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            path
        };
        let copy = |from: &str, to: &str| {
            std::fs::copy(data.join(from), at(to)).unwrap_or_else(|e| panic!("{from}: {e}"));
        };
        for (i, net) in NETS.iter().enumerate() {
            copy(&format!("nets/{net}.safetensors"), &format!("net{i}/model.safetensors"));
        }
        for index in ["safetensors", "bin"] {
            copy("torch/float16.bin", &format!("{index}/one.bin"));
            copy("torch/float64.bin", &format!("{index}/two.bin"));
            copy("nets/small_cnn.safetensors", &format!("{index}/one.safetensors"));
        }
        copy("nets/small_cnn.safetensors", "processed/model.safetensors");
        copy("nets/small_cnn.safetensors", "changed/model.safetensors");
        copy("nets/small_cnn.safetensors", "trained/model.safetensors");
        for folder in
            ["pictures/one", "pictures/two", "manifest", "processed/pictures/one", "processed/pictures/two"]
        {
            copy("pictures/rgb.png", &format!("{folder}/a.png"));
            copy("pictures/grey.png", &format!("{folder}/b.png"));
        }
        at("out/x");
        let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n##der\ngreen\nblue\n";
        std::fs::write(at("words/vocab.txt"), words).expect("a file");
        let tokenizer = Tokenizer::open(&at("words/vocab.txt")).expect("a tokenizer");
        Ground { tokenizer: tokenizer.into(), folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

/// Checks an error: it is short text in few lines.
fn told<T>(found: Result<T>) -> Option<T> {
    let error = match found {
        Ok(found) => return Some(found),
        Err(error) => error.to_string(),
    };
    assert!(!error.trim().is_empty(), "an error without a word");
    assert!(
        error.len() < 1 << 14 && error.lines().count() < 9,
        "an error of {} bytes: {error:?}",
        error.len()
    );
    assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "not printable: {error:?}");
    None
}

/// [`told`], for an error that has to name the file or the folder.
fn of<T>(path: &Path, found: Result<T>) -> Option<T> {
    if let Err(error) = &found {
        let (text, name) = (error.to_string(), path.file_stem().unwrap_or_default().to_string_lossy());
        assert!(text.contains(&*name), "the file is not named: {text:?}");
    }
    told(found)
}

/// The first byte, which chooses among the forms of a format, and the rest.
fn form(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(&first, rest)| (usize::from(first), rest))
}

/// Reads a model: what it has, its network without values, and with them.
fn model(path: &Path) {
    let Some(checkpoint) = of(path, Checkpoint::open(path)) else { return };
    checkpoint.notes();
    let choices = zoo::Choices::default();
    zoo::inputs(&checkpoint);
    zoo::expected(&checkpoint, &choices);
    if told(zoo::outline(&checkpoint, &choices)).is_some()
        && let Some(model) = told(zoo::load_as(&checkpoint, &choices, None))
    {
        network(model);
    }
}

/// Brings a network to the form that runs.
fn network(model: zoo::Model) {
    model.network.freeze();
}

fn load(path: &Path, options: &LoadOptions) {
    let Some(loaded) = told(data::load_with(path, options)) else { return };
    told(loaded.samples.image(0));
    told(loaded.names.check(loaded.samples.y.len()));
}

fn table(path: &Path, options: &TableOptions) {
    let Some(table) = of(path, Table::read(path, options)) else { return };
    let names: Vec<String> = table.names().iter().take(3).cloned().collect();
    let columns: Vec<_> = names.iter().filter_map(|name| told(table.find_one(name))).collect();
    for missing in [Missing::Raise, Missing::Omit] {
        told(table.frame(&columns, missing));
    }
}

fn safetensors(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("model.safetensors", bytes);
    if let Some(file) = of(&path, TensorFile::open(&path)) {
        file.metadata();
        for name in file.names().iter().take(8) {
            of(&path, file.f32(name));
            of(&path, file.labels(name));
            of(&path, file.integers(name));
        }
        model(&path);
        table(&path, &TableOptions::default());
        load(&path, &LoadOptions::default());
    }
}

/// The list of the shards of a model in a folder.
fn index(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let (folder, name) = match form % 2 {
        0 => ("safetensors", "model.safetensors"),
        _ => ("bin", "pytorch_model.bin"),
    };
    ground.put(&format!("{folder}/{name}.index.json"), rest);
    model(&ground.at(folder));
}

fn torch(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("model.pth", bytes);
    model(&path);
    of(&path, Checkpoint::open_with(&path, &["*.bias".into()], &["state_dict".into(), ".".into()]));
}

/// A pickle alone: as a batch of CIFAR, and within an archive of torch.save.
fn pickle(ground: &Ground, bytes: &[u8]) {
    load(&ground.put("data_batch_1", bytes), &LoadOptions::default());
    let storage = [0; 64];
    let entries = [("a/data.pkl", bytes), ("a/byteorder", b"little"), ("a/data/0", &storage)];
    model(&ground.put("pickled.pth", &archive(&entries)));
}

/// A zip archive whose entries are stored as they are, without their checksums.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut all, mut list) = (vec![], vec![]);
    for (name, content) in entries {
        let sizes = [(content.len() as u32).to_le_bytes(); 2].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        list.extend(
            [&b"PK\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], &sizes, &name_len, &[0; 12]].concat(),
        );
        list.extend([&(all.len() as u32).to_le_bytes(), name.as_bytes()].concat());
        all.extend([&b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..], &sizes, &name_len, &[0; 2]].concat());
        all.extend([name.as_bytes(), content].concat());
    }
    let (start, len) = ((all.len() as u32).to_le_bytes(), (list.len() as u32).to_le_bytes());
    let count = (entries.len() as u16).to_le_bytes();
    [&all[..], &list, b"PK\x05\x06\0\0\0\0", &count, &count, &len, &start, &[0; 2]].concat()
}

fn onnx(ground: &Ground, bytes: &[u8]) {
    model(&ground.put("model.onnx", bytes));
}

/// A config.json, or a graph's, beside the tensors of a network that the first byte chooses.
fn config(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let folder = format!("net{}", form % NETS.len());
    ground.put(&format!("{folder}/config.json"), rest);
    let path = ground.at(&folder);
    let Some(checkpoint) = told(Checkpoint::open(&path)) else { return };
    let choices = zoo::Choices::default();
    zoo::inputs(&checkpoint);
    zoo::expected(&checkpoint, &choices);
    if let Some(model) = told(zoo::outline(&checkpoint, &choices)) {
        network(model);
    }
}

/// A preprocessor_config.json, and pictures that go through its steps.
fn preprocessor(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("processed/preprocessor_config.json", bytes);
    let Some(checkpoint) = of(&path, Checkpoint::open(&ground.at("processed/model.safetensors"))) else {
        return;
    };
    let inputs = zoo::inputs(&checkpoint);
    let config = Normalise { mean: inputs.mean, std: inputs.std };
    load(
        &ground.at("processed/pictures"),
        &LoadOptions { preprocess: inputs.preprocess, config, ..LoadOptions::default() },
    );
}

fn npy(ground: &Ground, bytes: &[u8]) {
    table(&ground.put("table.npy", bytes), &TableOptions::default());
}

fn npz(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("arrays.npz", bytes);
    table(&path, &TableOptions::default());
    load(&path, &LoadOptions::default());
}

/// The file of images behind its length in two bytes, then that of labels.
fn idx(ground: &Ground, bytes: &[u8]) {
    let (images, labels) = match bytes {
        [low, high, rest @ ..] => {
            rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))))
        }
        _ => (bytes, bytes),
    };
    ground.put("train-labels-idx1-ubyte", labels);
    load(&ground.put("train-images-idx3-ubyte", images), &LoadOptions::default());
}

fn cifar(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("data_batch_1.bin", bytes);
    for labels in [CifarLabels::Fine, CifarLabels::Coarse] {
        load(&path, &LoadOptions { labels, ..LoadOptions::default() });
    }
}

/// The file of labels behind its length in a byte, then that of images.
fn stl(ground: &Ground, bytes: &[u8]) {
    let (len, rest) = form(bytes);
    let (labels, images) = rest.split_at(rest.len().min(len));
    ground.put("train_y.bin", labels);
    load(&ground.put("train_X.bin", images), &LoadOptions::default());
}

fn mat(ground: &Ground, bytes: &[u8]) {
    load(&ground.put("train_32x32.mat", bytes), &LoadOptions::default());
}

/// A table of text; the bits of the first byte choose its options.
fn csv(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let path = ground.put(if form & 1 == 0 { "table.csv" } else { "table.tsv" }, rest);
    let options = TableOptions {
        header: [Header::Auto, Header::Auto, Header::Yes, Header::No][form >> 1 & 3],
        delimiter: [None, None, None, "semicolon".parse::<Delimiter>().ok()][form >> 3 & 3],
        decimal: [None, Some(Decimal::Comma)][form >> 5 & 1],
        na: if form & 64 == 0 { vec![] } else { vec!["?".into()] },
        ..TableOptions::default()
    };
    table(&path, &options);
}

fn arff(ground: &Ground, bytes: &[u8]) {
    table(&ground.put("table.arff", bytes), &TableOptions::default());
}

fn parquet(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("train.parquet", bytes);
    table(&path, &TableOptions::default());
    load(&path, &LoadOptions::default());
}

/// Rows of text; the first byte chooses the ending.
fn texts(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let name = ["texts.csv", "texts.tsv", "texts.jsonl", "texts.json", "texts.label", "texts.txt"][form % 6];
    let mut options = LoadOptions::default();
    options.texts.tokenizer = TokenizerSource::Ready(ground.tokenizer.clone());
    options.texts.most = Some(16);
    load(&ground.put(name, rest), &options);
}

/// A manifest of pictures; the first byte chooses the ending.
fn manifest(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let ending = ["csv", "tsv", "jsonl", "json"][form % 4];
    let path = ground.put(&format!("manifest/metadata.{ending}"), rest);
    load(&path, &LoadOptions { skip_corrupt: form & 4 != 0, ..LoadOptions::default() });
}

/// A tar of webdataset, packed where the first byte is odd.
fn tar(ground: &Ground, bytes: &[u8]) {
    let (form, rest) = form(bytes);
    let name = if form & 1 == 0 { "shard.tar" } else { "shard.tar.gz" };
    load(&ground.put(name, rest), &LoadOptions::default());
}

/// A picture in a folder of class folders.
fn picture(ground: &Ground, bytes: &[u8]) {
    ground.put("pictures/one/a.png", bytes);
    let mut options = LoadOptions::default();
    load(&ground.at("pictures"), &options);
    options.steps.resize = "8x8".parse().ok();
    options.skip_corrupt = true;
    load(&ground.at("pictures"), &options);
}

/// Opens a tokenizer and encodes a text.
fn encode(path: &Path) {
    if let Some(tokenizer) = told(Tokenizer::open(path)) {
        tokenizer.vocabulary();
        for text in ["Redder, [MASK] ünbelievably 红 🙂 don't\u{301}\0\u{ad}x", ""] {
            told(tokenizer.encode(text, 12));
        }
    }
}

fn tokenizer(ground: &Ground, bytes: &[u8]) {
    encode(&ground.put("tokenizer.json", bytes));
}

fn tokenizer_config(ground: &Ground, bytes: &[u8]) {
    ground.put("words/tokenizer_config.json", bytes);
    encode(&ground.at("words/vocab.txt"));
}

fn vocabulary(ground: &Ground, bytes: &[u8]) {
    encode(&ground.put("vocab.txt", bytes));
}

/// A choice of samples: as a file's lines, and as the text itself where that names no file.
fn spec(ground: &Ground, bytes: &[u8]) {
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let names = Names {
        classes: Some(words("cat dog 10")),
        samples: Some(words("s1/a.png s1/b.png s7/a.png s7/b.png s7/x/c.png d,e.png")),
        columns: vec![("site".into(), words("berlin berlin paris paris paris berlin"))],
    };
    let labels = Labels::from(vec![0, 1, 2, 1, 0, 1]);
    let path = ground.put("forget.txt", bytes);
    let path = path.to_str().unwrap_or_default();
    told(data::choose(path, Path::new("data/"), &labels, &names));
    if let Ok(text) = std::str::from_utf8(bytes)
        && !Path::new(text).exists()
        && let Some(spec) = told(Spec::parse(text))
    {
        told(spec.choose(&labels, &names));
    }
}

/// A delta, applied to a model and taken back from it.
fn delta(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("changes.safetensors", bytes);
    let Some(delta) = of(&path, Delta::open(&path)) else { return };
    let Some(model) = told(Checkpoint::open(&ground.at("changed/model.safetensors"))) else { return };
    for way in [Way::Apply, Way::Revert] {
        told(delta.take(&model, way, &ground.at("out")));
    }
}

/// The records of a run that was stopped.
fn events(ground: &Ground, bytes: &[u8]) {
    let path = ground.put("out/events.jsonl", bytes);
    if let Some((_, records)) = told(Events::open(&ground.at("out"), "a")) {
        // What is not a complete line is cut off, and what was read is read again.
        let again = told(Events::open(&ground.at("out"), "a"));
        assert_eq!(again.map(|(_, records)| records.len()), Some(records.len()), "{path:?}");
    }
}

/// The stage of a hold that was stopped.
fn stage(ground: &Ground, bytes: &[u8]) {
    ground.put("out/hold.stage", bytes);
    told(Stages::of(&ground.at("out"), "a").read(0));
}

/// What a model was trained on.
fn train(ground: &Ground, bytes: &[u8]) {
    ground.put("trained/train.json", bytes);
    let Some(model) = told(Checkpoint::open(&ground.at("trained/model.safetensors"))) else { return };
    if let Some(Some(manifest)) = told(Manifest::of(&model)) {
        manifest.excluded();
        manifest.trained_on(&Default::default());
    }
}
