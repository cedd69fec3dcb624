//! What the methods that descend share: SGD on a block, its rates and mini-batches; and NegGrad+, which others take as a step.

use scrubjay::Result;
use scrubjay::block::Block;
use scrubjay::net::Network;
use scrubjay::ops::philox::{Stream, Use};

use crate::setups::Case;

/// Samples of a mini-batch.
pub const BATCH: usize = 64;
const MOMENTUM: f64 = 0.9;

/// The gradient of a step, or none to end there.
pub type Gradient<'a> = dyn FnMut(&Network, usize) -> Result<Option<Vec<f64>>> + 'a;

/// SGD with momentum on `block`: `rates` one per step, `gradient` gives each step's or ends it.
pub fn sgd(
    case: &Case,
    net: &mut Network,
    block: &Block,
    rates: impl Iterator<Item = f64>,
    gradient: &mut Gradient,
) -> Result<()> {
    let mut values: Vec<f64> = block.values(net).into_iter().map(f64::from).collect();
    let mut velocity = vec![0.0; values.len()];
    for (step, rate) in rates.enumerate() {
        let Some(gradient) = gradient(net, step)? else { break };
        for ((value, velocity), gradient) in values.iter_mut().zip(&mut velocity).zip(&gradient) {
            *velocity = MOMENTUM * *velocity + gradient + case.setup.l2 * *value;
            *value -= rate * *velocity;
        }
        let narrow: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        block.assign(net, &narrow);
    }
    Ok(())
}

/// From `rate` linearly to 0.
pub fn falling(rate: f64, steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |step| rate * (1.0 - step as f64 / steps as f64))
}

/// Mini-batches of so many epochs over `indices`, in a seeded order.
pub fn batches(case: &Case, indices: &[usize], epochs: usize) -> Vec<Vec<usize>> {
    let mut all = vec![];
    for epoch in 0..epochs {
        let mut order = indices.to_vec();
        Stream::new(case.seed, Use::Choice, 1 << 17 | epoch as u32).shuffle(&mut order);
        all.extend(order.chunks(BATCH).map(<[usize]>::to_vec));
    }
    all
}

/// NegGrad+ (Kurmanji et al., NeurIPS 2023): retained loss − weight × forgotten loss, in batches of both.
pub fn negative(
    case: &Case,
    net: &mut Network,
    block: &Block,
    forget: &[usize],
    epochs: usize,
    weight: f64,
) -> Result<()> {
    let batches = batches(case, &case.retain, epochs);
    let mut stream = Stream::new(case.seed, Use::Choice, 23);
    sgd(case, net, block, falling(0.02, batches.len()), &mut |net, step| {
        let kept = &batches[step];
        let gone = stream.choose(forget.len(), BATCH.min(forget.len()));
        let both: Vec<usize> = kept.iter().copied().chain(gone.iter().map(|&i| forget[i])).collect();
        let share = |count: usize| both.len() as f64 / count as f64;
        let weight = |i: usize, _: f64| match i < kept.len() {
            true => share(kept.len()),
            false => -weight * share(gone.len()),
        };
        Ok(Some(block.weighted_gradient(case.device, net, &case.data.train.subset(&both), Some(&weight))?))
    })
}
