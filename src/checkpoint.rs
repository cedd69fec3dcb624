//! Checkpoints: a model's files in, and the same files out with only the touched values changed.
//!
//! A checkpoint is a `.safetensors` file, one of torch.save's (`.pth`, `.pt`, `.bin`, `.pth.tar`), an ONNX file with those
//! beside it that hold its values, or a directory with `model.safetensors`, `pytorch_model.bin` or `model.onnx` (or the
//! shards that an index of such a name lists), else a single model file, and `config.json`. It is written as a copy of the
//! input bytes in which the changed elements are patched, rounded to the stored type. Names, order, types, shards, metadata
//! and everything else stay the same, byte for byte, but for the checksums of an archive.
//!
//! Only headers are kept in memory; a tensor is read when a family asks for it.

mod choose;
mod delta;
mod described;
mod file;
mod hub;
mod memory;
mod rounding;
mod torch;
mod write;
mod zip;

pub(crate) use described::{image_size, side};

pub use delta::{Delta, Rows, Way, write_delta};
pub use rounding::{Rounded, Rounding};
pub use write::{Patched, save, serialized};

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::file::{Part, StoredFile};
use crate::data::tensors;
use crate::error::{Error, Result};
use crate::net::{Role, Source};
use file::ModelFile;

/// A model's files, read and checked.
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<ModelFile>,
    /// Where a tensor is, by its name without the prefix.
    place: BTreeMap<String, Place>,
    /// The prefix that wrappers put before every name (`module.`).
    prefix: String,
    /// Patterns of names that are left out.
    ignored: Vec<String>,
    config: Option<serde_json::Value>,
    preprocessor: Option<serde_json::Value>,
    beside: Beside,
}

/// What lies beside a model's files and is written beside the new ones, unchanged.
enum Beside {
    /// The files of [`BESIDE`] in its folder.
    Folder,
    /// The text of a config, of a model in memory.
    Config(Option<Vec<u8>>),
}

/// The file of a tensor, and its name there.
struct Place {
    file: usize,
    stored: String,
}

/// Prefixes that wrappers put before the names of a model, whatever the model is.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// The most wrappers that are taken off, one in another.
const MOST_WRAPPERS: usize = 32;

/// Names that modules give to the mean and the deviation by which they normalise their inputs.
const NORMALISATIONS: [(&str, &str); 4] =
    [("mean", "std"), ("mu", "sigma"), ("_mean", "_std"), ("image_mean", "image_std")];

/// Modules that normalise the inputs of the rest: of such a name, or the first one of a `Sequential`.
const NORMALISERS: [&str; 9] = [
    "",
    "0.",
    "normalize.",
    "normalise.",
    "normalizer.",
    "normalization.",
    "norm_layer.",
    "preprocess.",
    "data_normalizer.",
];

/// The model files of a directory, the first that there is: one file, or the index of several.
const MODELS: [&str; 3] = ["model.safetensors", "pytorch_model.bin", "model.onnx"];

/// How names of model files end.
const ENDINGS: [&str; 6] = [".safetensors", ".pth", ".pt", ".bin", ".pth.tar", ".onnx"];

/// Files that are copied unchanged beside a model.
const BESIDE: [&str; 7] = [
    "config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

impl Checkpoint {
    /// Reads a model file, a directory that holds a model, or what `hf:ORG/NAME`, `timm:NAME` or `torchvision:NAME` stands for in
    /// the local caches.
    ///
    /// # Errors
    /// Where a file is missing, malformed, or holds a tensor twice.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::open_with(path, &[], &[])
    }

    /// [`Checkpoint::open`], as if the tensors of these names were not there; `*` stands for any part of a name, with
    /// or without the wrappers' prefixes. They are written unchanged.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; and where a pattern is the name of no tensor.
    pub fn open_without(path: &Path, ignored: &[String]) -> Result<Checkpoint> {
        Checkpoint::open_with(path, ignored, &[])
    }

    /// [`Checkpoint::open_without`] tensors of these names, with a choice among several sets of weights: the first of these
    /// keys that a PyTorch file has, as `state_dict` or `ema/shadow`; `.` stands for a file's own tensors. Without keys, a file
    /// must have one set.
    ///
    /// # Errors
    /// As there; and where a file has none of the keys.
    pub fn open_with(path: &Path, ignored: &[String], weights: &[String]) -> Result<Checkpoint> {
        let whole = |files: Vec<PathBuf>| files.iter().all(|file| file.is_file());
        let path = &hub::locate(path, &|folder| model_files(folder).is_ok_and(whole))?;
        let folder = folder_of(path);
        let names = if path.is_dir() { model_files(path)? } else { vec![path.to_path_buf()] };
        let beside = |name: &str| match folder.join(name) {
            file if file.is_file() => json(&file).map(Some),
            _ => Ok(None),
        };
        let (config, preprocessor) = (beside("config.json")?, beside("preprocessor_config.json")?);
        let mut config = config.map(described::of_images);
        let mut files = vec![];
        for name in &names {
            let file = StoredFile::open(name)?;
            files.extend(described::files(file, Some(folder), weights, &mut config)?);
        }
        Checkpoint::of_files(path, files, ignored, config, preprocessor, Beside::Folder)
    }

    fn of_files(
        path: &Path,
        files: Vec<ModelFile>,
        ignored: &[String],
        config: Option<serde_json::Value>,
        preprocessor: Option<serde_json::Value>,
        beside: Beside,
    ) -> Result<Checkpoint> {
        let mut place = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if place.insert(name.clone(), Place { file: i, stored: name.clone() }).is_some() {
                    return Err(Error::tensor(path, name, "is in two of the shards"));
                }
            }
        }
        if place.is_empty() {
            return Err(Error::checkpoint(path, "holds no tensors"));
        }
        let (prefix, path, ignored) = (String::new(), path.to_path_buf(), ignored.to_vec());
        let mut checkpoint = Checkpoint { path, files, place, prefix, ignored, config, preprocessor, beside };
        let mut unused = checkpoint.ignored.clone();
        unused.retain(|pattern| !checkpoint.ignore(pattern));
        checkpoint.strip();
        unused.retain(|pattern| !checkpoint.ignore(pattern));
        match unused.first() {
            None => Ok(checkpoint),
            Some(pattern) => {
                Err(Error::checkpoint(&checkpoint.path, format!("has no tensor `{pattern}` to ignore")))
            }
        }
    }

    /// Leaves out the tensors of a pattern; whether there were any.
    fn ignore(&mut self, pattern: &str) -> bool {
        let before = self.place.len();
        self.place.retain(|name, _| !matches(pattern, name));
        self.place.len() < before
    }

    /// Takes off what all names begin with. Counters and buffers beside a wrapped model need not have the prefix.
    ///
    /// A network's names have nothing in common, so that any common part is a wrapper's, except where all layers are
    /// linear or the config lists them: there only what wrappers are known to add is taken off. A graph has the names as
    /// they are.
    fn strip(&mut self) {
        if self.config.as_ref().is_some_and(|config| config.get("nodes").is_some()) {
            return;
        }
        let listed = self.config.as_ref().is_some_and(|config| config.get("layers").is_some());
        let linear = self.place.keys().all(|name| self.shape(name).is_some_and(|shape| shape.len() <= 2));
        for _ in 0..MOST_WRAPPERS {
            let names: Vec<String> = self.place.keys().cloned().collect();
            let buffers = normalisation(&names);
            let outside = |name: &String| {
                name == "n_averaged" || buffers.as_ref().is_some_and(|(m, s)| [m, s].contains(&name))
            };
            let mut inside = names.iter().filter(|name| !outside(name));
            let Some(first) = inside.next() else { return };
            let Some(end) = first.find('.') else { return };
            let common = first[..=end].to_string();
            let known = PREFIXES.contains(&common.as_str()) || !(listed || linear);
            if !known || inside.any(|name| !name.starts_with(&common)) {
                return;
            }
            // A wrapper's name may hide one that is there already; then the names stay as they are.
            let bare = |name: &String| name.strip_prefix(&common).unwrap_or(name).to_string();
            if names.iter().map(bare).collect::<HashSet<_>>().len() < names.len() {
                return;
            }
            self.place = std::mem::take(&mut self.place).into_iter().map(|(n, at)| (bare(&n), at)).collect();
            self.prefix.push_str(&common);
        }
    }

    /// The key of the weights in a PyTorch file, where they are not the whole file.
    pub fn weights(&self) -> Option<&str> {
        self.files.iter().find_map(ModelFile::key)
    }

    /// What a user must know of the files: other tensors than the weights, as an optimizer's or a moving average, are
    /// written unchanged and may still tell of samples that are removed from the weights.
    pub fn notes(&self) -> Vec<String> {
        let others: Vec<&str> = self.files.iter().flat_map(ModelFile::others).map(String::as_str).collect();
        if others.is_empty() {
            return vec![];
        }
        let (path, others) = (self.path.display(), others.join(", "));
        vec![format!(
            "{path}: holds tensors beside the weights ({others}); they are written unchanged and may tell of removed \
             samples"
        )]
    }

    /// The patterns of names that are left out.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What wrappers put before the names of all tensors; empty where there are none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds the model's files.
    pub fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    /// `config.json`, where there is one beside the model.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref()
    }

    /// `preprocessor_config.json`, where there is one beside the model.
    pub fn preprocessor(&self) -> Option<&serde_json::Value> {
        self.preprocessor.as_ref()
    }

    /// The names of the tensors, sorted, wrappers' prefixes removed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let place = self.place.get(name)?;
        self.files[place.file].shape(&place.stored).ok()
    }

    /// The names of the model files.
    pub fn file_names(&self) -> impl Iterator<Item = &std::ffi::OsStr> {
        self.files.iter().filter_map(|file| file.file().path().file_name())
    }

    /// The bytes of all files, in order, for a hash.
    pub fn contents(&self) -> impl Iterator<Item = Part<'_>> {
        self.files.iter().map(|file| file.file().whole())
    }

    /// A source of this checkpoint's tensors that records which were read.
    pub fn reader(&self) -> Reader<'_> {
        Reader { checkpoint: self, read: HashSet::new(), outline: false }
    }

    /// A source of tensors of these names, types and shapes, whose values are not read and are 0.
    pub fn outline(&self) -> Reader<'_> {
        Reader { checkpoint: self, read: HashSet::new(), outline: true }
    }
}

/// The index that lists the shards of a model file's name.
fn index_of(name: &str) -> String {
    format!("{name}.index.json")
}

/// The model files of a directory: of the usual names, else the only one, as `scrub` leaves a model under its own name.
fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for name in MODELS {
        let (file, index) = (folder.join(name), folder.join(index_of(name)));
        if file.exists() {
            return Ok(vec![file]);
        }
        if index.exists() {
            return shards(&index);
        }
    }
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file() && ENDINGS.iter().any(|ending| name.ends_with(ending))
    };
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut found: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect();
    found.sort();
    let neither = format!("holds neither {}, nor an index of such a name", MODELS.join(" nor "));
    match &found[..] {
        [_] => Ok(found),
        [] => Err(Error::checkpoint(folder, neither)),
        [first, second, ..] => {
            let names = [first, second].map(|path| path.file_name().unwrap_or_default().to_string_lossy());
            let reason = format!(
                "{neither}, and {} files that could be it, as {}; name one",
                found.len(),
                names.join(" and ")
            );
            Err(Error::checkpoint(folder, reason))
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether a name has the form of a pattern, in which `*` stands for any part and `#` for a number.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            (0..=name.len()).filter(|&i| name.is_char_boundary(i)).any(|i| matches(&pattern[1..], &name[i..]))
        }
        Some('#') => {
            let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
            digits > 0 && matches(&pattern[1..], &name[digits..])
        }
        Some(c) => name.strip_prefix(c).is_some_and(|rest| matches(&pattern[c.len_utf8()..], rest)),
    }
}

/// Whether a tensor of this name is one that no function reads: a counter of batches or of averaged models, the
/// numbers of positions, 0, 1, 2 and so on, the token that stands for masked patches in pre-training, what the size of
/// Swin's windows tells, or the norm of the class token of CLIP, whose classifier reads the patches.
pub(crate) fn plays_no_part(name: &str) -> bool {
    [
        "num_batches_tracked",
        "n_averaged",
        "position_ids",
        "embeddings.mask_token",
        "relative_position_index",
        "vision_model.post_layernorm.weight",
        "vision_model.post_layernorm.bias",
        ".attn_mask",
    ]
    .iter()
    .any(|end| name.ends_with(end))
}

/// The buffers of a model that normalises its own inputs: the names of the mean and of the deviation.
pub(crate) fn normalisation(names: &[String]) -> Option<(String, String)> {
    let pairs = NORMALISERS.iter().flat_map(|module| {
        NORMALISATIONS.iter().map(move |(mean, std)| (format!("{module}{mean}"), format!("{module}{std}")))
    });
    pairs.into_iter().find(|(mean, std)| names.contains(mean) && names.contains(std))
}

/// The files that an index lists, each once, in name order.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let listed = json(index)?;
    let map = listed.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| Error::checkpoint(index, "has no weight_map"))?;
    let names = map.values().map(|name| name.as_str().filter(|name| !name.contains(['/', '\\'])));
    let mut names: Vec<&str> = names
        .collect::<Option<_>>()
        .ok_or_else(|| Error::checkpoint(index, "lists something that is no file beside it"))?;
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

fn json(path: &Path) -> Result<serde_json::Value> {
    serde_json::from_slice(&tensors::read(path)?)
        .map_err(|e| Error::checkpoint(path, format!("is not JSON: {e}")))
}

/// A checkpoint as a [`Source`].
pub struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    read: HashSet<String>,
    /// Whether values are left unread.
    outline: bool,
}

impl Reader<'_> {
    /// Checks that every tensor was read.
    ///
    /// # Errors
    /// Where some were not, other than buffers that play no part: the model is not of this family, or has parts that are not part of
    /// its logits.
    pub fn finish(self, family: &str) -> Result<()> {
        let names = self.checkpoint.names();
        let unread: Vec<&str> =
            names.filter(|name| !self.read.contains(*name) && !plays_no_part(name)).collect();
        let Some(first) = unread.first() else { return Ok(()) };
        let more = match unread.len() {
            1 => "has".to_string(),
            n => format!("and {} more have", n - 1),
        };
        let mut patterns: Vec<String> = unread
            .iter()
            .map(|name| match name.rsplit_once('.') {
                Some((module, _)) => format!("--ignore '{module}.*'"),
                None => format!("--ignore '{name}'"),
            })
            .collect();
        patterns.dedup();
        patterns.truncate(4);
        let reason = format!(
            "{more} no place in the family {family}; --arch names another; {} leaves out what plays no part in the \
             logits",
            patterns.join(" ")
        );
        Err(Error::tensor(&self.checkpoint.path, *first, reason))
    }
}

impl Source for Reader<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], _role: Role) -> Result<Vec<f32>> {
        let refuse = |reason: String| Error::tensor(&self.checkpoint.path, name, reason);
        let place = self.checkpoint.place.get(name).ok_or_else(|| refuse("is not in the model".into()))?;
        let (file, stored) = (&self.checkpoint.files[place.file], &place.stored);
        let found = file.shape(stored)?;
        // A matrix may be stored as filters (timm's VGG head), or filters as a matrix (patches as rows).
        let flat = |a: &[usize], b: &[usize]| {
            a.len() == 2 && a[0] == b[0] && a[1] == b[1..].iter().product::<usize>()
        };
        if found != shape && !flat(found, shape) && !flat(shape, found) {
            return Err(refuse(format!("has shape {found:?}, where {shape:?} was expected")));
        }
        if self.outline {
            self.read.insert(name.into());
            return Ok(vec![0.0; shape.iter().product()]);
        }
        let values = file.f32(stored)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(refuse(format!("element {i} is {}", values[i])));
        }
        self.read.insert(name.into());
        Ok(values)
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.shape(name)
    }

    fn is_outline(&self) -> bool {
        self.outline
    }
}
