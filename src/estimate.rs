//! The estimate of a request: what `--dry-run` prints. Units, bytes, and a time from a few timed passes.

use std::time::Instant;

use serde::Serialize;

use crate::data::Inputs;
use crate::error::Result;
use crate::hold;
use crate::memory::Memory;
use crate::net::plan::{Plan, Purpose};
use crate::net::{Selected, evaluate};
use crate::newton::products_at_most;
use crate::outcome::Epochs;
use crate::request::Request;
use crate::select::{Method, units_of};
use crate::session::Session;
use crate::target::stages_at_most;

/// Retained samples whose passes are timed.
const TIMED: usize = 64;

/// What a request will take at most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Samples to remove.
    pub samples: usize,
    /// Batches.
    pub batches: usize,
    /// Samples of a batch.
    pub batch: usize,
    /// Retained samples that are used.
    pub retained: usize,
    /// How they came about, in words.
    pub retained_by: String,
    /// Retained samples that calibration holds out.
    pub held_out: usize,
    /// How many samples the model was trained on.
    pub n: usize,
    /// Units of the model.
    pub units: usize,
    /// Units that a batch takes at most.
    pub units_at_most: usize,
    /// Perturbed copies that a batch is observed by.
    pub copies_per_batch: usize,
    /// Bytes of a pass over one trace's copies, with their activations.
    pub observe_bytes: usize,
    /// Bytes of these activations alone.
    #[serde(skip)]
    pub activation_bytes: usize,
    /// Bytes of a product, for each worker.
    pub products_bytes: usize,
    /// Bytes that are kept between products.
    pub kept_bytes: usize,
    /// The memory of the host that it takes.
    pub memory: Memory,
    /// Stages at most.
    pub stages_at_most: usize,
    /// Hessian-vector products at most, for each batch.
    pub products_at_most: usize,
    /// Retained samples that a hold trains on.
    pub trained_on: usize,
    /// Passes over them for each batch, where a hold is the method; it then has no noisy copies and no products.
    pub epochs: Option<Epochs>,
    /// Seconds at most, without the selection's statistics.
    pub seconds_at_most: f64,
}

impl Estimate {
    /// Of a request; times a pass over at most 64 retained samples.
    ///
    /// # Errors
    /// Where that pass fails.
    pub fn new(session: &Session, request: &Request) -> Result<Estimate> {
        let (net, settings) = (session.network(), &request.settings);
        let (d, m) = (net.units().len(), request.batch.min(request.forget.len()));
        let (criteria, (traces, copies)) = match &settings.hold {
            None => {
                let criteria = settings.selection.of_batch(m);
                (criteria, criteria.copies(m))
            }
            Some(hold) => {
                let chosen = hold.criteria(&settings.selection);
                (settings.selection, chosen.map_or((0, 0), |criteria| criteria.copies(m)))
            }
        };
        let forward = Plan::perturbation(net, copies.max(1), criteria.precision)?;
        let rows = vec![Selected::All; net.layers.len()];
        let products = Plan::new(net, rows, Purpose::Ggn, request.retained.len())?;
        let memory = Memory::of(session, request)?;
        let some: Vec<usize> = request.retained.iter().copied().take(TIMED).collect();
        let timed = Instant::now();
        evaluate(session.device(), net, &session.samples().subset(&some))?;
        let pass = timed.elapsed().as_secs_f64() / some.len() as f64;
        let batches = request.batches().len();
        let (stages, iterations) = (stages_at_most(settings, net, m), settings.iterations_at_most(net));
        let products_at_most = products_at_most(settings.limits.products, stages, iterations);
        let gradients = stages + iterations - 1;
        // In forward passes: a gradient is about three, a product at most four.
        let solve =
            request.retained.len() as f64 * (5.0 + 3.0 * gradients as f64 + 4.0 * products_at_most as f64);
        let observe = (traces * copies) as f64;
        let validation = session.validation().map_or(0, Inputs::len) as f64;
        let epochs = settings
            .hold
            .as_ref()
            .map(|hold| hold::epochs(hold, request.train_on.len(), m + session.held().indices.len()));
        let work = match epochs {
            None => observe + solve,
            Some(Epochs { cost, .. }) => 3.0 * request.train_on.len() as f64 * cost,
        };
        let seconds = batches as f64 * pass * (work + 2.0 * validation);
        let stages = if epochs.is_some() { 0 } else { stages };
        let products_at_most = if epochs.is_some() { 0 } else { products_at_most };
        Ok(Estimate {
            samples: request.forget.len(),
            batches,
            batch: request.batch,
            retained: request.retained.len(),
            retained_by: request.retained_by.clone(),
            held_out: request.held_out.len(),
            n: request.n,
            units: d,
            units_at_most: match &settings.hold {
                Some(hold) => hold.block.map_or(d, |share| units_of(share, d)),
                None if criteria.method == Method::Full => d,
                None => criteria.max_units.unwrap_or(units_of(criteria.share, d)),
            },
            copies_per_batch: traces * copies,
            observe_bytes: forward.bytes() + 4 * copies * d,
            activation_bytes: 4 * copies * d,
            products_bytes: products.bytes(),
            kept_bytes: memory.kept_bytes,
            memory,
            stages_at_most: stages,
            products_at_most,
            trained_on: request.train_on.len(),
            epochs,
            seconds_at_most: seconds,
        })
    }
}

impl Session {
    /// What a request will take: units, bytes, and a time from a few timed passes.
    ///
    /// # Errors
    /// Where a pass fails.
    pub fn estimate(&self, request: &Request) -> Result<Estimate> {
        Estimate::new(self, request)
    }
}
