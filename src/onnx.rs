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
mod store;
mod translate;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::data::file::StoredFile;
use crate::error::{Error, Result};
use message::Attribute;
use store::{At, Stored, Stores};
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
    /// The file, and all beside it that hold values, each with its tensors that are parameters of the network.
    pub files: Vec<(StoredFile, BTreeMap<String, Place>)>,
    /// What a `config.json` says of a graph.
    pub config: Map<String, Value>,
}

/// Whether a file begins as ONNX files do: with a small version, and then another field of a model. The length of a
/// safetensors header may be the same bytes; behind it comes `{`.
pub(crate) fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=0x7f, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
        && !matches!(start, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
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
