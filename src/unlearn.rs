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

use crate::audit::{Aim, Snapshot, judged, no_effect};
use crate::batch::{Batch, Walk, refusal};
use crate::block::Block;
use crate::clock::{Clock, Phase};
use crate::error::{Error, Result, check_stop};
use crate::net::Network;
use crate::newton::{Newton, Solution, gradient_sum};
use crate::outcome::{Changed, Fate, Record};
use crate::solve::Limits;
use crate::target::lengths;
use crate::task::{CONVERGED, Settings, Task, is_convex, usual_products};
use crate::update::{Length, NoiseUnits, update};

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
    let (mut clock, mut notes) = (Clock::start(task.on_phase), vec![]);

    let chosen = batch.units(net, &mut notes)?;
    clock.count(Phase::Select);
    let judged = judged(task, indices, &mut notes);
    let judged = task.validation.filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
    let before = Snapshot::of(task, net, &batch.request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    if chosen.units.is_empty() {
        notes.push("not removed: no unit depends on it".into());
        return Ok(batch.record(net, &chosen, before, None, clock, (Fate::NoUnits, notes)));
    }
    check_stop(task.stop)?;

    let block = Block::of(net, &chosen.units)?;
    let lengths = lengths(task, net, indices, before.forget.loss, &mut notes)?;
    let mut moved = net.clone();
    let walk = step(&batch, &mut moved, &block, &lengths, &mut clock, &mut notes)?;
    let certificate = batch.certify(&mut moved, &block, &walk.solves)?;

    let after = Snapshot::of(task, &moved, &batch.request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    let step = batch.audit(net, &moved, &block, walk, after, certificate)?;
    clock.count(Phase::Audit);
    check_stop(task.stop)?;
    // The step of a convex model is exact, and noise is an effect that losses need not show.
    let exact = is_convex(net, task.settings.l2) && step.step_norm > 0.0;
    let judged_by_effect = !exact && certificate.is_none();
    let aim = step.length.target.map(|loss| Aim { loss, accuracy: None });
    let no_effect = no_effect(&before, &after, aim).filter(|_| judged_by_effect);
    let fate = Fate::of(refusal(task, &before, &step, &lengths), no_effect, &mut notes);
    let mut record = batch.record(net, &chosen, before, Some(step), clock, (fate, notes));
    if record.removed() {
        let noised = matches!(task.settings.noise(), NoiseUnits::Outside | NoiseUnits::All);
        let outside = certificate.is_some() && noised;
        record.changed = if outside { Changed::EveryUnit } else { Changed::Block };
        let kept = if outside { Block::all(&moved)? } else { block };
        record.values = kept.values(&moved);
        *net = moved;
    }
    Ok(record)
}

/// Steps in stages, one a length, until the last or one that does not reach its target; then the iterations, which
/// bring down the gradient of the retained objective.
fn step(
    batch: &Batch,
    moved: &mut Network,
    block: &Block,
    lengths: &[Length],
    clock: &mut Clock<'_>,
    notes: &mut Vec<String>,
) -> Result<Walk> {
    let (task, residual) = (batch.task, batch.residual());
    let mut walk: Option<Walk> = None;
    let mut previous: Option<Solution> = None;
    for &length in lengths {
        check_stop(task.stop)?;
        let gradient = gradient_sum(task, moved, block, &batch.request)?;
        let newton = Newton::new(task, moved, block, &batch.retained)?;
        clock.count(Phase::Curvature);
        let solution = newton.solve(&gradient, residual, previous.take())?;
        let retained_gradient = newton.into_gradient();
        let step = solution.step_of(task.settings.rule, residual);
        clock.count(Phase::Solve);
        let scaled = update(task.device, moved, block, &step, &batch.request, length, task.stop)?;
        clock.count(Phase::Length);
        let walk = walk.get_or_insert(Walk { solves: vec![], length: scaled, gradient, retained_gradient });
        walk.solves.push(solution.report.clone());
        walk.length = scaled;
        previous = Some(solution);
        if !scaled.reached {
            break;
        }
    }
    let mut walk = walk.ok_or_else(|| Error::config("a step of no stages"))?;
    let usual = task.settings.iterations.is_none();
    let mut converged = !(usual && is_convex(moved, task.settings.l2));
    let size = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    for _ in 1..task.settings.iterations_at_most(moved) {
        check_stop(task.stop)?;
        let newton = Newton::new(task, moved, block, &batch.retained)?;
        let downhill = newton.downhill(residual);
        converged |= size(&downhill) <= CONVERGED * size(&walk.gradient);
        if usual && converged {
            break;
        }
        let solution = newton.solve(&downhill, residual, None)?;
        drop(newton);
        update(task.device, moved, block, &solution.step, &batch.request, Length::One, task.stop)?;
        walk.solves.push(solution.report);
    }
    clock.count(Phase::Solve);
    if !converged {
        let most = task.settings.iterations_at_most(moved);
        notes.push(format!(
            "after {most} Newton steps the retained gradient may be above its bound; --iterations takes more"
        ));
    }
    let usual =
        Limits { products: usual_products(is_convex(moved, task.settings.l2)), ..Settings::default().limits };
    let asked = task.settings.limits != usual;
    for note in walk.solves.iter().flat_map(|solve| solve.notes(asked)) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(walk)
}
