//! Select: the units that the loss on a request depends on (MATH.md, Eq. 4, 6 and 6b).
//!
//! [`choose`] reads [`Evidence`], which [`crate::evidence`] gives. `foci` reads one trace: noisy copies of the request, every
//! unit's activation, the loss. Averaged over a batch that
//! trace is noise, so batches `vote`: FOCI runs on each of at most 40 samples alone, each unit collects the increments
//! of cumulative T that it brought (weighted by 1 − p of the sample's label), and the best share of all units is taken,
//! ties and the rest by the sum of their first-step T. T₁ is reported beside the level that permuted losses reach.

use std::sync::atomic::AtomicBool;

use crate::codec::{Columns, Foci, FociOptions, Rows, Table, foci_of_table, permuted_first_steps_of_table};
use crate::device::Device;
use crate::error::{Error, Result, check_stop};
use crate::loss::uncertainty;
use crate::names::names;
use crate::net::{LayerId, Network, UnitId};
use crate::observe::{Activations, Observed};
use crate::ops::Precision;
use crate::ops::philox::{Stream, Use};
use crate::perturb::{REPLACE, SIGMA};

/// How units are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// FOCI on the trace of the whole request.
    Foci,
    /// FOCI per sample, increments of T added up.
    Vote,
    /// The first step of FOCI alone.
    Cheap,
    /// The largest ‖Σ ∇f‖ per unit.
    Gradient,
    /// The output layer.
    Output,
    /// Units at random.
    Random,
    /// Every unit.
    Full,
    /// The first unit of FOCI.
    One,
}

names!(Method {
    Foci = "foci": "FOCI on the mean of all samples",
    Vote = "vote": "FOCI for each sample; the units that add most to T over all samples",
    Cheap = "cheap": "FOCI's first step alone: the units on which the loss depends most, each by itself",
    Gradient = "gradient": "the units with the largest gradient",
    Output = "output": "the output layer",
    Random = "random": "units at random",
    Full = "full": "every unit",
    One = "one": "the first unit of FOCI",
});

impl Method {
    /// Whether it observes noisy copies.
    pub fn observes(self) -> bool {
        match self {
            Method::Foci | Method::Vote | Method::Cheap | Method::One => true,
            Method::Gradient | Method::Output | Method::Random | Method::Full => false,
        }
    }

    /// Whether it takes as many units as it is asked for; the others stop by themselves, or take what there is.
    pub fn fills_a_share(self) -> bool {
        match self {
            Method::Vote | Method::Cheap | Method::Gradient | Method::Random => true,
            Method::Foci | Method::Output | Method::Full | Method::One => false,
        }
    }
}

/// By what criteria units are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criteria {
    /// The method.
    pub method: Method,
    /// Noisy copies per trace; by default 1000, and 200 per sample of a vote.
    pub perturbations: Option<usize>,
    /// σ of their noise, of images.
    pub sigma: f32,
    /// Tokens of each that are replaced, of texts.
    pub replace: u32,
    /// Units at most; by default as FOCI stops, and the share of [`Criteria::share`] for the others.
    pub max_units: Option<usize>,
    /// The share of all units that a vote (or gradient, cheap, random) takes: 5 % for a class, 20 % otherwise.
    pub share: f64,
    /// Of the passes over noisy copies, and of nothing else.
    pub precision: Precision,
    /// Seed of noise, random units and permutations.
    pub seed: u64,
}

/// The defaults of `scrub`: a vote, σ = 0.1 (one token of a text), a fifth of the units, seed 0.
impl Default for Criteria {
    fn default() -> Criteria {
        Criteria {
            method: Method::Vote,
            perturbations: None,
            sigma: SIGMA,
            replace: REPLACE,
            max_units: None,
            share: 0.2,
            precision: Precision::F32,
            seed: 0,
        }
    }
}

impl Criteria {
    /// The criteria for a batch of `m` samples: a single sample has one trace, and its vote is plain FOCI.
    pub fn of_batch(self, m: usize) -> Criteria {
        match self.method {
            Method::Vote if m == 1 => Criteria { method: Method::Foci, ..self },
            _ => self,
        }
    }

    /// Traces of a request of `m` samples, and noisy copies of each.
    pub fn copies(&self, m: usize) -> (usize, usize) {
        let (traces, copies) = match self.method {
            Method::Vote => (m.min(VOTERS), COPIES_PER_VOTER),
            Method::Foci | Method::Cheap | Method::One => (m, COPIES),
            Method::Gradient | Method::Output | Method::Random | Method::Full => (0, 0),
        };
        (traces, self.perturbations.unwrap_or(copies))
    }

    /// How many of `d` units a method that does not stop by itself takes.
    fn count(&self, d: usize) -> usize {
        self.max_units.map_or(units_of(self.share, d), |most| most.clamp(1, d))
    }
}

/// How many of `d` units a share of them is: one at least.
pub fn units_of(share: f64, d: usize) -> usize {
    ((share * d as f64).round() as usize).clamp(1, d)
}

/// Samples of a request that vote at most, units that each names at most, and copies of each.
const VOTERS: usize = 40;
const UNITS_PER_VOTER: usize = 6;
const COPIES_PER_VOTER: usize = 200;
const COPIES: usize = 1000;
/// Traces, and permutations of each, that the noise level of T₁ is taken from.
const NOISE_TRACES: usize = 8;
const PERMUTATIONS: usize = 3;
/// The chosen units, and the evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// In order of choice.
    pub units: Vec<UnitId>,
    /// What each was chosen by: conditional T, votes, or a norm; empty where nothing was measured.
    pub scores: Vec<f64>,
    /// The largest first-step T: of the trace, or the mean over the voters.
    pub first: Option<f64>,
    /// What the largest first-step T reaches when the losses are permuted: the 95 % point.
    pub noise_level: Option<f64>,
    /// Copies whose loss equals another copy's, over all traces: near interpolation losses tie and nothing can be read.
    pub tied_losses: usize,
    /// Noisy copies that the device had room for at once; none where no copies were observed.
    pub images_at_once: Option<usize>,
    /// Where the passes were below f32.
    pub agreement: Option<Agreement>,
}

/// What passes below f32 changed, by the first copies of the first traces, made again in f32.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Agreement {
    /// Of the passes.
    pub precision: Precision,
    /// Traces that were compared.
    pub traces: usize,
    /// Copies of each.
    pub copies: usize,
    /// Spearman's correlation of the losses, the least over traces; none where all losses are equal.
    pub spearman: Option<f64>,
    /// Units that FOCI chooses by both, as a share of the longer choice; the mean over traces.
    pub overlap: f64,
}

impl Selection {
    fn plain(units: Vec<UnitId>) -> Selection {
        Selection { units, ..Selection::default() }
    }

    /// Whether T₁ does not rise above the level of permuted losses, so that the choice may be chance.
    pub fn is_noise(&self) -> bool {
        matches!((self.first, self.noise_level), (Some(first), Some(level)) if first <= level)
    }
}

/// What was seen of a request, to choose its units by.
pub enum Evidence {
    /// Nothing is needed.
    Nothing,
    /// The norm of Σ ∇f of every unit.
    Norms(Vec<f64>),
    /// The trace of the whole request, in the given precision and, where that is below f32, its first copies in f32.
    Request(Observed, Option<Observed>),
    /// A trace of each voter, of the first ones in f32 too, and the loss of each voter without noise.
    Voters(Vec<Observed>, Vec<Observed>, Vec<f32>),
}

/// Chooses units by the evidence that was gathered for the same criteria. An empty choice means that no unit
/// depends on the request.
///
/// # Errors
/// Where a step of FOCI fails, or the user stops between two voters.
pub fn choose(
    device: &Device,
    net: &Network,
    evidence: &Evidence,
    criteria: &Criteria,
    stop: &AtomicBool,
) -> Result<Selection> {
    let d = net.units().len();
    let units = |chosen: &mut dyn Iterator<Item = usize>| {
        Selection::plain(chosen.map(|unit| UnitId(unit as u32)).collect())
    };
    match evidence {
        Evidence::Nothing => match criteria.method {
            Method::Full => Ok(units(&mut (0..d))),
            Method::Output => Ok(units(&mut net.units().of_layer(LayerId(net.layers.len() as u32 - 1)))),
            Method::Random => {
                let chosen = Stream::new(criteria.seed, Use::Choice, 1).choose(d, criteria.count(d));
                Ok(units(&mut chosen.into_iter()))
            }
            Method::Gradient | Method::Foci | Method::Vote | Method::Cheap | Method::One => {
                Err(Error::config("a choice of units by evidence, without any"))
            }
        },
        Evidence::Norms(norms) => Ok(best(norms, norms, criteria.count(d))),
        Evidence::Request(trace, exact) => by_one_trace(device, trace, exact.as_ref(), criteria),
        Evidence::Voters(traces, exact, surprisals) => {
            by_vote(device, traces, exact, surprisals, criteria, stop)
        }
    }
}

/// The `k` units of the largest scores above zero, ties by `second`, then by number.
fn best(scores: &[f64], second: &[f64], k: usize) -> Selection {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| {
        scores[b].total_cmp(&scores[a]).then(second[b].total_cmp(&second[a])).then(a.cmp(&b))
    });
    order.truncate(k);
    order.retain(|&unit| scores[unit] > 0.0 || second[unit] > 0.0);
    let mut selection = Selection::plain(order.iter().map(|&unit| UnitId(unit as u32)).collect());
    selection.scores = order.iter().map(|&unit| scores[unit]).collect();
    selection
}

/// FOCI on the trace of the whole request.
fn by_one_trace(
    device: &Device,
    trace: &Observed,
    exact: Option<&Observed>,
    criteria: &Criteria,
) -> Result<Selection> {
    let most = match criteria.method {
        Method::One | Method::Cheap => Some(1),
        Method::Foci | Method::Vote | Method::Gradient | Method::Output | Method::Random | Method::Full => {
            criteria.max_units
        }
    };
    let found = run(device, trace, trace.m, most)?;
    let mut selection = match criteria.method == Method::Cheap {
        true => best(&found.first_step, &found.first_step, criteria.count(trace.d)),
        false => {
            let units = found.order.iter().map(|&unit| UnitId(unit as u32));
            let mut selection = Selection::plain(units.collect());
            selection.scores = found.conditional.iter().map(|t| t.unwrap_or(0.0)).collect();
            selection
        }
    };
    selection.first = found.first_step.iter().copied().reduce(f64::max);
    selection.noise_level = noise_level(device, &[trace], NOISE_TRACES * PERMUTATIONS, criteria.seed)?;
    selection.tied_losses = tied(&trace.losses);
    selection.images_at_once = Some(trace.chunk);
    selection.agreement = match exact {
        Some(exact) => agreement(device, std::slice::from_ref(trace), &[exact], criteria.precision, most)?,
        None => None,
    };
    Ok(selection)
}

/// FOCI per sample; each unit collects the increments of cumulative T that it brought, weighted by 1 − p of the
/// sample's label: a sample that the model predicts surely has next to no gradient to remove.
fn by_vote(
    device: &Device,
    traces: &[Observed],
    exact: &[Observed],
    surprisals: &[f32],
    criteria: &Criteria,
    stop: &AtomicBool,
) -> Result<Selection> {
    let alone = device.alone(); // each rank looks at voters of its own
    let ballots = device.ranks().each(traces.len(), |i| {
        let found =
            check_stop(stop).and_then(|()| run(&alone, &traces[i], traces[i].m, Some(UNITS_PER_VOTER)))?;
        Ok((found.first_step.clone(), found))
    })?;
    let ballots: Vec<Foci> =
        ballots.into_iter().map(|(first_step, found)| Foci { first_step, ..found }).collect();
    let d = traces.first().map_or(0, |trace| trace.d);
    let (mut votes, mut firsts) = (vec![0.0; d], vec![0.0; d]);
    for (ballot, &surprisal) in ballots.iter().zip(surprisals) {
        let weight = uncertainty(surprisal);
        let mut before = 0.0;
        for (&unit, t) in ballot.order.iter().zip(&ballot.cumulative) {
            let t = t.unwrap_or(before);
            votes[unit] += weight * (t - before);
            before = t;
        }
        firsts.iter_mut().zip(&ballot.first_step).for_each(|(sum, t)| *sum += weight * t);
    }
    let mut selection = best(&votes, &firsts, criteria.count(d));
    let tops: Vec<f64> =
        ballots.iter().filter_map(|b| b.first_step.iter().copied().reduce(f64::max)).collect();
    selection.first = (!tops.is_empty()).then(|| tops.iter().sum::<f64>() / tops.len() as f64);
    let some: Vec<&Observed> = traces.iter().take(NOISE_TRACES).collect();
    selection.noise_level = noise_level(device, &some, PERMUTATIONS, criteria.seed)?;
    selection.tied_losses = traces.iter().map(|trace| tied(&trace.losses)).sum();
    selection.images_at_once = traces.iter().map(|trace| trace.chunk).min();
    let exact: Vec<&Observed> = exact.iter().collect();
    selection.agreement = agreement(device, traces, &exact, criteria.precision, Some(UNITS_PER_VOTER))?;
    Ok(selection)
}

/// FOCI on the first `m` copies of a trace, where it is.
fn run(device: &Device, trace: &Observed, m: usize, most: Option<usize>) -> Result<Foci> {
    let losses: Vec<f64> = trace.losses[..m].iter().map(|&loss| f64::from(loss)).collect();
    let options = FociOptions { max_features: most, ..FociOptions::default() };
    foci_of_table(device, &losses, table(device, trace, m)?, &options)
}

/// The activations of the first `m` copies of a trace as a table, where they are.
fn table<'a>(device: &'a Device, trace: &'a Observed, m: usize) -> Result<Table<'a>> {
    match (&trace.activations, device.cuda()) {
        (Activations::Host(values), _) => {
            Ok(Table::Host(Columns::from_rows_f32(values, m, trace.d, trace.d)?))
        }
        (Activations::Device(values), Some(cuda)) => Ok(Table::Device(Rows::new(cuda, values, m, trace.d)?)),
        (Activations::Device(_), None) => {
            Err(Error::config("a trace in the memory of a GPU, and a choice of units without one"))
        }
    }
}

/// The 95 % point of the largest first-step T under permuted losses, over `permutations` of each trace.
fn noise_level(device: &Device, traces: &[&Observed], permutations: usize, seed: u64) -> Result<Option<f64>> {
    let alone = device.alone();
    let of_trace = |which: usize| {
        let trace = traces[which];
        let losses: Vec<f64> = trace.losses.iter().map(|&loss| f64::from(loss)).collect();
        let numbers = (which * permutations) as u32..((which + 1) * permutations) as u32;
        let x = table(&alone, trace, trace.m)?;
        let tops = permuted_first_steps_of_table(&alone, &losses, x, numbers, seed)?;
        Ok(tops.unwrap_or_default())
    };
    let mut tops = device.ranks().each(traces.len(), of_trace)?.concat();
    tops.sort_by(f64::total_cmp);
    Ok(tops.get((0.95 * tops.len() as f64) as usize).or(tops.last()).copied())
}

/// What the precision of these traces changed, by those of the first ones that were made in f32 too; `most` as FOCI chose
/// by them.
fn agreement(
    device: &Device,
    traces: &[Observed],
    exact: &[&Observed],
    precision: Precision,
    most: Option<usize>,
) -> Result<Option<Agreement>> {
    let Some(copies) = exact.iter().map(|trace| trace.m).min() else { return Ok(None) };
    let (mut spearman, mut overlap) = (Some(1.0f64), 0.0);
    for (lowered, exact) in traces.iter().zip(exact) {
        let of_both = correlation(&ranks(&exact.losses), &ranks(&lowered.losses[..copies]));
        spearman = spearman.zip(of_both).map(|(least, one)| least.min(one));
        let chosen = [run(device, exact, exact.m, most)?.order, run(device, lowered, copies, most)?.order];
        let both = chosen[0].iter().filter(|unit| chosen[1].contains(unit)).count();
        let longer = chosen[0].len().max(chosen[1].len());
        overlap += if longer == 0 { 1.0 } else { both as f64 / longer as f64 };
    }
    let overlap = overlap / exact.len() as f64;
    Ok(Some(Agreement { precision, traces: exact.len(), copies, spearman, overlap }))
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut ranks, mut before) = (vec![0.0; values.len()], 0);
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        before += tied.len();
    }
    ranks
}

/// Pearson's correlation, where neither is constant.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let product = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>();
    let both = product(&|i| (a[i] - of_a) * (b[i] - of_b));
    let alone = product(&|i| (a[i] - of_a).powi(2)) * product(&|i| (b[i] - of_b).powi(2));
    (alone > 0.0).then(|| both / alone.sqrt())
}

/// Losses that equal another one.
fn tied(losses: &[f32]) -> usize {
    let mut sorted = losses.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted.len() - sorted.chunk_by(|a, b| a == b).filter(|run| run.len() == 1).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_ordered_by_score_then_by_the_second_score_and_none_is_without() {
        let chosen = best(&[0.0, 2.0, 2.0, 0.0, 0.5], &[0.1, 0.0, 0.3, 0.0, 0.0], 5);
        assert_eq!(chosen.units.iter().map(|u| u.0).collect::<Vec<_>>(), [2, 1, 4, 0]);
        assert_eq!(chosen.scores, [2.0, 2.0, 0.5, 0.0]);
    }

    #[test]
    fn a_correlation_of_ranks_is_one_for_one_order_and_shares_ranks_between_ties() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, -0.0, 0.0]), [5.5, 3.0, 5.5, 4.0, 1.5, 1.5]);
        let of = |a: &[f32], b: &[f32]| correlation(&ranks(a), &ranks(b));
        assert_eq!(of(&[1.0, 2.0, 4.0], &[0.1, 0.2, 9.0]), Some(1.0));
        assert_eq!(of(&[1.0, 2.0, 4.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]), Some(0.8));
        assert_eq!(of(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn equal_losses_are_counted() {
        assert_eq!(tied(&[1.0, 2.0, 1.0, 3.0, 1.0]), 3);
        assert_eq!(tied(&[1.0, 2.0]), 0);
    }
}
