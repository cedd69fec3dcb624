//! Classifiers of texts as Hugging Face names them: BERT (Devlin et al. 2019) and DistilBERT (Sanh et al. 2019).
//! Embeddings of tokens and positions, a norm, post-norm blocks of attention to the tokens of the mask, and a head that
//! reads the first token.
//!
//! ```text
//! distilbert.embeddings.{word_embeddings position_embeddings LayerNorm}
//!   | distilbert.transformer.layer.{i}.{attention.{q_lin k_lin v_lin out_lin} sa_layer_norm ffn.lin1 ffn.lin2
//!     output_layer_norm} | pre_classifier classifier
//! bert.embeddings.{word_embeddings position_embeddings token_type_embeddings LayerNorm}
//!   | bert.encoder.layer.{i}.{attention.self.{query key value} attention.output.{dense LayerNorm} intermediate.dense
//!     output.{dense LayerNorm}} | bert.pooler.dense classifier
//! ```
//!
//! All token types are 0, so row 0 of their table is added to every token. Tensors do not tell the number of heads: it is
//! `--heads`, or `n_heads` or `num_attention_heads` of the config. Anything else is a guess, one head per 64 channels,
//! and reported so. The eps of DistilBERT's norms is 1e-12, as its code has it; BERT's is `layer_norm_eps`.

use std::ops::Range;

use serde_json::{Value, json};

use super::family::{Family, Given, Reads, rows};
use super::names::{Form, fit, head};
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::net::{Activation, Builder, Network, NodeId, Source};

pub(super) const DISTILBERT_FAMILY: Family = Family {
    name: "distilbert",
    named: distilbert_named,
    fit: |given| Some(fit(DISTILBERT_FORMS, given.names)),
    reads: Reads::Texts { most: distilbert_most, compose: compose_distilbert },
};

pub(super) const BERT_FAMILY: Family = Family {
    name: "bert",
    named: bert_named,
    fit: |given| Some(fit(BERT_FORMS, given.names)),
    reads: Reads::Texts { most: bert_most, compose: compose_bert },
};

/// A library's names of the parts, and of the keys of its config.
pub(super) struct Names {
    /// Hugging Face's word for the family, and the class.
    model_type: &'static str,
    class: &'static str,
    words: &'static str,
    positions: &'static str,
    types: Option<&'static str>,
    norm: &'static str,
    /// A block's name without its number.
    block: &'static str,
    qkv: [&'static str; 3],
    out: &'static str,
    norm1: &'static str,
    lin1: &'static str,
    lin2: &'static str,
    norm2: &'static str,
    /// The layer between the first token and the head, and its nonlinearity.
    pre: (&'static str, Activation),
    /// Whether the config says the eps of norms.
    has_eps: bool,
    /// Keys of the nonlinearity, of the number of blocks, of heads, of channels and of hidden channels.
    activation: &'static str,
    blocks: &'static str,
    heads: &'static str,
    width: &'static str,
    hidden: &'static str,
}

const DISTILBERT: Names = Names {
    model_type: "distilbert",
    class: "DistilBertForSequenceClassification",
    words: "distilbert.embeddings.word_embeddings.weight",
    positions: "distilbert.embeddings.position_embeddings.weight",
    types: None,
    norm: "distilbert.embeddings.LayerNorm",
    block: "distilbert.transformer.layer.",
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    norm1: "sa_layer_norm",
    lin1: "ffn.lin1",
    lin2: "ffn.lin2",
    norm2: "output_layer_norm",
    pre: ("pre_classifier", Activation::Relu),
    has_eps: false,
    activation: "activation",
    blocks: "n_layers",
    heads: "n_heads",
    width: "dim",
    hidden: "hidden_dim",
};

const BERT: Names = Names {
    model_type: "bert",
    class: "BertForSequenceClassification",
    words: "bert.embeddings.word_embeddings.weight",
    positions: "bert.embeddings.position_embeddings.weight",
    types: Some("bert.embeddings.token_type_embeddings.weight"),
    norm: "bert.embeddings.LayerNorm",
    block: "bert.encoder.layer.",
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    out: "attention.output.dense",
    norm1: "attention.output.LayerNorm",
    lin1: "intermediate.dense",
    lin2: "output.dense",
    norm2: "output.LayerNorm",
    pre: ("bert.pooler.dense", Activation::Tanh),
    has_eps: true,
    activation: "hidden_act",
    blocks: "num_hidden_layers",
    heads: "num_attention_heads",
    width: "hidden_size",
    hidden: "intermediate_size",
};

/// Token types, and hidden channels a channel, of a new model.
const TYPES: usize = 2;
const HIDDEN: usize = 4;

const DISTILBERT_FORMS: &[Form] = &[Form {
    needs: &[
        "distilbert.embeddings.word_embeddings.weight",
        "distilbert.embeddings.position_embeddings.weight",
        "distilbert.transformer.layer.0.attention.q_lin.weight",
        "pre_classifier.weight",
        "classifier.weight|classifier.#.weight",
    ],
    others: &[
        "distilbert.embeddings.LayerNorm.*",
        "distilbert.transformer.layer.#.attention.*_lin.*",
        "distilbert.transformer.layer.#.sa_layer_norm.*",
        "distilbert.transformer.layer.#.ffn.lin#.*",
        "distilbert.transformer.layer.#.output_layer_norm.*",
        "pre_classifier.bias",
        "classifier.*",
    ],
    lacks: &[],
}];

const BERT_FORMS: &[Form] = &[Form {
    needs: &[
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.position_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.pooler.dense.weight",
        "classifier.weight|classifier.#.weight",
    ],
    others: &[
        "bert.embeddings.LayerNorm.*",
        "bert.encoder.layer.#.attention.self.*",
        "bert.encoder.layer.#.attention.output.*",
        "bert.encoder.layer.#.intermediate.dense.*",
        "bert.encoder.layer.#.output.*",
        "bert.pooler.dense.bias",
        "classifier.*",
    ],
    lacks: &[],
}];

/// Words that names of these architectures have behind the first: sizes and data, which do not change the function.
const WORDS: [&str; 11] = [
    "tiny",
    "mini",
    "small",
    "medium",
    "base",
    "large",
    "uncased",
    "cased",
    "multilingual",
    "english",
    "german",
];

fn is_named(arch: &str, family: &str) -> bool {
    let mut words = arch.split(['_', '-']);
    let first = words.next().unwrap_or_default();
    let named = first == family || first.strip_prefix(family) == Some("forsequenceclassification");
    named && words.all(|word| WORDS.contains(&word))
}

fn distilbert_named(arch: &str) -> bool {
    is_named(arch, "distilbert")
}

fn bert_named(arch: &str) -> bool {
    is_named(arch, "bert")
}

fn distilbert_most(given: &Given) -> Option<usize> {
    given.source.shape(DISTILBERT.positions)?.first().copied()
}

fn bert_most(given: &Given) -> Option<usize> {
    given.source.shape(BERT.positions)?.first().copied()
}

pub(super) fn compose_distilbert(
    source: &mut dyn Source,
    tokens: usize,
    reading: &mut Reading,
) -> Result<Network> {
    compose(source, tokens, reading, &DISTILBERT)
}

pub(super) fn compose_bert(source: &mut dyn Source, tokens: usize, reading: &mut Reading) -> Result<Network> {
    compose(source, tokens, reading, &BERT)
}

/// The names of a family of texts.
pub(super) fn family(name: &str) -> Option<&'static Names> {
    [&DISTILBERT, &BERT].into_iter().find(|names| names.model_type == name)
}

impl Names {
    /// The tensors of a new model with these numbers of token ids, channels, blocks, heads and positions.
    pub fn shapes(&self, sizes: [usize; 5], classes: usize) -> Vec<(String, Vec<usize>)> {
        let [vocabulary, width, blocks, _, positions] = sizes;
        let mut all = vec![(self.words.into(), vec![vocabulary, width])];
        all.push((self.positions.into(), vec![positions, width]));
        all.extend(self.types.map(|types| (types.into(), vec![TYPES, width])));
        let mut layer = |name: String, shape: &[usize]| {
            all.push((format!("{name}.bias"), vec![shape[0]]));
            all.push((format!("{name}.weight"), shape.to_vec()));
        };
        layer(self.norm.into(), &[width]);
        for block in 0..blocks {
            let part = |part: &str| format!("{}{block}.{part}", self.block);
            for square in self.qkv.into_iter().chain([self.out]) {
                layer(part(square), &[width, width]);
            }
            layer(part(self.lin1), &[HIDDEN * width, width]);
            layer(part(self.lin2), &[width, HIDDEN * width]);
            layer(part(self.norm1), &[width]);
            layer(part(self.norm2), &[width]);
        }
        layer(self.pre.0.into(), &[width, width]);
        layer("classifier".into(), &[classes, width]);
        all
    }

    /// The eps of norms; the code of DistilBERT has a number, whatever a config says.
    fn eps(&self, reading: &mut Reading) -> Result<f32> {
        const EPS: f32 = 1e-12;
        match self.has_eps {
            true => Ok(reading.number(&["layer_norm_eps"])?.unwrap_or(EPS)),
            false => reading.only(&[("layer_norm_eps", json!(1e-12))]).map(|()| EPS),
        }
    }

    /// The `config.json` of such a model.
    pub fn config(&self, sizes: [usize; 5], classes: usize) -> Value {
        let [vocabulary, width, blocks, heads, positions] = sizes;
        let mut config = json!({
            "model_type": self.model_type,
            "architectures": [self.class],
            "num_labels": classes,
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "pad_token_id": 0,
        });
        if self.types.is_some() {
            config["type_vocab_size"] = json!(TYPES);
        }
        config[self.width] = json!(width);
        config[self.hidden] = json!(HIDDEN * width);
        config[self.blocks] = json!(blocks);
        config[self.heads] = json!(heads);
        config[self.activation] = json!("gelu");
        config
    }
}

pub(super) fn compose(
    source: &mut dyn Source,
    tokens: usize,
    reading: &mut Reading,
    names: &Names,
) -> Result<Network> {
    let eps = names.eps(reading)?;
    let (mut b, [ids, mask]) = Builder::text(source, tokens);
    let (vocabulary, dim) = (rows(&b, names.words)?, b.side(names.words, 1)?);
    let positions = rows(&b, names.positions)?;
    if tokens > positions {
        return Err(Error::config(format!(
            "has positions for {positions} tokens, and the rows of `input_ids` have {tokens}"
        )));
    }
    reading.flag("sinusoidal_pos_embds")?; // how a DistilBERT's positions were initialised
    reading.only(&[
        ("position_embedding_type", json!("absolute")),
        ("is_decoder", json!(false)),
        ("add_cross_attention", json!(false)),
    ])?;
    let activation = reading.activation(&[names.activation])?.unwrap_or(Activation::Gelu);
    let block = Block { names, heads: heads(reading, dim)?, eps, activation, mask };
    let x = b.embedding(ids, names.words, vocabulary, dim)?;
    let x = match names.types {
        Some(types) => {
            let kinds = rows(&b, types)?;
            reading.agrees("type_vocab_size", kinds)?;
            b.row_to_all(x, types, kinds)?
        }
        None => x,
    };
    let x = b.position_rows(x, names.positions, positions)?;
    let mut x = b.layer_norm(x, names.norm, eps)?;
    let mut blocks = 0;
    while b.has(&format!("{}{blocks}.{}.weight", names.block, names.qkv[0])) {
        x = block.compose(&mut b, x, blocks)?;
        blocks += 1;
    }
    if blocks > 0 {
        reading.agrees(names.hidden, rows(&b, &format!("{}0.{}.weight", names.block, names.lin1))?)?;
    }
    for (key, found) in [
        ("vocab_size", vocabulary),
        ("max_position_embeddings", positions),
        (names.width, dim),
        (names.blocks, blocks),
    ] {
        reading.agrees(key, found)?;
    }
    reading.saw(format!("{blocks} blocks of {dim} channels, {vocabulary} token ids, {positions} positions"));
    let x = b.token(x, 0);
    let (pre, activation) = names.pre;
    let inner = rows(&b, &format!("{pre}.weight"))?;
    let x = b.linear(x, pre, inner)?;
    let x = b.activation(x, activation);
    let head = head(&b, reading, &["classifier"])?;
    let classes = rows(&b, &format!("{head}.weight"))?;
    if classes == 1 && reading.word("problem_type")?.is_none() {
        let reason =
            "has one label and no problem_type in config.json, which Hugging Face takes for a regression";
        return Err(Error::config(format!("{reason}; only classifiers are known here")));
    }
    let x = b.linear(x, &head, classes)?;
    let mut network = b.finish(x)?;
    network.ordinary = ordinary(reading, vocabulary)?;
    Ok(network)
}

/// What all blocks of a model share.
struct Block<'a> {
    names: &'a Names,
    heads: usize,
    eps: f32,
    activation: Activation,
    mask: NodeId,
}

impl Block<'_> {
    fn compose(&self, b: &mut Builder, x: NodeId, number: usize) -> Result<NodeId> {
        let part = |part: &str| format!("{}{number}.{part}", self.names.block);
        let (names, dim) = (self.names, b.shape(x).c);
        let qkv = names.qkv.iter().map(|one| b.linear(x, &part(one), dim)).collect::<Result<Vec<_>>>()?;
        let y = b.concat(&qkv)?;
        let y = b.masked_attention(y, self.heads, self.mask)?;
        let y = b.linear(y, &part(names.out), dim)?;
        let y = b.add(y, x)?;
        let x = b.layer_norm(y, &part(names.norm1), self.eps)?;
        let hidden = rows(b, &format!("{}.weight", part(names.lin1)))?;
        let y = b.linear(x, &part(names.lin1), hidden)?;
        let y = b.activation(y, self.activation);
        let y = b.linear(y, &part(names.lin2), dim)?;
        let y = b.add(y, x)?;
        b.layer_norm(y, &part(names.norm2), self.eps)
    }
}

/// The number of heads: chosen, read, or else guessed.
fn heads(reading: &mut Reading, dim: usize) -> Result<usize> {
    let remedy = "--heads, or \"n_heads\" or \"num_attention_heads\" in config.json, says how many there are";
    let heads = match reading.heads()? {
        Some(heads) => heads,
        None if dim.is_multiple_of(64) => {
            reading.assume(format!(
                "{} attention heads of 64 channels, a guess by the width; {remedy}",
                dim / 64
            ));
            dim / 64
        }
        None => {
            let reason =
                format!("the heads of a BERT of {dim} channels cannot be told from its tensors; {remedy}");
            return Err(Error::config(reason));
        }
    };
    match heads > 0 && dim.is_multiple_of(heads) {
        true => Ok(heads),
        false => Err(Error::config(format!("{heads} attention heads do not divide {dim} channels"))),
    }
}

/// Keys of the ids of special tokens.
const SPECIAL: [&str; 7] = [
    "pad_token_id",
    "unk_token_id",
    "cls_token_id",
    "sep_token_id",
    "mask_token_id",
    "bos_token_id",
    "eos_token_id",
];

/// The ids that stand for words: the longest run of ids without a special one, by the config.
fn ordinary(reading: &mut Reading, vocabulary: usize) -> Result<Range<u32>> {
    let mut special = vec![];
    for key in SPECIAL {
        special.extend(reading.ids(key)?);
    }
    if special.is_empty() {
        special.push(0); // padding, in both libraries' defaults
    }
    let told = special.len() >= 3; // padding, and those before and behind a text
    special.extend([vocabulary as u64]);
    special.sort_unstable();
    let (mut longest, mut start) = (0..0, 0);
    for end in special {
        let end = end.min(vocabulary as u64);
        if end.saturating_sub(start) > longest.end - longest.start {
            longest = start..end;
        }
        start = end + 1;
    }
    let fits = |id: u64| {
        u32::try_from(id).map_err(|_| Error::config(format!("a vocabulary of {vocabulary} tokens")))
    };
    let run = fits(longest.start)?..fits(longest.end)?;
    let words = format!("token ids from {} to {} are words", run.start, run.end.saturating_sub(1));
    match told {
        true => reading.saw(words),
        false => reading.assume(format!(
            "{words}, which copies of a text may get; config.json does not tell which of them are special \
             (cls_token_id, sep_token_id, mask_token_id)"
        )),
    }
    Ok(run)
}
