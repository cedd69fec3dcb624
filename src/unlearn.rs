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

use crate::audit::{Snapshot, judged, too_small};
use crate::batch::{Batch, Walk, refusal};
use crate::block::Block;
use crate::error::{Error, Result, check_stop};
use crate::net::Network;
use crate::newton::{Newton, Solution, SolveReport, gradient_sum};
use crate::outcome::{Changed, Clock, Phase, Record};
use crate::target::lengths;
use crate::task::{Task, is_convex};
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
        return Ok(batch.record(net, &chosen, before, None, clock, notes));
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
    let refused = refusal(task, &before, &step, &lengths);
    let removed = refused.is_none();
    let small = too_small(&before, &after).filter(|_| removed && !is_convex(net, task.settings.l2));
    notes.extend(refused.or(small));
    let mut record = batch.record(net, &chosen, before, Some(step), clock, notes);
    if removed {
        let noised = matches!(task.settings.noise(), NoiseUnits::Outside | NoiseUnits::All);
        record.removed = true;
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
    for _ in 1..task.settings.iterations {
        let newton = Newton::new(task, moved, block, &batch.retained)?;
        let solution = newton.solve(&newton.downhill(residual), residual, None)?;
        drop(newton);
        update(task.device, moved, block, &solution.step, &batch.request, Length::One, task.stop)?;
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
