//! A network as a list of nodes, in JSON: each node with its operation, the nodes that it reads, and the names of its
//! tensors. [`compose`] makes the network, [`nodes`] lists the nodes of any network; reading what was listed gives the
//! same network. docs/GRAPH.md is the manual.

mod compose;
mod pool;
mod sizes;
mod write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use compose::compose;
pub use pool::{Pool, Sides};
pub use write::nodes;

use crate::error::{Error, Result};

/// The name of the image, which nodes read and none has.
pub const IMAGE: &str = "image";
/// The name of a text's token ids.
pub const IDS: &str = "ids";
/// The name of a text's mask.
pub const MASK: &str = "mask";

/// A node: one operation on the values of earlier nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its name, which later nodes read it by.
    pub name: String,
    /// The nodes that it reads, all of them earlier.
    pub inputs: Vec<String>,
    /// What it computes.
    #[serde(flatten)]
    pub operation: Operation,
}

/// What a node computes, with its settings and the names of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Filters `[o, c / groups, r, s]` over an image.
    Conv {
        /// The filters.
        weight: String,
        /// `[o]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// The layer's name, where it is not that of the weight without `.weight`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<String>,
        /// Step in both directions.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        stride: usize,
        /// Zeros above and below, and to the left and right.
        #[serde(default, skip_serializing_if = "is_none")]
        padding: [usize; 2],
        /// Further zeros below, and to the right; fewer where negative.
        #[serde(default, skip_serializing_if = "is_none")]
        further: [isize; 2],
        /// Distance between filter taps.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        dilation: usize,
        /// Independent groups of channels.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: usize,
    },
    /// A matrix `[o, c]` at every position.
    Linear {
        /// The matrix.
        weight: String,
        /// `[o]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// The layer's name, where it is not that of the weight without `.weight`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<String>,
        /// Whether the matrix is stored as `[c, o]`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        transposed: bool,
    },
    /// Batch norm, at its running statistics but in training.
    BatchNorm {
        /// Scale.
        weight: String,
        /// Shift.
        bias: String,
        /// Running mean.
        mean: String,
        /// Running variance.
        variance: String,
        /// Added to the variance.
        #[serde(default = "usual_eps")]
        eps: f32,
    },
    /// Layer norm over the channels of each position.
    LayerNorm {
        /// Scale.
        weight: String,
        /// Shift.
        bias: String,
        /// Added to the variance.
        #[serde(default = "usual_eps")]
        eps: f32,
    },
    /// Group norm.
    GroupNorm {
        /// The number of groups.
        groups: usize,
        /// Scale.
        weight: String,
        /// Shift.
        bias: String,
        /// Added to the variance.
        #[serde(default = "usual_eps")]
        eps: f32,
    },
    /// A nonlinearity, by its name.
    Activation {
        /// The name: relu, gelu, silu, hard_swish and so on.
        function: String,
    },
    /// x times a number, and another added.
    Scale {
        /// What x is multiplied by.
        #[serde(default = "one_float")]
        factor: f32,
        /// What is added then.
        #[serde(default)]
        offset: f32,
    },
    /// x times a stored value per channel, and another added; training leaves both as they are.
    Affine {
        /// What x is multiplied by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<String>,
        /// What is added then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shift: Option<String>,
    },
    /// (x − mean) / std per channel.
    Normalise {
        /// Means.
        mean: String,
        /// Standard deviations.
        std: String,
    },
    /// The sum of two inputs.
    Add,
    /// Input 0 times input 1, which has one value per channel.
    Gate,
    /// The channels of all inputs side by side.
    Concat,
    /// An image as one row of features, in the order channels, rows, columns.
    Flatten,
    /// An image as a row of tokens.
    Tokens,
    /// Tokens as an image.
    Image {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// The largest value of each window.
    MaxPool(Pool),
    /// The mean of each window.
    AveragePool(Pool),
    /// The means over the cells of a grid.
    AdaptivePool {
        /// Rows of cells.
        height: usize,
        /// Columns of cells.
        width: usize,
    },
    /// The mean over all positions.
    GlobalPool,
    /// Rows of a table by token ids.
    Embedding {
        /// `[rows, c]`.
        table: String,
    },
    /// Learned tokens before the others.
    ClassToken {
        /// `[1, count, c]`, or one token `[c]`.
        token: String,
    },
    /// A learned table added to the tokens.
    Positions {
        /// `[1, tokens, c]`, or `[rows, c]` with at least as many rows as tokens.
        table: String,
    },
    /// The first row of a table added to every token.
    RowToAll {
        /// `[rows, c]`.
        table: String,
    },
    /// One token as features.
    Token {
        /// Which, from 0 on.
        index: usize,
    },
    /// All tokens from one on.
    TokensFrom {
        /// The first that is kept.
        first: usize,
    },
    /// Softmax attention; the channels of input 0 are queries, keys and values. Input 1, where there is one, is the mask.
    Attention {
        /// The number of heads.
        heads: usize,
    },
    /// Softmax attention within square windows, which are rows of input 0.
    WindowAttention {
        /// `[(2 side - 1)², heads]`, added to scores by how far a query is below and to the right of a key.
        table: String,
        /// Rows of windows, and windows in a row.
        windows: [usize; 2],
        /// How far the image was shifted upwards and to the left.
        #[serde(default, skip_serializing_if = "is_none")]
        shift: [usize; 2],
    },
    /// Positions in another order: bands of `height` rows, each column by column.
    Bands {
        /// Rows and columns of the image that the values are.
        image: [usize; 2],
        /// Rows of a band.
        height: usize,
        /// The row and the column that come first.
        #[serde(default, skip_serializing_if = "is_none")]
        shift: [usize; 2],
        /// Whether the input is in that order, and the result row by row.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
        /// Rows, columns and channels of the result.
        shape: [usize; 3],
    },
    /// Every `stride`-th position, zero channels added in equal parts before and behind.
    Shortcut {
        /// Step in both directions.
        stride: usize,
        /// Channels of the result.
        channels: usize,
    },
}

fn one() -> usize {
    1
}

fn one_float() -> f32 {
    1.0
}

fn usual_eps() -> f32 {
    1e-5
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

fn is_none<T: Default + PartialEq>(padding: &[T; 2]) -> bool {
    *padding == [T::default(), T::default()]
}

/// The name of a layer whose weight has this name.
pub(crate) fn layer_name(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// Reads a list of nodes.
///
/// # Errors
/// Where it is no list, or a node has no name, an operation that is not known, or a setting that its operation does not
/// have; the message names the node.
pub fn parse(nodes: &Value) -> Result<Vec<Node>> {
    let list = nodes.as_array().ok_or_else(|| Error::config("\"nodes\" is no list"))?;
    list.iter().enumerate().map(|(i, node)| one_node(i, node)).collect()
}

fn one_node(i: usize, node: &Value) -> Result<Node> {
    let refuse = |reason: String| Error::config(format!("node {i} of \"nodes\" {reason}"));
    let mut fields = node.as_object().cloned().ok_or_else(|| refuse(format!("is no object: {node}")))?;
    let name = match fields.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err(refuse(format!("has no \"name\": {node}"))),
    };
    let inputs = fields.remove("inputs").unwrap_or_default();
    let inputs = serde_json::from_value(inputs)
        .map_err(|_| refuse(format!("(`{name}`): \"inputs\" is no list of names of nodes")))?;
    let operation =
        serde_json::from_value(Value::Object(fields)).map_err(|e| refuse(format!("(`{name}`): {e}")))?;
    Ok(Node { name, inputs, operation })
}

impl Operation {
    /// The word for it in a graph file.
    pub fn word(&self) -> &'static str {
        match self {
            Operation::Conv { .. } => "conv",
            Operation::Linear { .. } => "linear",
            Operation::BatchNorm { .. } => "batch_norm",
            Operation::LayerNorm { .. } => "layer_norm",
            Operation::GroupNorm { .. } => "group_norm",
            Operation::Activation { .. } => "activation",
            Operation::Scale { .. } => "scale",
            Operation::Affine { .. } => "affine",
            Operation::Normalise { .. } => "normalise",
            Operation::Add => "add",
            Operation::Gate => "gate",
            Operation::Concat => "concat",
            Operation::Flatten => "flatten",
            Operation::Tokens => "tokens",
            Operation::Image { .. } => "image",
            Operation::MaxPool(_) => "max_pool",
            Operation::AveragePool(_) => "average_pool",
            Operation::AdaptivePool { .. } => "adaptive_pool",
            Operation::GlobalPool => "global_pool",
            Operation::Embedding { .. } => "embedding",
            Operation::ClassToken { .. } => "class_token",
            Operation::Positions { .. } => "positions",
            Operation::RowToAll { .. } => "row_to_all",
            Operation::Token { .. } => "token",
            Operation::TokensFrom { .. } => "tokens_from",
            Operation::Attention { .. } => "attention",
            Operation::WindowAttention { .. } => "window_attention",
            Operation::Bands { .. } => "bands",
            Operation::Shortcut { .. } => "shortcut",
        }
    }

    /// The names of its tensors.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Operation::Conv { weight, bias, .. } | Operation::Linear { weight, bias, .. } => {
                [Some(weight), bias.as_ref()].into_iter().flatten().map(String::as_str).collect()
            }
            Operation::BatchNorm { weight, bias, mean, variance, .. } => vec![weight, bias, mean, variance],
            Operation::LayerNorm { weight, bias, .. } | Operation::GroupNorm { weight, bias, .. } => {
                vec![weight, bias]
            }
            Operation::Affine { scale, shift } => {
                [scale, shift].into_iter().flatten().map(String::as_str).collect()
            }
            Operation::Normalise { mean, std } => vec![mean, std],
            Operation::Embedding { table }
            | Operation::Positions { table }
            | Operation::RowToAll { table }
            | Operation::WindowAttention { table, .. } => {
                vec![table]
            }
            Operation::ClassToken { token } => vec![token],
            _ => vec![],
        }
    }

    /// How many nodes it reads: at least, and at most.
    fn arity(&self) -> (usize, usize) {
        match self {
            Operation::Add | Operation::Gate => (2, 2),
            Operation::Concat => (1, usize::MAX),
            Operation::Attention { .. } => (1, 2),
            _ => (1, 1),
        }
    }

    /// Whether it may read a flattened image of several channels, whose values have the order channels, rows, columns in a
    /// file and another one here.
    fn reads_flattened(&self) -> bool {
        matches!(self, Operation::Linear { .. } | Operation::Activation { .. } | Operation::Flatten)
    }
}
