//! Training: mini-batches in a seeded order, SGD with momentum or Adam, weight decay. It makes the models that
//! scrubbing is compared on. The same seed gives the same bytes, for any number of threads. On CUDA sums have another
//! order: the same seed gives the same bytes again, but not the CPU's.

use crate::data::Samples;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::names::names;
use crate::net::{Network, TrainPass};
pub use crate::ops::optimizer::Optimizer;
use crate::ops::optimizer::Update;
use crate::ops::philox::{Stream, Use};

/// The schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Constant.
    Constant,
    /// Half a cosine, to 0 at the end.
    Cosine,
    /// To a tenth after half of the steps, and to a hundredth after three quarters (He et al. 2016).
    Step,
}

names!(Schedule {
    Constant = "constant": "it does not fall",
    Cosine = "cosine": "by half a cosine, to 0 at the end",
    Step = "step": "to a tenth after half of the steps, and to a hundredth after three quarters",
});

impl Schedule {
    /// The factor on the rate after `done` of `steps` steps.
    pub fn factor(self, done: usize, steps: usize) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done as f64 / steps as f64).cos()),
            Schedule::Step if 4 * done >= 3 * steps => 0.01,
            Schedule::Step if 2 * done >= steps => 0.1,
            Schedule::Step => 1.0,
        }
    }
}

/// How a network is trained.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Recipe {
    /// Number of passes over the data.
    pub epochs: usize,
    /// Samples per mini-batch.
    pub batch: usize,
    /// The initial learning rate η.
    pub rate: f32,
    /// The momentum μ of SGD.
    pub momentum: f32,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Weight decay, on all parameters, as PyTorch does by default.
    pub weight_decay: f32,
    /// The schedule of η.
    pub schedule: Schedule,
    /// The seed of the order of samples.
    pub seed: u64,
}

/// The result of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// The mean training loss over its batches, each before its step.
    pub loss: f64,
    /// The share of correct predictions, at the same moments.
    pub accuracy: f64,
}

/// Trains `net` (in train form) on the samples `indices`; `each` is called after every epoch and ends the training
/// where it returns false. On CUDA `net` is updated after every epoch, not after every step.
///
/// # Errors
/// Where there are no samples, an option makes no sense, or the loss is no longer finite; on CUDA, where a batch does
/// not fit or the device fails.
pub fn train(
    device: &Device,
    net: &mut Network,
    samples: &Samples,
    indices: &[usize],
    recipe: &Recipe,
    each: &mut dyn FnMut(&Network, Epoch) -> Result<bool>,
) -> Result<()> {
    if indices.is_empty() {
        return Err(Error::config("no samples to train on"));
    }
    if !(0.0..1.0).contains(&recipe.momentum) || !(0.0..f32::INFINITY).contains(&recipe.weight_decay) {
        return Err(Error::config("momentum is from 0 to below 1, weight decay a number of at least 0"));
    }
    let batch = recipe.batch.min(indices.len());
    let mut pass = TrainPass::new(device, net, batch, recipe.optimizer)?;
    let (mut done, steps) = (0, recipe.epochs * indices.len().div_ceil(batch));
    for epoch in 1..=recipe.epochs {
        let mut order = indices.to_vec();
        Stream::new(recipe.seed, Use::Choice, 1 << 16 | epoch as u32).shuffle(&mut order);
        let (mut loss, mut correct) = (0.0, 0);
        for chunk in order.chunks(batch) {
            let step = pass.step(&samples.subset(chunk))?;
            if !step.loss.is_finite() {
                return Err(Error::config(format!(
                    "the loss is {} in epoch {epoch}; a smaller rate may help",
                    step.loss
                )));
            }
            loss += step.loss * chunk.len() as f64;
            correct += step.correct;
            let rate = f64::from(recipe.rate) * recipe.schedule.factor(done, steps);
            done += 1;
            let (momentum, decay) = (recipe.momentum, recipe.weight_decay);
            pass.update(&Update { rate: rate as f32, momentum, decay, step: done as i32 })?;
        }
        let net = pass.network()?;
        if let Some(broken) = net.params.iter().find(|param| param.value.iter().any(|v| !v.is_finite())) {
            let reason = "is no longer finite; a smaller rate may help";
            return Err(Error::config(format!("tensor `{}` {reason} (epoch {epoch})", broken.name)));
        }
        let n = indices.len() as f64;
        if !each(net, Epoch { epoch, loss: loss / n, accuracy: correct as f64 / n })? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Activation, Builder, Conv, Role, Shape, Source, Window};
    use crate::zoo;

    /// Two classes of 4×4 images, told apart by which half is bright, with noise.
    fn halves(n: usize) -> Samples {
        let mut stream = Stream::new(5, Use::Choice, 9);
        let y: Vec<u32> = (0..n).map(|i| i as u32 % 2).collect();
        let x = y
            .iter()
            .flat_map(|&label| (0..16).map(move |p| (p / 8 == label) as u32 as f32))
            .collect::<Vec<_>>();
        let x = x.into_iter().map(|v| v + 0.3 * stream.normal()).collect();
        Samples { kind: Shape::new(4, 4, 1).into(), x, y: y.into(), stream: None }
    }

    fn config(optimizer: Optimizer) -> Recipe {
        Recipe {
            epochs: 8,
            batch: 16,
            rate: if optimizer == Optimizer::Adam { 0.01 } else { 0.1 },
            momentum: 0.9,
            optimizer,
            weight_decay: 1e-4,
            schedule: Schedule::Cosine,
            seed: 3,
        }
    }

    #[test]
    fn rates_fall_as_their_schedule_says() {
        let factors = |schedule: Schedule| [0, 3, 4, 5, 6, 7].map(|done| schedule.factor(done, 8));
        assert_eq!(factors(Schedule::Constant), [1.0; 6]);
        assert_eq!(factors(Schedule::Step), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
        let cosine = factors(Schedule::Cosine);
        assert!((cosine[0] - 1.0).abs() + (cosine[2] - 0.5).abs() < 1e-12, "{cosine:?}");
        assert!(cosine.is_sorted_by(|a, b| a > b), "{cosine:?}");
    }

    #[test]
    fn both_optimizers_learn_and_the_bytes_do_not_depend_on_threads() {
        let samples = halves(101);
        let indices: Vec<usize> = (0..101).collect();
        for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
            let run = |threads| {
                let device = Device::open(crate::device::Choice::Cpu, threads).unwrap();
                let mut net = zoo::create("cnn:4+8", samples.shape(), 2, 1).unwrap().network;
                let mut last = None;
                let mut each = |_: &Network, epoch: Epoch| {
                    last = Some(epoch);
                    Ok(true)
                };
                train(&device, &mut net, &samples, &indices, &config(optimizer), &mut each).unwrap();
                (net, last.unwrap())
            };
            let (net, last) = run(1);
            assert!(last.accuracy > 0.97, "{optimizer:?} {last:?}");
            assert_eq!(run(3).0, net);
        }
    }

    #[test]
    fn a_gpu_learns_as_well_and_gives_the_same_bytes_in_every_order_of_threads() {
        let samples = halves(53);
        let indices: Vec<usize> = (0..53).collect();
        for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
            let run = |device: Device| {
                let mut net = zoo::create("cnn:4+8", samples.shape(), 2, 1).unwrap().network;
                let mut epochs = vec![];
                let mut each = |net: &Network, epoch: Epoch| {
                    epochs.push((epoch, net.clone()));
                    Ok(true)
                };
                train(&device, &mut net, &samples, &indices, &config(optimizer), &mut each).unwrap();
                assert_eq!(epochs[epochs.len() - 1].1, net);
                epochs
            };
            let (found, expected) = (run(Device::emulated(0).unwrap()), run(Device::cpu().unwrap()));
            assert_eq!(run(Device::emulated(2).unwrap()), found);
            assert!(found[7].0.accuracy > 0.97, "{optimizer:?} {:?}", found[7].0);
            let (loss, of_cpu) = (found[0].0.loss, expected[0].0.loss); // before roundings grow
            assert!((loss - of_cpu).abs() < 1e-4 * of_cpu, "{optimizer:?} {loss} {of_cpu}");
        }
    }

    #[test]
    fn a_batch_that_a_gpu_has_no_room_for_is_refused_with_one_that_it_has() {
        let shape = Shape::new(4, 4, 1);
        let room = |bytes: usize, said: usize, batch: usize| {
            let device = Device::emulated_with(0, bytes, said).unwrap();
            let mut net = zoo::create("cnn:4+8", shape, 2, 1).unwrap().network;
            let pass = TrainPass::new(&device, &mut net, batch, Optimizer::Adam);
            pass.and_then(|mut pass| pass.step(&halves(batch))).map(drop)
        };
        room(200_000, 200_000, 16).unwrap();
        let error = room(200_000, 200_000, 1000).unwrap_err();
        let Error::Memory { bytes, free: 200_000, remedy, .. } = &error else { panic!("{error}") };
        assert!(*bytes > 200_000 && error.to_string().contains("batches of 1000"), "{error}");
        let fits: usize = remedy.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
        room(200_000, 200_000, fits).unwrap();
        assert!(fits >= 16 && room(200_000, 200_000, fits + 1).is_err(), "{remedy}");
        // The driver says that there is more than there is; or there is not even room for one.
        assert!(room(200_000, 1 << 30, 1000).unwrap_err().to_string().contains("a smaller batch"));
        assert!(room(500, 500, 4).unwrap_err().to_string().contains("one sample takes"));
    }

    #[test]
    fn options_and_weights_that_are_no_numbers_are_refused() {
        let samples = halves(8);
        let device = Device::cpu().unwrap();
        let run = |config: &Recipe| {
            let mut net = zoo::create("mlp:4", samples.shape(), 2, 1).unwrap().network;
            train(&device, &mut net, &samples, &[0, 1, 2], config, &mut |_, _| Ok(true))
                .unwrap_err()
                .to_string()
        };
        assert!(run(&Recipe { momentum: f32::NAN, ..config(Optimizer::Sgd) }).contains("momentum"));
        assert!(run(&Recipe { weight_decay: -1.0, ..config(Optimizer::Sgd) }).contains("weight decay"));
        let last = Recipe { epochs: 1, rate: f32::MAX, weight_decay: 1e9, ..config(Optimizer::Sgd) };
        assert!(run(&last).contains("no longer finite"));
    }

    /// Random tensors under any name.
    struct Any(Stream);

    impl Source for Any {
        fn tensor(&mut self, _: &str, shape: &[usize], role: Role) -> Result<Vec<f32>> {
            let around = if role == Role::One { 1.0 } else { 0.0 };
            Ok((0..shape.iter().product()).map(|_| around + 0.4 * self.0.normal()).collect())
        }

        fn shape(&self, _: &str) -> Option<&[usize]> {
            Some(&[])
        }
    }

    /// Every kind of trained parameter, and no kinks: a difference is then a derivative.
    fn smooth(image: Shape) -> Result<Network> {
        let mut any = Any(Stream::new(1, Use::Weights, 0));
        let (mut b, x) = Builder::new(&mut any, image);
        let x = b.conv(x, "conv", 4, Conv::square(3, 1, 1))?;
        let x = b.batch_norm(x, "norm")?;
        let x = b.activation(x, Activation::Gelu);
        let x = b.average_pool(x, Window { size: 2, stride: 2, padding: 0 })?;
        let x = b.tokens(x);
        let x = b.class_token(x, "token")?;
        let x = b.positions(x, "table")?;
        let y = b.layer_norm(x, "layer_norm", 1e-5)?;
        let y = b.linear(y, "qkv", 12)?;
        let y = b.attention(y, 2)?;
        let x = b.add(x, y)?;
        let x = b.token(x, 0);
        let x = b.linear(x, "head", 2)?;
        b.finish(x)
    }

    #[test]
    fn the_training_gradient_is_the_derivative_of_the_batch_loss() {
        let samples = halves(6);
        let device = Device::cpu().unwrap();
        let net = smooth(samples.shape()).unwrap();
        let loss = |net: &Network| {
            let mut net = net.clone();
            TrainPass::new(&device, &mut net, 6, Optimizer::Sgd).unwrap().step(&samples).unwrap().loss
        };
        let mut moving = net.clone();
        let mut pass = TrainPass::new(&device, &mut moving, 6, Optimizer::Sgd).unwrap();
        pass.step(&samples).unwrap();
        let h = 1.0 / 256.0;
        for (param, gradient) in pass.gradients().unwrap().iter().enumerate() {
            for i in (0..gradient.len()).step_by(5) {
                let at = |delta: f32| {
                    let mut moved = net.clone();
                    moved.params[param].value[i] += delta;
                    loss(&moved)
                };
                let difference = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let g = f64::from(gradient[i]);
                assert!(
                    (g - difference).abs() < 3e-3 + 0.02 * g.abs(),
                    "{} {i}: {g} {difference}",
                    net.params[param].name
                );
            }
        }
    }
}
