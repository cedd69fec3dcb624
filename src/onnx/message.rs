//! The messages of an ONNX file that a network is read from: the model, its graph, nodes, attributes and tensors. Of a
//! tensor, the place of its values is kept and not the values. Fields that describe nothing of the function are passed
//! over; what changes it and is not read here (subgraphs, sparse tensors, functions) is kept as such and refused where it
//! is used.

use std::collections::BTreeMap;
use std::ops::Range;

use super::wire::{Content, Wire};
use crate::error::Result;

/// The model.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The version of the standard operators; 0 where none is given.
    pub opset: i64,
    pub producer: String,
    pub graph: Graph,
    /// How many functions of its own it has.
    pub functions: usize,
}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    pub tensors: Vec<Tensor>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<String>,
}

/// An input: its type, and its sides where they are numbers.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub name: String,
    pub dtype: i64,
    pub sides: Option<Vec<Option<usize>>>,
}

/// A node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub name: String,
    pub op: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: BTreeMap<String, Attribute>,
}

/// An attribute's value.
#[derive(Debug)]
pub(super) enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Tensor),
    Other,
}

/// A tensor.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensor {
    pub name: String,
    pub dims: Vec<i64>,
    /// ONNX's number of the type.
    pub dtype: i64,
    pub data: Data,
}

/// Where a tensor's values are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Data {
    #[default]
    None,
    /// As bytes, little-endian.
    Raw(Range<u64>),
    /// Whole numbers.
    Numbers(Vec<i64>),
    /// In another file.
    External { file: String, start: u64, len: Option<u64> },
    /// In a form that is not read.
    Other,
}

/// The number of a float in ONNX's types.
pub(super) const FLOAT: i64 = 1;
/// The number of a double.
pub(super) const DOUBLE: i64 = 11;

/// Reads the model of a file.
pub(super) fn model(wire: &mut Wire) -> Result<Model> {
    let (mut model, mut graph) = (Model::default(), None);
    for (number, content) in wire.fields(0..wire.file.len())? {
        match (number, &content) {
            (2, _) => model.producer = wire.text(&content)?,
            (7, Content::Bytes(range)) => graph = Some(range.clone()),
            (8, Content::Bytes(range)) => {
                let (mut domain, mut version) = (String::new(), 0);
                for (number, content) in wire.fields(range.clone())? {
                    match (number, &content) {
                        (1, _) => domain = wire.text(&content)?,
                        (2, Content::Number(found)) => version = *found as i64,
                        _ => {}
                    }
                }
                if is_standard(&domain) {
                    model.opset = version;
                }
            }
            (25, _) => model.functions += 1,
            _ => {}
        }
    }
    let graph = graph.ok_or_else(|| wire.damaged(0, "it has no graph"))?;
    model.graph = read_graph(wire, graph)?;
    Ok(model)
}

/// Whether a domain is that of the standard operators.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn read_graph(wire: &mut Wire, range: Range<u64>) -> Result<Graph> {
    let mut graph = Graph::default();
    for (number, content) in wire.fields(range)? {
        let Content::Bytes(range) = content else { continue };
        match number {
            1 => graph.nodes.push(node(wire, range)?),
            5 => graph.tensors.push(tensor(wire, range)?),
            11 => graph.inputs.push(input(wire, range)?),
            12 => graph.outputs.push(input(wire, range)?.name),
            15 => return Err(wire.damaged(range.start, "it has sparse tensors, which are not read here")),
            _ => {}
        }
    }
    Ok(graph)
}

fn node(wire: &mut Wire, range: Range<u64>) -> Result<Node> {
    let mut node = Node::default();
    for (number, content) in wire.fields(range)? {
        match number {
            1 => node.inputs.push(wire.text(&content)?),
            2 => node.outputs.push(wire.text(&content)?),
            3 => node.name = wire.text(&content)?,
            4 => node.op = wire.text(&content)?,
            7 => node.domain = wire.text(&content)?,
            5 => {
                let Content::Bytes(range) = content else { continue };
                let (name, value) = attribute(wire, range)?;
                node.attributes.insert(name, value);
            }
            _ => {}
        }
    }
    Ok(node)
}

fn attribute(wire: &mut Wire, range: Range<u64>) -> Result<(String, Attribute)> {
    let (mut name, mut kind, mut refers) = (String::new(), 0, false);
    let (mut int, mut float, mut text, mut tensors) = (0, 0.0, String::new(), None);
    let (mut ints, mut floats) = (vec![], vec![]);
    for (number, content) in wire.fields(range)? {
        match (number, &content) {
            (1, _) => name = wire.text(&content)?,
            (2, Content::Fixed32(bits)) => float = f32::from_bits(*bits),
            (3, Content::Number(number)) => int = *number as i64,
            (4, Content::Bytes(range)) => {
                text = String::from_utf8_lossy(&wire.bytes(range)?).into_owned();
            }
            (5, Content::Bytes(range)) => tensors = Some(tensor(wire, range.clone())?),
            (7, _) => floats.extend(wire.floats(&content)?),
            (8, _) => ints.extend(wire.numbers(&content)?),
            (20, Content::Number(number)) => kind = *number,
            (21, _) => refers = true,
            _ => {}
        }
    }
    let value = match (kind, tensors) {
        _ if refers => Attribute::Other,
        (1, _) => Attribute::Float(float),
        (2, _) => Attribute::Int(int),
        (3, _) => Attribute::Text(text),
        (4, Some(tensor)) => Attribute::Tensor(tensor),
        (6, _) => Attribute::Floats(floats),
        (7, _) => Attribute::Ints(ints),
        _ => Attribute::Other,
    };
    Ok((name, value))
}

fn tensor(wire: &mut Wire, range: Range<u64>) -> Result<Tensor> {
    let (mut tensor, mut external) = (Tensor::default(), Data::None);
    let mut numbers: Option<Vec<i64>> = None;
    for (number, content) in wire.fields(range)? {
        match (number, &content) {
            (1, _) => tensor.dims.extend(wire.numbers(&content)?),
            (2, Content::Number(number)) => tensor.dtype = *number as i64,
            (8, _) => tensor.name = wire.text(&content)?,
            // Floats, doubles or raw bytes, which in a file are the same.
            (4, Content::Bytes(range)) if tensor.data == Data::None && tensor.dtype != DOUBLE => {
                tensor.data = Data::Raw(range.clone());
            }
            (10, Content::Bytes(range)) if tensor.data == Data::None && tensor.dtype != FLOAT => {
                tensor.data = Data::Raw(range.clone());
            }
            (9, Content::Bytes(range)) if tensor.data == Data::None => tensor.data = Data::Raw(range.clone()),
            (5 | 7 | 11, _) => numbers.get_or_insert_default().extend(wire.numbers(&content)?),
            (3 | 4 | 6 | 9 | 10, _) => tensor.data = Data::Other,
            (13, Content::Bytes(range)) => {
                let mut entry = [String::new(), String::new()];
                for (number, content) in wire.fields(range.clone())? {
                    if let 1 | 2 = number {
                        entry[number as usize - 1] = wire.text(&content)?;
                    }
                }
                external = outside(wire, external, &entry, range.start)?;
            }
            _ => {}
        }
    }
    match (external, numbers) {
        (Data::None, None) => {}
        (Data::None, Some(numbers)) if tensor.data == Data::None => tensor.data = Data::Numbers(numbers),
        (external, None) if tensor.data == Data::None => tensor.data = external,
        _ => tensor.data = Data::Other,
    }
    Ok(tensor)
}

/// An entry about a tensor's values in another file, added to what is known.
fn outside(wire: &Wire, known: Data, [key, value]: &[String; 2], at: u64) -> Result<Data> {
    let (mut file, mut start, mut len) = match known {
        Data::External { file, start, len } => (file, start, len),
        _ => (String::new(), 0, None),
    };
    let number = || value.parse::<u64>().map_err(|_| wire.damaged(at, &format!("\"{key}\" is \"{value}\"")));
    match key.as_str() {
        "location" => file.clone_from(value),
        "offset" => start = number()?,
        "length" => len = Some(number()?),
        _ => {}
    }
    Ok(Data::External { file, start, len })
}

fn input(wire: &mut Wire, range: Range<u64>) -> Result<Input> {
    let mut input = Input::default();
    for (number, content) in wire.fields(range)? {
        match (number, content) {
            (1, content) => input.name = wire.text(&content)?,
            (2, Content::Bytes(range)) => {
                for (number, content) in wire.fields(range)? {
                    if let (1, Content::Bytes(range)) = (number, content) {
                        tensor_type(wire, range, &mut input)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(input)
}

fn tensor_type(wire: &mut Wire, range: Range<u64>, input: &mut Input) -> Result<()> {
    for (number, content) in wire.fields(range)? {
        match (number, content) {
            (1, Content::Number(number)) => input.dtype = number as i64,
            (2, Content::Bytes(range)) => {
                let mut sides = vec![];
                for (number, content) in wire.fields(range)? {
                    let (1, Content::Bytes(range)) = (number, content) else { continue };
                    let found = wire.fields(range)?.into_iter().find_map(|field| match field {
                        (1, Content::Number(side)) => usize::try_from(side).ok().filter(|&side| side > 0),
                        _ => None,
                    });
                    sides.push(found);
                }
                input.sides = Some(sides);
            }
            _ => {}
        }
    }
    Ok(())
}
