//! The relearning attack: how soon a model learns forgotten samples again, by a few steps of training on them.
//!
//! A model that never saw the samples needs as many steps as it does for any others. One whose answers were moved but whose
//! weights still tell of the samples needs fewer.

use crate::data::Samples;
use crate::device::Device;
use crate::error::Result;
use crate::net::{Network, TrainPass, evaluate};
use crate::ops::optimizer::{Optimizer, Update};
use crate::ops::philox::{Stream, Use};

/// The numbers of steps after which the loss is measured.
pub const STEPS: [usize; 3] = [1, 3, 10];
/// Samples of a step at most, and how it is taken: SGD with momentum, gradients shortened to a norm.
const BATCH: usize = 64;
const RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;
const LONGEST: f64 = 1.0;

/// The mean loss of the samples `forget` after each of [`STEPS`] steps of training on them, which begin at a frozen network.
///
/// # Errors
/// Where a pass fails.
pub fn relearned(device: &Device, net: &Network, samples: &Samples, forget: &[usize]) -> Result<[f64; 3]> {
    let mut moved = net.thaw();
    let batch = BATCH.min(forget.len());
    let mut pass = TrainPass::new(device, &mut moved, batch, Optimizer::Sgd)?;
    let mut stream = Stream::new(0, Use::Choice, 8);
    let mut losses = [f64::NAN; 3];
    for step in 1..=STEPS[2] {
        let some: Vec<usize> = stream.choose(forget.len(), batch).iter().map(|&i| forget[i]).collect();
        pass.step(&samples.subset(&some))?;
        pass.clip(LONGEST)?;
        pass.update(&Update { rate: RATE, momentum: MOMENTUM, decay: 0.0, step: step as i32 })?;
        if let Some(at) = STEPS.iter().position(|&steps| steps == step) {
            losses[at] = evaluate(device, &pass.network()?.freeze(), &samples.subset(forget))?.mean_loss();
        }
    }
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;
    use crate::zoo;

    #[test]
    fn what_a_model_knows_is_learned_again_sooner() {
        let device = Device::cpu().unwrap();
        let mut stream = Stream::new(1, Use::Choice, 0);
        let x = (0..20 * 16).map(|_| stream.normal()).collect();
        let y: Vec<u32> = (0..20).map(|i| i % 4).collect();
        let samples = Samples { kind: Shape::new(4, 4, 1).into(), x, y: y.into(), stream: None };
        let net = zoo::create("mlp:32", samples.kind, 4, 1).unwrap().network.freeze();
        let all: Vec<usize> = (0..20).collect();
        let first = relearned(&device, &net, &samples, &all).unwrap();
        assert!(first.is_sorted_by(|a, b| a > b), "{first:?}");
        let mut knows = net.thaw();
        let mut pass = TrainPass::new(&device, &mut knows, 20, Optimizer::Sgd).unwrap();
        for step in 1..30 {
            pass.step(&samples).unwrap();
            pass.update(&Update { rate: 0.05, momentum: 0.9, decay: 0.0, step }).unwrap();
        }
        let knows = pass.network().unwrap().freeze();
        let again = relearned(&device, &knows, &samples, &all).unwrap();
        assert!(again.iter().zip(&first).all(|(again, first)| again < first), "{again:?} {first:?}");
    }
}
