//! Memory: the bytes of the host that a request takes at most, before it begins.
//!
//! A request goes through phases. Each holds some copies of the model, and what it computes in; the samples are there all the time.
//! The estimate is that of the phase that takes most, and a little more (docs/SCALE.md states what was measured against it). Where
//! more is needed than the machine has left, the request is refused. Values that products read again are kept as far as there is
//! memory for them, and computed again beyond: no bit depends on it.

use serde::Serialize;

use crate::data::Samples;
use crate::device::memory::{Free, free};
use crate::error::Result;
use crate::hold;
use crate::inspection::bytes as in_words;
use crate::net::plan::{Plan, Purpose};
use crate::net::{Layer, Network, Selected};
use crate::ops::optimizer::Optimizer;
use crate::request::Request;
use crate::select::{Criteria, Method, units_of};
use crate::session::Session;
use crate::task::{Approximation, HoldSettings, ProxyKind};

/// The program itself, and the pieces of files that it reads.
const PROGRAM: usize = 64 << 20;
/// Bytes that the choice of units takes for each activation of a trace: columns, ranks and orders.
const CHOICE: usize = 32;
/// Samples of each set whose neighbours are compared before the first batch ([`crate::doubt`]).
pub const COMPARED: usize = 300;
/// Vectors of f64 that a solver has at a time, the step before and the gradients included.
const VECTORS: usize = 14;

/// What a request takes of the host's memory at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes.
    pub bytes: usize,
    /// The phase that takes most.
    pub phase: &'static str,
    /// What it takes them for.
    pub parts: Vec<Part>,
    /// Bytes of these that are in use already: the session's models and samples.
    pub in_use: usize,
    /// Bytes that are kept between products.
    pub kept_bytes: usize,
    /// The share of what products read again that these are; the rest is computed again in every product. 1 where there are none.
    pub kept_share: f64,
    /// What the machine has left, where it tells.
    pub free: Option<Free>,
}

/// Bytes for one purpose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// What they are for.
    pub what: &'static str,
    /// Bytes.
    pub bytes: usize,
}

/// The parts of a phase, by name.
type Phase = (&'static str, Vec<(&'static str, usize)>);

impl Memory {
    /// Of a request, by the memory that is left now.
    ///
    /// # Errors
    /// Where the network has no such plan.
    pub fn of(session: &Session, request: &Request) -> Result<Memory> {
        let needs = Needs::new(session, request)?;
        let mut phases = match &request.settings.hold {
            Some(settings) => needs.of_hold(settings)?,
            None => needs.of_lcodec()?,
        };
        phases.extend([("the doubts", vec![("passes", needs.passes + needs.compared())]), needs.writing()]);
        let (free, base) = (free(), needs.base());
        let sum = |parts: &[(&'static str, usize)]| parts.iter().map(|(_, bytes)| bytes).sum::<usize>();
        let in_use = sum(&base) - PROGRAM;
        let (mut kept_bytes, mut kept_share) = (0, 1.0);
        if let Some((_, parts)) = phases.iter_mut().find(|(phase, _)| *phase == SOLVE) {
            let all = needs.kept()?;
            let rest = free.map_or(usize::MAX, |free| with_margin_taken(free.bytes.saturating_add(in_use)));
            kept_bytes = all.min(request.settings.memory).min(rest.saturating_sub(sum(parts) + sum(&base)));
            kept_share = if all == 0 { 1.0 } else { kept_bytes as f64 / all as f64 };
            parts.push(("values that are kept between products", kept_bytes));
        }
        let most = phases.into_iter().max_by_key(|(_, parts)| sum(parts));
        let (phase, own) = most.unwrap_or(("reading", vec![]));
        let parts = base.into_iter().chain(own).filter(|(_, bytes)| *bytes > 0);
        let parts: Vec<Part> = parts.map(|(what, bytes)| Part { what, bytes }).collect();
        let bytes = with_margin(parts.iter().map(|part| part.bytes).sum());
        Ok(Memory { bytes, phase, parts, in_use, kept_bytes, kept_share, free })
    }

    /// Why the request is refused, in words; nothing where there is memory for it, or the machine does not tell.
    pub fn refusal(&self, hold: bool) -> Option<String> {
        let free = self.free.filter(|free| free.bytes.saturating_add(self.in_use) < self.bytes)?;
        let parts: Vec<String> =
            self.parts.iter().map(|part| format!("{} for {}", in_words(part.bytes), part.what)).collect();
        let remedy = match hold {
            true => {
                "--threads takes fewer chunks at a time, --block 0.2 --proxy neighbours trains no whole model"
            }
            false => "--perturbations and --max-units take fewer, --retain fewer samples",
        };
        Some(format!(
            "{} of memory are needed in the phase of {}; {} are in use already, and {} are left ({}): {}; {remedy}; --despite \
             memory tries it",
            in_words(self.bytes),
            self.phase,
            in_words(self.in_use),
            in_words(free.bytes),
            free.source,
            parts.join(", ")
        ))
    }
}

/// An eighth more: what the allocator holds back between large pieces.
fn with_margin(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// As much as [`with_margin`] makes these bytes of.
fn with_margin_taken(bytes: usize) -> usize {
    bytes / 9 * 8
}

const SOLVE: &str = "the Newton step";

/// What a request is made of, as far as memory goes.
struct Needs<'a> {
    session: &'a Session,
    request: &'a Request,
    net: &'a Network,
    /// Bytes of one copy of the model.
    model: usize,
    /// The most samples of a batch.
    m: usize,
    /// Copies of the model that earlier batches leave.
    earlier: usize,
    /// Of passes over inputs, one worker a thread.
    passes: usize,
}

impl<'a> Needs<'a> {
    fn new(session: &'a Session, request: &'a Request) -> Result<Needs<'a>> {
        let net = session.network();
        let m = request.batch.min(request.forget.len());
        let earlier = usize::from(request.batches().len() > 1);
        let needs = Needs { session, request, net, model: 4 * net.parameters(), m, earlier, passes: 0 };
        let forward = Plan::forward(net, request.retained.len().max(1))?;
        Ok(Needs { passes: needs.on_host(needs.threads() * forward.bytes()), ..needs })
    }

    /// What is there in every phase.
    fn base(&self) -> Vec<(&'static str, usize)> {
        let session = self.session;
        let given = [session.earlier(), session.proxy()].into_iter().flatten();
        let given: usize = given.map(|net| 4 * net.parameters()).sum();
        let validation = session.validation().map_or(0, Samples::bytes);
        vec![
            ("the model", self.model),
            ("models that were given", given),
            ("samples", session.samples().bytes() + validation),
            ("the program", PROGRAM),
        ]
    }

    /// On a GPU passes take the device's memory, and are fitted to that when they begin.
    fn on_host(&self, bytes: usize) -> usize {
        if self.session.device().cuda().is_some() { 0 } else { bytes }
    }

    fn threads(&self) -> usize {
        self.session.device().threads()
    }

    /// Of the samples whose nearest neighbours are compared before the first batch.
    fn compared(&self) -> usize {
        let validation = self.session.validation().map_or(0, |samples| samples.y.len().min(COMPARED));
        2 * validation * 4 * self.net.input().len()
    }

    /// The Kronecker factors of K-FAC and their eigenvectors, where it is the solver or its preconditioner.
    fn factors(&self) -> usize {
        let settings = &self.request.settings;
        let used = settings.precondition || settings.curvature == Some(Approximation::Kfac);
        let of_layer = |layer: &Layer| layer.unit_len().pow(2) + layer.outputs.pow(2);
        if used { 3 * 8 * self.net.layers.iter().map(of_layer).sum::<usize>() } else { 0 }
    }

    /// Of training in batches of at most this many samples.
    fn training(&self, batch: usize, optimizer: Optimizer) -> Result<(&'static str, usize)> {
        let net = self.net.thaw();
        let remembered = if optimizer == Optimizer::Adam { 2 } else { 1 };
        let device = self.session.device();
        let threads = (device.threads(), device.ranks().size());
        let (bytes, again) = Plan::training_bytes(&net, batch, threads, remembered)?;
        let bytes = self.on_host(bytes).max((1 + remembered) * self.model);
        let again = again && device.cuda().is_none();
        Ok((if again { "training, some values being computed twice" } else { "training" }, bytes))
    }

    /// Of sums of gradients over all parameters of some units, `parameters` of them.
    fn gradient(
        &self,
        rows: Vec<Selected>,
        purpose: Purpose,
        inputs: usize,
        parameters: usize,
    ) -> Result<usize> {
        let plan = Plan::new(self.net, rows, purpose, inputs.max(1))?;
        let lanes = plan.lanes.min(inputs.max(1).div_ceil(plan.chunk));
        Ok(self.on_host(4 * lanes * parameters + self.threads().min(lanes) * plan.bytes()))
    }

    fn all_rows(&self) -> Vec<Selected> {
        vec![Selected::All; self.net.layers.len()]
    }

    /// Parameters of this many units at most.
    fn parameters_of(&self, units: usize) -> usize {
        let mut layers: Vec<(usize, usize)> =
            self.net.layers.iter().map(|layer| (layer.unit_len(), layer.outputs)).collect();
        layers.sort_unstable_by(|a, b| b.cmp(a));
        let mut left = units;
        let taken = layers.into_iter().map(|(len, outputs)| {
            let taken = outputs.min(left);
            left -= taken;
            len * taken
        });
        taken.sum()
    }

    fn of_hold(&self, settings: &HoldSettings) -> Result<Vec<Phase>> {
        let (request, model) = (self.request, self.model);
        let mut phases = vec![];
        if settings.proxy == ProxyKind::Trained {
            let batch = settings.recipe.batch.min(request.train_on.len().max(1));
            let (what, training) = self.training(batch, settings.recipe.optimizer)?;
            let parts = vec![("the proxy", (1 + self.earlier) * model), (what, training + self.passes)];
            phases.push(("the proxy", parts));
        }
        if let Some(criteria) = settings.criteria(&request.settings.selection) {
            phases.push(self.observing(&criteria)?);
        }
        let held = request.forget.len() + self.session.held().indices.len();
        let batch = hold::BATCH + hold::BATCH.min(held);
        let copies = ("copies of the model that change", (1 + self.earlier) * model);
        let (what, training) = match settings.block {
            // Every epoch the values or what is remembered are written, brought together.
            None => {
                let (what, bytes) = self.training(batch, Optimizer::Sgd)?;
                (what, bytes + model)
            }
            Some(share) => {
                let parameters = self.parameters_of(units_of(share, self.net.units().len()));
                let (rows, trained) = (self.all_rows(), self.net.params.iter().map(|p| p.value.len()).sum());
                let choice = self.gradient(rows, Purpose::Gradient, self.m, trained)? + 8 * trained;
                let steps = self.gradient(self.all_rows(), Purpose::Gradient, batch, parameters)?;
                ("training", choice.max(steps + 24 * parameters))
            }
        };
        phases.push(("the hold", vec![copies, (what, training)]));
        // The new values are written with the record of the batch.
        phases.push(("the record", vec![copies, ("its values", model), ("passes", self.passes)]));
        Ok(phases)
    }

    fn of_lcodec(&self) -> Result<Vec<Phase>> {
        let (net, settings) = (self.net, &self.request.settings);
        let d = net.units().len();
        let criteria = settings.selection.of_batch(self.m);
        let changed = ("copies of the model that change", (1 + self.earlier) * self.model);
        let units = match criteria.method {
            Method::Full => d,
            _ => criteria.max_units.unwrap_or(units_of(criteria.share, d)).min(d),
        };
        let parameters = self.parameters_of(units);
        let purpose = Purpose::Hessian;
        let products = self.gradient(self.all_rows(), purpose, self.request.retained.len(), parameters)?;
        Ok(vec![
            self.observing(&criteria)?,
            (
                SOLVE,
                vec![
                    changed,
                    ("vectors of the block", (8 * VECTORS + 8) * parameters),
                    ("products", products.max(self.passes)),
                    ("Kronecker factors", self.factors()),
                ],
            ),
        ])
    }

    /// Of a choice of units by these criteria.
    fn observing(&self, criteria: &Criteria) -> Result<Phase> {
        let (net, d) = (self.net, self.net.units().len());
        let (traces, copies) = criteria.copies(self.m);
        let forward = Plan::perturbation(net, copies.max(1), criteria.precision)?.bytes();
        let at_once = if criteria.method == Method::Vote { traces } else { traces.min(1) };
        let choice = match criteria.method {
            Method::Gradient => {
                self.gradient(self.all_rows(), Purpose::Gradient, self.m, net.parameters())?
            }
            _ => CHOICE * copies * d,
        };
        let activations = 4 * copies * d * at_once + choice;
        let passes = self.on_host(self.threads() * forward);
        Ok(("observing", vec![("activations", activations), ("passes", passes)]))
    }

    /// Bytes of what products read again.
    fn kept(&self) -> Result<usize> {
        let inputs = self.request.retained.len().max(1);
        let plan = Plan::new(self.net, self.all_rows(), Purpose::Hessian, inputs)?;
        Ok(self.on_host(plan.kept_bytes() * inputs.div_ceil(plan.chunk)))
    }

    /// The files are written from the old and the new model, and read back.
    fn writing(&self) -> Phase {
        let largest = self.net.params.iter().map(|param| 4 * param.value.len()).max().unwrap_or(0);
        (
            "writing",
            vec![
                ("the new model and what is read back", 2 * self.model),
                ("the largest tensor", 3 * largest),
                ("passes", self.passes),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;
    use crate::device::Device;
    use crate::options::{Doubt, ScrubOptions};
    use crate::zoo;

    #[test]
    fn a_request_is_refused_where_less_is_left_than_its_largest_phase_takes() {
        let (samples, validation) = (digits().unwrap(), digits().unwrap().part(0..50).unwrap());
        let net = zoo::create("mlp:300", samples.shape(), 10, 1).unwrap().network.freeze();
        let model = 4 * net.parameters();
        let session = Session::new(Device::cpu().unwrap(), net, samples).unwrap();
        let session = session.with_validation(validation).unwrap();
        let of = |options: ScrubOptions| {
            let despite = Some(vec![Doubt::NearChance, Doubt::NoVal]);
            let request = Request::new(&session, "0-19", &ScrubOptions { despite, ..options }).unwrap();
            Memory::of(&session, &request).unwrap()
        };
        let hold = of(ScrubOptions { ..ScrubOptions::DEFAULT });
        let sum: usize = hold.parts.iter().map(|part| part.bytes).sum();
        assert!(hold.bytes > sum && sum > 6 * model + 1797 * 64 * 4, "{hold:?}");
        assert!(hold.parts.iter().any(|part| (part.what, part.bytes) == ("the model", model)), "{hold:?}");
        // Twice as many copies take more, and what is kept between products is part of the phase.
        let lcodec = |perturbations| {
            let method = Some(crate::task::Procedure::Lcodec);
            of(ScrubOptions { method, perturbations: Some(perturbations), ..ScrubOptions::DEFAULT })
        };
        assert!(lcodec(1 << 20).bytes > lcodec(1 << 19).bytes + (1 << 29));
        assert_eq!((lcodec(20).kept_share, hold.kept_bytes), (1.0, 0));
        assert!(lcodec(20).kept_bytes > 0);
        assert_eq!(hold.in_use, model + (1797 + 50) * 64 * 4);
        let further = hold.bytes - hold.in_use;
        let left = |bytes| Memory { free: Some(Free { bytes, source: "a limit" }), ..hold.clone() };
        assert_eq!(
            (left(further).refusal(true), Memory { free: None, ..hold.clone() }.refusal(true)),
            (None, None)
        );
        let reason = left(further - 1).refusal(true).unwrap();
        for word in [hold.phase, "a limit", "--despite memory", "--threads"] {
            assert!(reason.contains(word), "{reason}");
        }
    }
}
