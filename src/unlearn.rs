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
use crate::data::Inputs;
use crate::net::{Network, UnitId};
use crate::newton::{Newton, Solution, SolveReport, approximation, gradient_sum};
use crate::outcome::{Account, BeforeAfter, Clock, Phase, Record, SelectionAccount, StepAccount};
use crate::repair::repair_batch;
use crate::select::{Method, Selection, choose, observe_request};
use crate::target::{Unseen, lengths, targets};
use crate::task::{IfEmpty, Target, Task, is_convex};
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
    task.check(net, indices.len())?;
    let (device, settings, m) = (task.device, &task.settings, indices.len());
    let n = task.n.checked_sub(earlier.len()).filter(|&n| n > m);
    let n = n.ok_or_else(|| Error::config("no more samples are left than are to be removed"))?;
    let residual = (n - m) as f64;
    let (request, retained) = (task.samples.subset(indices), task.samples.subset(&task.retained));
    let (mut clock, mut notes) = (Clock::start(), vec![]);

    let chosen = units(task, net, indices, &mut notes)?;
    clock.count(Phase::Select);
    let judged = judged(task, indices, &mut notes);
    let judged = task.validation.filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
    let before = Snapshot::of(task, net, &request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    let mut record = Record {
        batch,
        indices: indices.to_vec(),
        removed: false,
        notes: vec![],
        units: chosen.units.iter().map(|&unit| name(net, unit)).collect(),
        account: Account {
            n,
            m,
            selection: SelectionAccount::from(&chosen),
            before,
            step: None,
            seconds: clock.seconds.clone(),
        },
        every_unit: false,
        values: vec![],
    };
    if chosen.units.is_empty() {
        notes.push("not removed: no unit depends on it".into());
        return Ok(Record { notes, ..record });
    }
    check_stop(task.stop)?;

    let block = Block::of(net, &chosen.units)?;
    let unseen = Unseen::new(task, net, indices);
    let lengths = lengths(&unseen, before.forget.loss, &mut notes)?;
    let mut moved = net.clone();
    let walk = step(task, &mut moved, &block, &request, &retained, &lengths, residual, &mut clock)?;
    walk.solves.iter().flat_map(SolveReport::notes).for_each(|note| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    });

    let every_unit = settings.repair > 0 && !matches!(settings.target, Target::Loss(_) | Target::Class);
    let mut repair_rate = None;
    if settings.repair > 0 && walk.length.reached {
        let all = if every_unit { Some(Block::all(&moved)?) } else { None };
        let (block, forgotten) = (all.as_ref().unwrap_or(&block), [earlier, indices].concat());
        let targets = targets(&unseen, &moved, &forgotten)?;
        repair_rate =
            repair_batch(task, &mut moved, block, &retained, &forgotten, batch, &targets, &mut notes)?;
        clock.count(Phase::Repair);
    }
    let certificate = certify(task, &mut moved, &block, &walk.solves, n, m, batch)?;

    let after = Snapshot::of(task, &moved, &request, judged.as_ref())?;
    clock.count(Phase::Evaluate);
    let (start, end) = (block.values(net), block.values(&moved));
    let gradient_after = block.gradient(device, &moved, &request)?;
    let retained_after = block.gradient(device, &moved, &retained)?;
    let (sum, retained_before) = (&walk.gradient, &walk.retained_gradient);
    let share = share_removed(&start, &end, retained_before, &retained_after, sum, n, m, settings.l2);
    clock.count(Phase::Audit);
    let step_norm = norm(start.iter().zip(&end).map(|(a, b)| f64::from(b - a)));
    let refused = if !after.is_finite() {
        Some("not removed: the step leaves no finite loss".into())
    } else if step_norm == 0.0 && certificate.is_none() {
        Some("not removed: the step changes nothing".into())
    } else if !walk.length.reached {
        Some(unreached(&walk.length, &lengths))
    } else {
        gate(&before, &after, settings.gate)
    };
    record.removed = refused.is_none();
    let small = too_small(&before, &after).filter(|_| record.removed && !is_convex(net, settings.l2));
    notes.extend(refused.or(small));
    record.notes = notes;
    record.account.step = Some(StepAccount {
        parameters: block.len(),
        curvature: approximation(task, net),
        solves: walk.solves,
        length: walk.length,
        step_norm,
        after,
        gradient_norm: BeforeAfter {
            before: norm(sum.iter().copied()) / m as f64,
            after: norm(gradient_after.into_iter()),
        },
        gradient_share_removed: share,
        repair_rate,
        certificate,
    });
    record.account.seconds = clock.seconds;
    if record.removed {
        record.every_unit = every_unit && repair_rate.is_some()
            || certificate.is_some() && matches!(settings.noise(), NoiseUnits::Outside | NoiseUnits::All);
        let kept = if record.every_unit { Block::all(&moved)? } else { block };
        record.values = kept.values(&moved);
        *net = moved;
    }
    Ok(record)
}

/// The units of a batch: those that the selection gives, or the best of a first step where it gives none.
fn units(task: &Task, net: &Network, indices: &[usize], notes: &mut Vec<String>) -> Result<Selection> {
    let (device, stop) = (task.device, task.stop);
    let mut criteria = task.settings.selection.of_batch(indices.len());
    let evidence = observe_request(device, net, task.samples, indices, &criteria, stop)?;
    let mut chosen = choose(device, net, &evidence, &criteria, stop)?;
    if chosen.units.is_empty() && task.settings.if_empty == IfEmpty::Cheap {
        notes.push("no unit passes FOCI: the best of its first step are taken".into());
        criteria.method = Method::Cheap;
        let evidence = observe_request(device, net, task.samples, indices, &criteria, stop)?;
        chosen = choose(device, net, &evidence, &criteria, stop)?;
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

/// Steps in stages, one a length, until the last or one that does not reach its target; then the iterations, which bring
/// down the gradient of the retained objective.
fn step(
    task: &Task,
    moved: &mut Network,
    block: &Block,
    request: &dyn Inputs,
    retained: &dyn Inputs,
    lengths: &[Length],
    residual: f64,
    clock: &mut Clock,
) -> Result<Walk> {
    let mut walk: Option<Walk> = None;
    let mut previous: Option<Solution> = None;
    for &length in lengths {
        check_stop(task.stop)?;
        let gradient = gradient_sum(task, moved, block, request)?;
        let newton = Newton::new(task, moved, block, retained)?;
        clock.count(Phase::Curvature);
        let solution = newton.solve(&gradient, residual, previous.take())?;
        let (retained_gradient, step) =
            (newton.into_gradient(), solution.step_of(task.settings.rule, residual));
        clock.count(Phase::Solve);
        let scaled = update(task.device, moved, block, &step, request, length, task.stop)?;
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
        let newton = Newton::new(task, moved, block, retained)?;
        let solution = newton.solve(&newton.downhill(residual), residual, None)?;
        drop(newton);
        update(task.device, moved, block, &solution.step, request, Length::One, task.stop)?;
        walk.solves.push(solution.report);
    }
    clock.count(Phase::Solve);
    Ok(walk)
}

/// Adds the noise of a certificate, where one is wanted; λ is the least damping that a solve used, and the weight decay.
fn certify(
    task: &Task,
    moved: &mut Network,
    block: &Block,
    solves: &[SolveReport],
    n: usize,
    m: usize,
    batch: usize,
) -> Result<Option<Certificate>> {
    let settings = &task.settings;
    let Some(spec) = settings.certificate.filter(|spec| spec.noise != NoiseUnits::None) else {
        return Ok(None);
    };
    let damping = solves.iter().map(|solve| solve.damping).fold(f64::INFINITY, f64::min);
    let certificate = Certificate::new(spec.epsilon, spec.delta, damping + settings.l2, n, m)?;
    certificate.add_noise(moved, block, spec.noise, settings.seed, batch as u32);
    Ok(Some(certificate))
}

/// Why a step whose last stage `found` this length is not taken, in words.
fn unreached(found: &Scaled, lengths: &[Length]) -> String {
    let target = match lengths.last() {
        Some(Length::To(target)) => *target,
        Some(Length::One | Length::AtMost(_)) | None => f64::NAN,
    };
    format!(
        "not removed: the forgotten samples' loss reaches {:.3} on its way to the target {target:.3}, and no length goes further",
        found.loss
    )
}

fn name(net: &Network, unit: UnitId) -> (String, usize) {
    let (layer, row) = net.units().locate(unit);
    (net.layer(layer).name.clone(), row)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}
