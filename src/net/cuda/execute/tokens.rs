//! What transformers do with tokens on CUDA: attention, and positions in another order.

use super::typed;
use crate::device::cuda::Element;
use crate::error::Result;
use crate::net::cuda::run::Run;
use crate::net::instruction::{AttentionOp, BandsOp, Scores};
use crate::ops::cuda::{attention, shape};

impl Run<'_> {
    pub(super) fn bands(&mut self, op: &BandsOp) -> Result<()> {
        let BandsOp { y, x, at, c, back, add } = *op;
        typed!(self, y, T => {
            let ([y], others) = self.memory.carve([y]);
            shape::bands::<T>(self.passes.cuda, y, others.get(x), self.n, at, c, back, add)
        })
    }

    pub(super) fn attention(&mut self, op: &AttentionOp) -> Result<()> {
        let (passes, cuda, n) = (self.passes, self.passes.cuda, self.n);
        match *op {
            AttentionOp::Forward { y, weights, x, scores, at } => typed!(self, y, T => {
                let (n, shape) = at.each(n);
                let (y, weights, others) = self.memory.carve_read::<T>(y, weights);
                let (mask, windows) = match scores {
                    Scores::Plain => (None, None),
                    Scores::Masked(mask) => (Some(others.get(mask).bits()), None),
                    Scores::Windows(table, windows) => (None, Some((windows, passes.param(table)))),
                };
                attention::forward(cuda, y, weights, others.get(x), n, shape, at.heads, mask, windows)
            }),
            AttentionOp::Tangent { t, tx, x, weights, at } => {
                let ((n, shape), ([t], others)) = (at.each(n), self.memory.carve([t]));
                let [tx, x, weights] = [tx, x, weights].map(|x| others.get(x));
                attention::tangent(cuda, t, tx, x, weights, n, shape, at.heads)
            }
            AttentionOp::Backward { dx, table, dy, x, weights, at } => {
                let ((n, shape), ([dx], others)) = (at.each(n), self.memory.carve([dx]));
                let [dy, x, weights] = [dy, x, weights].map(|x| others.get(x));
                let scratch = self.squares.output().split_at(weights.len()).0;
                let sink = self.sink.as_mut();
                let dtable = table.zip(sink).and_then(|((table, windows), sink)| {
                    Some((windows, sink.other().get_mut(table.index())?.output()))
                });
                attention::backward(cuda, dx, dtable, scratch, dy, x, weights, n, shape, at.heads)
            }
            AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at } => {
                let ((n, shape), ([dxt], others)) = (at.each(n), self.memory.carve([dxt]));
                let [dyt, dy, tx, x, weights] = [dyt, dy, tx, x, weights].map(|x| others.get(x));
                let scratch = self.squares.output().split_at(3 * weights.len()).0;
                attention::tangent_backward(cuda, dxt, scratch, dyt, dy, tx, x, weights, n, shape, at.heads)
            }
        }
    }
}
