//! The beginning of every pass over inputs: the inputs are checked against the network and distributed over lanes.

use std::ops::Range;

use rayon::prelude::*;

use super::plan::Plan;
use super::{Network, Shape};
use crate::communicator::Communicator;
use crate::data::Inputs;
use crate::error::{Error, Result};

/// Refuses what no pass can run on.
pub(crate) fn check(net: &Network, inputs: &dyn Inputs) -> Result<()> {
    if !net.is_frozen() {
        return Err(Error::config("the network is in train form; freeze it first"));
    }
    if inputs.is_empty() {
        return Err(Error::config("no samples"));
    }
    if inputs.shape() != net.input() {
        let show = |s: Shape| format!("{} channels of {}x{}", s.c, s.h, s.w);
        return Err(Error::shape("input", show(net.input()), show(inputs.shape())));
    }
    check_width(net, inputs)
}

/// Refuses inputs whose number of labels is not the network's.
fn check_width(net: &Network, inputs: &dyn Inputs) -> Result<()> {
    match (net.label_width(), inputs.label_width()) {
        (expected, found) if expected == found => Ok(()),
        (expected, found) => {
            Err(Error::shape("labels", format!("{expected} per sample"), format!("{found} per sample")))
        }
    }
}

/// Deals the chunks of `n` images to a fixed number of lanes and runs `work` once for each lane of this rank, in parallel. What
/// is summed per lane and then over lanes in order ([`Communicator::reduce`]) depends neither on the number of threads nor on
/// that of ranks.
pub(crate) fn in_lanes<R: Send>(
    ranks: &Communicator,
    n: usize,
    plan: &Plan,
    work: impl Fn(Lane) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (chunk, lanes) = (plan.chunk, lanes(n, plan));
    let deal = |lane| Lane { next: lane * chunk, step: lanes * chunk, chunk, n };
    ranks.own(lanes).collect::<Vec<_>>().into_par_iter().map(|lane| work(deal(lane))).collect()
}

/// The lanes of `n` images.
pub(crate) fn lanes(n: usize, plan: &Plan) -> usize {
    n.div_ceil(plan.chunk).min(plan.lanes)
}

/// Lanes of sums on CUDA devices at most.
const CUDA_LANES: usize = 8;
/// The least work of a lane, in floats of the network's largest node (32 MiB), within these bounds in images: a GPU that has less to do
/// at a time is not busy.
const CUDA_LANE_FLOATS: usize = 1 << 23;
const CUDA_LANE_IMAGES: [usize; 2] = [16, 64];

/// The lanes of `n` images on CUDA devices: runs of successive images, all but the last of one length. They depend on `n` and the
/// network alone, so that one GPU has the bits of several.
pub(crate) fn cuda_lanes(net: &Network, n: usize) -> Vec<Range<usize>> {
    let largest = net.nodes.iter().map(|node| node.shape.len()).max().unwrap_or(1);
    let [least, most] = CUDA_LANE_IMAGES;
    runs(n, (CUDA_LANE_FLOATS / largest.max(1)).clamp(least, most))
}

/// Runs of at least so many of `n` images, if there are as many.
fn runs(n: usize, least: usize) -> Vec<Range<usize>> {
    let len = n.div_ceil((n / least).clamp(1, CUDA_LANES)).max(1);
    (0..n).step_by(len).map(|start| start..n.min(start + len)).collect()
}

/// The images of the longest lane of up to `most` images on CUDA.
pub(crate) fn longest_cuda_lane(net: &Network, most: usize) -> usize {
    (1..=most).filter_map(|n| cuda_lanes(net, n).first().map(ExactSizeIterator::len)).max().unwrap_or(0)
}

/// The sums of all lanes' values, in f64 and in lane order.
pub(crate) fn sums_of(lanes: &[&[f32]]) -> Vec<f64> {
    let mut sums = vec![0.0; lanes.first().map_or(0, |lane| lane.len())];
    for lane in lanes {
        sums.iter_mut().zip(*lane).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    sums
}

/// The chunks of one lane: ranges of images.
pub(crate) struct Lane {
    next: usize,
    step: usize,
    chunk: usize,
    n: usize,
}

impl Iterator for Lane {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        self.next += self.step;
        (start < self.n).then(|| start..(start + self.chunk).min(self.n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;
    use crate::zoo;

    #[test]
    fn lanes_of_a_gpu_have_all_images_once_and_as_many_as_it_takes_to_be_busy() {
        for (n, lanes, longest) in [(1, 1, 1), (127, 1, 127), (128, 2, 64), (200, 3, 67), (1030, 8, 129)] {
            let found = runs(n, 64);
            assert_eq!((found.len(), found[0].len()), (lanes, longest), "{n}");
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
        }
        // A network of large images is busy with fewer of them.
        let net = |side: usize| zoo::create("cnn:64", Shape::new(side, side, 3), 10, 1).unwrap().network;
        assert_eq!([8, 112].map(|side| cuda_lanes(&net(side), 128).len()), [2, 8]);
        assert_eq!(longest_cuda_lane(&net(8), 200), 127);
    }
}
