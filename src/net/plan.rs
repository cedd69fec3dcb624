//! The plan of a pass: which nodes take part, where each one's values stand, how many images go at once, how many
//! bytes that needs, and the list of launches. Made once from a network, a block and a purpose; run many times.
//!
//! The block restriction is structural. A node *carries* where a selected layer stands at or above it: only such
//! nodes have tangents and adjoints. What every later pass reads of the primal (values of carrying nodes, inputs of
//! selected layers) is *kept*: it fills the front of the arena, so that a chunk's kept part can be stored between the
//! products of a solver. All else shares the rest of the arena by liveness.

use std::ops::Range;

use super::{Activation, Network, NodeId, Op};

/// Which rows of a layer have a tangent and a gradient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// None: the layer is fixed.
    #[default]
    None,
    /// All of them.
    All,
    /// These, ascending.
    Some(Vec<u32>),
}

impl Rows {
    /// How many of a layer's `outputs` rows these are.
    pub fn count(&self, outputs: usize) -> usize {
        match self {
            Rows::None => 0,
            Rows::All => outputs,
            Rows::Some(rows) => rows.len(),
        }
    }

    /// The rows as an operation takes them: `None` means all.
    pub(super) fn subset(&self) -> Option<&[u32]> {
        match self {
            Rows::Some(rows) => Some(rows),
            _ => None,
        }
    }
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The forward pass alone.
    Forward,
    /// Forward and backward: the gradient on the selected rows.
    Gradient,
    /// Forward and backward in train form: the gradient of every parameter.
    Train,
    /// Tangent forward and plain backward on a kept primal (Gauss–Newton, Fisher).
    Linearised,
    /// Tangent forward and tangent backward on a kept primal with its adjoints (the exact Hessian).
    Hessian,
}

/// One launch of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The node's value.
    Forward(NodeId),
    /// The loss and its derivative at the logits.
    Loss,
    /// The adjoint of the node's inputs, and the gradient of its rows.
    Backward(NodeId),
    /// The node's derivative along v.
    Tangent(NodeId),
    /// The derivative along v of the loss's derivative (or its Gauss–Newton or Fisher form).
    LossTangent,
    /// The derivative along v of [`Step::Backward`].
    TangentBackward(NodeId),
}

/// The least work a chunk should hold, in floats of its largest node (4 MiB: late layers have few pixels an
/// image, and their products want many rows).
const CHUNK_FLOATS: usize = 1 << 20;

/// Sums over chunks run in a fixed number of lanes, whatever the number of threads, so that results do not depend on
/// it: in as many as keep their gradients within 128 MiB, from 4 to 16.
const LANES: usize = 16;
const LANE_FLOATS: usize = 1 << 25;

/// See the file's opening.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Images per chunk.
    pub chunk: usize,
    /// Lanes that sum over chunks.
    pub lanes: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// The selected rows of each layer.
    pub rows: Vec<Rows>,
    /// Whether a selected layer stands at or above each node.
    pub carries: Vec<bool>,
    /// The last node that reads each node (itself where none does).
    pub(super) last: Vec<usize>,
    pub(crate) y: Layout,
    pub(crate) t: Layout,
    pub(crate) g: Layout,
    pub(crate) h: Layout,
    /// Floats of the largest layer output of a chunk.
    pub(super) scratch: usize,
}

/// Where the values of each node stand in one arena, for a whole chunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Layout {
    place: Vec<Place>,
    chunk: usize,
    /// Floats that later passes read: the front of the arena.
    pub kept: usize,
    /// Floats of the whole arena.
    pub len: usize,
}

/// `value` floats an image from `start`, then `saved` floats an image for the backward passes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    start: usize,
    value: usize,
    saved: usize,
}

impl Layout {
    /// Everything of a node, for a full chunk.
    pub fn whole(&self, node: usize) -> Range<usize> {
        let place = self.place[node];
        place.start..place.start + self.chunk * (place.value + place.saved)
    }

    /// The values of `n` images.
    pub fn value(&self, node: usize, n: usize) -> Range<usize> {
        let place = self.place[node];
        place.start..place.start + n * place.value
    }

    /// What `n` images saved for the backward passes.
    pub fn saved(&self, node: usize, n: usize) -> Range<usize> {
        let place = self.place[node];
        let start = place.start + self.chunk * place.value;
        start..start + n * place.saved
    }

    /// Splits [`Layout::whole`] into the values and the saved part of `n` images.
    pub fn split<'a>(&self, whole: &'a mut [f32], node: usize, n: usize) -> (&'a mut [f32], &'a mut [f32]) {
        let place = self.place[node];
        let (value, saved) = whole.split_at_mut(self.chunk * place.value);
        (&mut value[..n * place.value], &mut saved[..n * place.saved])
    }

    /// Places `sizes` (floats per image: value, saved; a node of size 0 has no place): kept ones one behind the other,
    /// the others at the lowest offset that is free over their life `from..=to`.
    fn pack(chunk: usize, sizes: &[(usize, usize)], life: impl Fn(usize) -> Life) -> Layout {
        let mut layout = Layout { place: vec![Place::default(); sizes.len()], chunk, kept: 0, len: 0 };
        for (node, &(value, saved)) in sizes.iter().enumerate() {
            layout.place[node] = Place { start: 0, value, saved };
            if life(node) == Life::Kept {
                layout.place[node].start = layout.kept;
                layout.kept += chunk * (value + saved);
            }
        }
        layout.len = layout.kept;
        let mut placed: Vec<(Range<usize>, usize, usize)> = vec![]; // offsets, from, to
        for (node, &(value, saved)) in sizes.iter().enumerate() {
            let Life::Span(from, to) = life(node) else { continue };
            let need = chunk * (value + saved);
            let mut taken: Vec<&Range<usize>> = placed
                .iter()
                .filter(|(_, f, t)| *f <= to && from <= *t)
                .map(|(offsets, ..)| offsets)
                .collect();
            taken.sort_by_key(|offsets| offsets.start);
            let mut start = layout.kept;
            for offsets in taken {
                if offsets.start >= start + need {
                    break;
                }
                start = start.max(offsets.end);
            }
            layout.place[node].start = start;
            layout.len = layout.len.max(start + need);
            placed.push((start..start + need, from, to));
        }
        layout
    }
}

/// How long a value is needed.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// Not made at all.
    Never,
    /// From one step to another, both included.
    Span(usize, usize),
    /// By later passes too.
    Kept,
}

impl Plan {
    /// The plan of a pass over `inputs` images with these rows selected (one entry per layer).
    pub fn new(net: &Network, rows: Vec<Rows>, purpose: Purpose, inputs: usize) -> Plan {
        let largest = net.nodes.iter().map(|node| node.shape.len()).max().unwrap_or(1);
        let selected =
            net.layers.iter().zip(&rows).map(|(layer, rows)| rows.count(layer.outputs) * layer.unit_len());
        let lanes = (LANE_FLOATS / selected.sum::<usize>().max(1)).clamp(4, LANES);
        let chunk = (CHUNK_FLOATS / largest).clamp(1, 64).min(inputs.div_ceil(lanes).max(1));
        Plan::in_chunks(net, rows, purpose, chunk, lanes)
    }

    /// The plan of a pass over chunks of so many images, summed in so many lanes.
    fn in_chunks(net: &Network, rows: Vec<Rows>, purpose: Purpose, chunk: usize, lanes: usize) -> Plan {
        let nodes = &net.nodes;
        let selected = |node: usize| match nodes[node].op.layer() {
            Some(layer) => rows[layer.index()] != Rows::None,
            None => purpose == Purpose::Train && has_parameters(&nodes[node].op),
        };
        let mut carries = vec![false; nodes.len()];
        let mut last: Vec<usize> = (0..nodes.len()).collect();
        let mut kept = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                last[input.index()] = i;
            }
            carries[i] = selected(i) || node.inputs.iter().any(|input| carries[input.index()]);
            kept[i] = carries[i] && purpose != Purpose::Forward;
            if selected(i) && purpose != Purpose::Forward {
                kept[node.inputs[0].index()] = true;
            }
        }
        let end = nodes.len() - 1;
        let hessian = purpose == Purpose::Hessian;
        let saved = |i: usize| if purpose == Purpose::Forward { transient(net, i) } else { saved(net, i) };

        let sizes: Vec<_> = (0..=end).map(|i| (nodes[i].shape.len(), saved(i))).collect();
        let y = Layout::pack(chunk, &sizes, |i| match kept[i] {
            true => Life::Kept,
            false => Life::Span(i, if i == end { end } else { last[i] }),
        });
        let tangent: Vec<_> =
            (0..=end).map(|i| (nodes[i].shape.len(), if hessian { curved(net, i) } else { 0 })).collect();
        let tangents = matches!(purpose, Purpose::Linearised | Purpose::Hessian);
        let t = Layout::pack(chunk, &tangent, |i| match (tangents && carries[i], hessian) {
            (false, _) => Life::Never,
            (true, true) => Life::Kept,
            (true, false) => Life::Span(i, last[i]),
        });
        let adjoint: Vec<_> = nodes.iter().map(|node| (node.shape.len(), 0)).collect();
        let g =
            Layout::pack(chunk, &adjoint, |i| if hessian && carries[i] { Life::Kept } else { Life::Never });
        let h = Layout::pack(chunk, &adjoint, |i| match carries[i] && purpose != Purpose::Forward {
            true => Life::Span(end - last[i], end - i),
            false => Life::Never,
        });
        let scratch =
            nodes.iter().filter(|node| node.op.layer().is_some()).map(|node| node.shape.len()).max();
        Plan { chunk, lanes, purpose, rows, carries, last, y, t, g, h, scratch: chunk * scratch.unwrap_or(0) }
    }

    /// The forward pass of a network.
    pub fn forward(net: &Network, inputs: usize) -> Plan {
        Plan::new(net, vec![Rows::None; net.layers.len()], Purpose::Forward, inputs)
    }

    /// The plan of a pass on a CUDA device: one lane of chunks of so many images.
    pub(super) fn on_cuda(net: &Network, rows: Vec<Rows>, purpose: Purpose, chunk: usize) -> Plan {
        Plan::in_chunks(net, rows, purpose, chunk, 1)
    }

    /// Bytes that one worker needs.
    pub fn bytes(&self) -> usize {
        4 * (self.y.len + self.t.len + self.g.len + self.h.len + 2 * self.scratch)
    }

    /// Bytes per chunk that a solver keeps between its products.
    pub fn kept_bytes(&self) -> usize {
        4 * (self.y.kept + self.g.kept)
    }

    /// The launches of one chunk, in order. The primal part comes first; a solver repeats what follows it.
    pub fn steps(&self) -> Vec<Step> {
        let nodes = (0..self.carries.len() as u32).map(NodeId);
        let carrying = nodes.clone().filter(|node| self.carries[node.index()]);
        let mut steps: Vec<Step> = nodes.skip(1).map(Step::Forward).collect();
        if self.purpose != Purpose::Linearised && self.purpose != Purpose::Forward {
            steps.push(Step::Loss);
            steps.extend(carrying.clone().rev().map(Step::Backward));
        }
        match self.purpose {
            Purpose::Linearised => {
                steps.extend(carrying.clone().map(Step::Tangent));
                steps.push(Step::LossTangent);
                steps.extend(carrying.rev().map(Step::Backward));
            }
            Purpose::Hessian => {
                steps.extend(carrying.clone().map(Step::Tangent));
                steps.push(Step::LossTangent);
                steps.extend(carrying.rev().map(Step::TangentBackward));
            }
            _ => {}
        }
        steps
    }
}

/// Whether an operation without units has parameters, which only training changes.
fn has_parameters(op: &Op) -> bool {
    matches!(op, Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::ClassToken(_) | Op::Positions(_))
}

/// Whether the derivative of an activation is read off its argument, not its value.
pub(super) fn needs_argument(activation: Option<Activation>) -> bool {
    activation.is_some_and(|a| a != Activation::Relu)
}

/// Floats per image that a node saves for the backward passes: an epilogue's argument, the winners of a max pool,
/// mean and reciprocal deviation of a layer norm, the weights of an attention.
fn saved(net: &Network, node: usize) -> usize {
    let at = &net.nodes[node];
    match &at.op {
        Op::Linear(_, epilogue) | Op::Conv(_, _, epilogue) if needs_argument(epilogue.activation) => {
            at.shape.len()
        }
        _ => transient(net, node),
    }
}

/// The part of [`saved`] that the forward pass itself needs room for.
fn transient(net: &Network, node: usize) -> usize {
    let at = &net.nodes[node];
    match &at.op {
        Op::MaxPool(_) => at.shape.len(),
        Op::LayerNorm { .. } => 2 * at.shape.positions(),
        Op::Attention { heads } => heads * at.shape.positions() * at.shape.positions(),
        _ => 0,
    }
}

/// Floats per image that a node's tangent saves for the tangent backward pass: the tangent of an epilogue's argument.
fn curved(net: &Network, node: usize) -> usize {
    let at = &net.nodes[node];
    match at.op.epilogue() {
        Some(epilogue) if needs_argument(epilogue.activation) => at.shape.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_alive_together_do_not_overlap_and_the_arena_is_reused() {
        let sizes = [(10, 0), (20, 5), (10, 0), (10, 0), (5, 5)];
        let life = [Life::Span(0, 2), Life::Kept, Life::Span(2, 3), Life::Span(3, 4), Life::Never];
        let layout = Layout::pack(2, &sizes, |i| life[i]);
        let span = |i: usize| match life[i] {
            Life::Span(from, to) => Some((from, to)),
            Life::Kept => Some((0, usize::MAX)),
            Life::Never => None,
        };
        for a in 0..5 {
            for b in a + 1..5 {
                let (Some((fa, ta)), Some((fb, tb))) = (span(a), span(b)) else { continue };
                let (wa, wb) = (layout.whole(a), layout.whole(b));
                assert!(ta < fb || tb < fa || wa.end <= wb.start || wb.end <= wa.start, "{a} {b}");
            }
        }
        assert_eq!(layout.kept, 50);
        assert_eq!(layout.len, 2 * (25 + 10 + 10)); // the fourth stands where the first was
    }
}
