//! The plan of a pass: its program, how many images go at once, and how many bytes that needs. Made once from a
//! network, a block and a purpose; run many times.

use super::Network;
use super::program::Program;
pub use super::program::Purpose;
use super::rows::Selected;
use crate::device::memory;
use crate::error::Result;
use crate::ops::Precision;

/// The least work a chunk should hold, in floats of its largest node (4 MiB: late layers have few pixels an
/// image, and their products want many rows).
const CHUNK_FLOATS: usize = 1 << 20;

/// Sums over chunks run in a fixed number of lanes, whatever the number of threads, so that results do not depend on
/// it: in as many as keep their gradients within 128 MiB, from 4 to 16.
pub const LANES: usize = 16;
const LANE_FLOATS: usize = 1 << 25;

/// Chunks of training that take no more bytes together than this all run at a time.
const AT_ONCE: usize = 1 << 30;

/// See the file's opening.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Images per chunk.
    pub chunk: usize,
    /// Lanes that sum over chunks.
    pub lanes: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// Words of label per sample.
    pub label_width: usize,
    /// The selected rows of each layer.
    pub rows: Vec<Selected>,
    pub(super) program: Program,
}

/// How the chunks of a mini-batch of training lie in the CPU's memory. Without a batch norm, all that take no more than 1 GiB
/// together run at a time, and of larger ones as many as there are threads, or as half of the memory that is left holds. A batch
/// norm reads the whole batch, so that the values of all chunks are there. Where these and a gradient for each take more than
/// 1 GiB, only as many as there are threads have a gradient; and where half of the memory that is left does not hold them, the
/// backward pass computes some of the values again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Chunks whose values are there at a time.
    pub chunks: usize,
    /// Chunks that have a gradient of every parameter.
    pub gradients: usize,
    /// Whether values are computed again.
    pub again: bool,
}

impl Room {
    fn bytes(&self, plan: &Plan, gradient: usize) -> usize {
        self.chunks * plan.bytes() + self.gradients * gradient
    }
}

impl Plan {
    /// The plan of a pass over `inputs` images with these rows selected (one entry per layer).
    ///
    /// # Errors
    /// Where the network is in train form and the purpose is another than training.
    pub fn new(net: &Network, rows: Vec<Selected>, purpose: Purpose, inputs: usize) -> Result<Plan> {
        Plan::of(net, rows, purpose, inputs, Precision::F32)
    }

    fn of(
        net: &Network,
        rows: Vec<Selected>,
        purpose: Purpose,
        inputs: usize,
        precision: Precision,
    ) -> Result<Plan> {
        let largest = net.nodes.iter().map(|node| node.shape.len()).max().unwrap_or(1);
        let selected =
            net.layers.iter().zip(&rows).map(|(layer, rows)| rows.count(layer.outputs) * layer.unit_len());
        let lanes = (LANE_FLOATS / selected.sum::<usize>().max(1)).clamp(4, LANES);
        let chunk = (CHUNK_FLOATS / largest).clamp(1, 64).min(inputs.div_ceil(lanes).max(1));
        let program = Program::new(net, &rows, purpose, precision)?;
        Ok(Plan { chunk, lanes, purpose, label_width: net.label_width(), rows, program })
    }

    /// The forward pass of a network.
    ///
    /// # Errors
    /// Where the network is in train form.
    pub fn forward(net: &Network, inputs: usize) -> Result<Plan> {
        Plan::new(net, vec![Selected::None; net.layers.len()], Purpose::Forward, inputs)
    }

    /// Training on the CPU, in batches of at most this many samples.
    ///
    /// # Errors
    /// Where the network is frozen.
    pub fn training(net: &Network, batch: usize) -> Result<Plan> {
        Plan::new(net, vec![Selected::All; net.layers.len()], Purpose::Train, batch)
    }

    /// [`Plan::training`] as far as the machine has memory, by `threads` threads on one of `ranks` ranks; and how the chunks of a
    /// batch lie in it. No bit depends on it.
    ///
    /// # Errors
    /// Where the network is frozen.
    pub fn training_in(net: &Network, batch: usize, threads: usize, ranks: usize) -> Result<(Plan, Room)> {
        Plan::training_by(net, batch, threads, ranks, memory::free().map(|free| free.bytes))
    }

    /// The same with this much memory left.
    pub(super) fn training_by(
        net: &Network,
        batch: usize,
        threads: usize,
        ranks: usize,
        free: Option<usize>,
    ) -> Result<(Plan, Room)> {
        let plan = Plan::training(net, batch)?;
        let (all, gradient) = (batch.div_ceil(plan.chunk), 4 * net.parameters());
        if !plan.program.has_batch_norm() {
            let at_once = side_by_side(all, plan.bytes() + gradient, threads, free);
            return Ok((plan, Room { chunks: at_once, gradients: at_once, again: false }));
        }
        let chunks = all.div_ceil(ranks);
        // Several ranks exchange the gradients of every chunk.
        let few = ranks == 1 && chunks.saturating_mul(plan.bytes() + gradient) > AT_ONCE;
        let gradients = if few { chunks.min(threads) } else { chunks };
        let room = Room { chunks, gradients, again: false };
        if free.is_none_or(|free| room.bytes(&plan, gradient) <= (free / 2).max(AT_ONCE)) {
            return Ok((plan, room));
        }
        let less = plan.clone().less();
        let again = less != plan;
        Ok((less, Room { again, ..room }))
    }

    /// The same in less memory, where that is possible: the backward pass computes some values again.
    pub(super) fn less(self) -> Plan {
        let program = self.program.again().unwrap_or(self.program);
        Plan { program, ..self }
    }

    /// Bytes of training on the CPU in batches of at most this many samples, beside the network: the chunks that run at a time, the
    /// gradient of their sum, and what the optimizer remembers, `remembered` numbers for each parameter. And whether some
    /// values are computed again.
    ///
    /// # Errors
    /// Where the network is frozen.
    pub fn training_bytes(
        net: &Network,
        batch: usize,
        (threads, ranks): (usize, usize),
        remembered: usize,
    ) -> Result<(usize, bool)> {
        let (plan, room) = Plan::training_in(net, batch, threads, ranks)?;
        let gradient = 4 * net.parameters();
        Ok((room.bytes(&plan, gradient) + (1 + remembered) * gradient, room.again))
    }

    /// The same in another precision, which a CUDA device has.
    ///
    /// # Errors
    /// Where the network is in train form.
    pub fn perturbation(net: &Network, inputs: usize, precision: Precision) -> Result<Plan> {
        Plan::of(net, vec![Selected::None; net.layers.len()], Purpose::Forward, inputs, precision)
    }

    /// The plan of a pass on a CUDA device in chunks of this many images. Its sums run in the lanes of [`super::lanes::cuda_lanes`].
    pub(super) fn on_cuda(
        net: &Network,
        rows: &[Selected],
        purpose: Purpose,
        chunk: usize,
        precision: Precision,
    ) -> Result<Plan> {
        let mut program = Program::new(net, rows, purpose, precision)?;
        program.leave_out_unread();
        let label_width = net.label_width();
        Ok(Plan { chunk, lanes: 1, purpose, label_width, rows: rows.to_vec(), program })
    }

    /// Bytes that one worker needs.
    pub fn bytes(&self) -> usize {
        4 * self.chunk * (self.program.kept + self.program.work)
    }

    /// Bytes per chunk that a solver keeps between its products.
    pub fn kept_bytes(&self) -> usize {
        4 * self.chunk * self.program.kept
    }

    /// The instructions in words, one a line; a solver runs those of the product again and again.
    pub fn text(&self, net: &Network) -> Vec<String> {
        self.program.text(net)
    }
}

/// How many of `all` chunks of `each` bytes run at a time, with this much memory left: see [`Room`].
pub(super) fn side_by_side(all: usize, each: usize, threads: usize, free: Option<usize>) -> usize {
    if all.saturating_mul(each) <= AT_ONCE {
        return all;
    }
    let most = free.map_or(threads, |free| free / 2 / each.max(1));
    all.min(threads).min(most.max(1))
}
