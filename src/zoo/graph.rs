//! Any network, as a list of nodes in `config.json` (docs/GRAPH.md), and any network of another family written so.

use serde_json::Value;

use super::family::{Family, Given, Reads};
use super::names::Fit;
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::graph;
use crate::net::{Network, Shape, Source};
use crate::ops::InputKind;

pub(super) const FAMILY: Family =
    Family { name: "graph", named: |arch| arch == "graph", fit, reads: Reads::Either { said, compose } };

/// Fits where the config lists nodes.
fn fit(given: &Given) -> Option<Fit> {
    let listed = given.config.get("nodes").is_some();
    listed.then(|| Fit { fits: true, placed: given.names.len(), ..Fit::default() })
}

/// The texts that a config says.
fn said(config: &Value) -> Result<Option<InputKind>> {
    match config.get("tokens").filter(|tokens| !tokens.is_null()) {
        None => Ok(None),
        Some(tokens) => match tokens.as_u64().filter(|tokens| (1..=1 << 20).contains(tokens)) {
            Some(tokens) => Ok(Some(InputKind::Text { tokens: tokens as usize })),
            None => Err(Error::config("config.json: \"tokens\" is no number above 0")),
        },
    }
}

fn compose(source: &mut dyn Source, input: InputKind, reading: &mut Reading) -> Result<Network> {
    let listed = reading.object("nodes").ok_or_else(|| Error::config("config.json has no \"nodes\""))?;
    let nodes = graph::parse(listed)?;
    let reads_texts = reading.object("tokens").is_some_and(|tokens| !tokens.is_null());
    if reads_texts != matches!(input, InputKind::Text { .. }) {
        let reads = if reads_texts { "texts" } else { "images" };
        return Err(Error::config(format!("is a graph that reads {reads}; the data are {input}")));
    }
    let fixed = reading.object("any_size") == Some(&Value::Bool(false));
    if let (Some(said), InputKind::Image(shape)) = (reading.image, input)
        && (said.c != shape.c || fixed && said != shape)
    {
        let words = |s: Shape| format!("{}x{} images of {} channels", s.h, s.w, s.c);
        return Err(Error::config(format!("the model takes {}, these are {}", words(said), words(shape))));
    }
    let mut network = graph::compose(&nodes, source, input)?;
    for said in reading.object("read").and_then(Value::as_array).into_iter().flatten() {
        reading.saw(said.as_str().unwrap_or_default());
    }
    reading.saw(format!("{} nodes of a graph", nodes.len()));
    if let Some(words) = reading.object("ordinary_tokens") {
        network.ordinary = ordinary(words, network.ordinary.end)?;
    } else if reads_texts {
        reading.assume(
            "every token id is a word (\"ordinary_tokens\": [first, last + 1] in config.json says which)",
        );
    }
    Ok(network)
}

/// The ids that stand for words: the first, and the one behind the last.
fn ordinary(words: &Value, vocabulary: u32) -> Result<std::ops::Range<u32>> {
    let [first, end] = [0, 1].map(|i| words.get(i).and_then(Value::as_u64).unwrap_or(u64::MAX));
    match first < end && end <= u64::from(vocabulary) {
        true => Ok(first as u32..end as u32),
        false => {
            let expected = format!("[first, last + 1] within {vocabulary} token ids");
            Err(Error::config(format!(
                "config.json: \"ordinary_tokens\": {words}, where {expected} was expected"
            )))
        }
    }
}
