//! The pipeline: a batch of samples in, new weights and an account out. Each stage is one file; this one is the paper.
//!
//! Observe the batch and choose the units that depend on it, take its gradient on their block, solve with the curvature
//! of the retained data, step (MATH.md, Eq. 12), and audit. With n samples left before the batch and m in it:
//!
//! ```text
//! w_P ← w_P + α (H_P + λI)⁻¹ Σ_U ∇_P f / (n − m)
//! ```
//!
//! where H_P is the curvature of the mean retained loss and α is 1, or calibrated on data that the network has not seen.

use crate::audit::{Snapshot, gate, judged, share_removed, too_small};
use crate::block::Block;
use crate::data::Subset;
use crate::net::{Network, UnitId};
use crate::newton::{Newton, Solution, SolveReport, approximation, gradient_sum};
use crate::outcome::{Account, BeforeAfter, Clock, Phase, Record, SelectionAccount, StepAccount};
use crate::repair::repair_batch;
use crate::select::{Criteria, Method, Selection, choose, observe_request};
use crate::target::{Unseen, lengths, targets};
use crate::task::{IfEmpty, Task, is_convex};
use crate::update::{Certificate, Length, NoiseUnits, Scaled, update};
use crate::{Error, Result, check_stop};

/// Removes a batch from `net`, which the samples `earlier` have left before; `net` changes only where the record says
/// `removed`.
///
/// # Errors
/// Where the task does not fit the network (before anything is computed), a stage fails or the user stops; `net` is then
/// as before.
pub fn unlearn(
    task: &Task,
    net: &mut Network,
    batch: usize,
    indices: &[usize],
    earlier: &[usize],
) -> Result<Record> {
    let batch = Batch::new(task, net, batch, indices, earlier)?;
    let (mut clock, mut notes) = (Clock::start(), vec![]);

    let chosen = batch.units(net, &mut notes)?;
    clock.count(Phase::Select);
    let judged = judged(task, indices, &mut notes);
    let judged = task.validation.filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
    let before = Snapshot::of(task, net, &batch.request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    if chosen.units.is_empty() {
        notes.push("not removed: no unit depends on it".into());
        return Ok(batch.record(net, &chosen, before, None, clock, notes));
    }
    check_stop(task.stop)?;

    let block = Block::of(net, &chosen.units)?;
    let unseen = Unseen::new(task, net, indices);
    let lengths = lengths(&unseen, before.forget.loss, &mut notes)?;
    let mut moved = net.clone();
    let walk = batch.step(&mut moved, &block, &lengths, &mut clock, &mut notes)?;
    let mended = batch.mend(&mut moved, &block, &unseen, &walk, &mut clock, &mut notes)?;
    let certificate = batch.certify(&mut moved, &block, &walk.solves)?;

    let after = Snapshot::of(task, &moved, &batch.request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    let step = batch.audit(net, &moved, &block, walk, after, mended, certificate)?;
    clock.count(Phase::Audit);
    let refused = refusal(task, &before, &step, &lengths);
    let removed = refused.is_none();
    let small = too_small(&before, &after).filter(|_| removed && !is_convex(net, task.settings.l2));
    notes.extend(refused.or(small));
    let mut record = batch.record(net, &chosen, before, Some(step), clock, notes);
    if removed {
        let noised = matches!(task.settings.noise(), NoiseUnits::Outside | NoiseUnits::All);
        record.removed = true;
        record.every_unit = mended.is_some() && task.repairs_every_unit() || certificate.is_some() && noised;
        let kept = if record.every_unit { Block::all(&moved)? } else { block };
        record.values = kept.values(&moved);
        *net = moved;
    }
    Ok(record)
}

/// A batch and what stays the same through its stages.
struct Batch<'a> {
    task: &'a Task<'a>,
    number: usize,
    indices: &'a [usize],
    earlier: &'a [usize],
    /// Samples left before it.
    n: usize,
    request: Subset<'a>,
    retained: Subset<'a>,
}

/// What the stages and iterations of a step came to.
struct Walk {
    solves: Vec<SolveReport>,
    /// The length of the last stage.
    length: Scaled,
    /// Σ_U ∇f `[p]` where the first stage began, with its part of the weight decay.
    gradient: Vec<f64>,
    /// The mean gradient of the retained samples there, `[p]`.
    retained_gradient: Vec<f64>,
}

impl<'a> Batch<'a> {
    fn new(
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
        Ok(Batch { task, number, indices, earlier, n, request, retained })
    }

    /// m.
    fn m(&self) -> usize {
        self.indices.len()
    }

    /// n − m.
    fn residual(&self) -> f64 {
        (self.n - self.m()) as f64
    }

    /// The units that depend on the batch; where there are none, the best of a first step if the settings say so.
    fn units(&self, net: &Network, notes: &mut Vec<String>) -> Result<Selection> {
        let Batch { task, indices, .. } = self;
        let find = |criteria: &Criteria| {
            let evidence = observe_request(task.device, net, task.samples, indices, criteria, task.stop)?;
            choose(task.device, net, &evidence, criteria, task.stop)
        };
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

    /// Steps in stages, one a length, until the last or one that does not reach its target; then the iterations, which
    /// bring down the gradient of the retained objective.
    fn step(
        &self,
        moved: &mut Network,
        block: &Block,
        lengths: &[Length],
        clock: &mut Clock,
        notes: &mut Vec<String>,
    ) -> Result<Walk> {
        let (task, residual) = (self.task, self.residual());
        let mut walk: Option<Walk> = None;
        let mut previous: Option<Solution> = None;
        for &length in lengths {
            check_stop(task.stop)?;
            let gradient = gradient_sum(task, moved, block, &self.request)?;
            let newton = Newton::new(task, moved, block, &self.retained)?;
            clock.count(Phase::Curvature);
            let solution = newton.solve(&gradient, residual, previous.take())?;
            let retained_gradient = newton.into_gradient();
            let step = solution.step_of(task.settings.rule, residual);
            clock.count(Phase::Solve);
            let scaled = update(task.device, moved, block, &step, &self.request, length, task.stop)?;
            clock.count(Phase::Length);
            let walk =
                walk.get_or_insert(Walk { solves: vec![], length: scaled, gradient, retained_gradient });
            walk.solves.push(solution.report.clone());
            walk.length = scaled;
            previous = Some(solution);
            if !scaled.reached {
                break;
            }
        }
        let mut walk = walk.ok_or_else(|| Error::config("a step of no stages"))?;
        for _ in 1..task.settings.iterations {
            let newton = Newton::new(task, moved, block, &self.retained)?;
            let solution = newton.solve(&newton.downhill(residual), residual, None)?;
            drop(newton);
            update(task.device, moved, block, &solution.step, &self.request, Length::One, task.stop)?;
            walk.solves.push(solution.report);
        }
        clock.count(Phase::Solve);
        for note in walk.solves.iter().flat_map(SolveReport::notes) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        Ok(walk)
    }

    /// Repairs a step that reached its target, where a repair is wanted; the rate at which it began.
    fn mend(
        &self,
        moved: &mut Network,
        block: &Block,
        unseen: &Unseen,
        walk: &Walk,
        clock: &mut Clock,
        notes: &mut Vec<String>,
    ) -> Result<Option<f64>> {
        let task = self.task;
        if task.settings.repair == 0 || !walk.length.reached {
            return Ok(None);
        }
        let all = if task.repairs_every_unit() { Some(Block::all(moved)?) } else { None };
        let (block, forgotten) = (all.as_ref().unwrap_or(block), [self.earlier, self.indices].concat());
        let targets = targets(unseen, moved, &forgotten)?;
        let rate =
            repair_batch(task, moved, block, &self.retained, &forgotten, self.number, &targets, notes)?;
        clock.count(Phase::Repair);
        Ok(rate)
    }

    /// Adds the noise of a certificate, where one is wanted; λ is the least damping that a solve used, and the weight
    /// decay.
    fn certify(
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
    fn audit(
        &self,
        net: &Network,
        moved: &Network,
        block: &Block,
        walk: Walk,
        after: Snapshot,
        repair_rate: Option<f64>,
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
            repair_rate,
            certificate,
        })
    }

    /// The record of the batch, as not removed.
    fn record(
        &self,
        net: &Network,
        chosen: &Selection,
        before: Snapshot,
        step: Option<StepAccount>,
        clock: Clock,
        notes: Vec<String>,
    ) -> Record {
        let name = |&unit: &UnitId| {
            let (layer, row) = net.units().locate(unit);
            (net.layer(layer).name.clone(), row)
        };
        let selection = SelectionAccount::from(chosen);
        Record {
            batch: self.number,
            indices: self.indices.to_vec(),
            removed: false,
            notes,
            units: chosen.units.iter().map(name).collect(),
            account: Account { n: self.n, m: self.m(), selection, before, step, seconds: clock.seconds },
            every_unit: false,
            values: vec![],
        }
    }
}

/// Why a step is not taken, in words.
fn refusal(task: &Task, before: &Snapshot, step: &StepAccount, lengths: &[Length]) -> Option<String> {
    if !step.after.is_finite() {
        return Some("not removed: the step leaves no finite loss".into());
    }
    if step.step_norm == 0.0 && step.certificate.is_none() {
        return Some("not removed: the step changes nothing".into());
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
