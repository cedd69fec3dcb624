//! Hold: the whole network is trained on for a few epochs, with the retained samples at their labels and each forgotten sample
//! at the soft label that a model without it would give (MATH.md, Eq. 16).
//!
//! ```text
//! proxy ──▶ soft labels q ──▶ mini-batches of retained and forgotten samples together:
//!                             mean CE(retained, y) + mean CE(forgotten, q)  ──▶ new weights
//! ```
//!
//! Batch norm is in training form on the joint batch: with frozen statistics, a deep network is not held. Soft labels of earlier
//! batches are held too, or else later batches would undo their forgetting. A gradient at soft labels is the gradient at the
//! labels plus a constant ([`Tilt`]), so that both halves of a batch go through one pass.
//!
//! Where the task keeps stages ([`crate::stage`]), a hold that was stopped goes on after its proxy, or after its last epoch.

use crate::audit::{Snapshot, gate, judged, no_effect};
use crate::batch::record;
use crate::block::Block;
use crate::clock::{Clock, Phase};
use crate::data::Samples;
use crate::error::{Error, Result, check_stop};
use crate::evidence::select;
use crate::loss::Loss;
use crate::moving::Moving;
use crate::net::{Network, State, Tilt, UnitId, outputs};
use crate::ops::optimizer::Update;
use crate::ops::philox::{Stream, Use};
use crate::outcome::{Changed, Epochs, Fate, HoldAccount, Record, parameters, set_parameters};
use crate::proxy::{Proxy, weaker_than_neighbours};
use crate::select::{Selection, units_of};
use crate::soft_label::{Answers, Held, SoftLabels, Summary, far_behind};
use crate::stage::Stage;
use crate::task::{HoldSettings, ProxyKind, Task, needs_validation};

/// Retained samples of a mini-batch, and the most forgotten ones.
pub const BATCH: usize = 64;
/// The learning rate at the first step; it falls linearly to 0.
const RATE: f64 = 0.05;
const MOMENTUM: f32 = 0.9;

impl Held {
    /// Those of the records, in their order.
    pub fn of(records: &[Record]) -> Held {
        let mut held = Held::default();
        for record in records.iter().filter(|record| record.removed()) {
            held.indices.extend(&record.indices);
            held.soft_labels.extend(&record.soft_labels);
        }
        held
    }
}

/// Removes a batch from `net`; `earlier` left before in the same run and is held too, as what the task holds of earlier runs.
/// `net` changes only where the record says `removed`.
///
/// # Errors
/// Where the task does not fit the network (before anything is computed), training diverges, or the user stops; `net` is then as
/// before.
pub fn hold(
    task: &Task,
    settings: &HoldSettings,
    net: &mut Network,
    number: usize,
    indices: &[usize],
    earlier: Held,
) -> Result<Record> {
    task.check(net, indices.len())?;
    let validation = task.validation.ok_or_else(|| needs_validation(0))?;
    let n = task.n.checked_sub(earlier.indices.len()).filter(|&n| n > indices.len());
    let n = n.ok_or_else(|| Error::config("no more samples are left than are to be removed"))?;
    let (mut clock, mut notes) = (Clock::start(task.on_phase), vec![]);
    let request = task.samples.subset(indices);
    let judged = judged(task, indices, &mut notes);
    let judged = task.validation.filter(|_| !judged.is_empty()).map(|samples| samples.subset(&judged));
    let before = Snapshot::of(task, net, &request, judged.as_ref())?;
    clock.count(Phase::Evaluate);

    let labels: Vec<u32> = indices.iter().filter_map(|&i| task.samples.y.class_of(i)).collect();
    let stage = match task.stages.map(|stages| stages.read(number)).transpose()?.flatten() {
        Some(stage) => stage,
        None => first_stage(task, settings, net, validation, (number, indices), &labels, &mut clock)?,
    };
    check_stop(task.stop)?;

    notes.extend(stage.notes.clone());
    let (soft, mut held) = (stage.soft.clone(), task.held.clone());
    held.indices.extend(earlier.indices);
    held.soft_labels.extend(earlier.soft_labels);
    held.indices.extend(indices);
    held.soft_labels.extend(&soft.q);
    let chosen = chosen(task, settings, net, &held, indices)?;
    if settings.block.is_some() {
        clock.count(Phase::Select);
        if chosen.units.is_empty() {
            notes.push("not removed: no unit depends on it".into());
            return Ok(record(net, (number, indices), n, &chosen, before, (Fate::NoUnits, notes), clock));
        }
    }
    let block = settings.block.map(|_| Block::of(net, &chosen.units)).transpose()?;
    let mut moved = if block.is_some() { net.clone() } else { net.thaw() };
    let mini_batches = self::moved(task, settings, &mut moved, block.as_ref(), &held, stage, &mut clock)?;
    let moved = if block.is_some() { moved } else { moved.freeze() };
    let after = Snapshot::of(task, &moved, &request, judged.as_ref())?;
    let logits = outputs(task.device, &moved, &request)?.logits;
    let account = HoldAccount {
        proxy: settings.proxy,
        epochs: epochs(settings, task.train_on.len(), held.indices.len()),
        mini_batches,
        nudge: soft.nudge,
        target: soft.summary(&labels),
        reached: Summary::of(Answers { logits: &logits, labels: &labels }),
        after,
    };
    clock.count(Phase::Evaluate);
    let refused = match after.is_finite() {
        true => gate(&before, &after, task.settings.gate),
        false => Some("not removed: the hold leaves no finite loss".into()),
    };
    let fate = Fate::of(refused, no_effect(&before, &after, Some(account.target.into())), &mut notes);
    let mut record = record(net, (number, indices), n, &chosen, before, (fate, notes), clock);
    record.account.hold = Some(account);
    if block.is_none() {
        record.changed = Changed::EveryParameter;
    }
    if record.removed() {
        record.values = block.map_or_else(|| parameters(&moved), |block| block.values(&moved));
        record.soft_labels = soft.q;
        *net = moved;
    }
    Ok(record)
}

/// The first stage of a batch, its number and its samples: the proxy's answers as soft labels, kept where stages are.
fn first_stage(
    task: &Task,
    settings: &HoldSettings,
    net: &Network,
    validation: &Samples,
    (number, indices): (usize, &[usize]),
    labels: &[u32],
    clock: &mut Clock<'_>,
) -> Result<Stage> {
    let mut each = || clock.count(Phase::Proxy);
    let proxy = Proxy::of(task, net, settings, validation, indices, number, &mut each)?;
    let (soft, behind) = soft_labels(task, net, &proxy, validation, labels)?;
    let weaker = weaker_than_neighbours(task, settings, &proxy, validation, net.classes())?;
    let notes = [behind, weaker].into_iter().flatten().collect();
    let stage = Stage { batch: number, soft, notes, epochs: 0, values: vec![], memory: vec![] };
    task.stages.map_or(Ok(()), |stages| stages.write(&stage, &State { values: vec![], memory: vec![] }))?;
    clock.count(Phase::Proxy);
    Ok(stage)
}

/// The passes of a hold over `retained` samples with `held` forgotten ones, those of earlier batches included.
pub fn epochs(settings: &HoldSettings, retained: usize, held: usize) -> Epochs {
    let proxy = match settings.proxy {
        ProxyKind::Trained => settings.recipe.epochs,
        ProxyKind::Neighbours | ProxyKind::Given => 0,
    };
    let beside = (retained.div_ceil(BATCH) * BATCH.min(held)) as f64 / retained as f64;
    Epochs { proxy, hold: settings.epochs, cost: proxy as f64 + settings.epochs as f64 * (1.0 + beside) }
}

/// The soft labels of the batch, whose labels are `labels`; and whether the proxy is far behind the model, in words.
fn soft_labels(
    task: &Task,
    net: &Network,
    proxy: &Proxy,
    validation: &Samples,
    labels: &[u32],
) -> Result<(SoftLabels, Option<String>)> {
    let original = outputs(task.device, net, validation)?.logits;
    let held_out: Vec<u32> = (0..validation.y.len()).filter_map(|i| validation.y.class_of(i)).collect();
    let mut retained = vec![false; net.classes()];
    for class in task.train_on.iter().filter_map(|&i| task.samples.y.class_of(i)) {
        retained[class as usize] = true;
    }
    let (theirs, ours) = (
        Answers { logits: &proxy.held_out, labels: &held_out },
        Answers { logits: &original, labels: &held_out },
    );
    let soft = SoftLabels::new(Answers { logits: &proxy.forgotten, labels }, theirs, ours, &retained)?;
    Ok((soft, far_behind(theirs, ours, &retained)))
}

/// Moves `net`, which is in train form where there is no block, from `stage` to the hold's end; returns its mini-batches.
fn moved(
    task: &Task,
    settings: &HoldSettings,
    net: &mut Network,
    block: Option<&Block>,
    held: &Held,
    mut stage: Stage,
    clock: &mut Clock<'_>,
) -> Result<usize> {
    let (retained, classes, loss) = (&task.train_on, net.classes(), net.loss);
    let count = BATCH.min(held.indices.len());
    if stage.epochs > 0 && block.is_none() {
        set_parameters(net, &stage.values)?;
    }
    let mut moving = match block {
        None => Moving::all(task.device, net, BATCH + count)?,
        Some(block) => Moving::rows(task.device, net, block),
    };
    if stage.epochs > 0 {
        moving.go_on((&stage.values, &stage.memory))?;
        (stage.values, stage.memory) = (vec![], vec![]);
    }
    let mut stream = Stream::new(task.settings.seed, Use::Hold, stage.batch as u32);
    let steps = settings.epochs * retained.len().div_ceil(BATCH);
    let mut done = 0;
    for epoch in 1..=settings.epochs {
        let mut order = retained.clone();
        stream.shuffle(&mut order);
        for kept in order.chunks(BATCH) {
            let gone = stream.choose(held.indices.len(), count);
            let rate = RATE * (1.0 - f64::from(done) / steps as f64);
            done += 1;
            if epoch <= stage.epochs {
                continue; // done before: of it the random numbers alone are drawn
            }
            check_stop(task.stop)?;
            let batch = MiniBatch::new(task, held, kept, &gone, classes, loss);
            let decay = settings.recipe.weight_decay;
            let update = Update { rate: rate as f32, momentum: MOMENTUM, decay, step: done };
            moving.step(&task.samples.subset(&batch.indices), batch.tilt(), &update)?;
        }
        if let Some(stages) = task.stages.filter(|_| epoch > stage.epochs) {
            stage.epochs = epoch;
            stages.write(&stage, &moving.state()?)?;
        }
        clock.count(Phase::Hold);
    }
    moving.end()?;
    Ok(steps)
}

/// A mini-batch of retained and held samples, and what makes its gradient that of both halves' means.
struct MiniBatch {
    indices: Vec<usize>,
    factors: Vec<f32>,
    offsets: Vec<f32>,
}

impl MiniBatch {
    /// Of the retained samples `kept` and the held ones numbered `gone`.
    fn new(
        task: &Task,
        held: &Held,
        kept: &[usize],
        gone: &[usize],
        classes: usize,
        loss: Loss,
    ) -> MiniBatch {
        let indices: Vec<usize> = kept.iter().copied().chain(gone.iter().map(|&i| held.indices[i])).collect();
        let share = |of: usize| indices.len() as f32 / of as f32;
        let factors = [vec![share(kept.len()); kept.len()], vec![share(gone.len()); gone.len()]].concat();
        let mut offsets = vec![0.0; indices.len() * classes];
        for (row, &i) in offsets[kept.len() * classes..].chunks_exact_mut(classes).zip(gone) {
            let label = task.samples.y.class_of(held.indices[i]);
            let q = &held.soft_labels[i * classes..(i + 1) * classes];
            offset(row, loss, label, q, share(gone.len()));
        }
        MiniBatch { indices, factors, offsets }
    }

    fn tilt(&self) -> Tilt<'_> {
        Tilt { factors: &self.factors, offsets: &self.offsets }
    }
}

/// A share of the units for the samples at `indices`, which are held last: those chosen as the settings say, or those with the largest
/// gradient of cross-entropy at the soft labels; none without a share.
fn chosen(
    task: &Task,
    settings: &HoldSettings,
    net: &Network,
    held: &Held,
    indices: &[usize],
) -> Result<Selection> {
    let Some(share) = settings.block else { return Ok(Selection::default()) };
    if let Some(criteria) = settings.criteria(&task.settings.selection) {
        return select(task.device, net, task.samples, indices, &criteria, task.stop);
    }
    let all = Block::all(net)?;
    let gone = Vec::from_iter(held.indices.len() - indices.len()..held.indices.len());
    let batch = MiniBatch::new(task, held, &[], &gone, net.classes(), net.loss);
    let samples = task.samples.subset(&batch.indices);
    let gradient = all.tilted_gradient(task.device, net, &samples, batch.tilt())?;
    let mut order: Vec<(f64, UnitId)> =
        all.norms(&gradient).into_iter().zip(all.units().iter().copied()).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.truncate(units_of(share, order.len()));
    let (scores, units) = order.into_iter().unzip();
    Ok(Selection { units, scores, ..Selection::default() })
}

/// What turns the gradient of `factor` times the network's loss at a label into that of `factor` times cross-entropy at q:
/// `factor` (t − q), t being what the loss aims at.
fn offset(row: &mut [f32], loss: Loss, label: Option<u32>, q: &[f32], factor: f32) {
    let smoothing = match loss {
        Loss::CrossEntropy { smoothing } => smoothing as f32,
        Loss::BinaryCrossEntropy => 0.0,
    };
    let classes = q.len() as f32;
    for (c, (offset, q)) in row.iter_mut().zip(q).enumerate() {
        let hit = if label == Some(c as u32) { 1.0 - smoothing } else { 0.0 };
        *offset = factor * (hit + smoothing / classes - q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_makes_the_gradient_that_of_cross_entropy_at_the_soft_label() {
        let (z, q) = ([0.4f32, -1.0, 2.0], [0.2f32, 0.5, 0.3]);
        for smoothing in [0.0, 0.2] {
            let loss = Loss::CrossEntropy { smoothing };
            let (mut d, mut row) = ([0.0; 3], [0.0; 3]);
            loss.gradient(&mut d, &z, &[1], 3).unwrap();
            offset(&mut row, loss, Some(1), &q, 3.0);
            let sum: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
            for c in 0..3 {
                let expected = 3.0 * (f64::from(z[c]).exp() / sum - f64::from(q[c]));
                assert!((f64::from(3.0 * d[c] + row[c]) - expected).abs() < 1e-6, "{c}");
            }
        }
    }
}
