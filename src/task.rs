//! What the pipeline is given: the data and networks of a removal ([`Task`]), and every choice that decides its result
//! ([`Settings`], with all defaults worked out). A request makes both of what a user asks for.

use std::sync::atomic::AtomicBool;

use crate::data::{InputKind, Samples};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::names::names;
use crate::net::{Network, Op};
use crate::select::{Criteria, Method};
use crate::soft_label::Held;
use crate::solve::Limits;
use crate::stage::Stages;
use crate::train::Recipe;
use crate::update::{NoiseUnits, check_convexity, check_privacy};

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// (H_P + λI)⁻¹ Σ ∇f / (n − m).
    Newton,
    /// The same without 1/(n − m).
    Cr,
    /// Σ ∇f / (n − m): gradient ascent.
    Gradient,
}

names!(Rule {
    Newton = "newton": "(H + λI)⁻¹ times the samples' gradient, divided by the number of retained samples",
    Cr = "cr": "the same, not divided",
    Gradient = "gradient": "the gradient alone: gradient ascent",
});

/// What stands for the Hessian of the retained data, whose inverse turns the gradient into a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approximation {
    /// The exact Hessian, by conjugate gradient on its products; indefinite in ordinary networks.
    Hessian,
    /// The Gauss–Newton matrix, likewise.
    Ggn,
    /// The empirical Fisher matrix, likewise.
    Fisher,
    /// K-FAC: small inverses in place of products, faster and rougher.
    Kfac,
    /// Finite differences: ΔgΔgᵀ/(ΔgᵀΔw) between [`Task::earlier`] and now, as the reference implementation has it. Its
    /// rank is one, so that the step is nearly gradient ascent.
    Fd,
}

names!(Approximation {
    Hessian = "hessian": "the exact Hessian",
    Ggn = "ggn": "the Gauss-Newton matrix",
    Fisher = "fisher": "the empirical Fisher matrix",
    Kfac = "kfac": "K-FAC: small inverses, faster and rougher",
    Fd = "fd": "finite differences from the model of an earlier epoch",
});

/// Where the length of the step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calibration {
    /// Held-out data, for batches of at least [`SMALLEST_BATCH`].
    Calibrated,
    /// The formula.
    One,
}

names!(Calibration {
    Calibrated = "calibrated": "scaled until the samples reach their target loss; not below 10 samples",
    One = "one": "that of the formula",
});

/// Batches below this are never calibrated: scaling the step of a single sample destroys a model.
pub const SMALLEST_BATCH: usize = 10;

/// The mean loss of the forgotten that calibration aims at.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// What held-out samples have: an ordinary request.
    HeldOut,
    /// What held-out samples have under the labels of the request, where they are not their own: wrong labels.
    WrongLabels,
    /// What held-out samples of the classes it is nearest to have under its label: a class that is to go.
    Class,
    /// A number.
    Loss(f64),
}

/// What happens where no unit depends on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfEmpty {
    /// The batch is not removed.
    Refuse,
    /// The best units of FOCI's first step are taken.
    Cheap,
}

names!(IfEmpty {
    Refuse = "refuse": "the batch is not removed",
    Cheap = "cheap": "the best units of the first step are taken",
});

/// The certificate that is asked for, for each batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CertificateSpec {
    /// ε.
    pub epsilon: f64,
    /// δ.
    pub delta: f64,
    /// The parameters that get its noise; with [`NoiseUnits::None`] there is no certificate.
    pub noise: NoiseUnits,
}

/// How samples are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Procedure {
    /// L-CODEC: a Newton step on the block of units that carry the samples ([`crate::unlearn`]).
    Lcodec,
    /// The whole network, held at what a model without the samples would answer ([`crate::hold`]).
    Hold,
}

names!(Procedure {
    Lcodec = "lcodec": "a Newton step on the few units that the samples' loss depends on",
    Hold = "hold": "all units are trained on, and the samples held at what a model without them would answer",
});

/// Where the soft labels of a hold come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// The same architecture, trained for a few epochs on the retained samples.
    Trained,
    /// The labels of each sample's nearest retained samples.
    Neighbours,
    /// A model that is given ([`Task::proxy`]).
    Given,
}

names!(ProxyKind { Trained = "trained", Neighbours = "neighbours", Given = "given" });

/// How a hold runs.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldSettings {
    /// Where the soft labels come from.
    pub proxy: ProxyKind,
    /// How a proxy is trained; its weight decay is the hold's too.
    pub recipe: Recipe,
    /// Passes over the retained samples.
    pub epochs: usize,
    /// The share of the units whose rows move, and nothing else; none is every parameter.
    pub block: Option<f64>,
    /// How these units are chosen, by the criteria of [`Settings::selection`]; by default those with the largest gradient
    /// towards the soft labels.
    pub selection: Option<Method>,
}

impl HoldSettings {
    /// By what the units of its block are chosen, where that is not their gradient; the rest is as in `criteria`.
    pub fn criteria(&self, criteria: &Criteria) -> Option<Criteria> {
        let (share, method) = self.block.zip(self.selection)?;
        Some(Criteria { method, share, ..*criteria })
    }
}

/// Every choice that decides the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The hold, where that is the method; L-CODEC reads all the other choices, a hold the gate and the seed, and the selection
    /// where it chooses its units by one.
    pub hold: Option<HoldSettings>,
    /// How units are chosen.
    pub selection: Criteria,
    /// What stands for the Hessian; by default Gauss–Newton, and the exact Hessian for a convex model.
    pub curvature: Option<Approximation>,
    /// λ; by default max(1e-3, 5e-3 · largest eigenvalue), and 0 for a convex model.
    pub damping: Option<f64>,
    /// The weight decay that the model was trained with.
    pub l2: f64,
    /// The rule.
    pub rule: Rule,
    /// The length.
    pub calibration: Calibration,
    /// What it aims at.
    pub target: Target,
    /// Calibrated steps on the way to the target, each on gradient and curvature of where the last one ended; by
    /// default one for each 1.5 that the loss is to rise, from 2 to 16.
    pub stages: Option<usize>,
    /// Newton steps; those after the first are taken on the residual objective. By default one, and for a convex model as many
    /// as bring the gradient of that objective down ([`CONVERGED`]).
    pub iterations: Option<usize>,
    /// Products and tolerance of the solver.
    pub limits: Limits,
    /// Whether K-FAC preconditions it.
    pub precondition: bool,
    /// The certificate, where one is wanted.
    pub certificate: Option<CertificateSpec>,
    /// The largest drop of validation or retained accuracy that is accepted, as a share.
    pub gate: f64,
    /// What happens where no unit depends on a batch.
    pub if_empty: IfEmpty,
    /// Bytes of primal values that the solver's products may keep; the bits do not depend on it.
    pub memory: usize,
    /// The seed.
    pub seed: u64,
}

/// Those of a request without options: a voted block, a calibrated Newton step on the way to the held-out loss, a gate
/// of 5 points.
impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hold: None,
            selection: Criteria::default(),
            curvature: None,
            damping: None,
            l2: 0.0,
            rule: Rule::Newton,
            calibration: Calibration::Calibrated,
            target: Target::HeldOut,
            stages: None,
            iterations: None,
            limits: Limits { tolerance: 1e-2, products: PRODUCTS },
            precondition: false,
            certificate: None,
            gate: 0.05,
            if_empty: IfEmpty::Refuse,
            memory: 4 << 30,
            seed: 0,
        }
    }
}

impl Settings {
    /// The Newton steps that a batch takes at most.
    pub fn iterations_at_most(&self, net: &Network) -> usize {
        self.iterations.unwrap_or(if is_convex(net, self.l2) { MOST_ITERATIONS } else { 1 })
    }

    /// Whether a batch of `m` samples is calibrated on data that the network has not seen.
    pub fn calibrates(&self, net: &Network, m: usize) -> bool {
        self.hold.is_none()
            && self.calibration == Calibration::Calibrated
            && !is_convex(net, self.l2)
            && !matches!(self.target, Target::Loss(_))
            && m >= SMALLEST_BATCH
    }

    /// Where its noise goes: nowhere without a certificate.
    pub fn noise(&self) -> NoiseUnits {
        self.certificate.map_or(NoiseUnits::None, |certificate| certificate.noise)
    }

    /// Refuses settings that contradict each other or the network, before anything is computed.
    ///
    /// # Errors
    /// Where the target takes classes and the model has several labels, a certificate's ε or δ is none, finite differences
    /// lack the earlier model (or it has no use), or a hold cannot be carried out.
    pub fn check(&self, net: &Network, has_earlier: bool) -> Result<()> {
        match (net.loss, self.target) {
            (Loss::BinaryCrossEntropy, Target::Class | Target::WrongLabels) => {
                return Err(Error::config(
                    "the samples of a class, and those with wrong labels, are held against other classes, and this \
                     model has several labels; give --target-loss, or choose samples by their index",
                ));
            }
            (Loss::BinaryCrossEntropy, Target::HeldOut | Target::Loss(_))
            | (Loss::CrossEntropy { .. }, _) => {}
        }
        if let Some(certificate) = self.certificate.filter(|spec| spec.noise != NoiseUnits::None) {
            check_privacy(certificate.epsilon, certificate.delta)?;
            // The gradient rule has no damping but the one given.
            if self.rule == Rule::Gradient {
                check_convexity(self.damping.unwrap_or(0.0) + self.l2)?;
            }
        }
        if let Some(hold) = &self.hold {
            return self.check_hold(net, hold);
        }
        if (self.curvature == Some(Approximation::Fd)) != has_earlier {
            return Err(needs_earlier());
        }
        if self.iterations == Some(0) || self.stages == Some(0) {
            return Err(Error::config("a step of no stages"));
        }
        Ok(())
    }

    fn check_hold(&self, net: &Network, hold: &HoldSettings) -> Result<()> {
        let refused = |why: &str| Err(Error::config(format!("--method hold {why}")));
        match net.loss {
            Loss::CrossEntropy { .. } => {}
            Loss::BinaryCrossEntropy => {
                return refused("is for samples of one class each; this model has several labels");
            }
        }
        if is_convex(net, self.l2) {
            return refused(
                "is for networks; a model of one linear layer with --l2 has an exact Newton step",
            );
        }
        if let (ProxyKind::Neighbours, InputKind::Text { .. }) = (hold.proxy, net.kind()) {
            return Err(Error::config("--proxy neighbours is for images: token ids have no distance"));
        }
        if self.certificate.is_some() {
            return refused("gives no certificate: leave out --epsilon and --delta");
        }
        if hold.epochs == 0 || (hold.proxy == ProxyKind::Trained && hold.recipe.epochs == 0) {
            return refused("takes at least one epoch");
        }
        Ok(())
    }
}

/// The error of a hold with `found` validation samples, where there are too few of them.
pub fn needs_validation(found: usize) -> Error {
    Error::config(format!(
        "--method hold needs --val with at least {SMALLEST_BATCH} samples, found {found}: they show how sure a model is of samples \
         that it has not seen"
    ))
}

/// Products of the first stage by default.
pub const PRODUCTS: usize = 25;
/// Products of a convex model's solve by default: its step is to be exact.
const EXACT_PRODUCTS: usize = 500;
/// The products of a solve where none are asked for.
pub fn usual_products(convex: bool) -> usize {
    if convex { EXACT_PRODUCTS } else { PRODUCTS }
}

/// A convex model is iterated until the norm of the retained objective's gradient, on the block, is below this share of what the
/// forgotten samples contributed to it, ‖Σ_U ∇f‖ / (n − m); in at most this many steps.
pub const CONVERGED: f64 = 1e-3;
/// See [`CONVERGED`].
const MOST_ITERATIONS: usize = 20;

/// What a request is carried out on.
pub struct Task<'a> {
    /// Where to run.
    pub device: &'a Device,
    /// The training data that are given, the forgotten samples included.
    pub samples: &'a Samples,
    /// Indices of retained samples, whose curvature is used.
    pub retained: Vec<usize>,
    /// Indices of the retained samples that a hold and its proxy train on; usually all there are.
    pub train_on: Vec<usize>,
    /// Indices of retained samples that calibration holds out; none of [`Task::retained`].
    pub held_out: Vec<usize>,
    /// Validation data: the gate, and the calibration's held-out data where there are some.
    pub validation: Option<&'a Samples>,
    /// The model of an earlier epoch, for [`Approximation::Fd`].
    pub earlier: Option<&'a Network>,
    /// A model that has not seen the samples, for [`ProxyKind::Given`].
    pub proxy: Option<&'a Network>,
    /// How many samples the model knows: those that it was trained on, without those that earlier runs removed.
    pub n: usize,
    /// Samples that earlier runs removed, with their soft labels: a hold holds them too.
    pub held: &'a Held,
    /// Set to stop before the next stage.
    pub stop: &'a AtomicBool,
    /// Where a hold keeps its stages, to go on from when it was stopped.
    pub stages: Option<&'a Stages>,
    /// Called with the name of every phase of a batch when it ends, in the thread that runs the task.
    pub on_phase: Option<&'a OnPhase<'a>>,
    /// The choices.
    pub settings: Settings,
}

/// What is called with the name of a phase.
pub type OnPhase<'a> = dyn Fn(&'static str) + 'a;

/// The flag of tasks that nothing stops.
static NEVER: AtomicBool = AtomicBool::new(false);

/// What tasks hold that follow no other run.
static NOTHING: Held = Held { indices: vec![], soft_labels: vec![] };

impl<'a> Task<'a> {
    /// A task on a model that was trained on `samples`; a hold trains on `retained`, and there are no validation data.
    pub fn new(
        device: &'a Device,
        samples: &'a Samples,
        retained: Vec<usize>,
        settings: Settings,
    ) -> Task<'a> {
        Task {
            device,
            samples,
            train_on: retained.clone(),
            retained,
            held_out: vec![],
            validation: None,
            earlier: None,
            proxy: None,
            n: samples.y.len(),
            held: &NOTHING,
            stop: &NEVER,
            stages: None,
            on_phase: None,
            settings,
        }
    }
}

fn needs_earlier() -> Error {
    Error::config(
        "--curvature fd needs the model of an earlier epoch, --earlier; no other curvature takes one",
    )
}

impl<'a> Task<'a> {
    /// The model of an earlier epoch.
    ///
    /// # Errors
    /// Where there is none.
    pub fn earlier(&self) -> Result<&'a Network> {
        self.earlier.ok_or_else(needs_earlier)
    }

    /// Refuses a batch of `m` samples before anything is computed.
    ///
    /// # Errors
    /// As [`Settings::check`]; where there are too few samples to calibrate on, or nothing is left to retain.
    pub fn check(&self, net: &Network, m: usize) -> Result<()> {
        self.settings.check(net, self.earlier.is_some())?;
        if self.retained.is_empty() {
            return Err(Error::config("nothing is left to retain"));
        }
        if let Some(hold) = &self.settings.hold {
            if hold.proxy == ProxyKind::Given && self.proxy.is_none() {
                return Err(Error::config("no model was given as the proxy"));
            }
            return match self.validation {
                Some(samples) if samples.y.len() >= SMALLEST_BATCH => Ok(()),
                samples => Err(needs_validation(samples.map_or(0, |samples| samples.y.len()))),
            };
        }
        let unseen = self.validation.map_or(self.held_out.len(), |samples| samples.y.len());
        if self.settings.calibrates(net, m) && unseen < SMALLEST_BATCH {
            return Err(Error::config(format!(
                "{unseen} samples to calibrate on are too few, {SMALLEST_BATCH} are needed; give --val, more data, or --length one"
            )));
        }
        Ok(())
    }
}

/// A model with one linear layer and weight decay: its objective is convex, and one exact step nearly retrains it.
pub fn is_convex(net: &Network, l2: f64) -> bool {
    let inner = net.nodes.iter().filter(|node| !matches!(node.op, Op::Input | Op::Reshape)).count();
    l2 > 0.0 && inner == 1
}
