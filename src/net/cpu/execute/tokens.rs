//! What transformers do with tokens: attention, and positions in another order.

use crate::net::cpu::Run;
use crate::net::instruction::{AttentionOp, BandsOp, Scores};
use crate::ops::cpu::{attention, shape};

impl Run<'_> {
    pub(super) fn bands(&mut self, op: &BandsOp) {
        let BandsOp { y, x, at, c, back, add } = *op;
        let ([y], others) = self.memory.carve([y]);
        shape::bands(y, others.get(x), at, c, back, add);
    }

    pub(super) fn attention(&mut self, op: &AttentionOp) {
        let (net, n) = (self.net, self.n);
        match *op {
            AttentionOp::Forward { y, weights, x, scores, at } => {
                let ((n, shape), ([y, weights], others)) = (at.each(n), self.memory.carve([y, weights]));
                let (mask, windows) = match scores {
                    Scores::Plain => (None, None),
                    Scores::Masked(mask) => (Some(bytemuck::cast_slice(others.get(mask))), None),
                    Scores::Windows(table, windows) => (None, Some((windows, net.value(table)))),
                };
                attention::forward(y, weights, others.get(x), n, shape, at.heads, mask, windows);
            }
            AttentionOp::Tangent { t, tx, x, weights, at } => {
                let ((n, shape), ([t], others)) = (at.each(n), self.memory.carve([t]));
                let [tx, x, weights] = [tx, x, weights].map(|x| others.get(x));
                attention::tangent(t, tx, x, weights, n, shape, at.heads);
            }
            AttentionOp::Backward { dx, table, dy, x, weights, at } => {
                let ((n, shape), ([dx], others)) = (at.each(n), self.memory.carve([dx]));
                let [dy, x, weights] = [dy, x, weights].map(|x| others.get(x));
                let sink = self.sink.as_mut();
                let dtable = table.zip(sink).and_then(|((table, windows), sink)| {
                    Some((windows, sink.other().get_mut(table.index())?.as_mut_slice()))
                });
                attention::backward(dx, dtable, dy, x, weights, n, shape, at.heads);
            }
            AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at } => {
                let ((n, shape), ([dxt], others)) = (at.each(n), self.memory.carve([dxt]));
                let [dyt, dy, tx, x, weights] = [dyt, dy, tx, x, weights].map(|x| others.get(x));
                attention::tangent_backward(dxt, dyt, dy, tx, x, weights, n, shape, at.heads);
            }
        }
    }
}
