//! The options of how samples are removed, which `scrub` and `serve` share.

use std::path::PathBuf;

use scrubjay::ops::Precision;
use scrubjay::options::{Doubt, ScrubOptions};
use scrubjay::select::Method;
use scrubjay::task::{Approximation, Calibration, IfEmpty, Procedure, ProxyKind, Rule};
use scrubjay::update::NoiseUnits;

use super::shared;

/// The defaults of the options.
const DEFAULT: ScrubOptions = ScrubOptions::DEFAULT;

/// How samples are removed.
#[derive(clap::Args)]
pub struct MethodArgs {
    /// How samples are removed: hold trains all units on for a few epochs, each sample held at what a model without it would
    /// answer; lcodec takes a Newton step on the units that carry them. By default hold where there is --val, unless the
    /// request needs lcodec (docs/FORGETTING.md)
    #[arg(long, value_enum, help_heading = "Method")]
    method: Option<Procedure>,
    /// What tells a hold what a model without the samples would answer: one that is trained for a few epochs on retained
    /// samples (trained), the labels of each sample's nearest retained samples (neighbours), or a model that you have (its path)
    #[arg(long, value_name = "trained|neighbours|M", default_value = DEFAULT.proxy.name(), help_heading = "Hold")]
    proxy: String,
    /// Passes over the retained samples that train the proxy
    #[arg(long, value_name = "E", default_value_t = DEFAULT.proxy_epochs, help_heading = "Hold")]
    proxy_epochs: usize,
    /// Passes over the retained samples of the hold
    #[arg(long, value_name = "E", default_value_t = DEFAULT.hold_epochs, help_heading = "Hold")]
    hold_epochs: usize,

    /// The share of the units that a hold moves, from 0 to 1: those with the largest gradient. Nothing outside their rows changes,
    /// running statistics of batch norms included. By default it moves every parameter
    #[arg(long, value_name = "SHARE", help_heading = "Hold")]
    block: Option<f64>,

    /// Noisy copies per trace; by default 1000, and 200 for each sample of a vote
    #[arg(long, value_name = "m", help_heading = "L-CODEC")]
    perturbations: Option<usize>,
    /// Of images: standard deviation of their noise, in units of the normalised input; by default 0.1
    #[arg(long, value_name = "S", value_parser = shared::positive, help_heading = "L-CODEC")]
    sigma: Option<f32>,
    /// Of texts: how many tokens of each copy are replaced by others at random; by default 1
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..), help_heading = "L-CODEC")]
    replace: Option<u32>,
    /// Precision of the passes over noisy copies, below f32 on CUDA only; the report says how far they agree with f32
    #[arg(long, value_enum, value_name = "f32|tf32|bf16|f16", help_heading = "L-CODEC")]
    precision: Option<Precision>,
    /// How units are chosen; by default by vote, which for one sample is plain FOCI, and every unit of a single linear layer with
    /// --l2 unless --max-units is given
    #[arg(long, value_enum, help_heading = "L-CODEC")]
    selection: Option<Method>,
    /// Units at most
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    max_units: Option<usize>,
    /// The matrix; by default ggn, and hessian for a single linear layer with --l2
    #[arg(long, value_enum, help_heading = "L-CODEC")]
    curvature: Option<Approximation>,
    /// Precondition the solve by K-FAC
    #[arg(long, help_heading = "L-CODEC")]
    precondition: bool,
    /// λ; by default max(1e-3, 5e-3 of the largest eigenvalue), and 0 for a single linear layer with --l2
    #[arg(long, value_name = "λ", value_parser = shared::not_negative, help_heading = "L-CODEC")]
    damping: Option<f64>,
    /// The weight decay that the model was trained with
    #[arg(long, default_value_t = DEFAULT.l2, value_parser = shared::not_negative, help_heading = "Method")]
    l2: f64,
    /// The update rule
    #[arg(long, value_enum, default_value_t = DEFAULT.rule, help_heading = "L-CODEC")]
    update: Rule,
    /// The step's length: scaled on held-out data, or the formula's
    #[arg(long, value_enum, default_value_t = DEFAULT.length, help_heading = "L-CODEC")]
    length: Calibration,
    /// The mean loss of the forgotten to calibrate to; by default what held-out samples have, for a class
    /// those of other classes under its label
    #[arg(long, value_name = "LOSS", help_heading = "L-CODEC")]
    target_loss: Option<f64>,
    /// The samples carry wrong labels: calibrate to the loss that held-out samples have under these labels
    #[arg(long, conflicts_with = "target_loss", help_heading = "Method")]
    wrong_labels: bool,
    /// Calibrated steps on the way there; by default one for each 1.5 that the loss is to rise, from 2 to 16
    #[arg(long, value_name = "S", help_heading = "L-CODEC")]
    stages: Option<usize>,
    /// Newton steps, those after the first on the residual objective; by default 1, and for a single linear layer with --l2 as many
    /// as bring its gradient below a thousandth of what the samples contributed
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    iterations: Option<usize>,
    /// Relative residual of the solve
    #[arg(long, default_value_t = DEFAULT.tolerance, value_parser = shared::not_negative, help_heading = "L-CODEC")]
    tolerance: f64,
    /// Products that the solve may spend, and later stages two fifths of; by default 25, and 500 for a single linear
    /// layer with --l2
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    products: Option<usize>,
    /// The largest drop of validation or retained accuracy that is accepted, in points
    #[arg(long, default_value_t = 100.0 * DEFAULT.gate, value_parser = shared::not_negative, help_heading = "Method")]
    gate: f64,
    /// Where no unit depends on a batch: leave it, or take the best units of the first step
    #[arg(long, value_enum, default_value_t = DEFAULT.if_empty, help_heading = "L-CODEC")]
    if_empty: IfEmpty,
    /// ε of a certificate, for each batch
    #[arg(long, requires = "delta", help_heading = "Certificate")]
    epsilon: Option<f64>,
    /// δ of a certificate, for each batch
    #[arg(long, requires = "epsilon", help_heading = "Certificate")]
    delta: Option<f64>,
    /// Which units get the certificate's noise; by default those outside the block, where ε is given
    #[arg(long, value_enum, help_heading = "Certificate")]
    noise: Option<NoiseUnits>,

    /// Go on despite what refuses a request: no-val, an ordinary request without --val, after which the samples are hardly
    /// forgotten; near-chance, a model that is hardly better than always answering the commonest class
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DOUBT,..")]
    despite: Vec<Doubt>,
    /// Seed of everything random
    #[arg(long, default_value_t = DEFAULT.seed)]
    seed: u64,
}

impl MethodArgs {
    /// The model that is a hold's proxy, where one is given.
    pub fn proxy_model(&self) -> Option<PathBuf> {
        (self.proxy_kind() == ProxyKind::Given).then(|| PathBuf::from(&self.proxy))
    }

    fn proxy_kind(&self) -> ProxyKind {
        [ProxyKind::Trained, ProxyKind::Neighbours]
            .into_iter()
            .find(|kind| kind.name() == self.proxy)
            .unwrap_or(ProxyKind::Given)
    }

    /// As given; the rest has its defaults.
    pub fn options(&self) -> ScrubOptions {
        ScrubOptions {
            method: self.method,
            proxy: self.proxy_kind(),
            proxy_epochs: self.proxy_epochs,
            hold_epochs: self.hold_epochs,
            block: self.block,
            selection: self.selection,
            perturbations: self.perturbations,
            sigma: self.sigma,
            replace: self.replace,
            precision: self.precision,
            max_units: self.max_units,
            curvature: self.curvature,
            precondition: self.precondition,
            damping: self.damping,
            l2: self.l2,
            rule: self.update,
            length: self.length,
            target_loss: self.target_loss,
            wrong_labels: self.wrong_labels,
            stages: self.stages,
            iterations: self.iterations,
            tolerance: self.tolerance,
            products: self.products,
            gate: self.gate / 100.0,
            if_empty: self.if_empty,
            epsilon: self.epsilon,
            delta: self.delta,
            noise: self.noise,
            despite: Some(self.despite.clone()),
            seed: self.seed,
            ..DEFAULT
        }
    }
}
