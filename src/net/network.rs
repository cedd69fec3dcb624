//! A network's graph: nodes over layers, and the parameters that these own.

use std::ops::Range;
use std::sync::Arc;

use super::ids::{LayerId, NodeId, ParamId};
use super::order::Order;
use super::units::Units;
use crate::device::Shared;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::ops::cpu::embedding;
use crate::ops::perturb::{Copies, Original};
use crate::ops::{Activation, Bands, Conv, InputKind, Shape, Window, Windows};

/// What a tensor is for: what an initialisation goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight matrix or filter bank, whose rows have this length.
    Weight(usize),
    /// A bias of rows of this length.
    Bias(usize),
    /// A norm's scale, or a running variance: ones.
    One,
    /// A norm's shift, or a running mean: zeros.
    Zero,
    /// A class token or position table.
    Embedding,
}

/// A parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// How the file's order maps to `value`'s.
    pub order: Order,
    /// The values, in the order kept here.
    pub value: Shared,
    /// Whether training changes it by gradient (batch norm's running statistics are not).
    pub trained: bool,
    /// What a new one begins as.
    pub role: Role,
}

/// A layer with units: linear or convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its module name in PyTorch's listing.
    pub name: String,
    /// `[o, fan_in]`.
    pub weight: ParamId,
    /// `[o]`.
    pub bias: Option<ParamId>,
    /// `o`, the number of units.
    pub outputs: usize,
    /// The length of a weight row.
    pub fan_in: usize,
}

impl Layer {
    /// Parameters of one unit: its weight row and its bias.
    pub fn unit_len(&self) -> usize {
        self.fan_in + usize::from(self.bias.is_some())
    }
}

/// What a layer's node does to the layer's own output, in this order: y = act(scale · z + shift + residual).
/// The unit's activation (MATH.md, Eq. 6) is z, before any of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// Frozen batch norm: one scale and one shift per channel.
    pub affine: Option<Affine>,
    /// Whether the node's second input is added.
    pub residual: bool,
    /// The nonlinearity at the end.
    pub activation: Option<Activation>,
}

/// A frozen map per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// `[c]`.
    pub scale: Shared,
    /// `[c]`.
    pub shift: Shared,
}

/// Where the values of a node that scales and shifts are from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScaledBy {
    /// A frozen batch norm that follows no layer.
    Norm,
    /// Two numbers, the same for all channels.
    Numbers {
        /// What x is multiplied by.
        factor: f32,
        /// What is added then.
        offset: f32,
    },
    /// Buffers of the model: (x − mean) / std.
    Normalise {
        /// Means.
        mean: ParamId,
        /// Standard deviations.
        std: ParamId,
    },
    /// Stored values.
    Stored {
        /// What x is multiplied by, where not by 1.
        scale: Option<ParamId>,
        /// What is added then.
        shift: Option<ParamId>,
    },
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The image; or a text, `[2, t, 1]`: token ids, then their mask, 1 where a token is attended, integers as the bits of
    /// floats.
    Input,
    /// y = W x + b at every position, then the epilogue.
    Linear(LayerId, Epilogue),
    /// The filters of a layer over the image, then the epilogue.
    Conv(LayerId, Conv, Epilogue),
    /// Batch norm in train form: statistics over batch and positions, running statistics updated.
    BatchNorm {
        /// Scale.
        gamma: ParamId,
        /// Shift.
        beta: ParamId,
        /// Running mean.
        mean: ParamId,
        /// Running variance.
        var: ParamId,
        /// Added to the variance.
        eps: f32,
    },
    /// scale · x + shift per channel, which nothing trains.
    Scale(Affine, ScaledBy),
    /// Layer norm over the channels of each position.
    LayerNorm {
        /// Scale.
        gamma: ParamId,
        /// Shift.
        beta: ParamId,
        /// Added to the variance.
        eps: f32,
    },
    /// Group norm: over all positions and the channels of a group.
    GroupNorm {
        /// The number of groups, of equally many neighbouring channels.
        groups: usize,
        /// Scale.
        gamma: ParamId,
        /// Shift.
        beta: ParamId,
        /// Added to the variance.
        eps: f32,
    },
    /// A nonlinearity of its own.
    Activation(Activation),
    /// The sum of two inputs.
    Add,
    /// The product of a map, input 0, with one value per channel, input 1.
    Gate,
    /// The same values under another shape: an image as tokens or as features.
    Reshape,
    /// Largest value of each window; ties go to the first in row-major order.
    MaxPool(Window),
    /// Mean of each window.
    AveragePool(Window),
    /// Mean over the cells of an `h × w` grid laid over the image, PyTorch's adaptive rule.
    AdaptivePool,
    /// Mean over all positions.
    GlobalPool,
    /// The rows of a table that the token ids, the input, name.
    Embedding {
        /// The table.
        table: ParamId,
        /// How many rows it has.
        rows: usize,
    },
    /// Learned tokens put before the others, as many as the node has more than its input.
    ClassToken(ParamId),
    /// The first rows of a learned table added to the tokens.
    Positions(ParamId),
    /// The first row of a learned table added to every token.
    RowToAll(ParamId),
    /// Tokens from this one on, as many as the node's shape has.
    Tokens(usize),
    /// The channels of all inputs, one input after the other, at every position.
    Concat,
    /// Multi-head softmax attention; the channels of input 0 are q, k, v, each `heads` × width.
    Attention {
        /// The number of heads.
        heads: usize,
        /// Whether input 1 is the mask of a text: keys where it is 0 get no weight.
        masked: bool,
        /// Windows that are attended to alone, rows of the node's shape, and the table of relative positions that is added to
        /// their scores.
        windows: Option<(ParamId, Windows)>,
    },
    /// The positions of an image in another order: the input's values as an image of the size in `bands`.
    Bands {
        /// The order.
        bands: Bands,
        /// Whether the input is in that order, and the result row by row.
        back: bool,
    },
    /// The parameter-free shortcut of He et al. (option A): every `stride`-th position, zero channels added in equal
    /// parts before and behind.
    Shortcut {
        /// Step in both directions.
        stride: usize,
    },
}

impl Op {
    /// The layer that this node uses.
    pub fn layer(&self) -> Option<LayerId> {
        match self {
            Op::Linear(layer, _) | Op::Conv(layer, ..) => Some(*layer),
            _ => None,
        }
    }

    /// The frozen scale and shift, of a node that has them.
    pub(crate) fn scale(&self) -> Option<&Affine> {
        match self {
            Op::Scale(affine, _) => Some(affine),
            _ => self.epilogue().and_then(|epilogue| epilogue.affine.as_ref()),
        }
    }

    /// The epilogue, of a layer's node.
    pub fn epilogue(&self) -> Option<&Epilogue> {
        match self {
            Op::Linear(_, epilogue) | Op::Conv(_, _, epilogue) => Some(epilogue),
            _ => None,
        }
    }
}

/// One operation of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// What it reads; a layer's residual is its second input.
    pub inputs: Vec<NodeId>,
    /// What it gives per image.
    pub shape: Shape,
}

/// A classifier: images or texts in, one logit per class or label out.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// In execution order; the last one gives the logits.
    pub nodes: Vec<Node>,
    /// In module order.
    pub layers: Vec<Layer>,
    /// Every tensor that the network read.
    pub params: Vec<Param>,
    /// The loss at the logits.
    pub loss: Loss,
    /// Of a network of texts, the token ids that stand for words: those that a perturbed text may get. Empty for images.
    pub ordinary: Range<u32>,
    pub(super) units: Units,
    /// Of a frozen network: the nodes of its train form.
    pub(super) trained_as: Option<Arc<[Node]>>,
}

impl Network {
    /// The shape that an input has in memory.
    pub fn input(&self) -> Shape {
        self.nodes[0].shape
    }

    /// The number of logits: one per class, or one per label.
    pub fn classes(&self) -> usize {
        self.nodes[self.nodes.len() - 1].shape.c
    }

    /// Words of label that a sample has: see [`Loss::label_width`].
    pub fn label_width(&self) -> usize {
        self.loss.label_width(self.classes())
    }

    /// Which activation column owns which parameters.
    pub fn units(&self) -> &Units {
        &self.units
    }

    /// Whether batch norm is folded, so that tangent passes exist.
    pub fn is_frozen(&self) -> bool {
        self.trained_as.is_some()
    }

    /// What it reads.
    pub fn kind(&self) -> InputKind {
        match self.vocabulary() {
            Some(_) => InputKind::Text { tokens: self.input().w },
            None => InputKind::Image(self.input()),
        }
    }

    /// How many token ids a network of texts knows; none for one of images.
    pub fn vocabulary(&self) -> Option<usize> {
        let rows = self.nodes.iter().filter_map(|node| match node.op {
            Op::Embedding { rows, .. } => Some(rows),
            _ => None,
        });
        rows.min()
    }

    /// Refuses texts with a token id beyond the vocabulary, where the network reads texts; `x` holds the inputs from
    /// number `first` on.
    ///
    /// # Errors
    /// Where there is such an id; the message names the sample.
    pub(crate) fn check_tokens(&self, x: &[f32], first: usize) -> Result<()> {
        let Some(rows) = self.vocabulary() else { return Ok(()) };
        for (i, text) in x.chunks_exact(self.input().len()).enumerate() {
            let ids = &text[..self.input().w];
            let checked = embedding::check(bytemuck::cast_slice(ids), rows);
            checked.map_err(|error| Error::config(format!("sample {}: {error}", first + i)))?;
        }
        Ok(())
    }

    /// Refuses perturbed copies of a text in which a token id could be beyond the vocabulary.
    ///
    /// # Errors
    /// Where there is such an id.
    pub(crate) fn check_copies(&self, copies: &Copies<'_>) -> Result<()> {
        let (Some(rows), Original::Text { tokens, replacement, .. }) = (self.vocabulary(), &copies.original)
        else {
            return Ok(());
        };
        embedding::check(tokens.ids, rows)?;
        match replacement.ordinary.end as usize <= rows {
            true => Ok(()),
            false => {
                let found = format!("{:?}", replacement.ordinary);
                Err(Error::shape("replaced tokens", format!("ids below {rows}"), found))
            }
        }
    }

    /// All parameters, running statistics included.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(|p| p.value.len()).sum()
    }

    /// A layer.
    pub fn layer(&self, layer: LayerId) -> &Layer {
        &self.layers[layer.index()]
    }

    /// A parameter's values.
    pub fn value(&self, param: ParamId) -> &[f32] {
        &self.params[param.index()].value
    }

    /// The weight rows of a layer, `[o, fan_in]`.
    pub fn weight(&self, layer: LayerId) -> &[f32] {
        self.value(self.layer(layer).weight)
    }

    /// The biases of a layer, `[o]`.
    pub fn bias(&self, layer: LayerId) -> Option<&[f32]> {
        self.layer(layer).bias.map(|bias| self.value(bias))
    }

    /// The weights `[fan_in]` and the bias of one unit: row `row` of a layer.
    pub fn unit_row(&self, layer: LayerId, row: usize) -> (&[f32], Option<f32>) {
        let fan_in = self.layer(layer).fan_in;
        (&self.weight(layer)[row * fan_in..(row + 1) * fan_in], self.bias(layer).map(|bias| bias[row]))
    }

    /// [`Network::unit_row`], to be changed.
    pub fn unit_row_mut(&mut self, layer: LayerId, row: usize) -> (&mut [f32], Option<&mut f32>) {
        let Layer { weight, bias, fan_in, .. } = self.layers[layer.index()];
        let weights = row * fan_in..(row + 1) * fan_in;
        let Some(bias) = bias else {
            return (&mut self.params[weight.index()].value[weights], None);
        };
        match self.params.get_disjoint_mut([weight.index(), bias.index()]) {
            Ok([weight, bias]) => (&mut weight.value[weights], Some(&mut bias.value[row])),
            Err(_) => unreachable!("the weight and the bias of a layer are two parameters"),
        }
    }

    /// The layer of that module name.
    ///
    /// # Errors
    /// Where there is none; the message lists the names there are.
    pub fn layer_named(&self, name: &str) -> Result<LayerId> {
        let found = self.layers.iter().position(|layer| layer.name == name);
        found.map(|i| LayerId(i as u32)).ok_or_else(|| {
            let names: Vec<&str> = self.layers.iter().map(|layer| layer.name.as_str()).collect();
            Error::config(format!("no layer `{name}` in the model; it has {}", names.join(", ")))
        })
    }
}
