//! The beginning of every pass over inputs: the inputs are checked against the network and distributed over lanes.

use std::ops::Range;

use rayon::prelude::*;

use super::plan::Plan;
use super::{Network, Shape};
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

/// Deals the chunks of `n` images to a fixed number of lanes and runs `work` once a lane, in parallel. What is summed
/// per lane and then over lanes in order does not depend on the number of threads.
pub(crate) fn in_lanes<R: Send>(
    n: usize,
    plan: &Plan,
    work: impl Fn(Lane) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let chunk = plan.chunk;
    let lanes = n.div_ceil(chunk).min(plan.lanes);
    let deal = |lane| Lane { next: lane * chunk, step: lanes * chunk, chunk, n };
    (0..lanes).into_par_iter().map(|lane| work(deal(lane))).collect()
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
