//! The options of how samples are removed, which `scrub` and `serve` share.

use std::path::PathBuf;

use scrubjay::checkpoint::Rounding;
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
    /// hold trains all units on for a few epochs, and holds each sample at what a model without it would answer; lcodec takes
    /// a Newton step on the few units that the samples' loss depends on. By default hold where there is --val, unless the
    /// request needs lcodec (docs/FORGETTING.md)
    #[arg(long, value_enum, value_name = "hold|lcodec", help_heading = "Method")]
    method: Option<Procedure>,
    /// Where a hold takes the answers of a model without the samples from (its proxy): from a model that it trains for a few
    /// epochs on retained samples (trained), from the labels of each sample's nearest retained samples (neighbours), or from
    /// a model that you have (its path)
    #[arg(long, value_name = "trained|neighbours|M", default_value = DEFAULT.proxy.name(), help_heading = "Hold")]
    proxy: String,
    /// Epochs in which the proxy is trained on the retained samples
    #[arg(long, value_name = "E", default_value_t = DEFAULT.proxy_epochs, help_heading = "Hold")]
    proxy_epochs: usize,
    /// Epochs of the hold itself, over the retained samples
    #[arg(long, value_name = "E", default_value_t = DEFAULT.hold_epochs, help_heading = "Hold")]
    hold_epochs: usize,

    /// The most that a hold may cost, in epochs of retraining. Where it would cost more, neighbours take the place of a trained
    /// proxy, and then a part of the retained samples that of all; the plan says which (--dry-run)
    #[arg(long, value_name = "EPOCHS", help_heading = "Hold")]
    budget: Option<f64>,
    /// The share of the units that a hold changes, above 0 and at most 1: those with the largest gradient, or as --selection
    /// says. Nothing else changes, not even running statistics of batch norms. By default every parameter may change
    #[arg(long, value_name = "SHARE", help_heading = "Hold")]
    block: Option<f64>,

    /// Noisy copies of the samples on which the units are observed; by default 1000 of a batch, and in a vote 200 of each sample
    #[arg(long, value_name = "m", help_heading = "L-CODEC")]
    perturbations: Option<usize>,
    /// Of images: the standard deviation of that noise, in units of the normalised input; by default 0.1
    #[arg(long, value_name = "S", value_parser = shared::positive, help_heading = "L-CODEC")]
    sigma: Option<f32>,
    /// Of texts: how many tokens of each copy are replaced by random ones; by default 1
    #[arg(long, value_name = "T", value_parser = shared::at_least_one, help_heading = "L-CODEC")]
    replace: Option<u32>,
    /// The precision of the passes over noisy copies; by default f32. The others need a GPU, and the report says how far they
    /// agree with f32
    #[arg(long, value_enum, value_name = "f32|tf32|bf16|f16", help_heading = "L-CODEC")]
    precision: Option<Precision>,
    /// How the units that are changed are chosen; by default by vote, which for one sample is plain FOCI. A single linear
    /// layer with --l2 changes in every unit, unless --max-units is given. With --block: vote, cheap, gradient or random
    #[arg(long, value_enum, value_name = "RULE", help_heading = "L-CODEC")]
    selection: Option<Method>,
    /// The most units that are changed; by default a fifth of all, and a twentieth for a class; FOCI stops by its own rule
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    max_units: Option<usize>,
    /// The matrix H in the Newton step; by default ggn, and hessian for a single linear layer with --l2
    #[arg(long, value_enum, value_name = "MATRIX", help_heading = "L-CODEC")]
    curvature: Option<Approximation>,
    /// Precondition the solver by K-FAC, which takes fewer products on ill-conditioned problems
    #[arg(long, help_heading = "L-CODEC")]
    precondition: bool,
    /// λ, added to the diagonal of H; by default 0.005 of the largest eigenvalue and at least 0.001, and 0 for a single linear
    /// layer with --l2
    #[arg(long, value_name = "λ", value_parser = shared::not_negative, help_heading = "L-CODEC")]
    damping: Option<f64>,
    /// The weight decay that the model was trained with (`weight_decay` of PyTorch's optimizers)
    #[arg(long, value_name = "W", default_value_t = DEFAULT.l2, value_parser = shared::not_negative, help_heading = "Method")]
    l2: f64,
    /// The step that is taken
    #[arg(long, value_enum, value_name = "newton|cr|gradient", default_value_t = DEFAULT.rule, help_heading = "L-CODEC")]
    update: Rule,
    /// The length of the step
    #[arg(long, value_enum, value_name = "calibrated|one", default_value_t = DEFAULT.length, help_heading = "L-CODEC")]
    length: Calibration,
    /// The mean loss that the forgotten samples are to reach; by default that of held-out samples, and for a class that of
    /// held-out samples of other classes under its label
    #[arg(long, value_name = "LOSS", help_heading = "L-CODEC")]
    target_loss: Option<f64>,
    /// The samples have wrong labels: with lcodec they are to reach the loss that held-out samples have under these labels
    #[arg(long, conflicts_with = "target_loss", help_heading = "Method")]
    wrong_labels: bool,
    /// Steps on the way to that loss; by default one for each 1.5 that the loss is to rise, at least 2 and at most 16
    #[arg(long, value_name = "S", help_heading = "L-CODEC")]
    stages: Option<usize>,
    /// Newton steps; those after the first reduce the gradient that is left. By default 1, and for a single linear layer with
    /// --l2 as many as bring the gradient below a thousandth of what the samples contributed
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    iterations: Option<usize>,
    /// The relative residual at which the solver stops
    #[arg(long, value_name = "R", default_value_t = DEFAULT.tolerance, value_parser = shared::not_negative, help_heading = "L-CODEC")]
    tolerance: f64,
    /// The most products with the matrix that the solver may use, and two fifths of them in later stages; by default 25, and
    /// 500 for a single linear layer with --l2
    #[arg(long, value_name = "K", help_heading = "L-CODEC")]
    products: Option<usize>,
    /// The largest drop of validation or retained accuracy that is accepted, in percentage points
    #[arg(long, value_name = "POINTS", default_value_t = 100.0 * DEFAULT.gate, value_parser = shared::not_negative, help_heading = "Method")]
    gate: f64,
    /// What to do where FOCI finds no unit that the loss on a batch depends on
    #[arg(long, value_enum, value_name = "refuse|cheap", default_value_t = DEFAULT.if_empty, help_heading = "L-CODEC")]
    if_empty: IfEmpty,
    /// ε of an (ε, δ) certificate of removal, for each batch; it holds for strongly convex losses only (docs/FORGETTING.md)
    #[arg(long, value_name = "ε", requires = "delta", help_heading = "Certificate")]
    epsilon: Option<f64>,
    /// δ of the certificate, for each batch
    #[arg(long, value_name = "δ", requires = "epsilon", help_heading = "Certificate")]
    delta: Option<f64>,
    /// The units that get the certificate's noise; by default those that the step does not change (outside)
    #[arg(long, value_enum, value_name = "none|outside|inside|all", help_heading = "Certificate")]
    noise: Option<NoiseUnits>,

    /// How new values become those of the model's files, where these are bf16 or f16
    #[arg(long, value_enum, value_name = "nearest|stochastic", default_value_t = DEFAULT.rounding)]
    rounding: Rounding,
    /// Go on where a request would be refused. no-val: it is no class and has no wrong labels, and without --val its samples
    /// are hardly forgotten; near-chance: the model is hardly better than always answering the commonest class;
    /// memory: more is needed than the machine has left
    #[arg(long, value_enum, value_delimiter = ',', value_name = "DOUBT,..")]
    despite: Vec<Doubt>,
    /// The seed of all random choices
    #[arg(long, value_name = "S", default_value_t = DEFAULT.seed)]
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
            budget: self.budget,
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
            rounding: self.rounding,
            despite: Some(self.despite.clone()),
            seed: self.seed,
            ..DEFAULT
        }
    }
}
