//! FOCI: forward selection by T (Azadkia and Chatterjee 2021, §4; MATH.md, Eq. 4). A step is in `step`, that of CUDA in
//! `cuda`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Ties;
use super::columns::{Matrix, Packed, Standardize, Y_STREAM, add_noise, check_sigma};
use super::cuda::Steps;
use super::neighbours::sum;
use super::ranks::{Ranks, Sum};
use super::scan::MAX_DENSE_ROWS;
use super::step::{Race, Space, first_step, plan};
use crate::device::{Cuda, Device};
use crate::{Error, Result};

/// How far a selection is, to be looked at from another thread, and the wish to end it.
#[derive(Debug, Default)]
pub struct Watch {
    stop: AtomicBool,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Watch {
    /// Ends the selection soon, with the columns of the steps that are done.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Parts of the step at hand that are done, and all.
    pub fn progress(&self) -> (usize, usize) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(super) fn begin(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, parts: usize) {
        self.done.fetch_add(parts, Ordering::Relaxed);
    }
}

/// How [`foci`] selects.
#[derive(Clone, Copy, Debug, Default)]
pub struct FociOptions<'a> {
    /// Columns that are known already: T is given these from the first step on, and they are not chosen.
    pub initial: &'a [usize],
    /// Columns that are chosen together, each of `x` in one group at most; a column in none is left out. Empty: each
    /// column alone.
    pub groups: &'a [Vec<usize>],
    /// Where another thread looks at the progress and can end the selection.
    pub watch: Option<&'a Watch>,
    /// Stop at this many columns; 1 is the paper's cheap selection.
    pub max_features: Option<usize>,
    /// Go on where T ≤ 0 or is undefined, until all columns (or `max_features`) are in order.
    pub all: bool,
    /// What is done to columns first.
    pub standardize: Standardize,
    /// What counts where several rows are equally near.
    pub ties: Ties,
    /// σ of the normal noise added to Y and the columns, after scaling (L-FOCI); 0 adds none.
    pub noise: f64,
    /// The seed of the noise.
    pub seed: u64,
}

/// Why a selection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// The largest T was not positive.
    NotPositive,
    /// T is undefined: Y is constant, or the chosen columns determine it.
    Undefined,
    /// `max_features` were chosen.
    MaxFeatures,
    /// Every column was chosen.
    Exhausted,
    /// [`Watch::stop`] was called.
    Interrupted,
}

impl Stopped {
    /// One word: `not-positive`, `undefined`, `max-features`, `exhausted` or `interrupted`.
    pub fn name(self) -> &'static str {
        match self {
            Stopped::NotPositive => "not-positive",
            Stopped::Undefined => "undefined",
            Stopped::MaxFeatures => "max-features",
            Stopped::Exhausted => "exhausted",
            Stopped::Interrupted => "interrupted",
        }
    }
}

/// What FOCI chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Foci {
    /// Columns, or groups by number, in order of choice.
    pub order: Vec<usize>,
    /// T(Y, column | those before it), by step; none where it is undefined (only with `all`).
    pub conditional: Vec<Option<f64>>,
    /// T(Y, the columns so far), by step; none where Y is constant (only with `all`).
    pub cumulative: Vec<Option<f64>>,
    /// Why it ended.
    pub stopped: Stopped,
    /// T(Y, column) of every column or group, also of the initial columns; empty where Y is constant and no T is
    /// defined. Not written.
    #[serde(skip)]
    pub first_step: Vec<f64>,
}

/// Selects columns of `x` `[n, p]` for `y` `[n]`: first argmax T(Y, X_j), then argmax T(Y, X_j | chosen), until the
/// largest T is not positive or undefined. Equal T go to the smaller index (T are compared to 2⁻³² of a rank).
/// Distances are summed in the order of choice.
///
/// # Errors
/// Fewer than 2 rows, no columns, shapes that do not fit, values that are no finite numbers, a column that is not there
/// or is in two groups, or more than 2²⁰ rows where a second step is needed.
pub fn foci(y: &[f64], x: &Matrix, options: &FociOptions) -> Result<Foci> {
    foci_each(y, x, options, &mut |_, _| ())
}

/// [`foci`], with a call of `each` (steps done, the column just chosen) after every step.
///
/// # Errors
/// As [`foci`].
pub fn foci_each(
    y: &[f64],
    x: &Matrix,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    run(None, y, x, options, each)
}

/// [`foci_each`] on a device: the same result, to the last bit. On CUDA the steps run there ([`memory_on`] says how),
/// and of each but the first only the winner is read back; with groups the sums of all columns, and of each group.
///
/// # Errors
/// As [`foci`], and the device can fail.
pub fn foci_on(
    device: &Device,
    y: &[f64],
    x: &Matrix,
    options: &FociOptions,
    each: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Foci> {
    device.scope(|| run(device.cuda(), y, x, options, each))
}

pub(super) fn run(
    cuda: Option<&Cuda>,
    y: &[f64],
    x: &Matrix,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    if y.len() != x.n() {
        return Err(Error::shape("foci", format!("{} values of Y", x.n()), y.len().to_string()));
    }
    if x.p() == 0 {
        return Err(Error::config("there is no column to choose from"));
    }
    if options.max_features == Some(0) {
        return Err(Error::config("at least one column must be asked for"));
    }
    let mut seen = vec![false; x.p()];
    for &j in options.initial.iter().chain(options.groups.iter().flatten()) {
        match seen.get_mut(j) {
            None => return Err(Error::config(format!("there is no column {j}, only {}", x.p()))),
            Some(true) => return Err(Error::config(format!("column {j} is named twice"))),
            Some(seen) => *seen = true,
        }
    }
    if options.groups.iter().any(Vec::is_empty) {
        return Err(Error::config("a group without columns"));
    }
    check_sigma(options.noise)?;
    x.check_finite()?;
    let changes = options.noise > 0.0 || options.standardize != Standardize::None;
    if !changes {
        return select(cuda, &Ranks::new(y, options.ties)?, x, options, each);
    }
    let mut columns = vec![0.0; x.n() * x.p()];
    columns.par_chunks_mut(x.n()).enumerate().for_each(|(j, column)| {
        column.copy_from_slice(&x.column(j));
        options.standardize.apply(column);
        add_noise(column, options.noise, options.seed, j as u32);
    });
    let mut y = y.to_vec();
    add_noise(&mut y, options.noise, options.seed, Y_STREAM);
    let x = Matrix::columns_f64(&columns, x.n(), x.p())?;
    x.check_finite()?; // a deviation can overflow
    select(cuda, &Ranks::new(&y, options.ties)?, &x, options, each)
}

fn select<'a>(
    cuda: Option<&'a Cuda>,
    ranks: &Ranks,
    x: &Matrix<'a>,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    let n = x.n();
    let idle = Watch::default();
    let watch = options.watch.unwrap_or(&idle);
    let each_alone: Vec<Vec<usize>>;
    let candidates = if options.groups.is_empty() {
        each_alone = (0..x.p()).map(|j| vec![j]).collect();
        &each_alone[..]
    } else {
        options.groups
    };
    let alone = candidates.iter().all(|group| group.len() == 1);
    let offered = |&at: &usize| !options.initial.contains(&candidates[at][0]) || !options.groups.is_empty();
    let count = (0..candidates.len()).filter(offered).count();
    let left = |found: &Foci| {
        let taken: HashSet<usize> = found.order.iter().copied().collect();
        (0..candidates.len()).filter(move |at| offered(at) && !taken.contains(at))
    };
    let most = options.max_features.unwrap_or(count).min(count);
    let side_by_side = cuda.is_none();
    let together = |columns: &[Vec<f64>]| match cuda {
        Some(cuda) => super::cuda::sum(cuda, columns, ranks, options.ties),
        None => Ok(sum(columns, ranks, options.ties)),
    };
    let mut worker = match cuda {
        Some(cuda) => Worker::Cuda(Box::new(Steps::new(cuda, x, ranks, options.ties)?)),
        None => Worker::Cpu(Box::new((Packed::new(*x, ranks.order.clone()), Space::new(n)))),
    };
    let mut sums = match &mut worker {
        Worker::Cuda(steps) => {
            for &j in options.initial {
                steps.take(j)?;
            }
            steps.first()?;
            steps.all()?
        }
        Worker::Cpu(cpu) => first_step(&cpu.0, ranks, options.ties, watch),
    };
    let measured = |by_column: Vec<Sum>, chosen: &[Vec<f64>]| {
        grouped(by_column, candidates, chosen, x, watch, side_by_side, together)
    };
    sums = measured(sums, &[])?;
    let mut found = Foci {
        order: Vec::new(),
        conditional: Vec::new(),
        cumulative: Vec::new(),
        stopped: if most == count { Stopped::Exhausted } else { Stopped::MaxFeatures },
        first_step: sums.iter().filter_map(|&a| ranks.unconditional(a)).collect(),
    };
    if watch.stopped() {
        found.first_step.clear(); // not all were measured
    }
    let initial: Vec<Vec<f64>> = options.initial.iter().map(|&j| x.column(j)).collect();
    // A of the known and the chosen columns
    let mut given = match initial.is_empty() {
        true => None,
        false => Some(together(&initial)?),
    };
    let mut fresh = initial; // columns that the space does not have yet
    while found.order.len() < most && !watch.stopped() {
        let undefined =
            given.map_or(ranks.spread == 0, |given: Sum| is_zero(ranks.conditional_ratio(given, given).1));
        if undefined && !options.all {
            found.stopped = Stopped::Undefined;
            break;
        }
        if !fresh.is_empty() {
            if n > MAX_DENSE_ROWS {
                return Err(Error::config(format!(
                    "beyond the first column at most {MAX_DENSE_ROWS} rows can be handled, not {n}"
                )));
            }
            let columns = std::mem::take(&mut fresh);
            match &mut worker {
                Worker::Cuda(steps) => {
                    steps.step(&columns.concat())?;
                    if !options.groups.is_empty() {
                        sums = measured(steps.all()?, &steps.chosen())?;
                    }
                }
                Worker::Cpu(cpu) => {
                    let (x, space) = &mut **cpu;
                    columns.into_iter().for_each(|column| space.add(column));
                    let mut running = vec![false; x.p()];
                    left(&found).for_each(|at| running[candidates[at][0]] = true);
                    let beaten = given.filter(|_| !options.all).map_or(i128::MIN, |given| given.rounded());
                    let race = Race { candidates: &running, beaten };
                    sums = space.step(x, ranks, options.ties, alone.then_some(&race), watch);
                    sums = measured(sums, &space.columns)?;
                }
            }
        }
        if watch.stopped() {
            break; // the sums are not whole
        }
        let winner = match &worker {
            Worker::Cuda(steps) if options.groups.is_empty() => steps.best()?,
            _ => left(&found).min_by_key(|&at| (-sums[at].rounded(), at)).map(|at| (at, sums[at])),
        };
        let Some((best, a)) = winner else { break };
        let (t, positive) = match given {
            None => {
                let (whole, part) = ranks.unconditional_numerator(a);
                (ranks.unconditional(a), whole > 0 || whole == 0 && part > 0.0)
            }
            Some(given) if undefined => (None, a.rounded() > given.rounded()),
            Some(given) => (ranks.conditional(a, given), a.rounded() > given.rounded()),
        };
        if !positive && !options.all {
            found.stopped = Stopped::NotPositive;
            break;
        }
        if let Worker::Cuda(steps) = &mut worker
            && options.groups.is_empty()
        {
            steps.take(best)?;
        }
        found.order.push(best);
        found.conditional.push(t);
        found.cumulative.push(ranks.unconditional(a));
        given = Some(a);
        fresh = candidates[best].iter().map(|&j| x.column(j)).collect();
        each(found.order.len(), best);
    }
    if watch.stopped() {
        found.stopped = Stopped::Interrupted;
    }
    Ok(found)
}

/// Where the steps run.
enum Worker<'a> {
    Cuda(Box<Steps<'a>>),
    Cpu(Box<(Packed<'a>, Space)>),
}

/// A of each candidate: that of its column, or of all its columns `together` after those chosen, which may be found
/// `side_by_side`.
fn grouped(
    by_column: Vec<Sum>,
    candidates: &[Vec<usize>],
    chosen: &[Vec<f64>],
    x: &Matrix,
    watch: &Watch,
    side_by_side: bool,
    together: impl Fn(&[Vec<f64>]) -> Result<Sum> + Sync,
) -> Result<Vec<Sum>> {
    let one = |group: &Vec<usize>| match group[..] {
        [j] => Ok(by_column[j]),
        _ if watch.stopped() => Ok(Sum::default()),
        _ => {
            let columns: Vec<Vec<f64>> =
                chosen.iter().cloned().chain(group.iter().map(|&j| x.column(j))).collect();
            watch.advance(1);
            together(&columns)
        }
    };
    let groups = candidates.iter().filter(|group| group.len() > 1).count();
    if groups > 0 {
        watch.begin(groups);
    }
    match side_by_side {
        true => candidates.par_iter().map(one).collect(),
        false => candidates.iter().map(one).collect(),
    }
}

/// Whether a number in units of 2⁻⁶⁴ is zero but for the rounding of its fractions.
fn is_zero(fixed: i128) -> bool {
    fixed.unsigned_abs() < 1 << 31
}

/// What a process holds beside data and search: its code and the stacks of its threads.
const PROGRAM_BYTES: usize = 16 << 20;

/// What a search will hold in memory, and how it will go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes at most, the data themselves and what grows with the chosen columns left out.
    pub bytes: usize,
    /// Bytes more for every column that is chosen.
    pub bytes_per_chosen: usize,
    /// How neighbours are found (of FOCI: in the steps after the first).
    pub method: &'static str,
}

impl Plan {
    /// Bytes of the process with `chosen` columns and `data` bytes of data.
    pub fn total(&self, data: usize, chosen: usize) -> usize {
        let bytes = self.bytes.saturating_add(PROGRAM_BYTES);
        data.saturating_add(bytes).saturating_add(self.bytes_per_chosen.saturating_mul(chosen))
    }
}

/// The plan of [`foci`] on the CPU for `n` rows and `p` columns, with the threads of the caller's pool.
pub fn memory(n: usize, p: usize, options: &FociOptions) -> Plan {
    plan(n, p, options, rayon::current_num_threads())
}

/// The plan of [`foci_on`]: on CUDA in the device's memory, as it is free now.
///
/// # Errors
/// Where the device does not say what is free.
pub fn memory_on(device: &Device, n: usize, p: usize, options: &FociOptions) -> Result<Plan> {
    match device.cuda() {
        Some(cuda) => {
            let mut plan = super::cuda::plan(cuda, n, p)?;
            if let Some(most) = options.groups.iter().map(Vec::len).filter(|&len| len > 1).max() {
                plan.bytes = plan.bytes.saturating_add(super::cuda::sum_plan(cuda, n, most)?.bytes);
            }
            Ok(plan)
        }
        None => Ok(device.scope(|| memory(n, p, options))),
    }
}
