//! FOCI: forward selection by T (Azadkia and Chatterjee 2021, §4; MATH.md, Eq. 4), all candidates of a step at once.
//!
//! The first step sorts each column. A later step, with S chosen, is one pass over the rows:
//!
//! ```text
//! for each row i: the others j by ascending D_S[i, j]
//! for each block of WIDTH candidates side by side: for each row i:
//!     for j in the list while D_S[i, j] ≤ the largest best of the block:
//!         best = min(best, D_S[i, j] + (x_i − x_j)²), with the count and Σ min(R_i, R_j) of the ties
//! ```
//!
//! which is exact: no later j can come nearer. Only the head of a list is sorted; behind it are parts of twice the
//! length of all before, each of which begins with its least. Where S leaves many rows identical (discrete data) the
//! list holds groups of identical rows instead, and within a group the nearest are found by binary search in the sorted
//! candidate.
//!
//! D_S is kept while n × n f64 stay below [`KEEP_BYTES`]. Beyond that a list has only the nearest rows, found in a k-d
//! tree over S; where a candidate comes to its end, a longer one is made, for all candidates that come after, and where
//! that ends too the tree is walked for that row and block, as far as the best so far. A column that is so wide beside
//! those of S that the walk would take in many rows (it has another unit, or a heavy tail) gets a tree of its own, over S
//! and itself. Lists are made for as many rows at a time as fit in [`LIST_BYTES`]. Sums are integers (`ranks`), so nothing
//! depends on how the work was split.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use multiversion::multiversion;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Ties;
use super::columns::{
    Lanes, Matrix, STRIP, Standardize, WIDTH, Y_STREAM, add_noise, check_sigma, strip_width,
};
use super::cuda::Steps;
use super::neighbours::{Runs, Sorted, drawn, sum};
use super::ranks::{Ranks, Sum, sort_key};
use super::scan::{COUNT, Entry, MAX_DENSE_ROWS, at_distance, most, places_at, scan, scan_one, screen, walk};
use super::tree::Tree;
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

    fn begin(&self, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn advance(&self, parts: usize) {
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
        let narrow = if cuda.is_none() { x.narrowed() } else { None };
        let x = narrow.as_ref().map_or(*x, |values| x.of_f32(values));
        return select(cuda, &Ranks::new(y, options.ties)?, &x, options, each);
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

fn select(
    cuda: Option<&Cuda>,
    ranks: &Ranks,
    x: &Matrix,
    options: &FociOptions,
    each: &mut dyn FnMut(usize, usize),
) -> Result<Foci> {
    let n = x.n();
    let idle = Watch::default();
    let watch = options.watch.unwrap_or(&idle);
    let alone: Vec<Vec<usize>>;
    let candidates = if options.groups.is_empty() {
        alone = (0..x.p()).map(|j| vec![j]).collect();
        &alone[..]
    } else {
        options.groups
    };
    let offered = |&at: &usize| !options.initial.contains(&candidates[at][0]) || !options.groups.is_empty();
    let count = (0..candidates.len()).filter(offered).count();
    let most = options.max_features.unwrap_or(count).min(count);
    let side_by_side = cuda.is_none();
    let together = |columns: &[Vec<f64>]| match cuda {
        Some(cuda) => super::cuda::sum(cuda, columns, ranks, options.ties),
        None => Ok(sum(columns, ranks, options.ties)),
    };
    let mut cuda = cuda.map(|cuda| Steps::new(cuda, x, ranks, options.ties)).transpose()?;
    let mut space = Space::new(n, KEEP_BYTES);
    let mut sums = match &mut cuda {
        Some(cuda) => {
            for &j in options.initial {
                cuda.take(j)?;
            }
            cuda.first()?;
            cuda.all()?
        }
        None => first_step(x, ranks, options.ties, watch),
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
            match &mut cuda {
                Some(cuda) => {
                    cuda.step(&columns.concat())?;
                    if !options.groups.is_empty() {
                        sums = measured(cuda.all()?, &cuda.chosen())?;
                    }
                }
                None => {
                    columns.into_iter().for_each(|column| space.add(column));
                    sums = space.step(x, ranks, options.ties, watch);
                    sums = measured(sums, &space.columns)?;
                }
            }
        }
        if watch.stopped() {
            break; // the sums are not whole
        }
        let left = (0..candidates.len()).filter(|at| offered(at) && !found.order.contains(at));
        let winner = match &cuda {
            Some(cuda) if options.groups.is_empty() => cuda.best()?,
            _ => left.min_by_key(|&at| (-sums[at].rounded(), at)).map(|at| (at, sums[at])),
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
        if let Some(cuda) = cuda.as_mut().filter(|_| options.groups.is_empty()) {
            cuda.take(best)?;
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

/// A of every column alone.
fn first_step(x: &Matrix, ranks: &Ranks, ties: Ties, watch: &Watch) -> Vec<Sum> {
    watch.begin(x.blocks());
    let strip = |space: &mut ([Vec<Lanes>; STRIP], Vec<f64>, Sorted), strip: Range<usize>| {
        let (packed, column, sorted) = space;
        if watch.stopped() {
            return vec![Sum::default(); strip.len() * WIDTH];
        }
        x.pack(packed, strip.clone(), 0..x.n());
        let one = |j: usize| {
            let (lanes, l) = (&packed[j / WIDTH - strip.start], j % WIDTH);
            column.clear();
            column.extend(lanes.iter().map(|row| row[l]));
            sorted.sum(column, x.is_f32(), ranks, ties)
        };
        let sums = (strip.start * WIDTH..x.p().min(strip.end * WIDTH)).map(one).collect();
        watch.advance(strip.len());
        sums
    };
    let sums: Vec<_> = x.strips().into_par_iter().map_init(Default::default, strip).collect();
    sums.into_iter().flatten().collect()
}

/// D_S is kept from step to step while it is no larger than this.
const KEEP_BYTES: usize = 512 << 20;
/// The lists of a pass over rows (or groups) are no larger than this, unless one alone is.
const LIST_BYTES: usize = 256 << 20;
/// How much longer a list is that is made where one ends. All such together take no more than [`LIST_BYTES`].
const LONGER: usize = 8;
/// Rows identical to a row, on average, from which on groups are cheaper than lists of rows.
const GROUPED: usize = 192;

/// Rows by which a column is judged to be wide, and the places visited of each from which on it is.
const SAMPLED: usize = 32;
const FAR: usize = 1024;

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

/// [`memory`] with this many threads.
pub(super) fn plan(n: usize, p: usize, options: &FociOptions, threads: usize) -> Plan {
    let kept = n.saturating_mul(n).saturating_mul(size_of::<f64>());
    let is_kept = kept <= KEEP_BYTES;
    let others = n.saturating_sub(1);
    let len = if is_kept { others } else { head(others, 1 + options.initial.len()) };
    let list = len.saturating_mul(size_of::<Entry>());
    let longer = longer_len(len, others);
    let copies = options.noise > 0.0 || options.standardize != Standardize::None;
    let column = n.saturating_mul(size_of::<f64>());
    let row = size_of::<Lanes>() + size_of::<Lanes<f32>>();
    let lanes = n.saturating_mul(row * strip_width(p));
    let bests = list_rows(len, n).saturating_mul(size_of::<Lanes>() + WIDTH * size_of::<u64>());
    let sorting = n.saturating_mul(size_of::<u128>() + 2 * size_of::<f64>() + Runs::BYTES);
    let parts = [
        if is_kept { kept } else { Tree::bytes(n, 0) },
        list.saturating_mul(list_rows(len, n)),
        if is_kept {
            0
        } else {
            longer.saturating_mul(size_of::<Entry>()).saturating_mul(list_rows(longer, n))
        },
        column.saturating_mul(p) / if copies { 1 } else { 2 }, // else as f32, where all are
        threads.saturating_mul(lanes.saturating_add(sorting.max(bests))),
        column.saturating_mul(4), // ranks, their order, groups, and what is sorted by them
        p.saturating_mul(size_of::<Sum>() * WIDTH),
    ];
    Plan {
        bytes: parts.iter().fold(0, |sum, &part| sum.saturating_add(part)),
        bytes_per_chosen: match is_kept {
            true => column,
            false => column.saturating_add(Tree::bytes(n, 1) - Tree::bytes(n, 0)),
        },
        method: match is_kept {
            true => "distances of the chosen columns kept, n by n",
            false => "a k-d tree over the chosen columns, and the nearest rows of each",
        },
    }
}

/// The entries of the list that is made where one of `len` ends.
fn longer_len(len: usize, others: usize) -> usize {
    (LONGER * len).min(others)
}

/// Lists of `len` entries that are made at a time.
fn list_rows(len: usize, n: usize) -> usize {
    (LIST_BYTES / (len.max(1) * size_of::<Entry>())).clamp(1, n.max(1))
}

/// Working space for the scan of a strip.
#[derive(Default)]
struct Scanned {
    narrow: [Vec<Lanes<f32>>; STRIP],
    wide: [Vec<Lanes>; STRIP],
    best: Vec<Lanes>,
    tied: Vec<[u64; WIDTH]>,
    unclear: Vec<usize>,
}

/// The chosen columns, and what follows from them.
struct Space {
    n: usize,
    keep: usize, // bytes that D_S may take
    columns: Vec<Vec<f64>>,
    kept: Option<Vec<f64>>, // D_S, [n, n]
    group: Vec<u32>,        // by row: rows of the same group are identical
    groups: Vec<u32>,       // by group: one of its rows
    pairs: usize,           // of identical rows, ordered
    buffer: Vec<Entry>,     // lists, from step to step
}

impl Space {
    fn new(n: usize, keep: usize) -> Space {
        Space {
            n,
            keep,
            columns: Vec::new(),
            kept: None,
            group: vec![0; n],
            groups: Vec::new(),
            pairs: 0,
            buffer: Vec::new(),
        }
    }

    fn add(&mut self, column: Vec<f64>) {
        let n = self.n;
        if n * n * size_of::<f64>() <= self.keep {
            let kept = self.kept.get_or_insert_with(|| vec![0.0; n * n]);
            kept.par_chunks_mut(n)
                .enumerate()
                .with_min_len(16)
                .for_each(|(i, row)| accumulate(row, &column, i));
        }
        let mut order: Vec<u32> = (0..n as u32).collect();
        let key = |i: u32| (self.group[i as usize], sort_key(column[i as usize]));
        order.sort_unstable_by_key(|&i| (key(i), i));
        let mut group = vec![0; n];
        self.groups.clear();
        self.pairs = 0;
        for run in order.chunk_by(|&a, &b| key(a) == key(b)) {
            run.iter().for_each(|&i| group[i as usize] = self.groups.len() as u32);
            self.groups.push(run[0]);
            self.pairs += run.len() * (run.len() - 1);
        }
        self.group = group;
        self.columns.push(column);
    }

    /// A of the chosen columns and each column of `x`.
    fn step(&mut self, x: &Matrix, ranks: &Ranks, ties: Ties, watch: &Watch) -> Vec<Sum> {
        match ties == Ties::Mean && self.pairs > GROUPED * self.n {
            true => self.step_by_group(x, ranks, watch),
            false => self.step_by_row(x, ranks, ties, watch),
        }
    }

    /// The tree over all rows, or over some.
    fn tree(&self, rows: Option<&[u32]>) -> Tree {
        let point = |i: usize| self.columns.iter().map(move |column| column[i]);
        let x: Vec<f64> = match rows {
            Some(rows) => rows.iter().flat_map(|&i| point(i as usize)).collect(),
            None => (0..self.n).flat_map(point).collect(),
        };
        Tree::new(&x, self.columns.len())
    }

    /// Calls `work` with the lists of some rows (of `rows`, or all) at a time, all of one length, and the range of
    /// these.
    ///
    /// From kept distances a list has all others by number. The first `head` of it are sorted; the next `head` come
    /// later, then twice as many, and so on, each part with its least first. From the tree a list has the nearest
    /// places, sorted, and rows are numbered by their places.
    fn lists(
        &mut self,
        found: &Search,
        rows: Option<&[u32]>,
        ranks: &Ranks,
        watch: &Watch,
        mut work: impl FnMut(Range<usize>, &[Entry]),
    ) {
        let count = rows.map_or(self.n, <[u32]>::len);
        let &Search { head, len, .. } = found;
        watch.begin(count);
        if len == 0 {
            return work(0..1, &[]);
        }
        let parts: Vec<usize> = std::iter::successors(Some(head), |start| Some(2 * start))
            .take_while(|&start| start < len)
            .collect();
        let at_once = list_rows(len, count);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(buffer.len().max(at_once * len), Entry { distance: 0.0, j: 0, rank: 0 });
        let number = |at: usize| rows.map_or(at as u32, |rows| rows[at]);
        let least = |i: u32, j: u32| ranks.r[i as usize].min(ranks.r[j as usize]);
        let from_kept = |list: &mut [Entry], at: usize, kept: &[f64]| {
            let i = number(at);
            let distances = &kept[i as usize * self.n..][..self.n];
            let others = (0..count).filter(|&other| other != at);
            for (entry, other) in list.iter_mut().zip(others) {
                let j = number(other);
                *entry = Entry { distance: distances[j as usize], j: other as u32, rank: least(i, j) };
            }
            let key = |entry: &Entry| (entry.distance.to_bits(), entry.j); // not negative: bits sort as numbers
            let mut end = len;
            for &start in parts.iter().rev() {
                list[..end].select_nth_unstable_by_key(start, key);
                end = start;
            }
            list[..head].sort_unstable_by_key(key);
        };
        let from_tree = |list: &mut [Entry], at: usize, tree: &Tree, near: &mut Vec<_>| {
            let row = |place: usize| number(tree.points()[place] as usize);
            tree.nearest(near, at, len);
            for (entry, &(distance, j)) in list.iter_mut().zip(near.iter()) {
                *entry = Entry { distance, j, rank: least(row(at), row(j as usize)) };
            }
        };
        for first in (0..count).step_by(at_once) {
            if watch.stopped() {
                break;
            }
            let range = first..(first + at_once).min(count);
            let lists = &mut buffer[..range.len() * len];
            lists.par_chunks_mut(len).enumerate().with_min_len(8).for_each_init(
                Vec::new,
                |near, (at, list)| match (&self.kept, &found.tree) {
                    (_, Some(tree)) => from_tree(list, first + at, tree, near),
                    (Some(kept), None) => from_kept(list, first + at, kept),
                    (None, None) => {}
                },
            );
            watch.advance(range.len());
            work(range, lists);
        }
        self.buffer = buffer;
    }

    /// How the others of each row (of `rows`, or all) are found.
    fn search(&self, rows: Option<&[u32]>) -> Search {
        let others = rows.map_or(self.n, <[u32]>::len) - 1;
        let tree = self.kept.is_none().then(|| self.tree(rows));
        let head = head(others, self.columns.len());
        let len = if tree.is_some() { head } else { others };
        Search { others, head, len, tree }
    }

    fn step_by_row(&mut self, x: &Matrix, ranks: &Ranks, ties: Ties, watch: &Watch) -> Vec<Sum> {
        let n = self.n;
        let search = self.search(None);
        let &Search { head, len, .. } = &search;
        let row = |place: usize| search.tree.as_ref().map_or(place as u32, |tree| tree.points()[place]);
        let rank: Vec<u32> = (0..n).map(|place| ranks.r[row(place) as usize]).collect();
        let (strips, screened) = (x.strips(), x.is_f32());
        let apart = search.tree.as_ref().map_or(Vec::new(), |tree| wide_columns(x, tree, len));
        let longer_len = longer_len(len, search.others);
        let longer_list = |tree: &Tree, own: usize| -> Vec<Entry> {
            let mut near = Vec::new();
            tree.nearest(&mut near, own, longer_len);
            let entry =
                |&(distance, j): &(f64, u32)| Entry { distance, j, rank: rank[own].min(rank[j as usize]) };
            near.iter().map(entry).collect()
        };
        let mut sums = vec![[Sum::default(); WIDTH]; x.blocks()];
        self.lists(&search, None, ranks, watch, |range, lists| {
            let longer: Vec<OnceLock<Option<Vec<Entry>>>> =
                range.clone().filter(|_| search.tree.is_some()).map(|_| OnceLock::new()).collect();
            let room = AtomicUsize::new(list_rows(longer_len, n));
            let parts = 64usize.div_ceil(strips.len()).min(range.len().div_ceil(16));
            let rows_per_part = range.len().div_ceil(parts);
            let task = |space: &mut Scanned, task: usize| {
                let (strip, part) = (strips[task / parts].clone(), task % parts);
                let start = (part * rows_per_part).min(range.len());
                let rows = start..(start + rows_per_part).min(range.len());
                let first = range.start + rows.start;
                let lists = &lists[rows.start * len..rows.end * len];
                let Scanned { narrow, wide, best, tied, unclear } = space;
                let rows_by_place = (0..n).map(|place| row(place) as usize);
                match screened {
                    true => x.pack(narrow, strip.clone(), rows_by_place),
                    false => x.pack(wide, strip.clone(), rows_by_place),
                }
                for j in apart.iter().filter(|&j| strip.contains(&(j / WIDTH))) {
                    let (block, l) = (j / WIDTH - strip.start, j % WIDTH);
                    narrow[block].iter_mut().for_each(|row| row[l] = 0.0);
                    wide[block].iter_mut().for_each(|row| row[l] = 0.0);
                }
                let one = |block: usize| {
                    let (narrow, wide) = (&narrow[block - strip.start], &mut wide[block - strip.start]);
                    let mut clear = [0; WIDTH];
                    unclear.clear();
                    if screened {
                        screen(&mut clear, unclear, narrow, first, lists, len, head, len == search.others);
                        if !unclear.is_empty() {
                            wide.clear();
                            wide.extend(narrow.iter().map(|row| row.map(f64::from)));
                        }
                    } else {
                        unclear.extend(0..rows.len());
                    }
                    scan(best, tied, unclear, wide, first, lists, len, head);
                    let mut sums = clear.map(|whole| Sum::of(whole, 0));
                    for ((&at, best), tied) in unclear.iter().zip(&mut *best).zip(&mut *tied) {
                        let (own, mut list) = (first + at, &lists[at * len..(at + 1) * len]);
                        let mut beyond = search.beyond(list, most(best));
                        if let Some(tree) = beyond {
                            let make = || {
                                let left = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                                    left.checked_sub(1)
                                });
                                left.is_ok().then(|| longer_list(tree, own))
                            };
                            if let Some(longer) = longer[own - range.start].get_or_init(make) {
                                list = longer;
                                scan_one(best, tied, wide, own, list);
                                beyond = search.beyond(list, most(best));
                            }
                        }
                        if let Some(tree) = beyond {
                            walk(best, tied, tree, own, wide, &rank);
                        }
                        for (l, sum) in sums.iter_mut().enumerate() {
                            let (s, c) = (tied[l] % COUNT, tied[l] / COUNT);
                            if c == 1 || ties == Ties::Mean {
                                sum.add(s, c);
                            } else {
                                let mut rows = match beyond {
                                    Some(tree) => places_at(tree, own, wide, l, best[l]),
                                    None => at_distance(list, wide, own, l, best[l]),
                                };
                                rows.iter_mut().for_each(|place| *place = row(*place as usize));
                                let (s, c) = drawn(&mut rows, row(own), ranks, ties);
                                sum.add(s, c);
                            }
                        }
                    }
                    (block, sums)
                };
                strip.clone().map(one).collect::<Vec<_>>()
            };
            let found: Vec<_> =
                (0..strips.len() * parts).into_par_iter().map_init(Default::default, task).collect();
            for (block, found) in found.into_iter().flatten() {
                sums[block].iter_mut().zip(found).for_each(|(sum, found)| *sum = sum.plus(found));
            }
        });
        let mut sums: Vec<Sum> = sums.into_flattened().into_iter().take(x.p()).collect();
        watch.begin(apart.len());
        for &j in &apart {
            if watch.stopped() {
                break;
            }
            watch.advance(1);
            let columns = [&self.columns[..], &[x.column(j)]].concat();
            sums[j] = sum(&columns, ranks, ties);
        }
        sums
    }

    fn step_by_group(&mut self, x: &Matrix, ranks: &Ranks, watch: &Watch) -> Vec<Sum> {
        let (group, groups) = (self.group.clone(), self.groups.clone());
        let search = self.search(Some(&groups));
        let len = search.len;
        let mut sums = vec![[Sum::default(); WIDTH]; x.blocks()];
        self.lists(&search, Some(&groups), ranks, watch, |range, lists| {
            let block = |(packed, grouped): &mut (Vec<Lanes>, Grouped),
                         (block, sums): (usize, &mut [Sum; WIDTH])| {
                x.pack(std::slice::from_mut(packed), block..block + 1, 0..x.n());
                for (l, sum) in sums.iter_mut().enumerate().take(x.p() - block * WIDTH) {
                    grouped.arrange(packed, l, &group, groups.len(), ranks);
                    for (at, own) in range.clone().enumerate() {
                        grouped.tally(sum, own, &lists[at * len..(at + 1) * len], &search, ranks);
                    }
                }
            };
            sums.par_iter_mut().enumerate().for_each_init(Default::default, block);
        });
        sums.into_flattened().into_iter().take(x.p()).collect()
    }
}

/// How the others of a row are found: all of them from kept distances, or the nearest from a tree.
struct Search {
    others: usize, // of a row
    head: usize,   // entries of a list that are sorted
    len: usize,    // entries of a list
    tree: Option<Tree>,
}

impl Search {
    /// The tree, where others that are no farther than `best` may be missing from a list.
    fn beyond(&self, list: &[Entry], best: f64) -> Option<&Tree> {
        let all = list.len() == self.others || list.last().is_none_or(|last| best < last.distance);
        self.tree.as_ref().filter(|_| !all)
    }

    /// The number of a place of a list.
    fn point(&self, place: usize) -> usize {
        self.tree.as_ref().map_or(place, |tree| tree.points()[place] as usize)
    }
}

/// Columns of `x` for which it is cheaper to search a tree of their own than to go on from lists of `len` places: sampled
/// rows would have more than [`FAR`] places, or a quarter of all, visited in `tree`, on average.
fn wide_columns(x: &Matrix, tree: &Tree, len: usize) -> Vec<usize> {
    let far = SAMPLED * FAR.min(tree.len() / 4);
    let sampled: Vec<usize> = (0..SAMPLED).map(|at| at * tree.len() / SAMPLED).collect();
    let near: Vec<Vec<(f64, u32)>> = sampled
        .par_iter()
        .map_init(Vec::new, |near, &own| {
            tree.nearest(near, own, len);
            near.clone()
        })
        .collect();
    let visits = |j: usize, own: usize, near: &[(f64, u32)]| {
        let value = |place: u32| x.at(tree.points()[place as usize] as usize, j);
        let total = |&(given, place): &(f64, u32)| given + (value(own as u32) - value(place)).powi(2);
        let mut best = near.iter().map(total).fold(f64::INFINITY, f64::min);
        let mut visited = 0;
        if near.last().is_some_and(|last| best >= last.0) {
            tree.walk(own, best, |place, given| {
                visited += 1;
                best = best.min(total(&(given, place as u32)));
                if visited <= far { best } else { -1.0 } // ends the walk
            });
        }
        visited
    };
    let is_wide = |&j: &usize| {
        let visited: usize = sampled.iter().zip(&near).map(|(&own, near)| visits(j, own, near)).sum();
        visited > far
    };
    (0..x.p()).into_par_iter().filter(is_wide).collect()
}

/// How much of a list of `others` is sorted with `chosen` columns: some times the n^(1/(|S| + 1)) that are visited on
/// average.
fn head(others: usize, chosen: usize) -> usize {
    let visited = (others as f64).powf(1.0 / (chosen + 1) as f64);
    ((8.0 * visited) as usize).max(32).min(others)
}

/// row[j] += (x_i − x_j)².
#[multiversion(targets("x86_64+avx2+fma"))]
fn accumulate(row: &mut [f64], x: &[f64], i: usize) {
    let own = x[i];
    row.iter_mut().zip(x).for_each(|(sum, x)| *sum += (own - x) * (own - x));
}

/// A candidate sorted within each group of rows that the chosen columns do not tell apart.
#[derive(Default)]
struct Grouped {
    keys: Vec<(u32, u64, u32)>,
    runs: Runs,
    x: Vec<f64>,       // by run
    start: Vec<usize>, // by group: its first run; and the number of runs
    tied: Vec<Range<usize>>,
}

impl Grouped {
    fn arrange(&mut self, x: &[Lanes], l: usize, group: &[u32], groups: usize, ranks: &Ranks) {
        let key = |(position, &row): (usize, &u32)| {
            (group[row as usize], sort_key(x[row as usize][l]), position as u32)
        };
        self.keys.clear();
        self.keys.extend(ranks.order.iter().enumerate().map(key));
        self.keys.sort_unstable();
        self.runs.clear();
        self.x.clear();
        self.start.clear();
        let mut last = None;
        for &(group, key, position) in &self.keys {
            let row = ranks.order[position as usize];
            let begins = last != Some((group, key));
            if self.start.len() == group as usize {
                self.start.push(self.x.len());
            }
            if begins {
                self.x.push(x[row as usize][l]);
            }
            self.runs.push(row, ranks.r[row as usize], begins);
            last = Some((group, key));
        }
        self.runs.close();
        debug_assert_eq!(self.start.len(), groups);
        self.start.push(self.x.len());
    }

    /// Adds what the rows of a group contribute, the one at place `own`; `list` has other groups.
    fn tally(&mut self, sum: &mut Sum, own: usize, list: &[Entry], search: &Search, ranks: &Ranks) {
        let group = search.point(own);
        for run in self.start[group]..self.start[group + 1] {
            let x = self.x[run];
            let mut best = if self.runs.size(run) > 1 { 0.0 } else { f64::INFINITY };
            self.tied.clear();
            self.beside(&mut best, group, x, Some(run), 0.0);
            let mut part = 0..search.head;
            while list[part.clone()].first().is_some_and(|first| first.distance <= best) {
                for entry in &list[part.clone()] {
                    if entry.distance <= best {
                        self.beside(&mut best, search.point(entry.j as usize), x, None, entry.distance);
                    }
                }
                part = part.end..(2 * part.end).min(list.len());
            }
            if let Some(tree) = search.beyond(list, best) {
                self.tied.clear();
                self.beside(&mut best, group, x, Some(run), 0.0);
                tree.walk(own, best, |place, distance| {
                    self.beside(&mut best, search.point(place), x, None, distance);
                    best
                });
            }
            self.runs.tally(sum, run, &self.tied, ranks, Ties::Mean);
        }
    }

    /// Looks in one group for runs that come as near to `x` as `best` or nearer; `own` is not looked at.
    fn beside(&mut self, best: &mut f64, group: usize, x: f64, own: Option<usize>, distance: f64) {
        let Range { start, end } = self.start[group]..self.start[group + 1];
        let (below, above) = match own {
            Some(own) => (own, own + 1),
            None => {
                let at = start + self.x[start..end].partition_point(|&other| other < x);
                (at, at)
            }
        };
        let total = |other: f64| distance + (x - other) * (x - other);
        let mut nearest = f64::INFINITY;
        if below > start {
            nearest = total(self.x[below - 1]);
        }
        if above < end {
            nearest = nearest.min(total(self.x[above]));
        }
        if nearest > *best {
            return;
        }
        if nearest < *best {
            *best = nearest;
            self.tied.clear();
        }
        let mut low = below;
        while low > start && total(self.x[low - 1]) == nearest {
            low -= 1;
        }
        let mut high = above;
        while high < end && total(self.x[high]) == nearest {
            high += 1;
        }
        self.tied.extend([low..below, above..high].into_iter().filter(|t| !t.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Columns with many ties, few and none.
    fn columns(n: usize) -> Vec<Vec<f64>> {
        let mut stream = Stream::new(5, Use::Choice, 0);
        let mut column = |of: &dyn Fn(f64, f64) -> f64| {
            (0..n).map(|_| of(f64::from(stream.normal()), stream.uniform())).collect::<Vec<f64>>()
        };
        let mut all = vec![
            column(&|x, _| x),
            column(&|x, coin| if coin < 0.6 { 0.0 } else { x }),
            column(&|x, _| (4.0 * x).round()),
            column(&|_, coin| f64::from(u8::from(coin < 0.5))),
            column(&|_, _| 0.25),
            column(&|x, _| 1e200 * x),
            column(&|x, _| 1e6 + 1e-3 * x),
        ];
        all.push(all[0].clone());
        all.extend((0..6).map(|_| column(&|x, _| x)));
        all
    }

    #[test]
    fn trees_find_what_kept_distances_find() {
        let n = 700;
        let columns = columns(n);
        let values = columns.concat();
        let x = Matrix::columns_f64(&values, n, columns.len()).unwrap();
        let narrow: Vec<f32> = values.iter().map(|&v| (v as f32).clamp(f32::MIN, f32::MAX)).collect();
        let widened: Vec<f64> = narrow.iter().map(|&v| f64::from(v)).collect();
        let widened = Matrix::columns_f64(&widened, n, columns.len()).unwrap();
        let narrow = x.of_f32(&narrow);
        let y: Vec<f64> =
            (0..n).map(|i| (3.0 * columns[0][i] * columns[8][i]).round() + columns[2][i]).collect();
        let (mut walked, mut apart) = (0, 0);
        for order in [[0, 8, 9], [1, 2, 0], [1, 8, 9], [4, 3, 1], [6, 10, 2], [5, 0, 11], [2, 3, 4]] {
            for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 1, draws: 2 }] {
                let ranks = Ranks::new(&y, ties).unwrap();
                let [mut kept, mut bare] = [usize::MAX, 0].map(|keep| Space::new(n, keep));
                for j in order {
                    kept.add(columns[j].clone());
                    bare.add(columns[j].clone());
                    let watch = Watch::default();
                    let expected = kept.step(&x, &ranks, ties, &watch);
                    assert!(bare.step(&x, &ranks, ties, &watch) == expected, "{order:?} {j} {ties:?}");
                    let expected = kept.step(&widened, &ranks, ties, &watch);
                    for space in [&mut kept, &mut bare] {
                        assert!(
                            space.step(&narrow, &ranks, ties, &watch) == expected,
                            "{order:?} {j} {ties:?}"
                        );
                    }
                    let search = bare.search(None);
                    walked += usize::from(search.len < search.others);
                    let tree = search.tree.as_ref().unwrap();
                    apart += wide_columns(&x, tree, search.len).len();
                }
            }
        }
        assert!(walked > 20 && apart > 20, "{walked} {apart}");
    }
}
