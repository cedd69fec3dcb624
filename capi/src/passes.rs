//! Passes over inputs: logits, and traces of activations and losses.

use scrubjay::data::InputKind;
use scrubjay::observe::{Trace, evaluate, observe, observe_copies, outputs};
use scrubjay::ops::Precision;
use scrubjay::perturb::{Noise, REPLACE, SIGMA, check_options, perturb_request};
use scrubjay::session::fits;

use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::layout::Layout;
use crate::model::{Model, count, given, some_small};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::samples::SamplesObject;
use crate::status::{BUFFER, Failure, Outcome};
use crate::tensor::{self, Tensor};

/// `sj_trace`.
pub struct TraceObject {
    trace: Trace,
    /// Of activations, losses, logits.
    layouts: [Layout; 3],
}

impl Object for TraceObject {
    const NAME: &'static str = "trace";
}

impl TraceObject {
    fn new(trace: Trace) -> TraceObject {
        let classes = trace.logits.len().checked_div(trace.m).unwrap_or(0);
        let sides = [&[trace.m, trace.d][..], &[trace.m], &[trace.m, classes]];
        TraceObject { layouts: sides.map(Layout::rows), trace }
    }

    /// The values of a part, and their layout.
    pub fn part(&self, part: i32) -> Outcome<(&[f32], &Layout)> {
        let [activations, losses, logits] = &self.layouts;
        match part {
            0 => Ok((&self.trace.activations, activations)),
            1 => Ok((&self.trace.losses, losses)),
            2 => Ok((&self.trace.logits, logits)),
            _ => Err(Failure::argument(format!(
                "part {part} of a trace; there are SJ_TRACE_ACTIVATIONS, _LOSSES and _LOGITS"
            ))),
        }
    }
}

versioned! {
    /// `sj_observe_options`.
    ObserveOptions as "sj_observe_options" {
        copies: u64 = 0,
        sigma: f64 = f64::NAN,
        replace: u64 = 0,
        seed: u64 = 0,
        precision: Text = Text::NONE,
    }
}

versioned! {
    /// `sj_scores`.
    CScores as "sj_scores" {
        samples: u64 = 0,
        correct: u64 = 0,
        accuracy: f64 = f64::NAN,
        loss: f64 = f64::NAN,
    }
}

/// `sj_class_score`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ClassScore {
    correct: u64,
    samples: u64,
}

/// The fields of `sj_class_score`, for the test that compares them with the header.
#[cfg(test)]
pub const FIELDS: [(&str, usize); 2] = {
    use std::mem::offset_of;
    [("correct", offset_of!(ClassScore, correct)), ("samples", offset_of!(ClassScore, samples))]
};

entry! {
    /// Accuracy and loss.
    fn sj_evaluate(
        device: Handle<DeviceObject>,
        model: Handle<Model>,
        samples: Handle<SamplesObject>,
        scores: Info<CScores>,
        classes: Out<ClassScore>,
        size: u64,
    ) {
        let (device, model, samples) = (device.get()?, model.get()?, samples.get()?);
        scores.check()?;
        let (net, places) = (&model.network, count(size, "size")?);
        if classes.wanted("classes")?.is_some() && places < net.classes() {
            return Err(Failure::new(BUFFER, format!("{places} places for {} classes", net.classes())));
        }
        fits(net, &samples.samples, "the samples")?;
        let found = evaluate(&device.device, net, &*samples.samples)?;
        if classes.wanted("classes")?.is_some() {
            let of = |(correct, samples): (usize, usize)| ClassScore { correct: correct as u64, samples: samples as u64 };
            let list: Vec<ClassScore> = found.by_output(net).into_iter().map(of).collect();
            classes.put_list(&list, places, "classes")?;
        }
        scores.put(CScores {
            samples: found.losses.len() as u64,
            correct: found.correct() as u64,
            accuracy: found.accuracy(),
            loss: found.mean_loss(),
            ..CScores::EMPTY
        })
    }

    /// Logits of inputs.
    fn sj_forward(device: Handle<DeviceObject>, model: Handle<Model>, x: In<Tensor>, logits: In<Tensor>) {
        let (device, model) = (device.get()?, model.get()?);
        let net = &model.network;
        if let InputKind::Text { .. } = net.kind() {
            let reason = "the model reads texts: sj_samples_from_text and sj_observe give their logits";
            return Err(Failure::argument(reason));
        }
        let x = tensor::inputs(&x)?;
        let inputs = x.view()?.unlabelled(net.label_width());
        let n = scrubjay::data::Inputs::len(&inputs);
        let target = tensor::target(&logits, "logits", &[n, net.classes()])?;
        target.write(&outputs(&device.device, net, &inputs)?.logits)
    }

    /// Fills in the defaults.
    fn sj_observe_options_init(options: Info<ObserveOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Activations and losses of samples, or of noisy copies of them.
    fn sj_observe(
        device: Handle<DeviceObject>,
        model: Handle<Model>,
        samples: Handle<SamplesObject>,
        options: Options<ObserveOptions>,
        trace: NewHandle<TraceObject>,
    ) {
        trace.open()?;
        let (device, model, samples) = (device.get()?, model.get()?, samples.get()?);
        let (options, net) = (options.get()?, &model.network);
        let copies = count(options.copies, "copies")?;
        fits(net, &samples.samples, "the samples")?;
        let samples = &*samples.samples;
        let precision = options.precision.named::<Precision>("precision")?;
        let observed = match (copies, precision) {
            (0, None) => observe(&device.device, net, samples)?,
            (0, Some(_)) => return Err(Failure::argument("a precision is for noisy copies, and copies is 0")),
            (_, precision) => {
                let sigma = given(options.sigma).map(|sigma| sigma as f32);
                if sigma.is_some_and(|sigma| !(sigma.is_finite() && sigma > 0.0)) {
                    return Err(Failure::argument("sigma is a number above 0"));
                }
                let replace = some_small(options.replace, "replace")?;
                check_options(net.kind(), sigma, replace)?;
                if copies > u32::MAX as usize {
                    return Err(Failure::argument(format!("copies: {copies} are more than 2^32 - 1")));
                }
                let request: Vec<usize> = (0..samples.y.len()).collect();
                let (sigma, replace) = (sigma.unwrap_or(SIGMA), replace.unwrap_or(REPLACE));
                let noise = Noise { sigma, replace, seed: options.seed };
                let copies = perturb_request(samples, &request, &net.ordinary, copies, noise)?;
                observe_copies(&device.device, net, &copies, precision.unwrap_or_default())?
            }
        };
        trace.put(TraceObject::new(observed))
    }

    /// A view of a part of a trace.
    fn sj_trace_get_tensor(trace: Handle<TraceObject>, part: i32, tensor: Out<Tensor>) {
        let (trace, place) = (trace.get()?, tensor.open("tensor")?);
        let (values, layout) = trace.part(part)?;
        place.write(layout.view(values, "f32"));
        Ok(())
    }

    /// Ends a handle.
    fn sj_trace_free(trace: Handle<TraceObject>) {
        trace.free()
    }
}
