//! Repair: a few mini-batches after the step that lower the retained loss and hold each forgotten sample at a target
//! loss of its own (MATH.md, Eq. 13b). Plain fine-tuning on retained data would undo the forgetting.
//!
//! SGD with momentum, and a learning rate that falls to 0, minimises
//!
//! ```text
//! mean over a retained batch of f  −  c · mean over a forgotten batch of w f,   w = clamp((t − f)/t, −1, 1)
//! ```
//!
//! with w held constant and t the sample's target. A sample below its target is pushed up. One above it is pulled down
//! (two-sided, c = 1) or left alone (one-sided, c = 0.3). Samples of earlier batches are held too, or else later
//! repairs would undo their forgetting.

use std::sync::atomic::AtomicBool;

use crate::block::Block;
use crate::data::{Inputs, Samples};
use crate::device::Device;
use crate::error::{Result, check_stop};
use crate::net::{Network, evaluate};
use crate::ops::philox::{Stream, Use};
use crate::task::Task;

/// Retained samples of a mini-batch, and the most forgotten samples.
pub const BATCH: usize = 64;
/// The learning rate at the first step, unless repair diverges at it.
pub const RATE: f64 = 0.02;
const MOMENTUM: f64 = 0.9;
/// c of the formula above, two-sided and one-sided.
const PULL: f64 = 1.0;
const ONE_SIDED_PULL: f64 = 0.3;
/// The norm to which longer gradients are clipped. Right after a step, and with batch norm frozen, a few gradients are
/// many times as long as the others.
const LONGEST: f64 = 1.0;

/// The target losses of the forgotten samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// The loss of each, in the order of the request.
    pub losses: Vec<f64>,
    /// Whether a sample above its target is pulled down.
    pub two_sided: bool,
}

impl Targets {
    /// The same for all, two-sided: a class.
    pub fn same(loss: f64, count: usize) -> Targets {
        Targets { losses: vec![loss; count], two_sided: true }
    }

    /// By rank: the sample with the r-th least of the `losses` gets the quantile (r + 1/2)/m of `held_out`, which is
    /// not empty.
    pub fn by_rank(losses: &[f32], held_out: &[f32], two_sided: bool) -> Targets {
        let mut quantiles = held_out.to_vec();
        quantiles.sort_by(f32::total_cmp);
        let mut order: Vec<usize> = (0..losses.len()).collect();
        order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        let mut targets = vec![0.0; losses.len()];
        for (rank, i) in order.into_iter().enumerate() {
            let at = (2 * rank + 1) * quantiles.len() / (2 * losses.len());
            targets[i] = f64::from(quantiles[at.min(quantiles.len() - 1)]);
        }
        Targets { losses: targets, two_sided }
    }

    /// The weight w of a sample.
    fn weight(&self, sample: usize, loss: f64) -> f64 {
        let target = self.losses[sample].max(f64::MIN_POSITIVE);
        ((target - loss) / target).clamp(if self.two_sided { -1.0 } else { 0.0 }, 1.0)
    }
}

/// How a repair runs.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Mini-batches.
    pub steps: usize,
    /// The rate at the first step.
    pub rate: f64,
    /// The weight decay that the model was trained with.
    pub l2: f64,
    /// The seed of the mini-batches, and the number of the request's batch, which keys them too.
    pub seed: u64,
    /// See `seed`.
    pub batch: u32,
    /// Set to stop before the next step.
    pub stop: &'a AtomicBool,
}

/// Repairs the block; `retained` and `request` are indices of `samples`. `net` changes at the end only. Where a
/// gradient is not finite, it is left as it was, and the result is false.
///
/// # Errors
/// Where a pass fails, or the user stops.
pub fn repair(
    device: &Device,
    net: &mut Network,
    block: &Block,
    samples: &Samples,
    retained: &[usize],
    request: &[usize],
    targets: &Targets,
    options: &Options,
) -> Result<bool> {
    let mut moved = net.clone();
    let mut values: Vec<f64> = block.values(net).into_iter().map(f64::from).collect();
    let mut velocity = vec![0.0; values.len()];
    let mut stream = Stream::new(options.seed, Use::Repair, options.batch);
    let pull = if targets.two_sided { PULL } else { ONE_SIDED_PULL };
    for step in 0..options.steps {
        check_stop(options.stop)?;
        let kept = stream.choose(retained.len(), BATCH.min(retained.len()));
        let gone = stream.choose(request.len(), BATCH.min(request.len()));
        let batch: Vec<usize> =
            kept.iter().map(|&i| retained[i]).chain(gone.iter().map(|&i| request[i])).collect();
        let share = |count: usize| batch.len() as f64 / count as f64;
        let weight = |i: usize, loss: f64| match i.checked_sub(kept.len()) {
            None => share(kept.len()),
            Some(i) => -pull * share(gone.len()) * targets.weight(gone[i], loss),
        };
        let gradient = block.weighted_gradient(device, &moved, &samples.subset(&batch), Some(&weight))?;
        if !gradient.iter().all(|g| g.is_finite()) {
            return Ok(false);
        }
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let clip = (LONGEST / norm).min(1.0);
        let rate = options.rate * (1.0 - step as f64 / options.steps as f64);
        for ((value, velocity), gradient) in values.iter_mut().zip(&mut velocity).zip(&gradient) {
            *velocity = MOMENTUM * *velocity + clip * gradient + options.l2 * *value;
            *value -= rate * *velocity;
        }
        let narrow: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        block.assign(&mut moved, &narrow);
    }
    *net = moved;
    Ok(true)
}

/// Rates that repair tries, each a quarter of the one before, and what a repair may raise the retained loss to: a
/// factor and a sum.
const REPAIR_RATES: usize = 4;
const REPAIR_LIMIT: (f64, f64) = (2.0, 0.1);

/// Repairs `moved` after its step, on `block`, at the first rate at which the steps do not diverge, and returns that rate:
/// in a sharp minimum, or with batch norm frozen, the usual one can diverge. `forgotten` are all samples that are gone,
/// `batch` is the number of the batch.
///
/// # Errors
/// Where a pass fails, or the user stops.
pub fn repair_batch(
    task: &Task,
    moved: &mut Network,
    block: &Block,
    retained: &dyn Inputs,
    forgotten: &[usize],
    batch: usize,
    targets: &Targets,
    notes: &mut Vec<String>,
) -> Result<Option<f64>> {
    let (device, settings) = (task.device, &task.settings);
    let limit = REPAIR_LIMIT.0 * evaluate(device, moved, retained)?.mean_loss() + REPAIR_LIMIT.1;
    let mut rate = RATE;
    for _ in 0..REPAIR_RATES {
        let mut repaired = moved.clone();
        let options = Options {
            steps: settings.repair,
            rate,
            l2: settings.l2,
            seed: settings.seed,
            batch: batch as u32,
            stop: task.stop,
        };
        let (samples, kept) = (task.samples, &task.repair_on);
        if repair(device, &mut repaired, block, samples, kept, forgotten, targets, &options)?
            && evaluate(device, &repaired, retained)?.mean_loss() <= limit
        {
            if rate < RATE {
                notes.push(format!("repaired at a rate of {rate}: at {} the steps diverge", 4.0 * rate));
            }
            *moved = repaired;
            return Ok(Some(rate));
        }
        rate /= 4.0;
    }
    notes.push(format!("not repaired: the steps diverge even at a rate of {}", 4.0 * rate));
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;
    use crate::zoo;

    #[test]
    fn steps_that_diverge_leave_the_network_as_it_was() {
        let device = Device::cpu().unwrap();
        let shape = Shape::new(1, 1, 2);
        let net = zoo::create("mlp:4", shape, 2, 1).unwrap().network.freeze();
        let samples = Samples {
            kind: shape.into(),
            x: vec![1.0, -0.5, 0.25, 2.0, -1.0, 0.5],
            y: vec![0, 1, 0].into(),
            stream: None,
        };
        let (block, stop) = (Block::all(&net).unwrap(), AtomicBool::new(false));
        for (rate, stands) in [(0.02, true), (1e30, false)] {
            let options = Options { steps: 5, rate, l2: 0.0, seed: 0, batch: 0, stop: &stop };
            let (mut moved, targets) = (net.clone(), Targets::same(1.0, 1));
            let stood =
                repair(&device, &mut moved, &block, &samples, &[0, 1], &[2], &targets, &options).unwrap();
            assert_eq!((stood, moved == net), (stands, !stands));
        }
    }

    #[test]
    fn targets_follow_the_ranks_and_weights_their_sides() {
        let targets = Targets::by_rank(&[0.3, 0.1, 0.2], &[9.0, 1.0, 2.0, 3.0, 4.0, 5.0], false);
        assert_eq!(targets.losses, [9.0, 2.0, 4.0]);
        assert_eq!([0.0, 1.0, 2.0, 5.0].map(|loss| targets.weight(1, loss)), [1.0, 0.5, 0.0, 0.0]);
        let both = Targets::same(2.0, 3);
        assert_eq!([0.0, 1.0, 2.0, 3.0, 9.0].map(|loss| both.weight(2, loss)), [1.0, 0.5, 0.0, -0.5, -1.0]);
    }
}
