//! ONNX files: a graph with its weights becomes a list of nodes ([`crate::graph`]) and tensors that are changed in place.
//! docs/GRAPH.md lists the operators; whatever is not among them, or has a setting that is not, is refused with the name
//! of its node.
//!
//! The file is read by a reader of our own (`wire.rs`, `message.rs`), because a changed value is written where the old
//! one is, and no library tells where that is.

mod axes;
mod constant;
mod function;
mod message;
mod translate;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::data::file::StoredFile;
use crate::data::tensors::to_f64;
use crate::error::{Error, Result};
use crate::graph;
use constant::count;
use message::{Attribute, Data, Tensor};
use wire::Wire;

/// The oldest and the newest version of the standard operators that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=27;

/// The operators that hold a tensor, under `value`.
const HOLDS: [&str; 2] = ["Constant", "ConstantOfShape"];

/// A tensor in a file: its elements lie one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The byte at which it begins.
    pub start: u64,
}

/// A model of an ONNX file.
pub(crate) struct Onnx {
    /// The file, and those beside it that hold values, each with the tensors that are parameters of the network.
    pub files: Vec<(StoredFile, BTreeMap<String, Place>)>,
    /// What a `config.json` says of a graph.
    pub config: Map<String, Value>,
}

/// Whether a file begins as ONNX files do: with a small version, and then another field of a model.
pub(crate) fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=0x7f, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
}

/// Reads the model of a file; files beside it are those of `folder`. `size` is that of images, channels first, where the
/// graph leaves it open.
///
/// # Errors
/// Where the file is damaged, or its graph is no network that is known here.
pub(crate) fn open(file: StoredFile, folder: Option<&Path>, size: Option<[usize; 3]>) -> Result<Onnx> {
    let path = file.path().to_path_buf();
    let model = message::model(&mut Wire::new(&file))?;
    let refuse = |reason: String| Error::checkpoint(&path, reason);
    if model.functions > 0 {
        return Err(refuse(
            "has functions of its own, which are not read; export it with them inlined".into(),
        ));
    }
    if !OPSETS.contains(&model.opset) {
        let (first, last) = OPSETS.into_inner();
        let found = model.opset;
        return Err(refuse(format!(
            "has operators of version {found}, and {first} to {last} are known here"
        )));
    }
    let mut stores = Stores { files: vec![file], tensors: HashMap::new() };
    for tensor in &model.graph.tensors {
        stores.add(&tensor.name, tensor, folder)?;
    }
    for node in model.graph.nodes.iter().filter(|node| HOLDS.contains(&node.op.as_str())) {
        if let (Some(Attribute::Tensor(tensor)), Some(name)) =
            (node.attributes.get("value"), node.outputs.first())
        {
            stores.add(name, tensor, folder)?;
        }
    }
    let translated = translate::translate(&model.graph, model.opset, &stores, size).map_err(|e| match e {
        Error::Config(reason) => refuse(reason),
        other => other,
    })?;
    let mut files: Vec<_> = stores.files.into_iter().map(|file| (file, BTreeMap::new())).collect();
    for (name, shape) in translated.tensors {
        let Some(Stored { dtype, at: At::File { file, start }, .. }) = stores.tensors.remove(&name) else {
            return Err(Error::tensor(
                &path,
                name,
                "is stored as a list of numbers, which is not changed in place",
            ));
        };
        files[file].1.insert(name, Place { dtype, shape, start });
    }
    files.iter().try_for_each(|(file, tensors)| apart(file, tensors))?;
    files.retain(|(file, tensors)| file.path() == path || !tensors.is_empty());
    let mut notes =
        vec![format!("ONNX, operators of version {}, written by {}", model.opset, model.producer)];
    notes.extend(translated.notes);
    let mut config = Map::new();
    config.insert("architecture".into(), json!("graph"));
    let [c, h, w] = translated.input;
    config.insert("input_size".into(), json!([c, h, w]));
    config.insert("any_size".into(), json!(false));
    config.insert("read".into(), json!(notes));
    if translated.several_labels {
        config.insert("problem_type".into(), json!("multi_label_classification"));
    }
    let nodes = serde_json::to_value(&translated.nodes).map_err(|e| refuse(e.to_string()))?;
    config.insert("nodes".into(), nodes);
    Ok(Onnx { files, config })
}

/// Refuses tensors that share bytes, of which a change of one would change the other.
fn apart(file: &StoredFile, tensors: &BTreeMap<String, Place>) -> Result<()> {
    let end = |place: &Place| {
        let count = place.shape.iter().product::<usize>() as u64;
        place.start + count * place.dtype.bitsize() as u64 / 8
    };
    let mut all: Vec<(&String, &Place)> = tensors.iter().collect();
    all.sort_by_key(|(_, place)| place.start);
    match all.windows(2).find(|pair| end(pair[0].1) > pair[1].1.start) {
        None => Ok(()),
        Some(pair) => {
            let reason = format!("shares its bytes with `{}`", pair[1].0);
            Err(Error::tensor(file.path(), pair[0].0, reason))
        }
    }
}

/// A stored tensor.
struct Stored {
    shape: Vec<usize>,
    dtype: Dtype,
    at: At,
}

impl Stored {
    /// Whether its values are floats.
    fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

/// Where the values of a tensor are.
enum At {
    File { file: usize, start: u64 },
    Numbers(Vec<i64>),
}

/// All tensors of a model, and the files that they are in.
pub(crate) struct Stores {
    files: Vec<StoredFile>,
    tensors: HashMap<String, Stored>,
}

impl Stores {
    /// Takes note of a tensor.
    fn add(&mut self, name: &str, tensor: &Tensor, folder: Option<&Path>) -> Result<()> {
        let path = self.files[0].path().to_path_buf();
        let refuse = |reason: String| Error::tensor(&path, name, reason);
        let sides = tensor.dims.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<Vec<_>>>();
        let shape = sides.ok_or_else(|| refuse(format!("has the shape {:?}", tensor.dims)))?;
        let len = count(&shape).ok_or_else(|| refuse(format!("has the shape {shape:?}")))?;
        // One of another type is refused where it is used.
        let Some(dtype) = dtype(tensor.dtype) else { return Ok(()) };
        let size = (len as u64).saturating_mul(dtype.bitsize() as u64 / 8);
        let at = match &tensor.data {
            Data::Raw(range) => {
                let found = range.end - range.start;
                if found != size {
                    return Err(refuse(format!("has {found} bytes, and its shape {shape:?} needs {size}")));
                }
                At::File { file: 0, start: range.start }
            }
            Data::Numbers(numbers) => {
                if numbers.len() != len {
                    return Err(refuse(format!("has {} values, and its shape {shape:?}", numbers.len())));
                }
                At::Numbers(numbers.clone())
            }
            Data::External { file, start, len } => {
                let number = self.outside(file, folder).map_err(|reason| refuse(reason.to_string()))?;
                let (end, whole) = (start.checked_add(size), self.files[number].len());
                if len.is_some_and(|len| len != size) || end.is_none_or(|end| end > whole) {
                    let reason =
                        format!("needs {size} bytes from byte {start} of `{file}`, which has {whole}");
                    return Err(refuse(reason));
                }
                At::File { file: number, start: *start }
            }
            Data::None if len == 0 => At::Numbers(vec![]),
            Data::None | Data::Other => return Ok(()),
        };
        if self.tensors.insert(name.into(), Stored { shape, dtype, at }).is_some() {
            return Err(refuse("is in the graph twice".into()));
        }
        Ok(())
    }

    /// The number of a file beside the model, opened once.
    fn outside(&mut self, name: &str, folder: Option<&Path>) -> Result<usize> {
        let folder = folder
            .ok_or_else(|| Error::config("its values are in another file, and the model is in memory"))?;
        if name.is_empty() || name.contains(['/', '\\']) || name == ".." {
            return Err(Error::config(format!(
                "its values are in `{name}`, which is no file beside the model"
            )));
        }
        let path = folder.join(name);
        match self.files.iter().position(|file| file.path() == path) {
            Some(number) => Ok(number),
            None => {
                self.files.push(StoredFile::open(&path)?);
                Ok(self.files.len() - 1)
            }
        }
    }

    /// The values of a tensor.
    fn values(&self, name: &str) -> Result<Vec<f64>> {
        let Some(stored) = self.tensors.get(name) else {
            return Err(Error::config(format!("tensor `{name}` is stored in a form that is not read")));
        };
        match &stored.at {
            At::Numbers(numbers) if matches!(stored.dtype, Dtype::F16 | Dtype::BF16) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|&bits| (bits as u16).to_le_bytes()).collect();
                Ok(to_f64(stored.dtype, &bytes).unwrap_or_default())
            }
            At::Numbers(numbers) => Ok(numbers.iter().map(|&number| number as f64).collect()),
            At::File { file, start } => {
                let len = stored.shape.iter().product::<usize>() as u64 * stored.dtype.bitsize() as u64 / 8;
                let bytes = self.files[*file].read(*start..*start + len)?;
                to_f64(stored.dtype, &bytes)
                    .ok_or_else(|| Error::config(format!("tensor `{name}` has values that are not read")))
            }
        }
    }
}

/// A type of ONNX's.
fn dtype(number: i64) -> Option<Dtype> {
    Some(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::BOOL,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::BF16,
        _ => return None,
    })
}

/// What a graph was translated to.
struct Translated {
    nodes: Vec<graph::Node>,
    /// The tensors that are parameters, in the shapes in which the nodes read them.
    tensors: BTreeMap<String, Vec<usize>>,
    /// Channels, rows, columns.
    input: [usize; 3],
    notes: Vec<String>,
    /// Whether the graph ends with a sigmoid, so that its logits are one per label.
    several_labels: bool,
}
