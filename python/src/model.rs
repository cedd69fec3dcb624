//! Models: read from files or made of a module's tensors.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyByteArray;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::tokenizer::Rows;
use scrubjay::data::{
    self, CifarLabels, Crop, Interpolation, Normalise, Resize, Steps, TextOptions, TokenizerSource,
    check_labels,
};
use scrubjay::inspection::{ModelInspection, SetInspection, write_image};
use scrubjay::net::{Network, Param};
use scrubjay::ops::Precision;
use scrubjay::run::check_out;
use scrubjay::zoo::{self, Choices, Facts, Stem};
use scrubjay::{Error, Result, Sources};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::errors::{in_python, refused};
use crate::values::{Samples, bytes, named, parsed};
use crate::watched::unlocked;

/// How files are read: what their tensors do not tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reading {
    arch: Option<String>,
    heads: Option<usize>,
    stem: Option<Stem>,
    #[serde(deserialize_with = "listed")]
    ignore: Vec<String>,
    #[serde(deserialize_with = "listed")]
    weights: Vec<String>,
    #[serde(deserialize_with = "written")]
    resize: Option<Resize>,
    #[serde(deserialize_with = "written")]
    crop: Option<Crop>,
    interpolation: Option<Interpolation>,
    skip_corrupt: bool,
    /// In MiB.
    inputs_memory: Option<usize>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    cifar_labels: Option<CifarLabels>,
    tokenizer: Option<PathBuf>,
    max_tokens: Option<usize>,
    text_column: Option<String>,
    #[serde(deserialize_with = "listed")]
    label_column: Vec<String>,
}

/// A list of texts; one text stands for a list of it.
pub fn listed<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts was expected")]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Texts::deserialize(from)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    })
}

/// What the command line has as text; a number stands for its text.
pub fn written<'de, D, T>(from: D) -> std::result::Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    let text = match Value::deserialize(from)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse().map(Some).map_err(|error: String| D::Error::custom(format!("`{text}`: {error}")))
}

impl Reading {
    fn choices(&self) -> Choices {
        Choices { arch: self.arch.clone(), heads: self.heads, stem: self.stem }
    }

    /// Sources that are read so, without files.
    pub fn sources(&self) -> Sources {
        Sources {
            choices: self.choices(),
            ignore: self.ignore.clone(),
            weights: self.weights.clone(),
            normalise: Normalise { mean: self.mean.clone(), std: self.std.clone() },
            steps: Steps { resize: self.resize, interpolation: self.interpolation, crop: self.crop },
            skip_corrupt: self.skip_corrupt,
            memory: self.inputs_memory.map(|mib| mib.saturating_mul(1 << 20)),
            cifar_labels: self.cifar_labels.unwrap_or_default(),
            texts: TextOptions {
                tokenizer: self.tokenizer.clone().map_or(TokenizerSource::Missing, TokenizerSource::At),
                most: self.max_tokens,
                text: self.text_column.clone(),
                labels: self.label_column.clone(),
            },
            ..Sources::default()
        }
    }
}

/// The files that a model comes from.
#[derive(Clone)]
pub enum Files {
    /// Its own.
    Own(Arc<Checkpoint>),
    /// Those of the session that opened it.
    Session(Arc<scrubjay::Session>),
}

/// A network, frozen, and the files of which it or the network before it was read.
#[pyclass(frozen, module = "scrubjay._native")]
#[derive(Clone)]
pub struct Model {
    /// As it is now.
    pub network: Arc<Network>,
    base: Arc<Network>,
    files: Files,
    family: &'static str,
    notes: Vec<String>,
    facts: Facts,
}

/// What a module calls a model in memory.
const IN_MEMORY: &str = "model.safetensors";

impl Model {
    /// A model that was read from these files.
    pub fn new(
        network: Network,
        files: Files,
        family: &'static str,
        notes: &[String],
        facts: Facts,
    ) -> Model {
        let network = Arc::new(network);
        let notes = notes.iter().map(|note| in_python(note)).collect();
        Model { base: network.clone(), network, files, family, notes, facts }
    }

    /// The same model with other values.
    pub fn changed(&self, network: Network) -> Model {
        Model { network: Arc::new(network), ..self.clone() }
    }

    /// The family that it was taken for.
    pub fn family_name(&self) -> &'static str {
        self.family
    }

    /// Its files, or those of the network before it.
    pub fn checkpoint(&self) -> Result<&Checkpoint> {
        match &self.files {
            Files::Own(checkpoint) => Ok(checkpoint),
            Files::Session(session) => {
                session.checkpoint().ok_or_else(|| Error::config("the model has no files to be written as"))
            }
        }
    }

    /// A name of the network's as its files have it, with what wrappers put before.
    pub fn name_in_files(&self, name: &str) -> String {
        self.checkpoint().map_or(String::new(), |checkpoint| checkpoint.prefix().to_string()) + name
    }

    /// The sides of a parameter as its files have them: a filter bank of one pixel may be a matrix in the network.
    pub fn sides_in_files(&self, param: &Param) -> Vec<usize> {
        let stored = self.checkpoint().ok().and_then(|checkpoint| checkpoint.shape(&param.name));
        stored.unwrap_or(&param.shape).to_vec()
    }

    fn read(checkpoint: Checkpoint, choices: &Choices, data: Option<&Samples>) -> Result<Model> {
        let read = zoo::load_as(&checkpoint, choices, data.map(|samples| samples.0.kind))?;
        if let Some(Samples(samples, _)) = data {
            check_labels(Path::new("data"), &samples.y, read.network.loss, read.network.classes())?;
        }
        let notes = [read.facts.notes(checkpoint.path()), checkpoint.notes()].concat();
        Ok(Model::new(read.network.freeze(), Files::Own(checkpoint.into()), read.family, &notes, read.facts))
    }
}

/// Texts as they are given out: the bytes of their ids and of their mask, the tokens of a row, and notes.
type Words<'py> = (Bound<'py, PyByteArray>, Bound<'py, PyByteArray>, usize, Vec<String>);

fn words<'py>(py: Python<'py>, rows: &Rows, notes: Vec<String>) -> PyResult<Words<'py>> {
    let notes = notes.iter().map(|note| in_python(note)).collect();
    Ok((
        bytes(py, &rows.ids, u32::to_ne_bytes)?,
        bytes(py, &rows.mask, u32::to_ne_bytes)?,
        rows.tokens,
        notes,
    ))
}

/// As [`Model::encode`], for a model that has no files and takes at most this many tokens; `reading` names the tokenizer.
#[pyfunction]
#[pyo3(signature = (texts, reading, positions))]
pub fn encode<'py>(
    py: Python<'py>,
    texts: Vec<String>,
    reading: &str,
    positions: Option<usize>,
) -> PyResult<Words<'py>> {
    let reading = parsed::<Reading>(reading)?;
    if reading.tokenizer.is_none() {
        return Err(refused(
            "the data are texts, and the model has no files beside which a tokenizer could lie: tokenizer",
        ));
    }
    let mut options = reading.sources().load_options(None);
    options.expected.positions = positions;
    let (rows, notes) = unlocked(py, || data::encode(&texts, &options))?;
    words(py, &rows, notes)
}

/// What a set of files holds, as JSON and as the command's text, and notes on how it was read; by the config of a model, where one
/// is given. Writes image `index` to a PNG file, where that is asked for.
#[pyfunction]
#[pyo3(signature = (path, reading, model, image_out, index))]
pub fn inspect_data(
    py: Python<'_>,
    path: PathBuf,
    reading: &str,
    model: Option<&Model>,
    image_out: Option<PathBuf>,
    index: usize,
) -> PyResult<(String, String, Vec<String>)> {
    let reading = parsed::<Reading>(reading)?;
    unlocked(py, || {
        let checkpoint = model.map(Model::checkpoint).transpose()?;
        let read = data::load_with(&path, &reading.sources().load_options(checkpoint))?;
        if let Some(out) = &image_out {
            write_image(out, &read.samples, &read.normalise, index)?;
        }
        let found = SetInspection::from(&read);
        let notes = read.notes.iter().map(|note| in_python(note)).collect();
        Ok((json!(found).to_string(), found.text(), notes))
    })
}

/// A tensor of a module: its name, type, sides and bytes.
type Stored = (String, String, Vec<usize>, PyBackedBytes);

/// A tensor as it is given out: its name, type, sides and bytes.
type Given<'py> = (String, String, Vec<usize>, Bound<'py, PyByteArray>);

#[pymethods]
impl Model {
    /// Reads a model's files, for the inputs of `data` where they are given.
    #[staticmethod]
    #[pyo3(signature = (path, reading, data=None))]
    fn open(py: Python<'_>, path: PathBuf, reading: &str, data: Option<&Samples>) -> PyResult<Model> {
        let reading = parsed::<Reading>(reading)?;
        unlocked(py, || {
            let Sources { choices, ignore, weights, .. } = reading.sources();
            Model::read(Checkpoint::open_with(&path, &ignore, &weights)?, &choices, data)
        })
    }

    /// Makes a model of tensors (name, type as safetensors call it, sides, bytes) and the text of a config.
    #[staticmethod]
    #[pyo3(signature = (tensors, config, reading, data=None))]
    fn of_tensors(
        py: Python<'_>,
        tensors: Vec<Stored>,
        config: Option<&str>,
        reading: &str,
        data: Option<&Samples>,
    ) -> PyResult<Model> {
        let reading = parsed::<Reading>(reading)?;
        let mut views = vec![];
        for (name, dtype, sides, bytes) in &tensors {
            let view = TensorView::new(named::<Dtype>(name, dtype)?, sides.clone(), bytes);
            views.push((name, view.map_err(|error| refused(format!("tensor `{name}`: {error}")))?));
        }
        unlocked(py, || {
            let file = safetensors::serialize(views, None)
                .map_err(|error| Error::config(format!("the module's tensors: {error}")))?;
            let Sources { choices, ignore, .. } = reading.sources();
            Model::read(Checkpoint::in_memory(IN_MEMORY, file, config, &ignore)?, &choices, data)
        })
    }

    /// Reads labelled data, normalised as `reading` says, else as the model's config does; with notes on how they were read.
    fn load(&self, py: Python<'_>, path: PathBuf, reading: &str) -> PyResult<(Samples, Vec<String>)> {
        let reading = parsed::<Reading>(reading)?;
        let read = unlocked(py, || reading.sources().load(&path, self.checkpoint()?))?;
        let note = |note: &String| format!("{}: {}", path.display(), in_python(note));
        Ok((Samples(read.samples.into(), read.names), read.notes.iter().map(note).collect()))
    }

    /// The token ids and the mask of texts, u32 [n, tokens] as bytes, the tokens of a row, and notes; by the tokenizer that
    /// `reading` names, else by the one beside the model.
    fn encode<'py>(&self, py: Python<'py>, texts: Vec<String>, reading: &str) -> PyResult<Words<'py>> {
        let sources = parsed::<Reading>(reading)?.sources();
        let (rows, notes) =
            unlocked(py, || data::encode(&texts, &sources.load_options(Some(self.checkpoint()?))))?;
        words(py, &rows, notes)
    }

    /// The family that it was taken for.
    #[getter]
    fn family(&self) -> &'static str {
        self.family
    }

    /// What is known of it: as JSON, and as the command's text without and with its program.
    fn inspect(&self, py: Python<'_>, precision: Option<&str>) -> PyResult<(String, [String; 2])> {
        let precision = precision.map(|name| named::<Precision>("precision", name)).transpose()?;
        unlocked(py, || {
            let found = ModelInspection::of(&self.network, self.family, &self.facts, precision)?;
            Ok((json!(found).to_string(), [false, true].map(|program| found.text(program))))
        })
    }

    /// What was assumed of it.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The width of the logits.
    #[getter]
    fn classes(&self) -> usize {
        self.network.classes()
    }

    /// The layers with units: name, the name of its weight, the name of its bias, units.
    #[getter]
    fn layers(&self) -> Vec<(String, String, Option<String>, usize)> {
        let net = &self.network;
        let name = |param: scrubjay::net::ParamId| self.name_in_files(&net.params[param.index()].name);
        let layers = net.layers.iter();
        layers.map(|l| (self.name_in_files(&l.name), name(l.weight), l.bias.map(name), l.outputs)).collect()
    }

    /// Writes its files to a folder: those it was read from, with the changed values patched.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<Vec<PathBuf>> {
        unlocked(py, || {
            let checkpoint = self.checkpoint()?;
            check_out(checkpoint, &folder)?;
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            Ok(checkpoint.write_patched(&self.base, &self.network, &folder)?.files)
        })
    }

    /// All tensors of its files, with the changed values patched: name, type, sides, bytes.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Vec<Given<'py>>> {
        let files = unlocked(py, || Ok(self.checkpoint()?.patched(&self.base, &self.network)?.1))?;
        let mut all = vec![];
        for file in &files {
            let read = SafeTensors::deserialize(file).map_err(|_| {
                refused(
                    "the model is a file of torch.save: save the outcome to a folder, and read it with torch.load",
                )
            })?;
            for (name, view) in read.iter() {
                let dtype = serde_json::to_value(view.dtype())
                    .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                let dtype = dtype.as_str().unwrap_or_default().to_string();
                all.push((name.into(), dtype, view.shape().to_vec(), PyByteArray::new(py, view.data())));
            }
        }
        Ok(all)
    }
}
