//! The work on a batch around the paper's step (`unlearn.rs`): the choice of units and what happens where there are none, a
//! certificate's noise, the account, and the decision whether the step is kept.

use crate::audit::{Snapshot, gate, share_removed};
use crate::block::Block;
use crate::clock::Clock;
use crate::data::Subset;
use crate::error::{Error, Result};
use crate::evidence::select;
use crate::net::Network;
use crate::newton::{SolveReport, approximation};
use crate::outcome::{Account, BeforeAfter, Changed, Fate, Record, SelectionAccount, StepAccount, names_of};
use crate::select::{Criteria, Method, Selection};
use crate::task::{IfEmpty, Task};
use crate::update::{Certificate, Length, NoiseUnits, Scaled};

/// A batch and what stays the same through its stages.
pub struct Batch<'a> {
    /// What it is carried out on.
    pub task: &'a Task<'a>,
    /// Its number.
    number: usize,
    /// Its samples.
    indices: &'a [usize],
    /// Samples left before it.
    n: usize,
    /// Its samples, as inputs.
    pub request: Subset<'a>,
    /// The retained samples that are used.
    pub retained: Subset<'a>,
}

/// What the stages and iterations of a step came to.
pub struct Walk {
    /// One report per stage, then one per iteration.
    pub solves: Vec<SolveReport>,
    /// The length of the last stage.
    pub length: Scaled,
    /// Σ_U ∇f `[p]` where the first stage began, with its part of the weight decay.
    pub gradient: Vec<f64>,
    /// The mean gradient of the retained samples there, `[p]`.
    pub retained_gradient: Vec<f64>,
}

impl<'a> Batch<'a> {
    /// # Errors
    /// Where the task does not fit the network, or as many samples are to go as there are.
    pub fn new(
        task: &'a Task<'a>,
        net: &Network,
        number: usize,
        indices: &'a [usize],
        earlier: &'a [usize],
    ) -> Result<Batch<'a>> {
        task.check(net, indices.len())?;
        let n = task.n.checked_sub(earlier.len()).filter(|&n| n > indices.len());
        let n = n.ok_or_else(|| Error::config("no more samples are left than are to be removed"))?;
        let (request, retained) = (task.samples.subset(indices), task.samples.subset(&task.retained));
        Ok(Batch { task, number, indices, n, request, retained })
    }

    /// m.
    fn m(&self) -> usize {
        self.indices.len()
    }

    /// n − m.
    pub fn residual(&self) -> f64 {
        (self.n - self.m()) as f64
    }

    /// The units that depend on the batch; where there are none, the best of a first step if the settings say so.
    pub fn units(&self, net: &Network, notes: &mut Vec<String>) -> Result<Selection> {
        let Batch { task, indices, .. } = self;
        let find = |criteria: &Criteria| select(task.device, net, task.samples, indices, criteria, task.stop);
        let criteria = task.settings.selection.of_batch(self.m());
        let mut chosen = find(&criteria)?;
        if chosen.units.is_empty() && task.settings.if_empty == IfEmpty::Cheap {
            notes.push("no unit passes FOCI: the best of its first step are taken".into());
            chosen = find(&Criteria { method: Method::Cheap, ..criteria })?;
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

    /// Adds the noise of a certificate, where one is wanted; λ is the least damping that a solve used, and the weight
    /// decay.
    pub fn certify(
        &self,
        moved: &mut Network,
        block: &Block,
        solves: &[SolveReport],
    ) -> Result<Option<Certificate>> {
        let settings = &self.task.settings;
        let Some(spec) = settings.certificate.filter(|spec| spec.noise != NoiseUnits::None) else {
            return Ok(None);
        };
        let damping = solves.iter().map(|solve| solve.damping).fold(f64::INFINITY, f64::min);
        let lambda = damping + settings.l2;
        let certificate = Certificate::new(spec.epsilon, spec.delta, lambda, self.n, self.m())?;
        certificate.add_noise(moved, block, spec.noise, settings.seed, self.number as u32);
        Ok(Some(certificate))
    }

    /// The account of a step from `net` to `moved`.
    pub fn audit(
        &self,
        net: &Network,
        moved: &Network,
        block: &Block,
        walk: Walk,
        after: Snapshot,
        certificate: Option<Certificate>,
    ) -> Result<StepAccount> {
        let (task, n, m) = (self.task, self.n, self.m());
        let (start, end) = (block.values(net), block.values(moved));
        let gradient = block.gradient(task.device, moved, &self.request)?;
        let retained = block.gradient(task.device, moved, &self.retained)?;
        let (sum, before, l2) = (&walk.gradient, &walk.retained_gradient, task.settings.l2);
        Ok(StepAccount {
            parameters: block.len(),
            curvature: approximation(task, net),
            step_norm: norm(start.iter().zip(&end).map(|(a, b)| f64::from(b - a))),
            gradient_norm: BeforeAfter {
                before: norm(sum.iter().copied()) / m as f64,
                after: norm(gradient.into_iter()),
            },
            gradient_share_removed: share_removed(&start, &end, before, &retained, sum, n, m, l2),
            solves: walk.solves,
            length: walk.length,
            after,
            certificate,
        })
    }

    /// The record of the batch, which has no values yet.
    pub fn record(
        &self,
        net: &Network,
        chosen: &Selection,
        before: Snapshot,
        step: Option<StepAccount>,
        clock: Clock<'_>,
        (fate, notes): (Fate, Vec<String>),
    ) -> Record {
        let mut record =
            record(net, (self.number, self.indices), self.n, chosen, before, (fate, notes), clock);
        record.account.step = step;
        record
    }
}

/// The record of a batch, its number and its samples, of `n` that were left: without the account of a step or a hold, and of no change
/// yet.
pub fn record(
    net: &Network,
    (batch, indices): (usize, &[usize]),
    n: usize,
    chosen: &Selection,
    before: Snapshot,
    (fate, notes): (Fate, Vec<String>),
    clock: Clock<'_>,
) -> Record {
    let account = Account {
        n,
        m: indices.len(),
        selection: SelectionAccount::from(chosen),
        before,
        step: None,
        hold: None,
        seconds: clock.seconds,
    };
    let (indices, units, changed) = (indices.to_vec(), names_of(net, &chosen.units), Changed::Block);
    Record { batch, indices, fate, notes, units, account, changed, values: vec![], soft_labels: vec![] }
}

/// Why a step is not taken, in words.
pub fn refusal(task: &Task, before: &Snapshot, step: &StepAccount, lengths: &[Length]) -> Option<String> {
    if !step.after.is_finite() {
        return Some("not removed: the step leaves no finite loss".into());
    }
    if !step.length.reached {
        let target = match lengths.last() {
            Some(Length::To(target)) => *target,
            Some(Length::One | Length::AtMost(_)) | None => f64::NAN,
        };
        return Some(format!(
            "not removed: the forgotten samples' loss reaches {:.3} on its way to the target {target:.3}, and no length goes further",
            step.length.loss
        ));
    }
    gate(before, &step.after, task.settings.gate)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}
