//! The pipeline: a request in, new weights and an account out. Each stage is one file; this one is the paper.
//!
//! For each batch of a request: choose the units that carry it, take its gradient on their block, solve with the
//! curvature of the retained data, step (MATH.md, Eq. 12), and measure. With n samples left before the batch
//! and m in it:
//!
//! ```text
//! w_P ← w_P + α (H_P + λI)⁻¹ Σ_U ∇_P f / (n − m)
//! ```
//!
//! where H_P is the curvature of the mean retained loss and α is 1, or calibrated on held-out data.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::{Value, json};

use crate::block::Block;
use crate::curvature::{Curvature, Kind};
use crate::data::{Inputs, Samples, Subset};
use crate::device::Device;
use crate::kfac::{Inverse, Kfac};
use crate::net::{Network, Op, UnitId};
use crate::observe::{Scores, evaluate, outputs};
use crate::ops::cpu::loss::largest;
use crate::receipt::{Record, to_hex};
use crate::repair::{self, Targets};
use crate::select::{self, Method, select};
use crate::solve::{
    CudaVector, Limits, Negative, Preconditioner, Product, Secant, Vector, conjugate_gradient,
    largest_eigenvalue,
};
use crate::update::{Certificate, Length, Where, update};
use crate::{Error, Result, check_stop};

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// (H_P + λI)⁻¹ Σ ∇f / (n − m).
    Newton,
    /// The same without 1/(n − m).
    Cr,
    /// Σ ∇f / (n − m): gradient ascent.
    Gradient,
}

/// The matrix whose inverse turns the gradient into a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// The exact Hessian, by conjugate gradient on its products; indefinite in ordinary networks.
    Hessian,
    /// The Gauss–Newton matrix, likewise.
    Ggn,
    /// The empirical Fisher matrix, likewise.
    Fisher,
    /// K-FAC: small inverses in place of products, faster and rougher.
    Kfac,
    /// ΔgΔgᵀ/(ΔgᵀΔw) between [`Task::earlier`] and now, as the reference does it: rank one, and so nearly gradient
    /// ascent.
    Fd,
}

impl Matrix {
    /// The products to solve with, where it is solved by products.
    fn products(self) -> Option<Kind> {
        match self {
            Matrix::Hessian => Some(Kind::Hessian),
            Matrix::Ggn => Some(Kind::Ggn),
            Matrix::Fisher => Some(Kind::Fisher),
            Matrix::Kfac | Matrix::Fd => None,
        }
    }
}

/// Where the length of the step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibration {
    /// Held-out data, for batches of at least [`SMALLEST_BATCH`].
    Calibrated,
    /// The formula.
    One,
}

/// Batches below this are never calibrated: scaling the step of a single sample destroys a model.
pub const SMALLEST_BATCH: usize = 10;

/// A change of the forgotten samples' mean loss below which a receipt says that nothing measurable happened.
const MEASURABLE: f64 = 0.01;

/// A standard error of the target above which, as a share of it, a receipt says that it is uncertain.
const UNCERTAIN: f64 = 0.25;

/// Power iterations that estimate the largest eigenvalue, in the first stage.
const POWER_STEPS: usize = 6;

/// The most by which one stage raises the mean loss of the forgotten, and how many stages there are by default.
const STAGE_LOSS: f64 = 1.5;
const STAGES: RangeInclusive<usize> = 2..=16;

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

/// Every choice that decides the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How units are chosen.
    pub selection: select::Config,
    /// The matrix; by default Gauss–Newton, and the exact Hessian for a single linear layer with weight decay.
    pub curvature: Option<Matrix>,
    /// λ; by default max(1e-3, 5e-3 · largest eigenvalue), and 0 for a single linear layer with weight decay.
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
    /// Mini-batches of repair after the step: on the block for a class or towards a number, else on every unit.
    pub repair: usize,
    /// Newton steps; those after the first are taken on the residual objective (for convex models).
    pub iterations: usize,
    /// Products and tolerance of the solver.
    pub limits: Limits,
    /// Whether K-FAC preconditions it.
    pub precondition: bool,
    /// ε and δ of a certificate, where one is wanted.
    pub privacy: Option<(f64, f64)>,
    /// Which parameters its noise goes to.
    pub noise: Where,
    /// The largest drop of validation accuracy that is accepted, as a share.
    pub gate: f64,
    /// Whether, where no unit depends on a batch, the best units of FOCI's first step are taken.
    pub if_empty_cheap: bool,
    /// Bytes of primal values that the solver's products may keep.
    pub memory: usize,
    /// The seed.
    pub seed: u64,
}

/// The defaults of `scrub`: a voted block, a calibrated Newton step on the way to the held-out loss, a gate of 5
/// points.
impl Default for Config {
    fn default() -> Config {
        Config {
            selection: select::Config::default(),
            curvature: None,
            damping: None,
            l2: 0.0,
            rule: Rule::Newton,
            calibration: Calibration::Calibrated,
            target: Target::HeldOut,
            stages: None,
            repair: 0,
            iterations: 1,
            limits: Limits { tolerance: 1e-2, products: products(Target::HeldOut, 0) },
            precondition: false,
            privacy: None,
            noise: Where::None,
            gate: 0.05,
            if_empty_cheap: false,
            memory: 4 << 30,
            seed: 0,
        }
    }
}

impl Config {
    /// Stages, and Hessian-vector products, that a batch of `m` samples takes at most (an ordinary one where the loss
    /// of held-out samples is no more than 3).
    pub fn at_most(&self, m: usize) -> (usize, usize) {
        let stages = match (self.calibration, self.target) {
            (Calibration::One, _) => 1,
            _ if m < SMALLEST_BATCH => 1,
            (_, Target::HeldOut) => self.stages.unwrap_or(*STAGES.start()),
            (_, Target::Loss(loss)) => self.stages.unwrap_or(stages(loss)),
            (_, Target::WrongLabels | Target::Class) => self.stages.unwrap_or(*STAGES.end()),
        };
        // Each solve ends with the product of its true residual.
        let later = later_products(self.limits.products) + 1;
        (stages, POWER_STEPS + self.limits.products + 1 + (stages - 1) * later)
    }
}

/// Products of the first stage by default; fewer where a repair follows that holds both ways, and mends what a rough
/// step leaves.
pub fn products(target: Target, repair: usize) -> usize {
    if repair > 0 && target != Target::HeldOut { 10 } else { 25 }
}

/// Products of a later stage, which begins at the step of the one before.
fn later_products(products: usize) -> usize {
    (2 * products).div_ceil(5)
}

/// Stages for a rise of the loss.
fn stages(rise: f64) -> usize {
    ((rise / STAGE_LOSS).ceil() as usize).clamp(*STAGES.start(), *STAGES.end())
}

/// What a request is carried out on.
pub struct Task<'a> {
    /// Where to run.
    pub device: &'a Device,
    /// The training data at hand, the forgotten samples included.
    pub samples: &'a Samples,
    /// Indices of retained samples, whose curvature is used.
    pub retained: Vec<usize>,
    /// Indices of the retained samples that repair draws from; usually all there are.
    pub repair_on: Vec<usize>,
    /// Indices of retained samples that calibration holds out; none of [`Task::retained`].
    pub held_out: Vec<usize>,
    /// Validation data: the gate, and the calibration's held-out data where there are some.
    pub validation: Option<&'a Samples>,
    /// The model of an earlier epoch, for [`Matrix::Fd`].
    pub earlier: Option<&'a Network>,
    /// How many samples the model was trained on.
    pub n: usize,
    /// Set to stop before the next stage.
    pub stop: &'a AtomicBool,
    /// The choices.
    pub config: Config,
}

/// Mean loss and accuracy of a model on some samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Measure {
    /// The mean loss.
    pub loss: f64,
    /// The share of correct predictions.
    pub accuracy: f64,
}

/// Removes a batch from `net`, which the samples `earlier` have left before; `net` changes only where the record says
/// `removed`.
///
/// # Errors
/// Where a stage fails or the user stops; `net` is then as before.
pub fn unlearn(
    task: &Task,
    net: &mut Network,
    batch: usize,
    indices: &[usize],
    earlier: &[usize],
) -> Result<Record> {
    let (device, config) = (task.device, &task.config);
    let request = task.samples.subset(indices);
    let retained = task.samples.subset(&task.retained);
    let (n, m) = (task.n - earlier.len(), indices.len());
    let residual = (n - m) as f64;
    let mut clock = Clock::new();
    let mut notes = vec![];

    // Choose the units.
    let chosen = choose(task, net, indices, &mut notes)?;
    clock.lap("select");
    let judged = judged(task, indices, &mut notes);
    let judged = task.validation.filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
    let before = Measures::of(task, net, &request, judged.as_ref())?;
    clock.lap("evaluate");
    let mut record = Record {
        batch,
        indices: indices.to_vec(),
        removed: false,
        notes: vec![],
        units: chosen.units.iter().map(|&unit| name(net, unit)).collect(),
        account: json!({}),
        every_unit: false,
        values: String::new(),
    };
    if chosen.units.is_empty() {
        notes.push("not removed: no unit depends on it".to_string());
        record.notes = notes;
        record.account = json!({"n": n, "m": m, "selection": selection_json(&chosen), "before": before,
            "seconds": clock.seconds});
        return Ok(record);
    }
    check_stop(task.stop)?;

    // Its gradient on their block, the curvature of what is retained, and the step at its length.
    let block = Block::of(net, &chosen.units)?;
    let start = block.values(net);
    let convex = is_convex(net, config.l2);
    if (config.curvature == Some(Matrix::Fd)) != task.earlier.is_some() {
        return Err(Error::config(
            "curvature by finite differences, and it alone, needs the model of an earlier epoch",
        ));
    }
    let matrix = config.curvature.unwrap_or(if convex { Matrix::Hessian } else { Matrix::Ggn });
    let mut moved = net.clone();
    let (mut sum, mut retained_gradient) = (vec![], vec![]);
    let mut solvers = vec![];
    let mut previous = None;
    let mut scaled = None;
    if convex && config.repair > 0 {
        return Err(Error::config("a convex model is not repaired: iterate its Newton step instead"));
    }
    let unseen = Unseen { task, net, request: indices, scores: OnceCell::new() };
    let lengths = lengths(&unseen, before.forget.loss, &mut notes)?;
    let target = match lengths.last() {
        Some(Length::To(target)) => *target,
        _ => f64::NAN,
    };
    for length in lengths {
        check_stop(task.stop)?;
        // Each sample's loss carries its part of the weight decay.
        let gradient = block.gradient(device, &moved, &request)?;
        let decayed = gradient.iter().zip(block.values(&moved)).map(|(g, w)| g + config.l2 * f64::from(w));
        let gradient: Vec<f64> = decayed.map(|g| g * m as f64).collect();
        let local = Local::new(task, &moved, &block, &retained, matrix)?;
        clock.lap("curvature");
        if solvers.is_empty() {
            (sum, retained_gradient) = (gradient.clone(), local.gradient.clone());
        }
        let (mut step, solver, preconditioner) = local.solve(&gradient, residual, convex, previous.take())?;
        note_solve(&solver, &mut notes);
        drop(local);
        let damping = solver["damping"].as_f64().unwrap_or(0.0);
        previous = Some(Previous { step: step.clone(), damping, preconditioner });
        if config.rule == Rule::Cr {
            step.iter_mut().for_each(|s| *s *= residual);
        }
        clock.lap("solve");
        let found = update(device, &mut moved, &block, &step, &request, length, task.stop)?;
        clock.lap("length");
        solvers.push(solver);
        scaled = Some(found);
        if !found.reached {
            break;
        }
    }
    let Some(scaled) = scaled else { return Err(Error::config("a step of no stages")) };
    for _ in 1..config.iterations {
        let local = Local::new(task, &moved, &block, &retained, matrix)?;
        let values = block.values(&moved);
        let gradient = local.gradient.iter().zip(&values);
        let uphill: Vec<f64> = gradient.map(|(g, w)| -(g + config.l2 * f64::from(*w)) * residual).collect();
        let (step, solver, _) = local.solve(&uphill, residual, convex, None)?;
        note_solve(&solver, &mut notes);
        drop(local);
        update(device, &mut moved, &block, &step, &request, Length::One, task.stop)?;
        solvers.push(solver);
    }
    clock.lap("solve");
    let whole = config.repair > 0 && !matches!(config.target, Target::Loss(_) | Target::Class);
    let mut repair_rate = None;
    if config.repair > 0 && scaled.reached {
        let all = if whole { Some(Block::all(&moved)?) } else { None };
        let forgotten = [earlier, indices].concat();
        let targets = targets(&unseen, &moved, &forgotten)?;
        let block = all.as_ref().unwrap_or(&block);
        repair_rate = repair(task, &mut moved, block, &retained, &forgotten, batch, &targets, &mut notes)?;
        clock.lap("repair");
    }
    let certificate = match config.privacy.filter(|_| config.noise != Where::None) {
        Some((epsilon, delta)) => {
            let damping =
                solvers.iter().filter_map(|solver| solver["damping"].as_f64()).fold(f64::INFINITY, f64::min);
            let certificate = Certificate::new(epsilon, delta, damping + config.l2, n, m)?;
            certificate.add_noise(&mut moved, &block, config.noise, config.seed, batch as u32);
            Some(certificate)
        }
        None => None,
    };

    // The audit.
    let after = Measures::of(task, &moved, &request, judged.as_ref())?;
    clock.lap("evaluate");
    let end = block.values(&moved);
    let gradient_after = block.gradient(device, &moved, &request)?;
    let retained_after = block.gradient(device, &moved, &retained)?;
    let share = share_removed(&start, &end, &retained_gradient, &retained_after, &sum, n, m, config.l2);
    clock.lap("audit");
    let distance = start.iter().zip(&end).map(|(a, b)| f64::from(b - a).powi(2)).sum::<f64>().sqrt();
    if !after.is_finite() {
        notes.push("not removed: the step leaves no finite loss".into());
    } else if distance == 0.0 && certificate.is_none() {
        notes.push("not removed: the step changes nothing".into());
    } else if !scaled.reached {
        notes.push(format!(
            "not removed: the forgotten samples' loss reaches {:.3} on its way to the target {target:.3}, and no length goes further",
            scaled.loss
        ));
    } else if let (Some(was), Some(is)) = (before.validation, after.validation)
        && was.accuracy - is.accuracy > config.gate
    {
        notes.push(format!(
            "not removed: validation accuracy would fall by {:.2} points, the gate is {:.2}",
            100.0 * (was.accuracy - is.accuracy),
            100.0 * config.gate
        ));
    } else {
        record.removed = true;
        let (was, is) = (before.forget.loss, after.forget.loss);
        if !convex && (is - was).abs() < MEASURABLE {
            notes.push(format!(
                "too small to measure: the loss of the forgotten moves by less than {MEASURABLE}, from {was:.4} to {is:.4}"
            ));
        }
    }
    record.account = json!({
        "n": n,
        "m": m,
        "parameters": block.len(),
        "selection": selection_json(&chosen),
        "curvature": matrix,
        "solves": solvers,
        "length": scaled,
        "step_norm": distance,
        "before": before,
        "after": after,
        "gradient_norm": {"before": norm(&sum) / m as f64, "after": norm(&gradient_after)},
        "gradient_share_removed": share,
        "repair_rate": repair_rate,
        "certificate": certificate,
        "seconds": clock.seconds,
    });
    if record.removed {
        record.every_unit = whole && repair_rate.is_some()
            || certificate.is_some() && matches!(config.noise, Where::Outside | Where::All);
        let kept = if record.every_unit { Block::all(&moved)? } else { block };
        record.values = to_hex(&kept.values(&moved));
        *net = moved;
    }
    record.notes = notes;
    Ok(record)
}

/// A model with one linear layer and weight decay: its objective is convex, and one exact step nearly retrains it.
pub fn is_convex(net: &Network, l2: f64) -> bool {
    let inner = net.nodes.iter().filter(|node| !matches!(node.op, Op::Input | Op::Reshape)).count();
    l2 > 0.0 && inner == 1
}

/// The validation samples that the gate judges by: without those of a class that is to go wholly, which a model that
/// never saw it gets wrong too.
fn judged(task: &Task, request: &[usize], notes: &mut Vec<String>) -> Vec<usize> {
    let of = |indices: &[usize], label: u32| indices.iter().any(|&i| task.samples.y[i] == label);
    let class = request
        .first()
        .map(|&i| task.samples.y[i])
        .filter(|&class| request.iter().all(|&i| task.samples.y[i] == class) && !of(&task.retained, class));
    let labels = task.validation.map(|samples| samples.y.as_slice()).unwrap_or_default();
    if let Some(class) = class.filter(|class| labels.contains(class)) {
        notes.push(format!("validation leaves out class {class}, of which nothing is retained"));
    }
    (0..labels.len()).filter(|&i| Some(labels[i]) != class).collect()
}

fn choose(
    task: &Task,
    net: &Network,
    indices: &[usize],
    notes: &mut Vec<String>,
) -> Result<select::Selection> {
    let mut config = task.config.selection;
    // A single sample has one trace: its vote is plain FOCI.
    if config.method == Method::Vote && indices.len() == 1 {
        config.method = Method::Foci;
    }
    let mut chosen = select(task.device, net, task.samples, indices, &config, task.stop)?;
    if chosen.units.is_empty() && task.config.if_empty_cheap {
        notes.push("no unit passes FOCI: the best of its first step are taken".into());
        config.method = Method::Cheap;
        chosen = select(task.device, net, task.samples, indices, &config, task.stop)?;
        if chosen.units.is_empty() {
            // Not even a first step is defined: the losses are all equal.
            notes.push("the losses of all copies are equal: nothing can be read".into());
        }
    }
    if chosen.is_noise() {
        notes.push("the largest T of the first step is no larger than with permuted losses: the choice may be chance".into());
    }
    Ok(chosen)
}

/// What a stage leaves to the next: the curvature has changed little since, so that its step is near the new one, and
/// its damping and preconditioner serve.
struct Previous {
    step: Vec<f64>,
    damping: f64,
    preconditioner: Option<Inverse>,
}

/// The curvature of the retained data where the network stands, and the gradient there.
struct Local<'a> {
    task: &'a Task<'a>,
    net: &'a Network,
    block: &'a Block,
    retained: &'a dyn Inputs,
    products: Option<Curvature<'a>>,
    gradient: Vec<f64>,
}

impl<'a> Local<'a> {
    fn new(
        task: &'a Task<'a>,
        net: &'a Network,
        block: &'a Block,
        retained: &'a dyn Inputs,
        matrix: Matrix,
    ) -> Result<Local<'a>> {
        let (device, memory) = (task.device, task.config.memory);
        let products = match matrix.products() {
            Some(kind) => Some(Curvature::new(device, net, block, retained, kind, memory)?),
            None => None,
        };
        let gradient = match &products {
            Some(curvature) => curvature.gradient().to_vec(),
            None => block.gradient(device, net, retained)?,
        };
        Ok(Local { task, net, block, retained, products, gradient })
    }

    fn secant(&self, earlier: &Network) -> Result<Secant> {
        let before = self.block.gradient(self.task.device, earlier, self.retained)?;
        let (there, here) = (self.block.values(earlier), self.block.values(self.net));
        Ok(Secant {
            gradient: self.gradient.iter().zip(before).map(|(now, then)| now - then).collect(),
            weights: here.iter().zip(there).map(|(now, then)| f64::from(*now) - f64::from(then)).collect(),
        })
    }

    fn kfac(&self) -> Result<Kfac> {
        Kfac::new(self.task.device, self.net, self.block, self.retained, self.task.config.seed)
    }

    /// (H + (λ + l2) I) step = sum / (n − m): by K-FAC's inverses, or by conjugate gradient, where λ is raised if the
    /// curvature is negative.
    fn solve(
        &self,
        sum: &[f64],
        residual: f64,
        convex: bool,
        previous: Option<Previous>,
    ) -> Result<(Vec<f64>, Value, Option<Inverse>)> {
        let (task, config) = (self.task, &self.task.config);
        let right: Vec<f64> = sum.iter().map(|s| s / residual).collect();
        if config.rule == Rule::Gradient {
            let report = json!({"solver": "none", "damping": config.damping.unwrap_or(0.0)});
            return Ok((right, report, None));
        }
        let Some(curvature) = &self.products else {
            let mut step = vec![0.0; right.len()];
            let (solver, damping, largest) = match task.earlier {
                Some(earlier) => {
                    let secant = self.secant(earlier)?;
                    let largest = secant.eigenvalue();
                    let damping = config.damping.unwrap_or_else(|| damping_for(largest));
                    secant.solve(&mut step, &right, damping + config.l2)?;
                    ("sherman-morrison", damping, largest)
                }
                None => {
                    let kfac = self.kfac()?;
                    let largest = kfac.largest_eigenvalue()?;
                    let damping = config.damping.unwrap_or_else(|| damping_for(largest));
                    let inverse = kfac.inverse(task.device, damping + config.l2)?;
                    inverse.apply(task.device, &mut step, &right)?;
                    ("kfac", damping, largest)
                }
            };
            let report = json!({"solver": solver, "damping": damping, "largest_eigenvalue": largest});
            return Ok((step, report, None));
        };
        if let Some(right) = curvature.vector(&right)? {
            let mut product = |out: &mut CudaVector, v: &CudaVector| {
                check_stop(task.stop)?;
                curvature.apply_on(out, v)?;
                out.add(config.l2, v)
            };
            let apply = |inverse: &Inverse, out: &mut CudaVector, v: &CudaVector| inverse.apply_on(out, v);
            return self.newton(&mut product, &apply, &right, convex, previous);
        }
        let mut narrow = vec![0.0f32; sum.len()];
        let mut product = |out: &mut Vec<f64>, v: &Vec<f64>| {
            check_stop(task.stop)?;
            curvature.apply_wide(out, v, &mut narrow)?;
            out.add(config.l2, v)
        };
        let apply = |inverse: &Inverse, out: &mut Vec<f64>, v: &Vec<f64>| inverse.apply(task.device, out, v);
        self.newton(&mut product, &apply, &right, convex, previous)
    }

    /// The step by conjugate gradient, on the device of its vectors; `apply` is K-FAC's inverse there.
    fn newton<V: Vector>(
        &self,
        product: &mut Product<V>,
        apply: &dyn Fn(&Inverse, &mut V, &V) -> Result<()>,
        right: &V,
        convex: bool,
        previous: Option<Previous>,
    ) -> Result<(Vec<f64>, Value, Option<Inverse>)> {
        let (task, config) = (self.task, &self.task.config);
        let (damping, largest) = match (config.damping, &previous) {
            (Some(damping), _) => (damping, None),
            (None, Some(previous)) => (previous.damping, None),
            (None, None) if convex => (0.0, None),
            (None, None) => {
                let largest = largest_eigenvalue(product, right, POWER_STEPS)?;
                (damping_for(largest), Some(largest))
            }
        };
        let limits = match previous {
            Some(_) => Limits { products: later_products(config.limits.products), ..config.limits },
            None => config.limits,
        };
        let (start, inverse) = previous.map(|previous| (previous.step, previous.preconditioner)).unzip();
        let start = start.map(|start| right.like(&start)).transpose()?;
        let inverse = match inverse.flatten() {
            None if config.precondition => Some(self.kfac()?.inverse(task.device, damping + config.l2)?),
            inverse => inverse,
        };
        let precondition = inverse.as_ref().map(|inverse| |out: &mut V, v: &V| apply(inverse, out, v));
        let (step, report) = conjugate_gradient(
            product,
            right,
            start.as_ref(),
            precondition.as_ref().map(|precondition| precondition as &Preconditioner<V>),
            damping,
            Negative::Raise,
            limits,
        )?;
        let mut report = json!(report);
        report["largest_eigenvalue"] = json!(largest);
        Ok((step.values()?, report, inverse))
    }
}

/// The damping where none is given, of a curvature with this largest eigenvalue.
fn damping_for(largest: f64) -> f64 {
    (5e-3 * largest).max(1e-3)
}

/// The lengths of the stages: the formula's own, or targets on the way from the forgotten samples' loss to
/// calibration's.
fn lengths(unseen: &Unseen, loss: f64, notes: &mut Vec<String>) -> Result<Vec<Length>> {
    let (config, m) = (&unseen.task.config, unseen.request.len());
    if config.calibration == Calibration::One || is_convex(unseen.net, config.l2) {
        return Ok(vec![Length::One]);
    }
    if m < SMALLEST_BATCH {
        notes.push(format!(
            "a batch of {m} takes the formula's own length, which changes a trained network little; {SMALLEST_BATCH} or more are calibrated"
        ));
        return Ok(vec![Length::One]);
    }
    let target = match config.target {
        Target::Loss(loss) => loss,
        _ => {
            let scores = unseen.scores()?;
            let (target, error) = (scores.mean_loss(), error_of_mean(&scores.losses));
            if error > UNCERTAIN * target {
                let count = scores.losses.len();
                notes.push(format!(
                    "the target {target:.3} is uncertain by {error:.3}: it is the mean of {count} samples alone"
                ));
            }
            target
        }
    };
    if loss >= target {
        notes.push(format!(
            "the forgotten samples' loss, {loss:.3}, is at the target {target:.3} before any step: the formula's own \
             length, or less where the loss would rise by more than the target"
        ));
        return Ok(vec![Length::AtMost(loss + target)]);
    }
    let stages = config.stages.unwrap_or_else(|| stages(target - loss));
    let at = |stage: usize| loss + (target - loss) * stage as f64 / stages as f64;
    Ok((1..=stages).map(|stage| Length::To(at(stage))).collect())
}

/// The standard error of a mean.
fn error_of_mean(losses: &[f32]) -> f64 {
    let n = losses.len() as f64;
    let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / n;
    let squares = losses.iter().map(|&loss| (f64::from(loss) - mean).powi(2)).sum::<f64>();
    (squares / (n * (n - 1.0))).sqrt()
}

/// Rates that repair tries, each a quarter of the one before, and what a repair may raise the retained loss to: a
/// factor and a sum.
const REPAIR_RATES: usize = 4;
const REPAIR_LIMIT: (f64, f64) = (2.0, 0.1);

/// Repairs `moved` at the first rate that it stands, which is returned: in a sharp minimum, or with batch norm frozen,
/// the usual one can diverge.
fn repair(
    task: &Task,
    moved: &mut Network,
    block: &Block,
    retained: &dyn Inputs,
    forgotten: &[usize],
    batch: usize,
    targets: &Targets,
    notes: &mut Vec<String>,
) -> Result<Option<f64>> {
    let (device, config) = (task.device, &task.config);
    let limit = REPAIR_LIMIT.0 * evaluate(device, moved, retained)?.mean_loss() + REPAIR_LIMIT.1;
    let mut rate = repair::RATE;
    for _ in 0..REPAIR_RATES {
        let mut repaired = moved.clone();
        let options = repair::Options {
            steps: config.repair,
            rate,
            l2: config.l2,
            seed: config.seed,
            batch: batch as u32,
            stop: task.stop,
        };
        let (samples, kept) = (task.samples, &task.repair_on);
        if repair::repair(device, &mut repaired, block, samples, kept, forgotten, targets, &options)?
            && evaluate(device, &repaired, retained)?.mean_loss() <= limit
        {
            if rate < repair::RATE {
                notes.push(format!("repaired at a rate of {rate}: at {} the steps diverge", 4.0 * rate));
            }
            *moved = repaired;
            return Ok(Some(rate));
        }
        rate /= 4.0;
    }
    notes.push(format!("not repaired: the steps diverge even at a rate of {}", 4.0 * rate));
    Ok(None)
}

/// What the network makes, before any step, of samples it has not seen, as if they were the request's: held-out ones;
/// for wrong labels, under those; for a class, those that it is likeliest to be taken for, under its label.
struct Unseen<'a> {
    task: &'a Task<'a>,
    net: &'a Network,
    request: &'a [usize],
    /// Filled where they are first asked for: calibration and repair both aim at them.
    scores: OnceCell<Scores>,
}

impl Unseen<'_> {
    fn scores(&self) -> Result<&Scores> {
        match self.scores.get() {
            Some(scores) => Ok(scores),
            None => {
                let scores = self.evaluate()?;
                Ok(self.scores.get_or_init(|| scores))
            }
        }
    }

    fn evaluate(&self) -> Result<Scores> {
        let (task, net) = (self.task, self.net);
        let (samples, held_out) = match task.validation {
            Some(validation) => (validation, (0..validation.y.len()).collect()),
            None => (task.samples, task.held_out.clone()),
        };
        if held_out.len() < SMALLEST_BATCH {
            return Err(Error::config(format!(
                "{} samples to calibrate on are too few, {SMALLEST_BATCH} are needed; give --val, more data, or --length one",
                held_out.len()
            )));
        }
        let labels: Vec<u32> = self.request.iter().map(|&i| task.samples.y[i]).collect();
        let stand_ins = match task.config.target {
            Target::Class => {
                let logits = outputs(task.device, net, &task.samples.subset(self.request))?.logits;
                look_alikes(samples, &held_out, &labels, &second_choices(&logits, &labels))?
            }
            Target::WrongLabels => wrongly_labelled(samples, &held_out, &labels)?,
            _ => return evaluate(task.device, net, &samples.subset(&held_out)),
        };
        evaluate(task.device, net, &stand_ins)
    }
}

/// The likeliest class beside the label, for each row of `logits` `[m, classes]`.
fn second_choices(logits: &[f32], labels: &[u32]) -> Vec<u32> {
    let rows = logits.chunks_exact(logits.len() / labels.len()).zip(labels);
    rows.map(|(row, &label)| {
        let mut others = row.to_vec();
        others[label as usize] = f32::NEG_INFINITY;
        largest(&others)
    })
    .collect()
}

/// For each of `labels`, the next of the samples at `indices` that has the class beside it, under the label.
///
/// # Errors
/// Where no sample has any of these classes.
fn look_alikes(samples: &Samples, indices: &[usize], labels: &[u32], classes: &[u32]) -> Result<Samples> {
    let mut stand_ins = Samples { shape: samples.shape, x: vec![], y: vec![] };
    let of = |class: u32| indices.iter().copied().filter(move |&i| samples.y[i] == class).collect();
    let mut turns: BTreeMap<u32, (Vec<usize>, usize)> = BTreeMap::new(); // of each class, and how many are taken
    for (&label, &class) in labels.iter().zip(classes) {
        let (turn, taken) = turns.entry(class).or_insert_with(|| (of(class), 0));
        if !turn.is_empty() {
            stand_ins.x.extend_from_slice(samples.image(turn[*taken % turn.len()]));
            stand_ins.y.push(label);
            *taken += 1;
        }
    }
    match stand_ins.y.is_empty() {
        true => Err(Error::config("no held-out sample has a class that the samples would be taken for")),
        false => Ok(stand_ins),
    }
}

/// Where a repair of `moved` holds the forgotten samples, those of earlier batches included: at the target, or each at
/// the quantile of its rank among the unseen.
fn targets(unseen: &Unseen, moved: &Network, forgotten: &[usize]) -> Result<Targets> {
    let task = unseen.task;
    if let Target::Loss(loss) = task.config.target {
        return Ok(Targets::same(loss, forgotten.len()));
    }
    let losses = evaluate(task.device, moved, &task.samples.subset(forgotten))?.losses;
    let two_sided = task.config.target != Target::HeldOut;
    Ok(Targets::by_rank(&losses, &unseen.scores()?.losses, two_sided))
}

/// The samples at `indices` under `labels` taken in turn, each with the next one that is not its own.
///
/// # Errors
/// Where no sample has another label than all of these.
fn wrongly_labelled(samples: &Samples, indices: &[usize], labels: &[u32]) -> Result<Samples> {
    let mut turn = labels.iter().cycle();
    let mut wrong = Samples { shape: samples.shape, x: vec![], y: vec![] };
    for &i in indices {
        let other = turn.by_ref().take(labels.len()).find(|&&label| label != samples.y[i]);
        if let Some(&label) = other {
            wrong.x.extend_from_slice(samples.image(i));
            wrong.y.push(label);
        }
    }
    match wrong.y.is_empty() {
        true => Err(Error::config("every held-out sample has the label of the wrongly labelled ones")),
        false => Ok(wrong),
    }
}

/// 1 − ‖g_res(w') − n/(n−m) ∇F(w)‖ / ‖Σ_U ∇f(w) / (n−m)‖ on the block (method §6), where ∇F(w) is put together from the
/// retained samples' mean gradient and the forgotten samples' `sum`, which carries their weight decay. All slices are
/// `[p]`.
pub fn share_removed(
    start: &[f32],
    end: &[f32],
    retained_before: &[f64],
    retained_after: &[f64],
    sum: &[f64],
    n: usize,
    m: usize,
    l2: f64,
) -> f64 {
    let residual = (n - m) as f64;
    let (mut left, mut all) = (0.0, 0.0);
    for i in 0..sum.len() {
        let forgotten = sum[i] / residual;
        let whole = retained_before[i] + forgotten + l2 * f64::from(start[i]);
        left += (retained_after[i] + l2 * f64::from(end[i]) - whole).powi(2);
        all += forgotten.powi(2);
    }
    1.0 - (left / all).sqrt()
}

/// The measures of one moment.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
struct Measures {
    forget: Measure,
    retain: Measure,
    validation: Option<Measure>,
}

impl Measures {
    fn is_finite(&self) -> bool {
        [Some(self.forget), Some(self.retain), self.validation]
            .into_iter()
            .flatten()
            .all(|m| m.loss.is_finite())
    }

    fn of(task: &Task, net: &Network, request: &dyn Inputs, validation: Option<&Subset>) -> Result<Measures> {
        let of = |inputs: &dyn Inputs| -> Result<Measure> {
            let scores = evaluate(task.device, net, inputs)?;
            Ok(Measure { loss: scores.mean_loss(), accuracy: scores.accuracy() })
        };
        Ok(Measures {
            forget: of(request)?,
            retain: of(&task.samples.subset(&task.retained))?,
            validation: validation.map(|samples| of(samples)).transpose()?,
        })
    }
}

/// Says what a reader of the receipt should know of a solve.
fn note_solve(solver: &Value, notes: &mut Vec<String>) {
    let mut note = |text: String| {
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    if solver["raised"].as_u64().is_some_and(|raised| raised > 0) {
        note(format!(
            "the curvature is negative along a direction: the damping was raised to {}",
            solver["damping"]
        ));
    }
    if solver["converged"] == false {
        note("the solver spent its products before its tolerance was reached".into());
    }
}

fn name(net: &Network, unit: UnitId) -> (String, usize) {
    let (layer, row) = net.units().locate(unit);
    (net.layer(layer).name.clone(), row)
}

fn selection_json(chosen: &select::Selection) -> Value {
    json!({
        "units": chosen.units.len(),
        "scores": chosen.scores,
        "first_t": chosen.first,
        "noise_level": chosen.noise_level,
        "tied_losses": chosen.tied_losses,
        "images_at_once": chosen.images_at_once,
        "agreement": chosen.agreement,
    })
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Seconds per phase; a phase that comes again adds up.
struct Clock {
    since: Instant,
    seconds: serde_json::Map<String, Value>,
}

impl Clock {
    fn new() -> Clock {
        Clock { since: Instant::now(), seconds: serde_json::Map::new() }
    }

    fn lap(&mut self, phase: &str) {
        let before = self.seconds.get(phase).and_then(Value::as_f64).unwrap_or(0.0);
        self.seconds.insert(phase.into(), json!(before + self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Shape;

    #[test]
    fn a_class_is_stood_in_for_by_those_it_is_taken_for() {
        let labels = [2, 2, 2, 2];
        let logits = [1.0, 0.0, 9.0, 3.0, 4.0, 9.0, 0.0, -1.0, -2.0, 0.0, 5.0, 9.0];
        let classes = second_choices(&logits, &labels);
        assert_eq!(classes, [0, 1, 0, 1]);
        let samples =
            Samples { shape: Shape::new(1, 1, 1), x: vec![0.0, 1.0, 2.0, 3.0, 4.0], y: vec![0, 1, 2, 0, 0] };
        let stand_ins = look_alikes(&samples, &[0, 1, 2, 3], &labels, &classes).unwrap();
        assert_eq!((stand_ins.x, stand_ins.y), (vec![0.0, 1.0, 3.0, 1.0], vec![2, 2, 2, 2]));
        assert!(look_alikes(&samples, &[2], &labels, &classes).is_err());
    }

    #[test]
    fn wrong_labels_are_taken_in_turn_and_are_never_the_sample_s_own() {
        let samples =
            Samples { shape: Shape::new(1, 1, 1), x: vec![0.0, 1.0, 2.0, 3.0], y: vec![0, 1, 1, 2] };
        let wrong = wrongly_labelled(&samples, &[0, 1, 3], &[1, 0]).unwrap();
        assert_eq!((wrong.x, wrong.y), (vec![0.0, 1.0, 3.0], vec![1, 0, 1]));
        let some = wrongly_labelled(&samples, &[1, 3], &[1]).unwrap();
        assert_eq!((some.x, some.y), (vec![3.0], vec![1]));
        assert!(wrongly_labelled(&samples, &[1, 2], &[1, 1]).is_err());
    }
}
