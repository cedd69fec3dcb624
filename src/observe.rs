//! Observe: what every unit does and what it costs, for many inputs at once (MATH.md, Eq. 6).
//!
//! A unit's activation is its layer's own output, bias included, before batch norm, residual and nonlinearity,
//! averaged over pixels or tokens and over the layer's uses. The loss is that of the network at the true labels, by a
//! formula that keeps the order of the smallest losses (MATH.md, Eq. 5).

use rayon::prelude::*;

use crate::block::check;
use crate::data::{Inputs, Samples};
use crate::device::{Cuda, Device};
use crate::loss::{self, Loss};
use crate::net::cpu::{Arena, Run};
use crate::net::cuda::{Outputs, open};
use crate::net::plan::{Plan, Purpose};
use crate::net::{Network, Section, Selected};
use crate::ops::Precision;
use crate::perturb::{Noise, perturb};
use crate::{Error, Result};

/// What a network did with `m` inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Inputs.
    pub m: usize,
    /// Units.
    pub d: usize,
    /// `[m, d]`, units in module order.
    pub activations: Vec<f32>,
    /// `[m]`.
    pub losses: Vec<f32>,
    /// `[m, classes]`.
    pub logits: Vec<f32>,
    /// How many inputs the plan took at once.
    pub chunk: usize,
}

impl Trace {
    fn new(m: usize, d: usize, classes: usize, chunk: usize) -> Trace {
        let zeros = |len: usize| vec![0.0; len];
        Trace { m, d, activations: zeros(m * d), losses: zeros(m), logits: zeros(m * classes), chunk }
    }
}

/// How well a network does on labelled inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[n]`.
    pub losses: Vec<f32>,
    /// `[n]`, as [`crate::loss::Loss::surprisals`].
    pub surprisals: Vec<f32>,
    /// `[n, width]`, as [`crate::loss::Loss::predict`].
    pub predicted: Vec<u32>,
    /// `[n, width]`.
    pub labels: Vec<u32>,
    /// How many inputs the plan took at once.
    pub chunk: usize,
}

impl Scores {
    /// Inputs whose labels are the predicted ones, all of them.
    pub fn correct(&self) -> usize {
        let width = self.labels.len().checked_div(self.losses.len()).unwrap_or(1);
        loss::right(&self.predicted, &self.labels, width)
    }

    /// The share of correct predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.losses.len() as f64
    }

    /// For each class, how many of its inputs are predicted right, and of how many; for each of several labels, in how
    /// many inputs it is predicted right, and of how many.
    pub fn by_output(&self, net: &Network) -> Vec<(usize, usize)> {
        let pairs = || self.labels.iter().zip(&self.predicted);
        let count = |pairs: &mut dyn Iterator<Item = (&u32, &u32)>| {
            pairs.fold((0, 0), |(right, all), (label, predicted)| {
                (right + usize::from(label == predicted), all + 1)
            })
        };
        let of = |output: usize| match net.loss {
            Loss::CrossEntropy { .. } => count(&mut pairs().filter(|(label, _)| **label as usize == output)),
            Loss::BinaryCrossEntropy => count(&mut pairs().skip(output).step_by(net.classes())),
        };
        (0..net.classes()).map(of).collect()
    }

    /// The mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.losses.len() as f64
    }
}

/// Runs the network over `inputs` and keeps every unit's activation.
///
/// # Errors
/// Where the inputs are none or of another shape, a label does not fit the network, or it is not frozen.
pub fn observe(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Trace> {
    Ok(run(device, net, inputs, net.units().len(), Precision::F32)?.0)
}

/// Observes `copies` noisy copies of the request that the samples `request` make together: the mean over the request of
/// each copy's losses and activations (logits are left out). Sample i's noise is keyed by its index in `samples`.
///
/// # Errors
/// As [`observe`]; where the request is empty; where a `precision` below f32 is asked of the CPU, or does not hold the
/// values.
pub fn observe_copies(
    device: &Device,
    net: &Network,
    samples: &Samples,
    request: &[usize],
    copies: usize,
    noise: Noise,
    precision: Precision,
) -> Result<Trace> {
    check_precision(device, precision)?;
    let d = net.units().len();
    let (mut losses, mut activations) = (vec![0.0f64; copies], vec![0.0f64; copies * d]);
    let mut chunk = 0;
    for &i in request {
        let copies = perturb(samples.image(i), samples.shape, samples.y.of(i), i as u32, copies, noise);
        let one = run(device, net, &copies, d, precision)?.0;
        chunk = one.chunk;
        losses.iter_mut().zip(&one.losses).for_each(|(sum, &loss)| *sum += f64::from(loss));
        activations.iter_mut().zip(&one.activations).for_each(|(sum, &a)| *sum += f64::from(a));
    }
    if request.is_empty() {
        return Err(Error::config("no samples to observe"));
    }
    if precision != Precision::F32 && !losses.iter().chain(&activations).all(|value| value.is_finite()) {
        let reason = "values are not finite; try --precision f32";
        return Err(Error::config(format!("perturbation pass in {}: {reason}", precision.name())));
    }
    let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / request.len() as f64) as f32).collect();
    Ok(Trace { m: copies, d, activations: mean(activations), losses: mean(losses), logits: vec![], chunk })
}

/// Refuses a precision that a device does not have.
///
/// # Errors
/// Where it is below f32 and the device is the CPU.
pub fn check_precision(device: &Device, precision: Precision) -> Result<()> {
    match device.cuda() {
        None if precision != Precision::F32 => {
            let reason = "needs CUDA; the CPU observes in f32";
            Err(Error::config(format!("--precision {} {reason} ({})", precision.name(), device.why())))
        }
        _ => Ok(()),
    }
}

/// Runs the network over `inputs` and keeps losses and predictions.
///
/// # Errors
/// As [`observe`].
pub fn evaluate(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Scores> {
    let (trace, labels) = run(device, net, inputs, 0, Precision::F32)?;
    let mut predicted = vec![0; labels.len()];
    net.loss.predict(&mut predicted, &trace.logits, net.classes())?;
    let surprisals = surprisals(net, &trace, &labels)?;
    Ok(Scores { losses: trace.losses, surprisals, predicted, labels, chunk: trace.chunk })
}

/// −ln of the probability that the network gives each input's labels, of its trace: see
/// [`crate::loss::Loss::surprisals`].
///
/// # Errors
/// Where the labels `[m, width]` do not fit the trace.
pub fn surprisals(net: &Network, trace: &Trace, labels: &[u32]) -> Result<Vec<f32>> {
    let mut surprisals = trace.losses.clone();
    if net.loss.is_smoothed() {
        net.loss.surprisals(&mut surprisals, &trace.logits, labels, net.classes())?;
    }
    Ok(surprisals)
}

/// Runs the network over `inputs` and keeps losses and logits, no activations (`d` is 0).
///
/// # Errors
/// As [`observe`].
pub fn outputs(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Trace> {
    Ok(run(device, net, inputs, 0, Precision::F32)?.0)
}

/// The outputs of one chunk.
struct Chunk<'a> {
    first: usize,
    activations: &'a mut [f32],
    losses: &'a mut [f32],
    logits: &'a mut [f32],
    labels: &'a mut [u32],
}

fn run(
    device: &Device,
    net: &Network,
    inputs: &dyn Inputs,
    d: usize,
    precision: Precision,
) -> Result<(Trace, Vec<u32>)> {
    check(net, inputs)?;
    if let Some(cuda) = device.cuda() {
        return run_on_cuda(device, cuda, net, inputs, d, precision);
    }
    let (m, classes) = (inputs.len(), net.classes());
    let plan = Plan::forward(net, m)?;
    let mut trace = Trace::new(m, d, classes, plan.chunk);
    let mut labels = vec![0; m * plan.label_width];

    let mut activations = trace.activations.as_mut_slice();
    let mut chunks = vec![];
    let parts = trace.losses.chunks_mut(plan.chunk).zip(trace.logits.chunks_mut(plan.chunk * classes));
    for ((losses, logits), labels) in parts.zip(labels.chunks_mut(plan.chunk * plan.label_width)) {
        let (mine, rest) = activations.split_at_mut(losses.len() * d);
        activations = rest;
        chunks.push(Chunk { first: chunks.len() * plan.chunk, activations: mine, losses, logits, labels });
    }
    device.scope(|| {
        // A few chunks per thread and turn, each turn with one arena.
        let turn = chunks.len().div_ceil(4 * rayon::current_num_threads());
        chunks.par_chunks_mut(turn).try_for_each(|chunks| {
            let mut arena = Arena::new(&plan);
            for out in chunks {
                let n = arena.fill(net, &plan, inputs, out.first..out.first + out.losses.len())?;
                let trace = (d > 0).then_some(&mut *out.activations);
                let mut run = Run::new(net, &plan, &mut arena, n).traced(trace);
                run.section(Section::Forward);
                out.logits.copy_from_slice(run.logits());
                out.labels.copy_from_slice(run.labels());
                net.loss.values(out.losses, out.logits, out.labels, classes)?;
            }
            Ok(())
        })
    })?;
    Ok((trace, labels))
}

/// The same, chunk after chunk on a CUDA device; the host threads make the inputs.
fn run_on_cuda(
    device: &Device,
    cuda: &Cuda,
    net: &Network,
    inputs: &dyn Inputs,
    d: usize,
    precision: Precision,
) -> Result<(Trace, Vec<u32>)> {
    let (m, classes) = (inputs.len(), net.classes());
    let rows = vec![Selected::None; net.layers.len()];
    let (mut passes, mut arena) = open(cuda, net, &rows, Purpose::Forward, inputs, d)?;
    passes.precision = precision;
    let chunk = passes.plan.chunk;
    let mut trace = Trace::new(m, d, classes, chunk);
    let width = net.label_width();
    let mut labels = vec![0; m * width];
    for first in (0..m).step_by(chunk) {
        let range = first..(first + chunk).min(m);
        let n = passes.fill(device, &mut arena, inputs, range.clone())?;
        let out = Outputs {
            activations: &mut trace.activations[range.start * d..range.end * d],
            losses: &mut trace.losses[range.clone()],
            logits: &mut trace.logits[range.start * classes..range.end * classes],
            labels: &mut labels[range.start * width..range.end * width],
        };
        passes.observe(&mut arena, n, out)?;
    }
    Ok((trace, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;
    use crate::ops::philox::{Stream, Use};
    use crate::zoo;

    #[test]
    fn a_chunk_is_what_the_device_has_room_for_and_changes_no_output() {
        let (net, samples) = task();
        let on = |bytes: usize, said: usize| {
            observe(&Device::emulated_with(0, bytes, said).unwrap(), &net, &samples)
        };
        let whole = on(1 << 24, 1 << 24).unwrap();
        assert_eq!(whole.chunk, 40);
        // Less is free; as little, but the driver says otherwise.
        let (less, refused) = (on(40_000, 40_000).unwrap(), on(40_000, 1 << 24).unwrap());
        assert!(less.chunk < 40 && less.chunk == refused.chunk, "{} {}", less.chunk, refused.chunk);
        assert!(40 / less.chunk >= 2); // as it is, then recorded and replayed
        for trace in [&less, &refused] {
            assert_eq!((&trace.logits, &trace.losses), (&whole.logits, &whole.losses));
        }
        let all: Vec<usize> = (0..40).collect();
        for (part, found) in all.chunks(less.chunk).zip(less.activations.chunks(less.chunk * less.d)) {
            let device = Device::emulated_with(0, 40_000, 40_000).unwrap();
            assert_eq!(observe(&device, &net, &samples.subset(part)).unwrap().activations, found);
        }
        let error = on(2_000, 2_000).unwrap_err();
        let Error::Memory { bytes, free: 2_000, .. } = error else { panic!("{error}") };
        assert!(bytes > 2_000 && error.to_string().contains("forward pass"), "{error}");
        assert_eq!(on(bytes, bytes).unwrap().chunk, 1);
    }
    /// A small network and 40 inputs.
    fn task() -> (Network, Samples) {
        let shape = Shape::new(6, 6, 2);
        let net = zoo::create("cnn:4-6", shape, 3, 1).unwrap().network.freeze();
        let mut stream = Stream::new(2, Use::Choice, 0);
        let x = (0..40 * shape.len()).map(|_| stream.normal()).collect();
        (net, Samples { shape, x, y: (0..40).map(|i| i % 3).collect() })
    }

    #[test]
    fn a_device_brings_parameters_that_changed_and_no_others() {
        let (mut net, samples) = task();
        let device = Device::emulated(0).unwrap();
        let uploaded = |net: &Network| {
            let cuda = device.cuda().unwrap();
            let before = cuda.counts().uploaded;
            observe(&device, net, &samples).unwrap();
            cuda.counts().uploaded - before
        };
        let copy = net.clone();
        let (first, inputs) = (uploaded(&net), uploaded(&copy));
        let affine = net.nodes.iter().filter_map(|node| node.op.epilogue()?.affine.as_ref());
        let constants = net.parameters() + affine.map(|affine| 2 * affine.scale.len()).sum::<usize>();
        assert_eq!(first - inputs, 4 * constants);
        let last = net.layers[net.layers.len() - 1].clone();
        net.params[last.bias.unwrap().index()].value[0] += 1.0;
        assert_eq!(uploaded(&net) - inputs, 4 * last.outputs);
        assert_eq!((uploaded(&net), uploaded(&copy)), (inputs, inputs));
        let fresh = Device::emulated(0).unwrap();
        let on = |device, net| observe(device, net, &samples).unwrap();
        assert_eq!(on(&device, &net), on(&fresh, &net));
        assert_ne!(on(&device, &net), on(&device, &copy));
    }

    #[test]
    fn a_device_that_failed_does_nothing_more() {
        let (net, samples) = task();
        let device = Device::emulated(0).unwrap();
        let cuda = device.cuda().unwrap();
        let there = cuda.upload(&[1.0f32]).unwrap();
        observe(&device, &net, &samples).unwrap();
        cuda.fail_after(1); // the convolution, after the trace is cleared
        let first = observe(&device, &net, &samples).unwrap_err().to_string();
        assert!(first.contains("layer") && first.contains("conv_f32"), "{first}");
        let refused = |result: Result<()>| {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("failed before") && text.contains("conv_f32"), "{text}");
        };
        refused(observe(&device, &net, &samples).map(drop));
        refused(cuda.download(&there).map(drop));
        refused(cuda.upload(&[1.0f32]).map(drop));
        refused(cuda.alloc::<f32>(1 << 10).map(drop));
        observe(&Device::emulated(0).unwrap(), &net, &samples).unwrap(); // another device is whole
    }
}
