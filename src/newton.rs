//! The Newton step on the block: (H + (λ + l2) I) step = Σ_U ∇f / (n − m) (MATH.md, Eq. 12).
//!
//! Which solver runs is decided here and nowhere else: conjugate gradient on products of the Hessian, the Gauss–Newton or
//! the Fisher matrix; K-FAC's inverses; or the secant of two models. The gradient rule solves nothing.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::block::Block;
use crate::curvature::{Curvature, Kind};
use crate::data::Inputs;
use crate::error::{Result, check_stop};
use crate::kfac::{Inverse, Kfac};
use crate::names::number;
use crate::net::Network;
use crate::solve::{
    BlockVector, Limits, Negative, Preconditioner, Report, Secant, Solver, Vector, conjugate_gradient,
    largest_eigenvalue,
};
use crate::task::{Approximation, Rule, Task, is_convex};

/// Power iterations that estimate the largest eigenvalue, in the first stage.
const POWER_STEPS: usize = 6;

/// Products of a later stage, which begins at the step of the one before.
fn later_products(products: usize) -> usize {
    (2 * products).div_ceil(5)
}

/// Products that this many stages and then further iterations take at most, where a first solve may spend `products`.
pub fn products_at_most(products: usize, stages: usize, iterations: usize) -> usize {
    // Each solve ends with the product of its true residual.
    let (first, later) = (POWER_STEPS + products + 1, later_products(products) + 1);
    iterations * first + (stages - 1) * later
}

/// The damping where none is given, of a curvature with this largest eigenvalue.
fn damping_for(largest: f64) -> f64 {
    (5e-3 * largest).max(1e-3)
}

/// What the solver of one stage or iteration did.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SolveReport {
    /// Which one.
    pub solver: Solver,
    /// λ that was used in the end, without the weight decay.
    #[serde(deserialize_with = "number")]
    pub damping: f64,
    /// An estimate of the curvature's largest eigenvalue, where one was made to choose λ.
    #[serde(default)]
    pub largest_eigenvalue: Option<f64>,
    /// What an iterative solver spent and reached.
    #[serde(flatten)]
    pub iterations: Option<Iterations>,
}

/// What an iterative solver spent and reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iterations {
    /// Products spent.
    pub products: usize,
    /// ‖b − (H + λI)x‖ / ‖b‖.
    #[serde(deserialize_with = "number")]
    pub residual: f64,
    /// Whether the residual is within the tolerance.
    pub converged: bool,
    /// The most negative curvature met, vᵀ(H + λI)v / vᵀv; 0 where none was.
    #[serde(deserialize_with = "number")]
    pub negative_curvature: f64,
    /// How often λ was raised.
    pub raised: usize,
}

/// A direct solver has no iterations to report, and the gradient rule no eigenvalue either.
impl Serialize for SolveReport {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("solver", &self.solver)?;
        map.serialize_entry("damping", &self.damping)?;
        if self.solver != Solver::None {
            map.serialize_entry("largest_eigenvalue", &self.largest_eigenvalue)?;
        }
        if let Some(spent) = &self.iterations {
            map.serialize_entry("products", &spent.products)?;
            map.serialize_entry("residual", &spent.residual)?;
            map.serialize_entry("converged", &spent.converged)?;
            map.serialize_entry("negative_curvature", &spent.negative_curvature)?;
            map.serialize_entry("raised", &spent.raised)?;
        }
        map.end()
    }
}

impl SolveReport {
    fn direct(solver: Solver, damping: f64, largest_eigenvalue: Option<f64>) -> SolveReport {
        SolveReport { solver, damping, largest_eigenvalue, iterations: None }
    }

    fn iterative(report: &Report, largest_eigenvalue: Option<f64>) -> SolveReport {
        let Report { solver, damping, products, residual, converged, negative_curvature, raised } = *report;
        let iterations = Iterations { products, residual, converged, negative_curvature, raised };
        SolveReport { solver, damping, largest_eigenvalue, iterations: Some(iterations) }
    }

    /// What a reader of the receipt should know of it; that it spent its products only where they were `asked` for, since the
    /// default is a budget and no promise.
    pub fn notes(&self, asked: bool) -> Vec<String> {
        let mut notes = vec![];
        if self.iterations.is_some_and(|spent| spent.raised > 0) {
            notes.push(format!(
                "the curvature is negative along a direction: the damping was raised to {:?}",
                self.damping
            ));
        }
        if asked && self.iterations.is_some_and(|spent| !spent.converged) {
            notes.push("the solver spent its products before its tolerance was reached".into());
        }
        notes
    }
}

/// A step `[p]` and how it was found. The next stage begins with it: the curvature has changed little, so that the old
/// step is near the new one, and its damping and preconditioner serve.
pub struct Solution {
    /// (H + (λ + l2) I)⁻¹ of the right-hand side.
    pub step: Vec<f64>,
    /// The solver's report.
    pub report: SolveReport,
    preconditioner: Option<Inverse>,
}

impl Solution {
    /// The step of a rule, where `residual` samples are left.
    pub fn step_of(&self, rule: Rule, residual: f64) -> Vec<f64> {
        match rule {
            Rule::Newton | Rule::Gradient => self.step.clone(),
            Rule::Cr => self.step.iter().map(|s| s * residual).collect(),
        }
    }
}

/// What stands for the Hessian: as chosen, else by the model.
pub fn approximation(task: &Task, net: &Network) -> Approximation {
    let by_model = if is_convex(net, task.settings.l2) { Approximation::Hessian } else { Approximation::Ggn };
    task.settings.curvature.unwrap_or(by_model)
}

/// Σ over `inputs` of the gradient on the block `[p]`; each sample's loss carries its part of the weight decay.
pub fn gradient_sum(task: &Task, net: &Network, block: &Block, inputs: &dyn Inputs) -> Result<Vec<f64>> {
    let gradient = block.gradient(task.device, net, inputs)?;
    let decayed = gradient.iter().zip(block.values(net)).map(|(g, w)| g + task.settings.l2 * f64::from(w));
    Ok(decayed.map(|g| g * inputs.len() as f64).collect())
}

/// What a step is solved with.
enum Method<'a> {
    /// Conjugate gradient on these products.
    Products(Box<Curvature<'a>>),
    /// The inverses of K-FAC.
    Kfac,
    /// The secant between this network of an earlier epoch and now.
    Secant(&'a Network),
}

/// The curvature of the retained data where the network stands, and the gradient there.
pub struct Newton<'a> {
    task: &'a Task<'a>,
    net: &'a Network,
    block: &'a Block,
    retained: &'a dyn Inputs,
    method: Method<'a>,
    gradient: Vec<f64>,
}

impl<'a> Newton<'a> {
    /// Takes the gradient, and prepares the products where the step is solved by products.
    ///
    /// # Errors
    /// As [`Curvature::new`] and [`Block::gradient`]; where finite differences lack the earlier network.
    pub fn new(
        task: &'a Task<'a>,
        net: &'a Network,
        block: &'a Block,
        retained: &'a dyn Inputs,
    ) -> Result<Newton<'a>> {
        let (device, memory) = (task.device, task.settings.memory);
        let products = |kind| Curvature::new(device, net, block, retained, kind, memory);
        let method = match approximation(task, net) {
            Approximation::Hessian => Method::Products(Box::new(products(Kind::Hessian)?)),
            Approximation::Ggn => Method::Products(Box::new(products(Kind::Ggn)?)),
            Approximation::Fisher => Method::Products(Box::new(products(Kind::Fisher)?)),
            Approximation::Kfac => Method::Kfac,
            Approximation::Fd => Method::Secant(task.earlier()?),
        };
        let gradient = match &method {
            Method::Products(curvature) => curvature.gradient().to_vec(),
            Method::Kfac | Method::Secant(_) => block.gradient(device, net, retained)?,
        };
        Ok(Newton { task, net, block, retained, method, gradient })
    }

    /// The mean gradient of the retained data `[p]`, without weight decay; gives the memory of the products back.
    pub fn into_gradient(self) -> Vec<f64> {
        self.gradient
    }

    /// −(n − m) times the gradient of the retained objective, weight decay included: what an iteration after the first
    /// takes for the sum of gradients.
    pub fn downhill(&self, residual: f64) -> Vec<f64> {
        let gradient = self.gradient.iter().zip(self.block.values(self.net));
        gradient.map(|(g, w)| -(g + self.task.settings.l2 * f64::from(w)) * residual).collect()
    }

    /// (H + (λ + l2) I) step = sum / residual, with `sum` `[p]`.
    ///
    /// # Errors
    /// Where a pass or the solver fails, or the user stops.
    pub fn solve(&self, sum: &[f64], residual: f64, previous: Option<Solution>) -> Result<Solution> {
        let settings = &self.task.settings;
        let right: Vec<f64> = sum.iter().map(|s| s / residual).collect();
        if settings.rule == Rule::Gradient {
            let report = SolveReport::direct(Solver::None, settings.damping.unwrap_or(0.0), None);
            return Ok(Solution { step: right, report, preconditioner: None });
        }
        match &self.method {
            Method::Products(curvature) => self.by_products(curvature, &right, previous),
            Method::Kfac => self.by_kfac(&right),
            Method::Secant(earlier) => self.by_secant(earlier, &right),
        }
    }

    fn by_secant(&self, earlier: &Network, right: &[f64]) -> Result<Solution> {
        let before = self.block.gradient(self.task.device, earlier, self.retained)?;
        let (there, here) = (self.block.values(earlier), self.block.values(self.net));
        let secant = Secant {
            gradient: self.gradient.iter().zip(before).map(|(now, then)| now - then).collect(),
            weights: here.iter().zip(there).map(|(now, then)| f64::from(*now) - f64::from(then)).collect(),
        };
        let largest = secant.eigenvalue();
        let damping = self.task.settings.damping.unwrap_or_else(|| damping_for(largest));
        let mut step = vec![0.0; right.len()];
        secant.solve(&mut step, right, damping + self.task.settings.l2)?;
        let report = SolveReport::direct(Solver::ShermanMorrison, damping, Some(largest));
        Ok(Solution { step, report, preconditioner: None })
    }

    fn kfac(&self) -> Result<Kfac> {
        Kfac::new(self.task.device, self.net, self.block, self.retained, self.task.settings.seed)
    }

    fn by_kfac(&self, right: &[f64]) -> Result<Solution> {
        let kfac = self.kfac()?;
        let largest = kfac.largest_eigenvalue()?;
        let damping = self.task.settings.damping.unwrap_or_else(|| damping_for(largest));
        let inverse = kfac.inverse(self.task.device, damping + self.task.settings.l2)?;
        let mut step = vec![0.0; right.len()];
        inverse.apply(self.task.device, &mut step, right)?;
        let report = SolveReport::direct(Solver::Kfac, damping, Some(largest));
        Ok(Solution { step, report, preconditioner: None })
    }

    /// By conjugate gradient, where λ is raised if the curvature is negative.
    fn by_products(
        &self,
        curvature: &Curvature,
        right: &[f64],
        previous: Option<Solution>,
    ) -> Result<Solution> {
        let (task, settings) = (self.task, &self.task.settings);
        let right = curvature.block_vector(right)?;
        let mut product = |out: &mut BlockVector, v: &BlockVector| {
            check_stop(task.stop)?;
            curvature.product(out, v)?;
            out.add(settings.l2, v)
        };
        let (damping, largest) = match (settings.damping, &previous) {
            (Some(damping), _) => (damping, None),
            (None, Some(previous)) => (previous.report.damping, None),
            (None, None) if is_convex(self.net, settings.l2) => (0.0, None),
            (None, None) => {
                let largest = largest_eigenvalue(&mut product, &right, POWER_STEPS)?;
                (damping_for(largest), Some(largest))
            }
        };
        let limits = match previous {
            Some(_) => Limits { products: later_products(settings.limits.products), ..settings.limits },
            None => settings.limits,
        };
        let (start, inverse) = previous.map(|previous| (previous.step, previous.preconditioner)).unzip();
        let start = start.map(|start| right.like(&start)).transpose()?;
        let preconditioner = match inverse.flatten() {
            None if settings.precondition => Some(self.kfac()?.inverse(task.device, damping + settings.l2)?),
            inverse => inverse,
        };
        let apply = preconditioner
            .as_ref()
            .map(|inverse| |out: &mut BlockVector, v: &BlockVector| inverse.product(task.device, out, v));
        let (step, report) = conjugate_gradient(
            &mut product,
            &right,
            start.as_ref(),
            apply.as_ref().map(|apply| apply as &Preconditioner<BlockVector>),
            damping,
            Negative::Raise,
            limits,
        )?;
        let report = SolveReport::iterative(&report, largest);
        Ok(Solution { step: step.values()?, report, preconditioner })
    }
}
