//! The `config.json` of any model as a graph: its network node by node.

use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::timm_blocks::SAME;
use super::{Model, write_loss, write_preprocess};
use crate::checkpoint;
use crate::data::tensors::write_whole;
use crate::data::{InputKind, Preprocess};
use crate::error::{Error, Result};
use crate::graph;
use crate::net::{Node, Op, Shape};

/// The `config.json` of any model, in which its network is a list of nodes; with the tensors under the names of the
/// network, as [`crate::checkpoint::save`] writes them, it is the same model. Steps for pictures alone and the names of
/// classes are not in it.
///
/// # Errors
/// As [`graph::nodes`].
pub fn graph_config(model: &Model) -> Result<String> {
    let net = model.network.thaw();
    let mut config = Map::new();
    config.insert("architecture".into(), json!("graph"));
    match net.kind() {
        InputKind::Image(Shape { h, w, c }) => config.insert("input_size".into(), json!([c, h, w])),
        InputKind::Text { tokens } => {
            config.insert("tokens".into(), json!(tokens));
            config.insert("ordinary_tokens".into(), json!([net.ordinary.start, net.ordinary.end]))
        }
    };
    config.insert("num_classes".into(), json!(net.classes()));
    // Padding of this size of images alone.
    let padded = |node: &Node| matches!(node.op, Op::Conv(_, conv, _) if conv.further != (0, 0));
    if net.nodes.iter().any(padded) || model.facts.config.iter().any(|fact| fact == SAME) {
        config.insert("any_size".into(), json!(false));
    }
    for (key, values) in [("mean", &model.inputs.mean), ("std", &model.inputs.std)] {
        // Through the shortest decimal, which is what a reader makes an f32 of.
        let list =
            |values: &Vec<f32>| values.iter().map(|v| json!(v.to_string().parse::<f64>().ok())).collect();
        values.iter().for_each(|values| drop(config.insert(key.into(), list(values))));
    }
    if let Preprocess::Pixels(pipeline) = &model.inputs.preprocess {
        write_preprocess(&mut config, pipeline);
    }
    write_loss(&mut config, net.loss);
    let mut text = String::from("{\n");
    config.iter().for_each(|(key, value)| text += &format!("  {}: {value},\n", json!(key)));
    let nodes = graph::nodes(&net)?;
    let lines: Vec<String> = nodes.iter().map(line).collect::<Result<_>>()?;
    Ok(text + "  \"nodes\": [\n    " + &lines.join(",\n    ") + "\n  ]\n}\n")
}

/// Writes a model to a folder, which is made if need be, as `model.safetensors` and [`graph_config`] in `config.json`.
///
/// # Errors
/// Where the folder has one of them, the file system refuses, and as [`graph_config`].
pub fn export(model: &Model, folder: &Path) -> Result<[PathBuf; 2]> {
    let files = ["model.safetensors", "config.json"].map(|name| folder.join(name));
    if let Some(file) = files.iter().find(|file| file.exists()) {
        return Err(Error::config(format!("{} is there already", file.display())));
    }
    let config = graph_config(model)?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    checkpoint::save(&files[0], &model.network)?;
    write_whole(&files[1], config.as_bytes())?;
    Ok(files)
}

fn line(node: &graph::Node) -> Result<String> {
    serde_json::to_string(node).map_err(|e| Error::config(format!("node `{}`: {e}", node.name)))
}
