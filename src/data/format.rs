//! Which format a path has, by its name, or for a folder by what is in it. This is the one list of formats.

use std::path::{Path, PathBuf};

use super::file::StoredFile;
use super::part::{Part, split};
use super::{folder, foreign, listing, pickled, pictures, records};
use crate::error::{Error, Result};

/// The formats of labelled data.
pub(super) enum Format {
    /// A safetensors file.
    Tensors(PathBuf, Option<Part>),
    /// A .npz of NumPy.
    Npz(PathBuf, Option<Part>),
    /// MNIST's idx.
    Idx { images: PathBuf, labels: PathBuf },
    /// CIFAR's binary records.
    Cifar(Vec<PathBuf>),
    /// CIFAR's pickles.
    Pickles(Vec<PathBuf>),
    /// STL-10's binary files.
    Stl { images: PathBuf, labels: PathBuf },
    /// SVHN's MATLAB file.
    Mat(PathBuf),
    /// A folder for each class: the root, and the folders.
    Folders(PathBuf, Vec<PathBuf>),
    /// A manifest that lists pictures.
    Listing(PathBuf),
    /// Tar files as of webdataset.
    Shards(Vec<PathBuf>),
    /// Parquet files of Hugging Face with pictures.
    Parquet(Vec<PathBuf>),
    /// Files with rows of text.
    Texts(Vec<PathBuf>),
}

impl Format {
    /// Whether images may have a coarse and a fine label.
    pub fn has_coarse_labels(&self) -> bool {
        matches!(self, Format::Cifar(_) | Format::Pickles(_) | Format::Parquet(_))
    }
}

/// What can be read, for messages.
const KNOWN: &str = ".safetensors, .npz, idx (images and labels), CIFAR (.bin or pickles), STL-10, SVHN (.mat), a folder of class folders, a \
                     manifest (.csv, .tsv, .json, .jsonl) with columns `path` and `label`, .tar or .parquet; texts in .csv, .tsv, .json, .jsonl or .parquet";

/// Names of manifests that are read for the folder they are in, as Hugging Face's `imagefolder` names them.
const LISTINGS: [&str; 3] = ["metadata.csv", "metadata.jsonl", "metadata.json"];

/// Folders in which torchvision and Hugging Face put the files of a set.
const ROOTS: [&str; 11] = [
    "raw",
    "MNIST",
    "FashionMNIST",
    "KMNIST",
    "QMNIST",
    "EMNIST",
    "cifar-10-batches-py",
    "cifar-100-python",
    "cifar-10-batches-bin",
    "cifar-100-binary",
    "stl10_binary",
];

/// The format of a path; `PATH#test` is the test part of it, where it has several.
///
/// # Errors
/// Where there is nothing, or nothing that can be read.
pub(super) fn format(path: &Path) -> Result<Format> {
    let (path, part) = split(path);
    match path.is_dir() {
        true => of_folder(&path, part),
        false => of_file(&path, part),
    }
}

fn of_file(path: &Path, part: Option<Part>) -> Result<Format> {
    path.metadata().map_err(Error::io(path))?;
    let name = name_of(path);
    let lower = name.to_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    if ends(&[".safetensors"]) {
        return Ok(Format::Tensors(path.into(), part));
    }
    if ends(&[".npz"]) {
        return Ok(Format::Npz(path.into(), part));
    }
    if let Some(part) = part {
        let reason =
            format!("is one file without parts; #{} is for folders, .safetensors and .npz", part.name());
        return Err(Error::data(path, reason));
    }
    if pictures::is_picture(path) {
        let reason = "is one picture; a folder of class folders, or a manifest with columns `path` and `label`, says the \
                      label too";
        return Err(Error::data(path, reason));
    }
    if listing::is_listing(path) {
        return Ok(Format::Listing(path.into()));
    }
    if ends(&[".tar", ".tgz", ".tar.gz"]) {
        return Ok(Format::Shards(vec![path.into()]));
    }
    if ends(&[".parquet"]) {
        foreign::check(&StoredFile::open(path)?)?;
        return Ok(of_parquet(vec![path.into()]));
    }
    if records::is_known(path) {
        return Ok(Format::Texts(vec![path.into()]));
    }
    if ends(&[".mat"]) {
        return Ok(Format::Mat(path.into()));
    }
    if name.contains("idx3") || name.contains("images") {
        let labels = labels_of(path, &name.replace("images", "labels").replace("idx3", "idx1"))?;
        return Ok(Format::Idx { images: path.into(), labels });
    }
    if name.contains("_X.bin") {
        let labels = labels_of(path, &name.replace("_X.bin", "_y.bin"))?;
        return Ok(Format::Stl { images: path.into(), labels });
    }
    if lower.trim_end_matches(".gz").ends_with(".bin") {
        return Ok(Format::Cifar(vec![path.into()]));
    }
    if pickled::begins_as_one(path) {
        return Ok(Format::Pickles(vec![path.into()]));
    }
    Err(Error::data(path, format!("is no data that is known here: {KNOWN}")))
}

/// The format of a folder.
fn of_folder(path: &Path, part: Option<Part>) -> Result<Format> {
    let (folders, files) = folder::entries(path)?;
    // Folders too: one with the name of a file of data is refused when it is opened.
    let mut all = [&folders[..], &files].concat();
    all.sort();
    if let Some(found) = of_files(path, part, &all)? {
        return Ok(found);
    }
    let known: Vec<&PathBuf> =
        folders.iter().filter(|folder| ROOTS.contains(&name_of(folder).as_str())).collect();
    match known[..] {
        [] => {}
        [root] => return of_folder(root, part),
        [first, second, ..] => {
            let reason = format!("holds {} and {}; give one of them", name_of(first), name_of(second));
            return Err(Error::data(path, reason));
        }
    }
    if let Some((folder, part)) = of_tables(path, &folders, part)? {
        return of_folder(&folder, part);
    }
    let rows = records::of_folder(path, part.unwrap_or(Part::Train).beginnings())?;
    if let Some(part) = part {
        let inner = folders.iter().find(|folder| Part::of_name(&name_of(folder)) == Some(part));
        return match inner {
            Some(inner) => of_folder(inner, None),
            None if !rows.is_empty() => Ok(Format::Texts(rows)),
            None => Err(Error::data(path, format!("has no part `{}`", part.name()))),
        };
    }
    match folder::classes(path)? {
        Some(folders) => Ok(Format::Folders(path.into(), folders)),
        None if is_model(&files) && rows.iter().all(|rows| name_of(rows) == "train.json") => {
            Err(Error::data(path, "is the folder of a model, and data were expected; --model takes a model"))
        }
        None if !rows.is_empty() => Ok(Format::Texts(rows)),
        None if files.iter().any(|file| pictures::is_picture(file)) => {
            let reason = "holds pictures without labels; put them into a folder for each class, or list them in \
                          metadata.csv with columns `file_name` and `label`";
            Err(Error::data(path, reason))
        }
        None => Err(Error::data(path, format!("is a directory that holds no data known here: {KNOWN}"))),
    }
}

/// Whether the files of a folder are a model and its config.
fn is_model(files: &[PathBuf]) -> bool {
    ["config.json", "model.safetensors"].iter().all(|name| files.iter().any(|file| name_of(file) == *name))
}

/// The folder of Hugging Face's parquet files within one, and the part that is still to be chosen there: `data`, a
/// folder for each part (`train/0000.parquet`), or one for the set's configuration (`default`, `plain_text`) with either.
fn of_tables(
    path: &Path,
    folders: &[PathBuf],
    part: Option<Part>,
) -> Result<Option<(PathBuf, Option<Part>)>> {
    let has_tables = |folder: &&PathBuf| {
        folder::entries(folder)
            .is_ok_and(|(_, files)| files.iter().any(|file| name_of(file).ends_with(".parquet")))
    };
    let of = |folder: &PathBuf| Part::of_name(&name_of(folder));
    let with_tables: Vec<&PathBuf> = folders.iter().filter(has_tables).collect();
    if let Some(data) = with_tables.iter().find(|folder| name_of(folder) == "data") {
        return Ok(Some((data.to_path_buf(), part)));
    }
    let mut parts = with_tables.iter().filter(|folder| of(folder).is_some());
    let wanted = part.unwrap_or(Part::Train);
    if let Some(folder) = parts.clone().find(|folder| of(folder) == Some(wanted)) {
        return Ok(Some((folder.to_path_buf(), None)));
    }
    if parts.next().is_some() {
        return Err(Error::data(path, format!("has no part `{}`", wanted.name())));
    }
    let has_parts = |folder: &&PathBuf| {
        let inner = folder::entries(folder).map(|(folders, _)| folders).unwrap_or_default();
        inner.iter().any(|inner| of(inner).is_some() && has_tables(&inner))
    };
    let sets: Vec<&PathBuf> =
        folders.iter().filter(|folder| with_tables.contains(folder) || has_parts(folder)).collect();
    match sets[..] {
        [] => Ok(None),
        [one] => Ok(Some((one.clone(), part))),
        [first, second, ..] => {
            let reason = format!("holds {} and {}; give one of them", name_of(first), name_of(second));
            Err(Error::data(path, reason))
        }
    }
}

/// What the files of a folder are together.
fn of_files(path: &Path, part: Option<Part>, files: &[PathBuf]) -> Result<Option<Format>> {
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        files.iter().filter(|file| fits(&name_of(file))).cloned().collect()
    };
    let wanted = |part: Part, text: &str| {
        part.beginnings().iter().any(|begin| text.contains(&format!("{begin}-images")))
    };
    let parts = part.map_or(Part::ALL.to_vec(), |part| vec![part]);
    for part in parts {
        if let Some(images) = one_of(path, named(&|name| wanted(part, name)))? {
            return of_file(&images, None).map(Some);
        }
    }
    let test = part == Some(Part::Test);
    let plain = |name: &str| name.trim_end_matches(".gz").to_string();
    let (batch, all) = if test { ("test_batch", "test.bin") } else { ("data_batch_", "train.bin") };
    let batches =
        named(&|name| plain(name).ends_with(".bin") && (name.contains(batch) || name.contains(all)));
    if !batches.is_empty() {
        return cifar(batches).map(Some);
    }
    let [of_ten, of_hundred] = if test { ["test_batch", "test"] } else { ["data_batch_", "train"] };
    let pickles = named(&|name| name.starts_with(of_ten) && !name.contains('.'));
    let pickles = if pickles.is_empty() { named(&|name| name == of_hundred) } else { pickles };
    if !pickles.is_empty() && pickles.iter().all(|file| pickled::begins_as_one(file)) {
        return Ok(Some(Format::Pickles(pickles)));
    }
    let stl = if test { "test_X.bin" } else { "train_X.bin" };
    if let Some(images) = named(&|name| plain(name) == stl).first() {
        return of_file(images, None).map(Some);
    }
    let svhn = if test { "test_32x32.mat" } else { "train_32x32.mat" };
    if let Some(file) = named(&|name| name == svhn).first() {
        return of_file(file, None).map(Some);
    }
    if let Some(listing) = LISTINGS.iter().map(|name| path.join(name)).find(|path| path.is_file()) {
        return Ok(Some(Format::Listing(listing)));
    }
    let parquet = of_part(named(&|name| name.ends_with(".parquet")), part);
    if !parquet.is_empty() {
        return Ok(Some(of_parquet(parquet)));
    }
    let ends = [".tar", ".tgz", ".tar.gz"];
    let shards = of_part(named(&|name| ends.iter().any(|end| name.ends_with(end))), part);
    Ok((!shards.is_empty()).then_some(Format::Shards(shards)))
}

/// Parquet files have pictures, or rows of text.
fn of_parquet(files: Vec<PathBuf>) -> Format {
    match files.first().is_some_and(|file| records::has_pictures(file)) {
        true => Format::Parquet(files),
        false => Format::Texts(files),
    }
}

/// The files of a part; where none is asked for, those of the training part if there are any, else all.
fn of_part(files: Vec<PathBuf>, part: Option<Part>) -> Vec<PathBuf> {
    let of = |part: Part| {
        files.iter().filter(|file| Part::of_name(&name_of(file)) == Some(part)).cloned().collect::<Vec<_>>()
    };
    match part {
        Some(part) => of(part),
        None => Some(of(Part::Train)).filter(|train| !train.is_empty()).unwrap_or(files),
    }
}

/// The one file of several, which may be there packed too.
fn one_of(path: &Path, files: Vec<PathBuf>) -> Result<Option<PathBuf>> {
    let plain = |file: &PathBuf| name_of(file).trim_end_matches(".gz").to_string();
    match files.iter().find(|file| plain(file) != plain(&files[0])) {
        Some(other) => {
            let reason =
                format!("holds {} and {}; give one of the files", name_of(&files[0]), name_of(other));
            Err(Error::data(path, reason))
        }
        None => Ok(files.into_iter().next()), // the plain one comes first
    }
}

/// The file of labels beside a file of images; either may be packed.
fn labels_of(path: &Path, name: &str) -> Result<PathBuf> {
    let beside = path.with_file_name(name);
    let other = match name.strip_suffix(".gz") {
        Some(_) => beside.with_extension(""),
        None => PathBuf::from(format!("{}.gz", beside.display())),
    };
    let found = [&beside, &other].into_iter().find(|labels| labels.exists() && labels.as_path() != path);
    found.cloned().ok_or_else(|| {
        let reason = format!("its labels, {} or {}, are not beside it", beside.display(), other.display());
        Error::data(path, reason)
    })
}

/// All batches of CIFAR in a folder, each once.
fn cifar(batches: Vec<PathBuf>) -> Result<Format> {
    let packed = |path: &&PathBuf| path.with_extension("bin.gz").exists() && name_of(path).ends_with(".bin");
    match batches.iter().find(packed) {
        Some(twice) => Err(Error::data(
            twice,
            "is there packed too; one of the two must go, or each sample would count twice",
        )),
        None => Ok(Format::Cifar(batches)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
