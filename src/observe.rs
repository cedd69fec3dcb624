//! Observe: what every unit does and what it costs, for many inputs at once (MATH.md, Eq. 6).
//!
//! A unit's activation is its layer's own output, bias included, before batch norm, residual and nonlinearity,
//! averaged over pixels or tokens and over the layer's uses. The loss is that of the network at the true labels, by a
//! formula that keeps the order of the smallest losses (MATH.md, Eq. 5).

use crate::data::Inputs;
use crate::device::Device;
use crate::device::cuda::Buffer;
use crate::error::{Error, Result};
use crate::net::{Network, TraceOnDevice, pass, trace_on_device, zeros};
use crate::ops::Precision;
use crate::ops::cuda::trace::not_finite;
use crate::perturb::Perturbed;

pub use crate::net::{Scores, Trace, evaluate, outputs, surprisals};

/// Runs the network over `inputs` and keeps every unit's activation.
///
/// # Errors
/// Where the inputs are none or of another shape, a label does not fit the network, or it is not frozen.
pub fn observe(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Trace> {
    Ok(pass(device, net, inputs, net.units().len(), Precision::F32)?.0)
}

/// What the perturbed copies of a request did, for the choice of units.
pub struct Observed {
    /// Copies of each sample.
    pub m: usize,
    /// Units.
    pub d: usize,
    /// `[m]`: the mean over the request.
    pub losses: Vec<f32>,
    /// `[m, d]`: the mean over the request.
    pub activations: Activations,
    /// How many copies the plan took at once.
    pub chunk: usize,
}

/// Activations `[m, d]`, where they are.
pub enum Activations {
    /// In host memory.
    Host(Vec<f32>),
    /// In the memory of the GPU that observed them.
    Device(Box<Buffer<f32>>),
}

/// Observes perturbed copies of the samples that make a request together, as many of each: the mean over the request of each
/// copy's losses and activations (logits are left out).
///
/// # Errors
/// As [`observe`]; where the request is empty, or samples have different numbers of copies; where a `precision` below f32
/// is asked of the CPU, or does not hold the values.
pub fn observe_copies(
    device: &Device,
    net: &Network,
    request: &[Perturbed],
    precision: Precision,
) -> Result<Trace> {
    let Observed { m, d, losses, activations, chunk } = observe_in_place(device, net, request, precision)?;
    let activations = match (activations, device.cuda()) {
        (Activations::Host(values), _) => values,
        (Activations::Device(values), Some(cuda)) => cuda.download(&values)?,
        (Activations::Device(_), None) => return Err(Error::config("a trace of a GPU, and there is none")),
    };
    Ok(Trace { m, d, activations, losses, logits: vec![], chunk })
}

/// The same values, which stay where they were computed: on a GPU in its memory, unless they would take more than a quarter of
/// what is free there.
///
/// # Errors
/// As [`observe_copies`].
pub fn observe_in_place(
    device: &Device,
    net: &Network,
    request: &[Perturbed],
    precision: Precision,
) -> Result<Observed> {
    precision.check(device)?;
    let Some(m) = request.first().map(Inputs::len) else {
        return Err(Error::config("no samples to observe"));
    };
    if let Some(other) = request.iter().map(Inputs::len).find(|&len| len != m) {
        return Err(Error::shape("observe", format!("{m} copies of every sample"), other.to_string()));
    }
    let d = net.units().len();
    if let Some(cuda) = device.cuda()
        && let Some(trace) = trace_on_device(device, cuda, net, request, precision)?
    {
        let TraceOnDevice { losses, activations, chunk } = trace;
        let lowered = precision != Precision::F32;
        let fits = losses.iter().all(|value| value.is_finite());
        if lowered && !(fits && not_finite(cuda, activations.input())?.is_none()) {
            return Err(does_not_hold(precision));
        }
        return Ok(Observed { m, d, losses, activations: Activations::Device(Box::new(activations)), chunk });
    }
    observe_on_host(device, net, request, precision, m)
}

/// The same in host memory.
fn observe_on_host(
    device: &Device,
    net: &Network,
    request: &[Perturbed],
    precision: Precision,
    m: usize,
) -> Result<Observed> {
    let d = net.units().len();
    let (mut losses, mut activations) = (zeros::<f64>(m, 1)?, zeros::<f64>(m, d)?);
    let mut chunk = 0;
    for copies in request {
        let one = pass(device, net, copies, d, precision)?.0;
        chunk = one.chunk;
        losses.iter_mut().zip(&one.losses).for_each(|(sum, &loss)| *sum += f64::from(loss));
        activations.iter_mut().zip(&one.activations).for_each(|(sum, &a)| *sum += f64::from(a));
    }
    if precision != Precision::F32 && !losses.iter().chain(&activations).all(|value| value.is_finite()) {
        return Err(does_not_hold(precision));
    }
    let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / request.len() as f64) as f32).collect();
    Ok(Observed { m, d, losses: mean(losses), activations: Activations::Host(mean(activations)), chunk })
}

fn does_not_hold(precision: Precision) -> Error {
    let reason = "values are not finite; try --precision f32";
    Error::config(format!("perturbation pass in {}: {reason}", precision.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
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
        (net, Samples { kind: shape.into(), x, y: (0..40).map(|i| i % 3).collect(), stream: None })
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
