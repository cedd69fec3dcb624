//! The options of a request: the one list of them, with their defaults. What they leave open is worked out in
//! [`ScrubOptions::settings`] and by the request ([`crate::request`]), and nowhere else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Rounding;
use crate::data::{self, Labels, Names, Spec};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::names::names;
use crate::net::Network;
use crate::ops::Precision;
use crate::perturb::{REPLACE, SIGMA};
use crate::select::{Criteria, Method};
use crate::solve::Limits;
use crate::task::{
    Approximation, Calibration, CertificateSpec, HoldSettings, IfEmpty, Procedure, ProxyKind, Rule, Settings,
    Target, is_convex, usual_products,
};
use crate::train::{Recipe, Schedule};
use crate::update::NoiseUnits;

/// A choice of samples of the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pick {
    /// As text: `7,12,100-149` (both ends included), `class:spam`, `path:GLOB`, `where:site=berlin`, `level:1=s7`,
    /// `n:20@seed`, or the name of a file of such lines ([`Spec`]). `class:spam` alone is a class that is to go.
    Spec(String),
    /// By index.
    Indices(Vec<usize>),
}

impl From<&str> for Pick {
    fn from(text: &str) -> Pick {
        Pick::Spec(text.into())
    }
}

impl From<Vec<usize>> for Pick {
    fn from(indices: Vec<usize>) -> Pick {
        Pick::Indices(indices)
    }
}

impl Pick {
    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Pick::Spec(text) => Some(text),
            Pick::Indices(_) => None,
        }
    }

    /// Whether it is one class and nothing else.
    ///
    /// # Errors
    /// Where the text is not understood.
    pub fn is_class(&self) -> Result<bool> {
        match self {
            Pick::Spec(text) => Ok(Spec::parse(text)?.is_class()),
            Pick::Indices(_) => Ok(false),
        }
    }

    /// That a line of a list was left out as a header, in words.
    ///
    /// # Errors
    /// Where the text is not understood.
    pub fn header(&self, names: &Names) -> Result<Option<String>> {
        match self {
            Pick::Spec(text) => Ok(Spec::parse(text)?.header(names)),
            Pick::Indices(_) => Ok(None),
        }
    }

    /// The samples, ascending, each once; `path` is the file of the data, where they have one.
    ///
    /// # Errors
    /// Where the text is not understood, or takes what is not there; where the list is empty, or has a sample beyond the end.
    pub fn choose(&self, path: Option<&Path>, labels: &Labels, names: &Names) -> Result<Vec<usize>> {
        match self {
            Pick::Spec(text) => match path {
                Some(path) => data::choose(text, path, labels, names),
                None => Spec::parse(text)?.choose(labels, names),
            },
            Pick::Indices(indices) => {
                let mut chosen = indices.clone();
                chosen.sort_unstable();
                chosen.dedup();
                match chosen.last() {
                    Some(&last) if last >= labels.len() => {
                        Err(Error::config(data::beyond(last, labels.len())))
                    }
                    Some(_) => Ok(chosen),
                    None => Err(Error::config("the list of samples is empty")),
                }
            }
        }
    }
}

/// The doubts that refuse a request, and which a request can be made despite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// An ordinary request without validation data: retained samples take their place, of which the model is too sure.
    NoVal,
    /// The model is hardly better than always answering the commonest class: it is misread, or its data are not normalised.
    NearChance,
    /// More memory is needed than the machine has left.
    Memory,
}

names!(Doubt { NoVal = "no-val", NearChance = "near-chance", Memory = "memory" });

/// What a delta file of a run has ([`crate::checkpoint::Delta`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaValues {
    /// New values alone: it can be applied.
    New,
    /// Old values too: it can be taken back, and tells of the removed samples as the model before does.
    Both,
}

names!(DeltaValues { New = "new", Both = "both" });

/// The options of a request. [`ScrubOptions::DEFAULT`] has every default that does not depend on the request; `None`
/// leaves a choice to the request or the model. In JSON what is not given has its default, and an option that is none is refused
/// by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubOptions {
    /// The retained samples that are used; by default 1,024 of the rest at random, and all of it for a hold or a convex
    /// model.
    pub retain: Option<Pick>,
    /// How many samples the model was trained on; by default as many as the data have.
    pub n: Option<usize>,
    /// Samples removed together; by default all at once in a hold, else 25, and a class at once.
    pub batch: Option<usize>,
    /// How samples are removed; by default [`ScrubOptions::procedure`] says.
    pub method: Option<Procedure>,
    /// Where the soft labels of a hold come from.
    pub proxy: ProxyKind,
    /// Passes over the retained samples that train a hold's proxy.
    pub proxy_epochs: usize,
    /// Passes over the retained samples of a hold.
    pub hold_epochs: usize,
    /// The most passes over the retained samples that a hold may take; where its proxy and all of them take more, it makes do with
    /// neighbours and a part of them.
    pub budget: Option<f64>,
    /// The share of the units that a hold moves, and nothing else: those with the largest gradient towards the soft labels, or
    /// as `selection` chooses; by default it moves every parameter.
    pub block: Option<f64>,
    /// How units are chosen; by default by vote, and every unit of a convex model unless there are `max_units`. In a hold with a
    /// `block` one of those that fill a share: vote, cheap, gradient, random.
    pub selection: Option<Method>,
    /// Noisy copies per trace; by default 1000, and 200 for each sample of a vote.
    pub perturbations: Option<usize>,
    /// Of images, the standard deviation of their noise, in units of the normalised input; by default 0.1.
    pub sigma: Option<f32>,
    /// Of texts, how many tokens of each are replaced; by default one.
    pub replace: Option<u32>,
    /// Precision of the passes over them, below f32 on CUDA only; by default f32.
    pub precision: Option<Precision>,
    /// Units at most.
    pub max_units: Option<usize>,
    /// What stands for the Hessian; by default [`Approximation::Ggn`], and the exact Hessian for a convex model.
    pub curvature: Option<Approximation>,
    /// Whether K-FAC preconditions the solve.
    pub precondition: bool,
    /// λ; by default max(1e-3, 5e-3 of the largest eigenvalue), and 0 for a convex model.
    pub damping: Option<f64>,
    /// The weight decay that the model was trained with.
    pub l2: f64,
    /// The update rule.
    #[serde(rename = "update")]
    pub rule: Rule,
    /// Where the step's length comes from.
    pub length: Calibration,
    /// The mean loss of the forgotten to calibrate to; by default what unseen samples have.
    pub target_loss: Option<f64>,
    /// Whether the samples carry wrong labels: calibration aims at the loss of held-out samples under these labels.
    pub wrong_labels: bool,
    /// Calibrated steps on the way there; by default one for each 1.5 that the loss is to rise, from 2 to 16.
    pub stages: Option<usize>,
    /// Newton steps; those after the first on the residual objective. By default one, and for a convex model as many as bring
    /// the gradient of that objective down.
    pub iterations: Option<usize>,
    /// Relative residual of the solve.
    pub tolerance: f64,
    /// Products that the solve may spend; by default 25, and 500 for a convex model.
    pub products: Option<usize>,
    /// The largest drop of validation or retained accuracy that is accepted, as a share.
    pub gate: f64,
    /// What happens where no unit depends on a batch.
    pub if_empty: IfEmpty,
    /// ε of a certificate for each batch, with `delta`.
    pub epsilon: Option<f64>,
    /// δ of a certificate for each batch, with `epsilon`.
    pub delta: Option<f64>,
    /// The units that get the certificate's noise; by default those outside the block.
    pub noise: Option<NoiseUnits>,
    /// What a run in a folder writes as a delta file; by default none.
    pub delta_file: Option<DeltaValues>,
    /// How new values are rounded where the model's files have 16 bits.
    pub rounding: Rounding,
    /// Doubts that do not refuse the request; by default both do.
    pub despite: Option<Vec<Doubt>>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for ScrubOptions {
    fn default() -> ScrubOptions {
        ScrubOptions::DEFAULT
    }
}

impl ScrubOptions {
    /// The defaults.
    pub const DEFAULT: ScrubOptions = ScrubOptions {
        retain: None,
        n: None,
        batch: None,
        method: None,
        proxy: ProxyKind::Trained,
        proxy_epochs: 4,
        hold_epochs: 4,
        budget: None,
        block: None,
        selection: None,
        perturbations: None,
        sigma: None,
        replace: None,
        precision: None,
        max_units: None,
        curvature: None,
        precondition: false,
        damping: None,
        l2: 0.0,
        rule: Rule::Newton,
        length: Calibration::Calibrated,
        target_loss: None,
        wrong_labels: false,
        stages: None,
        iterations: None,
        tolerance: 1e-2,
        products: None,
        gate: 0.05,
        if_empty: IfEmpty::Refuse,
        epsilon: None,
        delta: None,
        noise: None,
        delta_file: None,
        rounding: Rounding::Nearest,
        despite: None,
        seed: 0,
    };

    /// Refuses options that mean nothing, or contradict each other, for whatever model and data.
    ///
    /// # Errors
    /// With the option's name on the command line.
    pub fn check(&self) -> Result<()> {
        for (name, given, least) in [
            ("--perturbations", self.perturbations, 2),
            ("--max-units", self.max_units, 1),
            ("--batch", self.batch, 1),
            ("--stages", self.stages, 1),
            ("--iterations", self.iterations, 1),
            ("--products", self.products, 1),
            ("--n", self.n, 1),
            ("--proxy-epochs", Some(self.proxy_epochs), 1),
            ("--hold-epochs", Some(self.hold_epochs), 1),
        ] {
            if let Some(given) = given.filter(|given| *given < least) {
                return Err(Error::config(format!("{name} is at least {least}, not {given}")));
            }
        }
        for (name, given, most) in [
            ("--perturbations", self.perturbations, u32::MAX as usize), // copies are numbered by 32 bits
            ("--stages", self.stages, 1000),
        ] {
            if let Some(given) = given.filter(|given| *given > most) {
                return Err(Error::config(format!("{name} is at most {most}, not {given}")));
            }
        }
        for (name, value) in [
            ("--l2", self.l2),
            ("--tolerance", self.tolerance),
            ("--damping", self.damping.unwrap_or(0.0)),
            ("--gate", self.gate),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(format!("{name} is a number of at least 0, not {value}")));
            }
        }
        if let Some(sigma) = self.sigma.filter(|sigma| !(sigma.is_finite() && *sigma > 0.0)) {
            return Err(Error::config(format!("--sigma is a number above 0, not {sigma}")));
        }
        if let Some(budget) = self.budget.filter(|budget| !(budget.is_finite() && *budget > 0.0)) {
            return Err(Error::config(format!("--budget is a number of epochs above 0, not {budget}")));
        }
        self.check_block()?;
        if self.replace == Some(0) {
            return Err(Error::config("--replace is a number of tokens above 0"));
        }
        if let Some(loss) = self.target_loss.filter(|loss| !(loss.is_finite() && *loss > 0.0)) {
            return Err(Error::config(format!("--target-loss is a number above 0, not {loss}")));
        }
        if self.target_loss.is_some() && self.wrong_labels {
            return Err(Error::config(
                "--wrong-labels and --target-loss each set the target of L-CODEC; give one of them",
            ));
        }
        if self.precision.is_some() && self.selection.is_some_and(|method| !method.observes()) {
            return Err(Error::config("--precision is for a --selection that observes noisy copies"));
        }
        if self.epsilon.is_some() != self.delta.is_some() {
            return Err(Error::config("--epsilon and --delta go together"));
        }
        if self.noise.is_some_and(|noise| noise != NoiseUnits::None) && self.epsilon.is_none() {
            return Err(Error::config("--noise needs --epsilon and --delta"));
        }
        match (self.method, self.of_hold(), self.of_lcodec()) {
            (None, Some(one), Some(other)) => Err(Error::config(format!(
                "{one} is for --method hold and {other} for --method lcodec; leave one out"
            ))),
            (Some(Procedure::Lcodec), Some(option), _) => {
                Err(Error::config(format!("{option} is for --method hold, and --method is lcodec")))
            }
            (Some(Procedure::Hold), _, Some(option)) => {
                Err(Error::config(format!("{option} is for --method lcodec, and --method is hold")))
            }
            _ => Ok(()),
        }
    }

    fn check_block(&self) -> Result<()> {
        let Some(share) = self.block else { return Ok(()) };
        if !(share > 0.0 && share <= 1.0) {
            let reason = format!("--block is a share of the units, above 0 and at most 1, not {share}");
            return Err(Error::config(reason));
        }
        match self.selection.filter(|method| !method.fills_a_share()) {
            None => Ok(()),
            Some(method) => Err(Error::config(format!(
                "--selection {} chooses a number of units of its own, and --block asks for {share} of all: with --block it is \
                 vote, cheap, gradient or random",
                method.name()
            ))),
        }
    }

    /// Whether a doubt does not refuse the request.
    pub fn is_despite(&self, doubt: Doubt) -> bool {
        self.despite.as_ref().is_some_and(|despite| despite.contains(&doubt))
    }

    /// The first option given that a hold alone reads.
    fn of_hold(&self) -> Option<&'static str> {
        let plain = ScrubOptions::DEFAULT;
        let given = [
            ("--proxy", self.proxy != plain.proxy),
            ("--proxy-epochs", self.proxy_epochs != plain.proxy_epochs),
            ("--hold-epochs", self.hold_epochs != plain.hold_epochs),
            ("--budget", self.budget.is_some()),
            ("--block", self.block.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// The first option given that L-CODEC alone reads; how a hold's block is chosen, too, where there is one.
    fn of_lcodec(&self) -> Option<&'static str> {
        let plain = ScrubOptions::DEFAULT;
        let selects_block = self.block.is_some() && self.selection.is_some();
        let given = [
            ("--selection", self.selection.is_some() && !selects_block),
            ("--perturbations", self.perturbations.is_some() && !selects_block),
            ("--sigma", self.sigma.is_some() && !selects_block),
            ("--replace", self.replace.is_some() && !selects_block),
            ("--precision", self.precision.is_some() && !selects_block),
            ("--max-units", self.max_units.is_some()),
            ("--curvature", self.curvature.is_some()),
            ("--precondition", self.precondition),
            ("--damping", self.damping.is_some()),
            ("--update", self.rule != plain.rule),
            ("--length", self.length != plain.length),
            ("--target-loss", self.target_loss.is_some()),
            ("--stages", self.stages.is_some()),
            ("--iterations", self.iterations.is_some()),
            ("--tolerance", self.tolerance != plain.tolerance),
            ("--products", self.products.is_some()),
            ("--if-empty", self.if_empty != plain.if_empty),
            ("--epsilon", self.epsilon.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// How samples are removed: as asked for; else as an option that only one procedure reads tells; else by a hold where
    /// there are validation data and the model is one that can be held; else by L-CODEC, which for a convex model is the exact
    /// Newton step. By the measurements of docs/FORGETTING.md a hold comes closest to retraining.
    pub fn procedure(&self, net: &Network, has_validation: bool) -> Procedure {
        let can_be_held = matches!(net.loss, Loss::CrossEntropy { .. }) && !is_convex(net, self.l2);
        match (self.method, self.of_hold(), self.of_lcodec()) {
            (Some(method), ..) => method,
            (None, Some(_), _) => Procedure::Hold,
            (None, None, None) if has_validation && can_be_held => Procedure::Hold,
            (None, None, _) => Procedure::Lcodec,
        }
    }

    /// The settings of a request to a model by this procedure, which is for a class or not; a proxy is trained as the model was,
    /// where that is known.
    ///
    /// # Errors
    /// As [`ScrubOptions::check`].
    pub fn settings(
        &self,
        net: &Network,
        procedure: Procedure,
        class: bool,
        trained_by: Option<Recipe>,
    ) -> Result<Settings> {
        self.check()?;
        let convex = is_convex(net, self.l2);
        let every = convex && self.max_units.is_none();
        let target = match self.target_loss {
            Some(loss) => Target::Loss(loss),
            None if self.wrong_labels => Target::WrongLabels,
            None if class => Target::Class,
            None => Target::HeldOut,
        };
        let certificate = self.epsilon.zip(self.delta).map(|(epsilon, delta)| {
            let noise = self.noise.unwrap_or(NoiseUnits::Outside);
            CertificateSpec { epsilon, delta, noise }
        });
        let usual = trained_by.unwrap_or(Recipe {
            epochs: 0,
            batch: 64,
            rate: 0.05,
            weight_decay: self.l2 as f32,
            seed: 0,
            ..Recipe::default()
        });
        let recipe =
            Recipe { epochs: self.proxy_epochs, schedule: Schedule::Cosine, seed: self.seed, ..usual };
        let hold = HoldSettings {
            proxy: self.proxy,
            recipe,
            epochs: self.hold_epochs,
            block: self.block,
            selection: self.selection,
        };
        Ok(Settings {
            hold: match procedure {
                Procedure::Lcodec => None,
                Procedure::Hold => Some(hold),
            },
            selection: Criteria {
                method: self.selection.unwrap_or(if every { Method::Full } else { Method::Vote }),
                perturbations: self.perturbations,
                sigma: self.sigma.unwrap_or(SIGMA),
                replace: self.replace.unwrap_or(REPLACE),
                max_units: self.max_units,
                share: if class { 0.05 } else { 0.2 },
                precision: self.precision.unwrap_or_default(),
                seed: self.seed,
            },
            curvature: self.curvature,
            damping: self.damping,
            l2: self.l2,
            rule: self.rule,
            calibration: self.length,
            target,
            stages: self.stages,
            iterations: self.iterations,
            limits: Limits {
                tolerance: self.tolerance,
                products: self.products.unwrap_or(usual_products(convex)),
            },
            precondition: self.precondition,
            certificate,
            gate: self.gate,
            if_empty: self.if_empty,
            seed: self.seed,
            ..Settings::default()
        })
    }
}
