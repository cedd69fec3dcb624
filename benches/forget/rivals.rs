//! The methods: scrubjay as its command line sets it up, and its rivals, each written from its paper. All change the
//! same parameters (weights and biases; batch norm is frozen) by the same passes, so that seconds compare.
//!
//! What each is tuned over is the list in [`methods`]; the table shows the setting with the least predicted gap.

use scrubjay::Result;
use scrubjay::block::Block;
use scrubjay::data::Samples;
use scrubjay::hold::hold;
use scrubjay::net::Network;
use scrubjay::observe::{evaluate, observe};
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::options::ScrubOptions;
use scrubjay::select::Method as Select;
use scrubjay::soft_label::Held;
use scrubjay::solve::Limits;
use scrubjay::task::{Calibration, Procedure, ProxyKind, Settings, Task};
use scrubjay::unlearn::unlearn;

use crate::answers::{regun, rum, salun};
use crate::descent::{BATCH, batches, falling, negative, sgd};
use crate::setups::{Case, Request};

/// The mean loss to which the rivals that need one drive a class.
const CLASS_LOSS: f64 = 6.0;

/// One setting of a method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name in the table; settings of one method share it.
    pub name: &'static str,
    /// What is set.
    pub setting: &'static str,
    /// What it does.
    pub how: How,
}

/// What a method does.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Nothing.
    Nothing,
    /// scrubjay's L-CODEC: units, Newton steps.
    Newton(Select, usize),
    /// The same without calibration.
    Uncalibrated,
    /// scrubjay's hold: where the soft labels come from, epochs of the proxy and of the hold, the share of the units and how
    /// they are chosen.
    Hold(ProxyKind, usize, usize, Option<f64>, Option<Select>),
    /// Gradient ascent on the forgotten until they reach the target's loss: rate.
    Ascent(f64),
    /// Descent on the retained: epochs, rate.
    FineTune(usize, f64),
    /// NegGrad+: epochs, weight of the forgotten.
    NegGrad(usize, f64),
    /// Descent on the retained with each forgotten sample driven to a target loss of its own: mini-batches.
    Capped(usize),
    /// Selective synaptic dampening: α.
    Dampen(f64),
    /// SCRUB: epochs that also forget, of three; rate.
    Scrub(usize, f64),
    /// DEL: share of the parameters that is reset, epochs.
    Reset(f64, usize),
    /// l1-sparse: weight of the norm.
    Sparse(f64),
    /// SalUn: epochs, rate.
    Salient(usize, f64),
    /// RUM: whether each third of the request has a method of its own.
    Refined(bool),
    /// ReGUn: epochs, rate.
    Guided(usize, f64),
    /// Training from scratch: epochs.
    Scratch(usize),
}

/// All methods with their grids, in the table's order.
pub fn methods() -> Vec<Method> {
    use How::*;
    let one = |name, setting, how| Method { name, setting, how };
    let block = |name, share, by| {
        one(name, "proxy 4 epochs, hold 4", Hold(ProxyKind::Trained, 4, 4, Some(share), by))
    };
    vec![
        one("none", "", Nothing),
        one("ours: vote", "", Newton(Select::Vote, 1)),
        one("ours: vote, uncalibrated", "", Uncalibrated),
        one("ours: all units", "", Newton(Select::Full, 1)),
        one("ours: all units, two iterations", "", Newton(Select::Full, 2)),
        one("ours: hold", "proxy 4 epochs, hold 4", Hold(ProxyKind::Trained, 4, 4, None, None)),
        one("ours: hold", "proxy 4 epochs, hold 8", Hold(ProxyKind::Trained, 4, 8, None, None)),
        one("ours: hold, neighbours", "hold 4", Hold(ProxyKind::Neighbours, 1, 4, None, None)),
        block("ours: hold, 50 % of the units", 0.5, None),
        block("ours: hold, 50 % at random", 0.5, Some(Select::Random)),
        block("ours: hold, 50 % by vote", 0.5, Some(Select::Vote)),
        block("ours: hold, 20 % of the units", 0.2, None),
        block("ours: hold, 20 % at random", 0.2, Some(Select::Random)),
        block("ours: hold, 20 % by vote", 0.2, Some(Select::Vote)),
        block("ours: hold, 5 % of the units", 0.05, None),
        block("ours: hold, 5 % at random", 0.05, Some(Select::Random)),
        block("ours: hold, 5 % by vote", 0.05, Some(Select::Vote)),
        one("random block", "", Newton(Select::Random, 1)),
        one("output layer", "", Newton(Select::Output, 1)),
        one("gradient block", "", Newton(Select::Gradient, 1)),
        one("gradient ascent", "rate 0.002", Ascent(0.002)),
        one("gradient ascent", "rate 0.02", Ascent(0.02)),
        one("fine-tuning", "1 epoch, rate 0.02", FineTune(1, 0.02)),
        one("fine-tuning", "3 epochs, rate 0.1", FineTune(3, 0.1)),
        one("NegGrad+", "1 epoch, 0.1", NegGrad(1, 0.1)),
        one("NegGrad+", "1 epoch, 0.3", NegGrad(1, 0.3)),
        one("NegGrad+", "1 epoch, 1.0", NegGrad(1, 1.0)),
        one("NegGrad+", "2 epochs, 0.3", NegGrad(2, 0.3)),
        one("NegGrad+ of the hold's cost", "5 epochs, 0.1", NegGrad(5, 0.1)),
        one("NegGrad+ of the hold's cost", "5 epochs, 0.02", NegGrad(5, 0.02)),
        one("capped NegGrad", "40 steps", Capped(40)),
        one("capped NegGrad", "80 steps", Capped(80)),
        one("SSD", "α 5", Dampen(5.0)),
        one("SSD", "α 10", Dampen(10.0)),
        one("SSD", "α 25", Dampen(25.0)),
        one("SCRUB-like", "2 of 3 epochs, rate 0.01", Scrub(2, 0.01)),
        one("SCRUB-like", "2 of 3 epochs, rate 0.05", Scrub(2, 0.05)),
        one("DEL-like", "10 %, 1 epoch", Reset(0.1, 1)),
        one("DEL-like", "20 %, 3 epochs", Reset(0.2, 3)),
        one("l1-sparse", "γ 1e-4, 3 epochs", Sparse(1e-4)),
        one("l1-sparse", "γ 1e-3, 3 epochs", Sparse(1e-3)),
        one("SalUn", "1 epoch, rate 0.02", Salient(1, 0.02)),
        one("SalUn", "3 epochs, rate 0.02", Salient(3, 0.02)),
        one("SalUn", "3 epochs, rate 0.1", Salient(3, 0.1)),
        one("SalUn", "10 epochs, rate 0.02", Salient(10, 0.02)),
        one("RUM-like", "SalUn on each third", Refined(false)),
        one("RUM-like", "nothing, SalUn, NegGrad+", Refined(true)),
        one("ReGUn-like", "1 epoch, rate 0.02", Guided(1, 0.02)),
        one("ReGUn-like", "3 epochs, rate 0.02", Guided(3, 0.02)),
        one("ReGUn-like", "3 epochs, rate 0.05", Guided(3, 0.05)),
        one("from scratch", "3 epochs", Scratch(3)),
    ]
}

/// Whether a method applies: a network takes one Newton step, and a convex model is not held.
pub fn applies(case_is_convex: bool, how: How) -> bool {
    match how {
        How::Newton(_, iterations) => case_is_convex || iterations == 1,
        How::Uncalibrated | How::Hold(..) => !case_is_convex,
        _ => true,
    }
}

/// The model after a method, and what there is to say.
pub fn run(case: &Case, how: How) -> Result<(Network, String)> {
    let all = Block::all(case.original)?;
    let mut net = case.original.clone();
    match how {
        How::Nothing => {}
        How::Newton(..) | How::Uncalibrated | How::Hold(..) => return ours(case, how),
        How::Ascent(rate) => ascend(case, &mut net, &all, rate)?,
        How::FineTune(epochs, rate) => descend(case, &mut net, &all, epochs, rate, 0.0)?,
        How::NegGrad(epochs, weight) => negative(case, &mut net, &all, &case.forget, epochs, weight)?,
        How::Capped(steps) => capped(case, &mut net, &all, steps)?,
        How::Dampen(alpha) => dampen(case, &mut net, &all, alpha)?,
        How::Scrub(forgetting, rate) => distill(case, &mut net, &all, forgetting, rate)?,
        How::Reset(share, epochs) => reset(case, &mut net, &all, share, epochs)?,
        How::Sparse(gamma) => descend(case, &mut net, &all, 3, 0.02, gamma)?,
        How::Salient(epochs, rate) => salun(case, &mut net, &all, &case.forget, (epochs, rate))?,
        How::Refined(mixed) => rum(case, &mut net, &all, mixed)?,
        How::Guided(epochs, rate) => regun(case, &mut net, &all, epochs, rate)?,
        How::Scratch(epochs) => {
            let mut config = case.setup.recipe(case.seed + 500);
            config.epochs = epochs;
            return Ok((
                case.setup.trained_by(case.device, case.data, &case.retain, &config)?,
                String::new(),
            ));
        }
    }
    Ok((net, String::new()))
}

/// The settings of `scrub` for a request of this kind; a convex model is solved exactly, on all retained data.
pub fn settings(case: &Case, method: Select) -> Result<Settings> {
    let class = matches!(case.request, Request::Class(_));
    let mut settings = Settings {
        memory: 1 << 30,
        ..options(case, method).settings(case.original, Procedure::Lcodec, class, None)?
    };
    if case.setup.convex() {
        settings.limits = Limits { tolerance: 1e-5, products: 500 };
    }
    Ok(settings)
}

fn options(case: &Case, method: Select) -> ScrubOptions {
    let some = case.setup.convex() && !matches!(method, Select::Full | Select::Output);
    ScrubOptions {
        selection: Some(method),
        max_units: some.then_some(3),
        l2: case.setup.l2,
        wrong_labels: matches!(case.request, Request::Wrong),
        gate: 1.0, // the table shows what happens, whatever it is
        seed: case.seed,
        ..ScrubOptions::default()
    }
}

/// The task of a case with these settings.
pub fn task<'a>(case: &Case<'a>, settings: Settings) -> Task<'a> {
    Task {
        train_on: case.retain.clone(),
        validation: Some(&case.data.held_out),
        ..Task::new(case.device, &case.data.train, retained(case), settings)
    }
}

/// Retained samples that a request uses: all of a convex model, else 1,024 at random.
pub fn retained(case: &Case) -> Vec<usize> {
    if case.setup.convex() || case.retain.len() <= 1024 {
        return case.retain.clone();
    }
    let mut some = Stream::new(case.seed, Use::Choice, 22).choose(case.retain.len(), 1024);
    some.sort_unstable();
    some.iter().map(|&i| case.retain[i]).collect()
}

/// The settings of one of scrubjay's methods; a hold's proxy is trained by the recipe of the originals, but for its epochs.
pub fn settings_of(case: &Case, how: How) -> Result<Settings> {
    match how {
        How::Newton(method, iterations) => {
            Ok(Settings { iterations: Some(iterations), ..settings(case, method)? })
        }
        How::Hold(proxy, proxy_epochs, hold_epochs, block, selection) => {
            let class = matches!(case.request, Request::Class(_));
            let plain = options(case, Select::Vote);
            let of_hold = ScrubOptions { selection, max_units: None, wrong_labels: false, ..plain };
            let options = ScrubOptions { proxy, proxy_epochs, hold_epochs, block, ..of_hold };
            options.settings(case.original, Procedure::Hold, class, Some(case.setup.recipe(case.seed)))
        }
        _ => Ok(Settings { calibration: Calibration::One, ..settings(case, Select::Vote)? }),
    }
}

fn ours(case: &Case, how: How) -> Result<(Network, String)> {
    let task = task(case, settings_of(case, how)?);
    let mut net = case.original.clone();
    let record = match &task.settings.hold {
        Some(settings) => hold(&task, settings, &mut net, 0, &case.forget, Held::default())?,
        None => unlearn(&task, &mut net, 0, &case.forget, &[])?,
    };
    let notes = if record.removed() { String::new() } else { record.notes.join("; ") };
    Ok((net, notes))
}

/// Gradient ascent on the forgotten (Graves, Nagisetty, Ganesh, AAAI 2021, in its plain form), ended once their mean
/// loss is at the target that calibration has: what held-out samples of the same kind lose, or 6 for a class.
fn ascend(case: &Case, net: &mut Network, block: &Block, rate: f64) -> Result<()> {
    let target = match case.request {
        Request::Class(_) => CLASS_LOSS,
        _ => evaluate(case.device, case.original, &case.stand_in())?.mean_loss(),
    };
    let forget = case.data.train.subset(&case.forget);
    sgd(case, net, block, std::iter::repeat_n(rate, 200), &mut |net, _| {
        if evaluate(case.device, net, &forget)?.mean_loss() >= target {
            return Ok(None);
        }
        let uphill = block.gradient(case.device, net, &forget)?;
        Ok(Some(uphill.into_iter().map(|g| -g).collect()))
    })
}

/// Fine-tuning on the retained; with `gamma` the l1 norm of the parameters is added, its weight falling to 0
/// (l1-sparse: Jia et al., NeurIPS 2023).
fn descend(
    case: &Case,
    net: &mut Network,
    block: &Block,
    epochs: usize,
    rate: f64,
    gamma: f64,
) -> Result<()> {
    let batches = batches(case, &case.retain, epochs);
    let steps = batches.len();
    sgd(case, net, block, falling(rate, steps), &mut |net, step| {
        let mut gradient = block.gradient(case.device, net, &case.data.train.subset(&batches[step]))?;
        if gamma > 0.0 {
            let weight = gamma * (1.0 - step as f64 / steps as f64);
            let values = block.values(net);
            gradient.iter_mut().zip(&values).filter(|(_, w)| **w != 0.0).for_each(|(g, w)| {
                *g += weight * f64::from(w.signum());
            });
        }
        Ok(Some(gradient))
    })
}

/// Capped NegGrad: retained loss − 0.3 × forgotten loss (1 × for a class and wrong labels), where each forgotten sample weighs
/// (t − f)/t, at most 1, and no less than 0 in an ordinary request (else than −1). Its target t is 6 for a class, else the
/// quantile of its rank among held-out losses of its kind.
fn capped(case: &Case, net: &mut Network, block: &Block, steps: usize) -> Result<()> {
    let before = evaluate(case.device, net, &case.data.train.subset(&case.forget))?.losses;
    let (targets, two_sided) = match case.request {
        Request::Class(_) => (vec![CLASS_LOSS; case.forget.len()], true),
        request => {
            let unseen = evaluate(case.device, case.original, &case.stand_in())?.losses;
            (by_rank(&before, unseen), request == Request::Wrong)
        }
    };
    let (pull, least) = if two_sided { (1.0, -1.0) } else { (0.3, 0.0) };
    let mut stream = Stream::new(case.seed, Use::Hold, 0);
    sgd(case, net, block, falling(0.02, steps), &mut |net, _| {
        let kept = stream.choose(case.retain.len(), BATCH.min(case.retain.len()));
        let gone = stream.choose(case.forget.len(), BATCH.min(case.forget.len()));
        let both: Vec<usize> =
            (kept.iter().map(|&i| case.retain[i])).chain(gone.iter().map(|&i| case.forget[i])).collect();
        let share = |count: usize| both.len() as f64 / count as f64;
        let weight = |i: usize, loss: f64| match i.checked_sub(kept.len()) {
            None => share(kept.len()),
            Some(i) => {
                let target = targets[gone[i]].max(f64::MIN_POSITIVE);
                -pull * share(gone.len()) * ((target - loss) / target).clamp(least, 1.0)
            }
        };
        let samples = case.data.train.subset(&both);
        let mut gradient = block.weighted_gradient(case.device, net, &samples, Some(&weight))?;
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        gradient.iter_mut().for_each(|g| *g *= (1.0 / norm).min(1.0));
        Ok(Some(gradient))
    })
}

/// For each loss the quantile of `unseen` at the middle of its rank.
fn by_rank(losses: &[f32], mut unseen: Vec<f32>) -> Vec<f64> {
    unseen.sort_by(f32::total_cmp);
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    let mut targets = vec![0.0; losses.len()];
    for (rank, i) in order.into_iter().enumerate() {
        let at = (2 * rank + 1) * unseen.len() / (2 * losses.len());
        targets[i] = f64::from(unseen[at.min(unseen.len() - 1)]);
    }
    targets
}

/// Samples that importances are taken over at most.
const IMPORTANCE: usize = 1000;

/// The mean over samples of each parameter's squared gradient.
fn importance(case: &Case, net: &Network, block: &Block, indices: &[usize]) -> Result<Vec<f64>> {
    let mut stream = Stream::new(case.seed, Use::Choice, 24);
    let some = stream.choose(indices.len(), IMPORTANCE.min(indices.len()));
    let mut sum = vec![0.0; block.len()];
    for &i in &some {
        let gradient = block.gradient(case.device, net, &case.data.train.subset(&[indices[i]]))?;
        sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g * g);
    }
    sum.iter_mut().for_each(|v| *v /= some.len() as f64);
    Ok(sum)
}

/// Selective synaptic dampening (Foster, Schoepf, Brintrup, AAAI 2024): parameters that matter α times more to the
/// forgotten than to all data are multiplied by the ratio of the two (λ = 1), at most 1. No retained sample is trained
/// on.
fn dampen(case: &Case, net: &mut Network, block: &Block, alpha: f64) -> Result<()> {
    let everything: Vec<usize> = (0..case.data.train.y.len()).collect();
    let whole = importance(case, net, block, &everything)?;
    let forgotten = importance(case, net, block, &case.forget)?;
    let mut values = block.values(net);
    for (i, value) in values.iter_mut().enumerate() {
        if forgotten[i] > alpha * whole[i] {
            *value *= (whole[i] / forgotten[i]).min(1.0) as f32;
        }
    }
    block.assign(net, &values);
    Ok(())
}

/// Samples with a label for each class that the teacher gives at least 1e-3, weighted by that probability: the gradient
/// of the weighted cross-entropy is that of KL(teacher ‖ student).
struct Taught {
    samples: Samples,
    weights: Vec<f64>,
}

/// Appends samples of `indices` as the teacher sees them, each weighted with `scale`; with `hard` also under their
/// label.
fn teach(case: &Case, taught: &mut Taught, indices: &[usize], scale: f64, hard: Option<f64>) -> Result<()> {
    let train = &case.data.train;
    let classes = case.original.classes();
    let trace = observe(case.device, case.original, &train.subset(indices))?;
    let mut labels = vec![];
    let mut push = |i: usize, label: u32, weight: f64| {
        let len = train.shape().len();
        taught.samples.x.extend_from_slice(&train.x[i * len..(i + 1) * len]);
        labels.push(label);
        taught.weights.push(weight);
    };
    for (&i, logits) in indices.iter().zip(trace.logits.chunks_exact(classes)) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = logits.iter().map(|z| f64::from(z - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (label, power) in powers.iter().enumerate().filter(|(_, power)| **power >= 1e-3 * sum) {
            push(i, label as u32, scale * power / sum);
        }
        if let Some(weight) = hard {
            push(i, train.y.words()[i], weight * scale);
        }
    }
    taught.samples.y.extend(&labels.into())
}

/// SCRUB (Kurmanji et al., NeurIPS 2023): epochs that first drive the student from the teacher on the forgotten, then
/// towards teacher and labels on the retained; the last ones only the latter. Their rewinding is left out.
fn distill(case: &Case, net: &mut Network, block: &Block, forgetting: usize, rate: f64) -> Result<()> {
    const EPOCHS: usize = 3;
    let mut steps: Vec<(bool, Vec<usize>)> = vec![];
    for epoch in 0..EPOCHS {
        if epoch < forgetting {
            steps.extend(batches(case, &case.forget, 1).into_iter().map(|batch| (true, batch)));
        }
        let all = batches(case, &case.retain, EPOCHS);
        let each = all.len() / EPOCHS;
        steps.extend(all[epoch * each..(epoch + 1) * each].iter().map(|batch| (false, batch.clone())));
    }
    sgd(case, net, block, falling(rate, steps.len()), &mut |net, step| {
        let (away, batch) = &steps[step];
        let samples = Samples { kind: case.data.train.kind, x: vec![], y: vec![].into(), stream: None };
        let mut taught = Taught { samples, weights: vec![] };
        let scale = if *away { -1.0 } else { 1.0 };
        teach(case, &mut taught, batch, scale, (!away).then_some(1.0))?;
        let share = taught.weights.len() as f64 / batch.len() as f64;
        let weight = |i: usize, _: f64| share * taught.weights[i];
        Ok(Some(block.weighted_gradient(case.device, net, &taught.samples, Some(&weight))?))
    })
}

/// DEL (Torkzadehmahani et al., 2024): the units with the largest mean |w · gradient| over the forgotten, up to a share
/// of the parameters, get new random values, and only they are trained on the retained.
fn reset(case: &Case, net: &mut Network, all: &Block, share: f64, epochs: usize) -> Result<()> {
    let gradient = all.gradient(case.device, net, &case.data.train.subset(&case.forget))?;
    let values = all.values(net);
    let score = |i: usize| {
        let range = all.range(i);
        let len = range.len() as f64;
        range.map(|at| (f64::from(values[at]) * gradient[at]).abs()).sum::<f64>() / len
    };
    let mut order: Vec<(f64, usize)> = (0..all.units().len()).map(|i| (score(i), i)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let most = (share * all.len() as f64) as usize;
    let (mut units, mut len) = (vec![], 0);
    for (_, i) in order {
        if units.is_empty() || len + all.range(i).len() <= most {
            len += all.range(i).len();
            units.push(all.units()[i]);
        }
    }
    let block = Block::of(net, &units)?;
    let fresh = case.setup.fresh(case.data, case.seed + 700)?;
    block.assign(net, &block.values(&fresh));
    descend(case, net, &block, epochs, 0.05, 0.0)
}
