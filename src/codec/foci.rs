//! FOCI: forward selection by T (Azadkia and Chatterjee 2021, §4; MATH.md, Eq. 4).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::columns::{Columns, Y_STREAM, add_noise, check_sigma};
use super::cpu::{self, CpuStep};
use super::cuda::{self, CudaStep, Table};
use super::memory::MemoryEstimate;
use super::options::{FociOptions, Standardize};
use super::ranks::{Ranks, Sum};
use super::scan::MAX_DENSE_ROWS;
use super::split::Split;
use super::step::{Step, largest};
use super::watch::Watch;
use crate::communicator::Communicator;
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};

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

impl Foci {
    /// Why it ended, in words.
    pub fn reason(&self) -> &'static str {
        match self.stopped {
            Stopped::NotPositive => "no other column tells more (the largest T is not positive)",
            Stopped::Undefined if self.order.is_empty() => "the target is constant, or known already",
            Stopped::Undefined => "the columns chosen determine the target",
            Stopped::MaxFeatures => "as many columns as asked for",
            Stopped::Exhausted => "every column is chosen",
            Stopped::Interrupted => "interrupted; more columns may tell more",
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
    /// defined. Not serialized.
    #[serde(skip)]
    pub first_step: Vec<f64>,
}

/// Selects columns of `x` `[n, p]` for `y` `[n]`: first argmax T(Y, X_j), then argmax T(Y, X_j | chosen), until the
/// largest T is not positive or undefined. Equal T go to the smaller index (T are compared to 2⁻³² of a rank).
/// Distances are summed in the order of choice. The result is the same on every device, to the last bit.
///
/// On CUDA the steps run on the GPU; only the winner of each is read back, and with groups the sums of all columns.
///
/// # Errors
/// Fewer than 2 rows, no columns, shapes that do not fit, values that are not finite, a column that does not exist or is
/// in two groups, more than 2²⁰ rows where a second step is needed, or a failure of the device.
pub fn foci(device: &Device, y: &[f64], x: &Columns, options: &FociOptions) -> Result<Foci> {
    foci_each(device, y, x, options, &mut |_, _| ())
}

/// [`foci`], with a call of `each` (steps done, the column just chosen) after every step.
///
/// # Errors
/// As [`foci`].
pub fn foci_each(
    device: &Device,
    y: &[f64],
    x: &Columns,
    options: &FociOptions,
    each: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Foci> {
    let run = |device: &Device, each: &mut (dyn FnMut(usize, usize) + Send)| {
        device.scope(|| run(device.cuda(), device.ranks(), y, x, options, each))
    };
    device.together(|first| run(first, each), |other| run(other, &mut |_, _| ()).map(drop))
}

/// The memory of [`foci`] for `n` rows and `p` columns; on CUDA in the device's memory, as much of it as is free now.
///
/// # Errors
/// Where the device does not report its free memory.
pub fn foci_memory(device: &Device, n: usize, p: usize, options: &FociOptions) -> Result<MemoryEstimate> {
    let Some(cuda) = device.cuda() else {
        return Ok(cpu::estimate(n, p, options, device.threads()));
    };
    let mut estimate = cuda::estimate(cuda, n, p)?;
    if let Some(most) = options.groups.iter().map(Vec::len).filter(|&len| len > 1).max() {
        let group = cuda::sum_estimate(cuda, n, most)?;
        estimate.bytes = estimate.bytes.saturating_add(group.bytes);
    }
    Ok(estimate)
}

/// [`foci`] on a table, wherever it is. Of one that is on the device nothing comes to the host but the sum of every column in the
/// first step, and the winner of each step; it is taken as it is, without noise or another scale.
///
/// # Errors
/// As [`foci`].
pub(crate) fn foci_of_table(device: &Device, y: &[f64], x: Table, options: &FociOptions) -> Result<Foci> {
    let cuda = match x {
        Table::Host(x) => return foci(device, y, &x, options),
        Table::Device(rows) => rows.cuda(),
    };
    check(y, x, options)?;
    if options.noise != 0.0 || options.standardize != Standardize::None {
        return Err(Error::config("columns on the device are neither scaled nor perturbed"));
    }
    let ranks = Ranks::new(y, options.ties)?;
    select(Some(cuda), device.ranks(), &ranks, x, options, &mut |_, _| ())
}

/// [`foci_each`] in the thread pool of the caller.
pub(super) fn run(
    cuda: Option<&Cuda>,
    among: &Communicator,
    y: &[f64],
    x: &Columns,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    check(y, Table::Host(*x), options)?;
    if options.noise == 0.0 && options.standardize == Standardize::None {
        return select(cuda, among, &Ranks::new(y, options.ties)?, Table::Host(*x), options, each);
    }
    let mut columns = vec![0.0; x.n() * x.p()];
    columns.par_chunks_mut(x.n()).enumerate().for_each(|(j, column)| {
        column.copy_from_slice(&x.column(j));
        options.standardize.apply(column);
        add_noise(column, options.noise, options.seed, j as u32);
    });
    let mut y = y.to_vec();
    add_noise(&mut y, options.noise, options.seed, Y_STREAM);
    let x = Columns::from_columns_f64(&columns, x.n(), x.p())?;
    x.check_finite()?; // a deviation can overflow
    select(cuda, among, &Ranks::new(&y, options.ties)?, Table::Host(x), options, each)
}

/// Refuses what [`foci`] cannot select from.
fn check(y: &[f64], x: Table<'_>, options: &FociOptions) -> Result<()> {
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
    x.check_finite()
}

fn select(
    cuda: Option<&Cuda>,
    among: &Communicator,
    ranks: &Ranks,
    x: Table<'_>,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    let idle = Watch::default();
    let watch = options.watch.unwrap_or(&idle);
    // All ranks end where one of them was asked to.
    let stopped = || among.any(watch.stopped());
    let each_alone: Vec<Vec<usize>>;
    let candidates = if options.groups.is_empty() {
        each_alone = (0..x.p()).map(|j| vec![j]).collect();
        &each_alone[..]
    } else {
        options.groups
    };
    let mut step = steps(cuda, among, x, ranks, options, watch)?;
    let by_column = step.first()?;
    let first = by_candidate(&*step, candidates, &by_column)?;
    // candidates that are not chosen yet
    let mut left: Vec<usize> =
        (0..candidates.len()).filter(|&at| !options.initial.contains(&candidates[at][0])).collect();
    let most = options.max_features.unwrap_or(left.len()).min(left.len());
    let mut found = Foci {
        order: Vec::new(),
        conditional: Vec::new(),
        cumulative: Vec::new(),
        stopped: if most == left.len() { Stopped::Exhausted } else { Stopped::MaxFeatures },
        first_step: match stopped()? {
            true => Vec::new(), // not all sums are complete
            false => first.iter().filter_map(|&a| ranks.unconditional(a)).collect(),
        },
    };
    // A of the columns that are given, and those of them that the step does not have yet
    let mut given = match options.initial {
        [] => None,
        initial => step.together(&[initial])?.first().copied(),
    };
    let mut fresh = options.initial.to_vec();
    let mut interrupted = stopped()?;
    while found.order.len() < most && !interrupted {
        let undefined = is_undefined(ranks, given);
        if undefined && !options.all {
            found.stopped = Stopped::Undefined;
            break;
        }
        let winner = if fresh.is_empty() {
            largest(&left, &first)
        } else {
            check_rows(x.n())?;
            step.give(&fresh)?;
            // the stopping rule wants no A that does not exceed that of the given columns
            let bound = given.filter(|_| !options.all).map_or(i128::MIN, Sum::rounded);
            best(&mut *step, candidates, &left, bound)?
        };
        interrupted = stopped()?;
        let Some((place, a)) = winner.filter(|_| !interrupted) else { break };
        let (t, positive) = value(ranks, a, given, undefined);
        if !positive && !options.all {
            found.stopped = Stopped::NotPositive;
            break;
        }
        let chosen = left.remove(place);
        found.order.push(chosen);
        found.conditional.push(t);
        found.cumulative.push(ranks.unconditional(a));
        given = Some(a);
        fresh.clone_from(&candidates[chosen]);
        each(found.order.len(), chosen);
    }
    if interrupted {
        found.stopped = Stopped::Interrupted;
    }
    Ok(found)
}

/// The steps of the device, shared between ranks where there are several.
fn steps<'a>(
    cuda: Option<&'a Cuda>,
    among: &'a Communicator,
    x: Table<'a>,
    ranks: &'a Ranks,
    options: &FociOptions,
    watch: &'a Watch,
) -> Result<Box<dyn Step + 'a>> {
    Ok(match (x, cuda) {
        (Table::Host(x), _) if among.size() > 1 => {
            Box::new(Split::new(x, ranks, options.ties, watch, among, cuda)?)
        }
        (Table::Device(rows), _) => Box::new(CudaStep::new(rows.cuda(), x, ranks, options.ties, watch)?),
        (Table::Host(_), Some(cuda)) => Box::new(CudaStep::new(cuda, x, ranks, options.ties, watch)?),
        (Table::Host(x), None) => Box::new(CpuStep::new(x, ranks, options.ties, watch)),
    })
}

/// A of each candidate: that of its column, or of all its columns together.
fn by_candidate(step: &dyn Step, candidates: &[Vec<usize>], by_column: &[Sum]) -> Result<Vec<Sum>> {
    let groups: Vec<&[usize]> =
        candidates.iter().map(Vec::as_slice).filter(|group| group.len() > 1).collect();
    let together = if groups.is_empty() { Vec::new() } else { step.together(&groups)? };
    let mut together = together.into_iter();
    let one = |group: &Vec<usize>| match group[..] {
        [j] => by_column[j],
        _ => together.next().unwrap_or_default(), // a sum for each group
    };
    Ok(candidates.iter().map(one).collect())
}

/// The largest A of the given columns and a candidate of those `left`: its place there, and A. An A that does not exceed
/// `bound` may be any such.
fn best(
    step: &mut dyn Step,
    candidates: &[Vec<usize>],
    left: &[usize],
    bound: i128,
) -> Result<Option<(usize, Sum)>> {
    if candidates.iter().all(|group| group.len() == 1) {
        let columns: Vec<usize> = left.iter().map(|&at| candidates[at][0]).collect();
        return step.best(&columns, bound);
    }
    let by_column = step.all()?;
    Ok(largest(left, &by_candidate(step, candidates, &by_column)?))
}

/// Whether T is undefined whatever is chosen next: Y is constant, or the given columns determine it.
fn is_undefined(ranks: &Ranks, given: Option<Sum>) -> bool {
    match given {
        None => ranks.spread == 0,
        // zero but for the rounding of fractions
        Some(given) => ranks.conditional_ratio(given, given).1.unsigned_abs() < 1 << 31,
    }
}

/// T of A given that of the given columns, and whether it is positive.
fn value(ranks: &Ranks, a: Sum, given: Option<Sum>, undefined: bool) -> (Option<f64>, bool) {
    let Some(given) = given else {
        let (whole, part) = ranks.unconditional_numerator(a);
        return (ranks.unconditional(a), whole > 0 || whole == 0 && part > 0.0);
    };
    let t = if undefined { None } else { ranks.conditional(a, given) };
    (t, a.rounded() > given.rounded())
}

fn check_rows(n: usize) -> Result<()> {
    if n > MAX_DENSE_ROWS {
        return Err(Error::config(format!(
            "beyond the first column at most {MAX_DENSE_ROWS} rows can be handled, not {n}"
        )));
    }
    Ok(())
}
