//! How many values the passes of a plan take on a CUDA device.

use crate::net::Network;
use crate::net::instruction::{
    AffineOp, AttentionOp, BatchNormOp, EmbeddingOp, Instruction, Norm, NormOp, Over,
};
use crate::net::plan::{Plan, Purpose};
use crate::ops::Precision;
use crate::ops::cuda::{batch_norm, conv, group_norm, layer_norm};

/// Values at most of an arena, in floats, and of a node in one chunk: kernels number values in 32 bits, and of 16 bits there are
/// two in a float.
const NUMBERS: usize = 1 << 31;

/// Vectors of the block that a solver has at once, in f64: memory for them is found with that of its products.
pub(super) const VECTORS: usize = 12;

/// How many values of each kind a plan takes on the device.
#[derive(Clone, Copy, Default)]
pub(super) struct Sizes {
    /// Parameters, scales and shifts; the rows selected, and a direction and a sum over them.
    pub fixed: usize,
    /// Parameters of the block, where a solver has vectors of them.
    pub block: usize,
    pub kept: usize,
    pub work: usize,
    pub sums: usize,
    pub squares: usize,
    pub images: usize,
    /// Words of label.
    pub labels: usize,
    /// Factors and offsets of a tilted loss, in training.
    pub tilt: [usize; 2],
    pub trace: usize,
    pub parts: usize,
    pub moments: usize,
    /// Of 16 bits.
    pub halves: usize,
    /// Values of the longest node.
    longest: usize,
}

impl Sizes {
    /// Those of `plan` in passes of this precision; `d` the number of units, or 0 where activations are not asked for.
    pub fn new(net: &Network, plan: &Plan, d: usize, precision: Precision) -> Sizes {
        let affine = net.nodes.iter().filter_map(|node| node.op.scale()).map(|a| 2 * a.scale.len());
        let params = net.params.iter().map(|param| param.value.len());
        let count = |layer: usize| plan.rows[layer].count(net.layers[layer].outputs);
        let selected = net.layers.iter().enumerate().map(|(l, layer)| count(l) * (2 * layer.unit_len() + 1));
        let block = match plan.purpose.has_products() {
            true => net.layers.iter().enumerate().map(|(l, layer)| count(l) * layer.unit_len()).sum(),
            false => 0,
        };
        let mut sizes = Sizes {
            fixed: params.chain(affine).chain(selected).sum(),
            block,
            kept: plan.chunk * plan.program.kept,
            work: plan.chunk * plan.program.work,
            images: plan.chunk,
            labels: plan.chunk * plan.label_width,
            tilt: match plan.purpose {
                Purpose::Train | Purpose::Gradient => [plan.chunk, plan.chunk * net.classes()],
                _ => [0; 2],
            },
            trace: plan.chunk * d,
            longest: plan.chunk * net.nodes.iter().map(|node| node.shape.len()).max().unwrap_or(0),
            ..Sizes::default()
        };
        let mut widest = 0;
        for step in plan.program.steps() {
            widest = widest.max(sizes.scratch(net, plan, &step.instruction, d > 0));
            if let Instruction::Affine(AffineOp::Forward(op)) = &step.instruction {
                let x = plan.program.element(op.x);
                let scratch = conv::scratch(plan.chunk, &op.at.geometry, precision, x);
                sizes.halves = sizes.halves.max(scratch);
            }
        }
        sizes.moments += widest;
        sizes
    }

    /// Adds what an instruction needs beside its operands; returns how many sums of a batch norm it takes.
    fn scratch(&mut self, net: &Network, plan: &Plan, instruction: &Instruction, traced: bool) -> usize {
        let n = plan.chunk;
        match instruction {
            Instruction::Affine(op) => match op {
                AffineOp::Forward(op) if traced => {
                    self.parts = self.parts.max(conv::parts(n, &op.at.geometry));
                }
                AffineOp::WeightGradient { at, .. } => {
                    let layer = at.layer.index();
                    let rows = plan.rows[layer].count(net.layers[layer].outputs);
                    self.sums = self.sums.max(conv::gradient_parts(n, rows, &at.geometry));
                }
                AffineOp::Forward(_) | AffineOp::Apply { .. } | AffineOp::DataGradient { .. } => {}
            },
            Instruction::Norm(op) => match op {
                NormOp::ParameterGradient { at, .. } => self.sums = self.sums.max(gradient_parts(*at, n)),
                NormOp::Forward { .. }
                | NormOp::Tangent { .. }
                | NormOp::Backward { .. }
                | NormOp::TangentBackward { .. } => {}
            },
            Instruction::Embedding(op) => match *op {
                EmbeddingOp::Gradient { tokens, .. } => self.sums = self.sums.max(n * tokens.len),
                EmbeddingOp::Forward { .. } => {}
            },
            Instruction::BatchNorm(op) => match *op {
                BatchNormOp::Forward { x, c, .. } => {
                    self.parts = self.parts.max(batch_norm::parts(n * (x.len / c), c));
                    self.moments += 2 * c;
                }
                BatchNormOp::Again { .. } => {}
                BatchNormOp::Backward { c, .. } => return 2 * c,
            },
            Instruction::Attention(op) => match op {
                AttentionOp::Backward { at, .. } => self.squares = self.squares.max(n * at.weights()),
                AttentionOp::TangentBackward { at, .. } => {
                    self.squares = self.squares.max(3 * n * at.weights());
                }
                AttentionOp::Forward { .. } | AttentionOp::Tangent { .. } => {}
            },
            Instruction::Activation(_)
            | Instruction::Pointwise(_)
            | Instruction::Rows(_)
            | Instruction::Bands(_)
            | Instruction::Gate(_)
            | Instruction::Pool(_)
            | Instruction::Shortcut(_)
            | Instruction::Loss(_) => {}
        }
        0
    }

    pub fn bytes(&self) -> usize {
        let [factors, offsets] = self.tilt;
        let scratch = self.sums + self.squares + self.images + self.labels + factors + offsets + self.trace;
        let wide = self.parts + self.moments + VECTORS * self.block;
        4 * (1 + self.fixed + self.kept + self.work + scratch) + 8 * wide + 2 * self.halves // 1 is the zero
    }

    /// Whether kernels can number the values of every memory.
    pub fn numbered(&self) -> bool {
        self.kept.max(self.work).max(self.longest) <= NUMBERS
    }
}

/// Sums of the parameter gradient of a norm over `n` images.
pub(super) fn gradient_parts(at: Norm, n: usize) -> usize {
    match at.over {
        Over::Channels => layer_norm::gradient_parts(n * at.shape.positions(), at.shape.c),
        Over::Groups(_) => group_norm::gradient_parts(n, at.shape),
    }
}
