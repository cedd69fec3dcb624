//! Training: mini-batches in a seeded order, SGD with momentum or Adam, weight decay. It makes the models that
//! scrubbing is compared on. The same seed gives the same bytes, for any number of threads. On CUDA sums have another
//! order: the same seed gives the same bytes again, but not the CPU's.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::data::{Augment, Augmented, Samples};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::names::names;
use crate::net::{Network, TrainPass};
use crate::ops::optimizer::Update;
pub use crate::ops::optimizer::{Decayed, Optimizer};
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
    /// Weight decay.
    pub weight_decay: f32,
    /// The parameters that it is on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decayed: Decayed,
    /// The schedule of η.
    pub schedule: Schedule,
    /// Epochs in which η rises in equal steps to its initial value; the schedule is of those that follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warm_up: usize,
    /// What is changed at random in the images of a mini-batch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub augment: Augment,
    /// The seed of the order of samples, and of what is changed in them.
    pub seed: u64,
}

/// Whether an option is as it was before there was a choice; it is then left out of what is written.
fn is_default<T: Default + PartialEq>(option: &T) -> bool {
    *option == T::default()
}

impl Default for Recipe {
    /// That of `scrubjay train`.
    fn default() -> Recipe {
        Recipe {
            epochs: 20,
            batch: 64,
            rate: 0.05,
            momentum: 0.9,
            optimizer: Optimizer::Sgd,
            weight_decay: 5e-4,
            decayed: Decayed::All,
            schedule: Schedule::Cosine,
            warm_up: 0,
            augment: Augment::default(),
            seed: 0,
        }
    }
}

impl Recipe {
    /// η of the step after `done` of `steps`, of which each epoch has this many.
    fn rate(&self, done: usize, steps: usize, of_epoch: usize) -> f64 {
        let rising = self.warm_up * of_epoch;
        let factor = match done < rising {
            true => (done + 1) as f64 / rising as f64,
            false => self.schedule.factor(done - rising, steps - rising),
        };
        f64::from(self.rate) * factor
    }
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
    train_until(device, net, samples, indices, recipe, &AtomicBool::new(false), each)
}

/// [`train`], which ends before the next batch once `stop` is set.
///
/// # Errors
/// As [`train`]; [`Error::Interrupted`] where it was stopped.
pub fn train_until(
    device: &Device,
    net: &mut Network,
    samples: &Samples,
    indices: &[usize],
    recipe: &Recipe,
    stop: &AtomicBool,
    each: &mut dyn FnMut(&Network, Epoch) -> Result<bool>,
) -> Result<()> {
    let mut each = |pass: &mut TrainPass, epoch| each(pass.network()?, epoch);
    train_after(device, net, samples, indices, recipe, After::default(), stop, &mut each)
}

/// Where a training goes on: after these epochs, with what the optimizer remembers then ([`TrainPass::state`]). The network has
/// the values of then.
#[derive(Clone, Copy, Debug, Default)]
pub struct After<'a> {
    /// Epochs that are done.
    pub epochs: usize,
    /// What is remembered.
    pub memory: &'a [f32],
}

/// [`train_until`] that goes on where a training was stopped, to the bytes that it would have given; `each` is given the pass, for what
/// it takes to go on from there.
///
/// # Errors
/// As [`train_until`]; where what is remembered is of another network or optimizer.
pub fn train_after(
    device: &Device,
    net: &mut Network,
    samples: &Samples,
    indices: &[usize],
    recipe: &Recipe,
    after: After,
    stop: &AtomicBool,
    each: &mut dyn FnMut(&mut TrainPass, Epoch) -> Result<bool>,
) -> Result<()> {
    if indices.is_empty() {
        return Err(Error::config("no samples to train on"));
    }
    if !(0.0..1.0).contains(&recipe.momentum) || !(0.0..f32::INFINITY).contains(&recipe.weight_decay) {
        return Err(Error::config("momentum is from 0 to below 1, weight decay a number of at least 0"));
    }
    if recipe.warm_up > recipe.epochs {
        let reason = format!("{} epochs of warm-up, of {} in all", recipe.warm_up, recipe.epochs);
        return Err(Error::config(reason));
    }
    let batch = recipe.batch.min(indices.len());
    let mut pass = TrainPass::new(device, net, batch, recipe.optimizer)?.decaying(recipe.decayed);
    let of_epoch = indices.len().div_ceil(batch);
    let mut done = after.epochs * of_epoch;
    if after.epochs > 0 {
        pass.remember(after.memory)?;
    }
    for epoch in after.epochs + 1..=recipe.epochs {
        let mut order = indices.to_vec();
        Stream::new(recipe.seed, Use::Choice, 1 << 16 | epoch as u32).shuffle(&mut order);
        let (mut loss, mut correct) = (0.0, 0);
        for chunk in order.chunks(batch) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted { kept: "nothing of this training is kept".into() });
            }
            let batch = samples.subset(chunk);
            let Recipe { augment, seed, .. } = recipe;
            let step = match augment.is_nothing() {
                true => pass.step(&batch)?,
                false => pass.step(&Augmented {
                    batch: &batch,
                    augment,
                    indices: chunk,
                    seed: *seed,
                    epoch: epoch as u32,
                })?,
            };
            if !step.loss.is_finite() {
                return Err(Error::config(format!(
                    "the loss is {} in epoch {epoch}; a smaller --lr may help",
                    step.loss
                )));
            }
            loss += step.loss * chunk.len() as f64;
            correct += step.correct;
            let rate = recipe.rate(done, recipe.epochs * of_epoch, of_epoch);
            done += 1;
            let (momentum, decay) = (recipe.momentum, recipe.weight_decay);
            pass.update(&Update { rate: rate as f32, momentum, decay, step: done as i32 })?;
        }
        if let Some(broken) =
            pass.network()?.params.iter().find(|param| param.value.iter().any(|v| !v.is_finite()))
        {
            let reason = "is no longer finite; a smaller --lr may help";
            return Err(Error::config(format!("tensor `{}` {reason} (epoch {epoch})", broken.name)));
        }
        let n = indices.len() as f64;
        if !each(&mut pass, Epoch { epoch, loss: loss / n, accuracy: correct as f64 / n })? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Normalise;
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
            optimizer,
            weight_decay: 1e-4,
            seed: 3,
            ..Recipe::default()
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
    fn a_rate_rises_to_where_its_schedule_begins() {
        let rates = |warm_up: usize, schedule: Schedule| {
            let recipe = Recipe { epochs: 4, rate: 1.0, warm_up, schedule, ..Recipe::default() };
            (0..8).map(|done| recipe.rate(done, 8, 2)).collect::<Vec<f64>>()
        };
        assert_eq!(rates(0, Schedule::Constant), [1.0; 8]);
        assert_eq!(rates(2, Schedule::Step), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.1, 0.01]);
        assert_eq!(rates(4, Schedule::Cosine)[7], 1.0);
        assert_eq!(
            rates(2, Schedule::Cosine)[4..],
            (0..4).map(|done| Schedule::Cosine.factor(done, 4)).collect::<Vec<_>>()
        );
    }

    /// Compared with a training without decay: after one step, only what decays is elsewhere.
    #[test]
    fn decay_of_weights_leaves_biases_and_norms_as_they_are() {
        let (samples, device) = (halves(16), Device::cpu().unwrap());
        let (of_weights, of_all) = ([Decayed::Weights, Decayed::All])
            .map(|decayed| {
                let mut net = zoo::create("cnn:4+8", samples.shape(), 2, 1).unwrap().network;
                let before = net.clone();
                let recipe =
                    Recipe { epochs: 1, batch: 16, weight_decay: 0.5, decayed, ..config(Optimizer::Sgd) };
                let without = Recipe { weight_decay: 0.0, ..recipe.clone() };
                let mut plain = net.clone();
                let each = &mut |_: &Network, _| Ok(true);
                train(&device, &mut plain, &samples, &(0..16).collect::<Vec<_>>(), &without, each).unwrap();
                train(&device, &mut net, &samples, &(0..16).collect::<Vec<_>>(), &recipe, each).unwrap();
                let moved = net.params.iter().zip(&plain.params).zip(&before.params);
                moved
                    .filter(|((_, _), before)| before.trained && before.value.iter().any(|&v| v != 0.0))
                    .map(|((net, plain), before)| {
                        (matches!(before.role, Role::Weight(_)), net.value != plain.value)
                    })
                    .collect::<Vec<_>>()
            })
            .into();
        assert!(of_weights.iter().all(|(weight, moved)| weight == moved), "{of_weights:?}");
        assert!(of_all.iter().all(|(_, moved)| *moved), "{of_all:?}");
        assert!(of_all.iter().any(|(weight, _)| !weight), "{of_all:?}");
    }

    #[test]
    fn shifted_and_mirrored_images_train_to_the_same_bytes_on_any_number_of_threads() {
        let samples = halves(101);
        let indices: Vec<usize> = (0..101).collect();
        let augment = Augment::of(&samples, 1, true, &Normalise::default()).unwrap();
        let recipe = Recipe { augment, ..config(Optimizer::Sgd) };
        let run = |threads, recipe: &Recipe| {
            let device = Device::open(crate::device::Choice::Cpu, threads).unwrap();
            let mut net = zoo::create("cnn:4+8", samples.shape(), 2, 1).unwrap().network;
            train(&device, &mut net, &samples, &indices, recipe, &mut |_, _| Ok(true)).unwrap();
            net
        };
        let net = run(1, &recipe);
        assert_eq!(run(3, &recipe), net);
        assert_ne!(run(1, &config(Optimizer::Sgd)), net);
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
        let x = b.average_pool(x, Window::square(2, 2, 0))?;
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
