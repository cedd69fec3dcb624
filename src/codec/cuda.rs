//! The steps of FOCI, and A of given columns, on CUDA: ranks, columns and the distances in the chosen columns stay in
//! device memory; the best candidate and its sum come back. Neighbours and sums are the CPU's to the last bit.
//!
//! Distances in the chosen columns are kept where n × n of them fit in half of the free memory; otherwise they are
//! computed again in every step, for a panel of rows at a time. Kept ones are symmetric, to the last bit.
//!
//! A dense step compares all pairs of rows. A pruned one searches lists of the nearest rows in the chosen columns
//! (`kernels/pruned.cu`). A step is pruned where there are [`FULL`] columns at least, so that the lanes of a warp share a
//! list, where the list is no longer than half of the rows ([`pruned_len`]), and unless more than half of the searches of
//! the last pruned step went beyond their list: then rows are tied in the chosen columns, and all later steps are dense.
//! This rule has not been measured on a GPU. None of it changes a result.

mod estimate;
mod table;

pub(super) use estimate::{estimate, sum_estimate};
pub use table::{Rows, Table};

use std::ops::Range;

use estimate::{FULL, LIST_BYTES, list_rows, panel_rows, pruned_len};
use table::{Chosen, exact};

use super::columns::Columns;
use super::options::Ties;
use super::ranks::{ONE, Ranks, Sum};
use super::step::{Step, largest};
use super::watch::Watch;
use crate::device::Cuda;
use crate::device::cuda::{Buffer, In};
use crate::error::{Error, Result};
use crate::ops::cuda::nearest::{
    Candidates, Tallied, Tally, Tied, distance, lists, nearest, nearest_sorted, pruned,
};
use crate::ops::cuda::statistic::Sums;

/// How the neighbours of a step are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Among all rows.
    Dense,
    /// Along lists of this many rows, and beyond where a list ends too early.
    Pruned(u32),
}

/// What a selection keeps on the device.
struct Steps<'a> {
    cuda: &'a Cuda,
    rank: Buffer<u32>,        // [n]
    columns: Vec<Candidates>, // several columns each, [.., n]
    offered: Vec<bool>,       // [p]: candidates of the next choice
    left: Buffer<u32>,        // the same on the device
    chosen: Vec<Chosen>,
    distance: Buffer<f64>, // in the chosen columns: [n, width], in a pruned step [width, n]
    width: usize,          // rows of a panel; n where distances are kept
    known: usize,          // of `chosen`, how many are in the kept distances
    sums: Sums,
    tied: Tied,
    forced: Option<Method>, // for tests: instead of the rule
    tally: Option<Tally>,   // of the last pruned step, while nobody asked
    beyond: bool,           // most of its searches went beyond their list
    list_bytes: usize,      // memory that lists may take
}

impl<'a> Steps<'a> {
    /// Copies ranks and columns to the device.
    pub fn new(cuda: &'a Cuda, x: Table<'_>, ranks: &Ranks, ties: Ties) -> Result<Steps<'a>> {
        Steps::of_width(cuda, x, ranks, ties, panel_rows(cuda, x.n(), x.p())?)
    }

    fn of_width(cuda: &'a Cuda, x: Table<'_>, ranks: &Ranks, ties: Ties, width: usize) -> Result<Steps<'a>> {
        let (n, p) = (x.n(), x.p());
        let columns = x.on(cuda).map(|some| Candidates::new(cuda, some?.1, n)).collect::<Result<_>>()?;
        Ok(Steps {
            cuda,
            rank: cuda.upload(&ranks.r)?,
            columns,
            offered: vec![true; p],
            left: cuda.upload(&vec![1; p])?,
            chosen: Vec::new(),
            distance: cuda.alloc(0)?,
            width,
            known: 0,
            sums: Sums::new(cuda, p)?,
            tied: match ties {
                Ties::Mean => Tied::All,
                Ties::First => Tied::First,
                Ties::Random { seed, draws } => Tied::Random { seed, draws },
            },
            forced: None,
            tally: None,
            beyond: false,
            list_bytes: LIST_BYTES,
        })
    }

    /// Computes A of every column alone.
    fn first(&mut self) -> Result<()> {
        if matches!(self.tied, Tied::Random { .. }) {
            return self.measure(); // draws take tied rows by index, not by value
        }
        let n = self.rank.len();
        self.sums = Sums::new(self.cuda, self.left.len())?;
        let mut first = 0;
        for columns in &self.columns {
            let near = nearest_sorted(self.cuda, columns.values(), &self.rank, self.tied)?;
            self.sums.add(self.cuda, first, &near, n)?;
            first += columns.p();
        }
        Ok(())
    }

    /// Adds a column that is no candidate to those chosen.
    fn given(&mut self, column: &[f64]) -> Result<()> {
        self.chosen.push(Chosen::Given(self.cuda.upload(column)?));
        Ok(())
    }

    /// A copy of a column on the host.
    fn download(&self, chosen: &Chosen) -> Result<Vec<f64>> {
        let mut values = vec![0.0; self.rank.len()];
        self.cuda.read(&mut values, chosen.values(&self.columns, self.rank.len()))?;
        Ok(values)
    }

    /// Computes A of the chosen columns and each column.
    fn measure(&mut self) -> Result<()> {
        let n = self.rank.len();
        let method = self.method()?;
        let begins = self.distance.is_empty();
        if begins {
            self.distance = self.cuda.alloc(n * self.width)?;
        }
        let fresh = begins || self.width < n;
        let known = if fresh { 0 } else { self.known };
        self.known = self.chosen.len();
        self.sums = Sums::new(self.cuda, self.left.len())?;
        let mut tally = Tally::new(self.cuda)?;
        for start in (0..n).step_by(self.width) {
            let panel = start..n.min(start + self.width);
            let (down, across) = match method {
                Method::Dense => (0..n, panel.clone()),
                Method::Pruned(_) => (panel.clone(), 0..n),
            };
            let mut add = |values: In<'_, f64>, fresh: bool| {
                distance(self.cuda, &mut self.distance, values, n, down.clone(), across.clone(), fresh)
            };
            for (k, chosen) in self.chosen[known..].iter().enumerate() {
                add(chosen.values(&self.columns, n), fresh && k == 0)?;
            }
            if fresh && self.chosen.is_empty() {
                add(self.columns[0].values().input().part(0..0), true)?; // zeros
            }
            match method {
                Method::Dense => self.dense(panel)?,
                Method::Pruned(len) => self.pruned(&mut tally, panel, len)?,
            }
        }
        self.tally = matches!(method, Method::Pruned(_)).then_some(tally);
        Ok(())
    }

    /// The counts of the last pruned step, where nobody asked for them yet.
    fn tallied(&mut self) -> Result<Option<Tallied>> {
        self.tally.take().map(|tally| tally.read(self.cuda)).transpose()
    }

    /// How the next step searches. By then the last one is over, so that reading its counts waits for nothing.
    fn method(&mut self) -> Result<Method> {
        if let Some(tallied) = self.tallied()? {
            let n = self.rank.len();
            let searches: usize = self.columns.iter().map(|some| n * some.p().div_ceil(FULL)).sum();
            self.beyond = tallied.again > searches as u64 / 2;
        }
        Ok(match (self.forced, pruned_len(self.rank.len(), self.left.len(), self.chosen.len())) {
            (Some(forced), _) => forced,
            (None, Some(len)) if !self.beyond => Method::Pruned(len),
            (None, Some(_) | None) => Method::Dense,
        })
    }

    /// Adds the rows of a panel to the sums.
    fn dense(&mut self, panel: Range<usize>) -> Result<()> {
        let mut first = 0;
        for columns in &self.columns {
            let near = nearest(self.cuda, columns, &self.distance, panel.clone(), &self.rank, self.tied)?;
            self.sums.add(self.cuda, first, &near, panel.len())?;
            first += columns.p();
        }
        Ok(())
    }

    /// The same with lists, for as many rows at a time as `list_bytes` allows.
    fn pruned(&mut self, tally: &mut Tally, panel: Range<usize>, len: u32) -> Result<()> {
        let n = self.rank.len();
        let rows = list_rows(self.list_bytes, len);
        for start in panel.clone().step_by(rows) {
            let range = start..panel.end.min(start + rows);
            let distance =
                self.distance.input().part((start - panel.start) * n..(range.end - panel.start) * n);
            let lists = lists(self.cuda, distance, n, range.clone(), len)?;
            let mut first = 0;
            for columns in &self.columns {
                let near = pruned(self.cuda, tally, columns, distance, &lists, &self.rank, self.tied)?;
                self.sums.add(self.cuda, first, &near, range.len())?;
                first += columns.p();
            }
        }
        Ok(())
    }

    /// The offered column with the largest A, and A; equal ones go to the lowest number.
    fn best(&self) -> Result<Option<(usize, Sum)>> {
        let best = self.sums.best(self.cuda, &self.left)?;
        Ok(best.map(|(column, sum)| (column, exact(sum))))
    }

    /// A of every column, as computed last.
    fn all(&self) -> Result<Vec<Sum>> {
        Ok(self.sums.all(self.cuda)?.into_iter().map(exact).collect())
    }

    /// Offers exactly these columns to [`Steps::best`]; what changed is written to the device.
    fn offer(&mut self, candidates: &[usize]) -> Result<()> {
        let mut offered = vec![false; self.offered.len()];
        candidates.iter().for_each(|&j| offered[j] = true);
        for j in (0..offered.len()).filter(|&j| offered[j] != self.offered[j]) {
            let (_, from) = self.left.output().split_at(j);
            self.cuda.write(from.split_at(1).0, &[u32::from(offered[j])])?;
        }
        self.offered = offered;
        Ok(())
    }
}

/// The steps of a selection on CUDA.
pub(super) struct CudaStep<'a> {
    steps: Steps<'a>,
    ranks: &'a Ranks,
    ties: Ties,
    watch: &'a Watch,
}

impl<'a> CudaStep<'a> {
    /// Copies ranks and columns to the device.
    pub fn new(
        cuda: &'a Cuda,
        x: Table<'a>,
        ranks: &'a Ranks,
        ties: Ties,
        watch: &'a Watch,
    ) -> Result<CudaStep<'a>> {
        Ok(CudaStep { steps: Steps::new(cuda, x, ranks, ties)?, ranks, ties, watch })
    }
}

impl Step for CudaStep<'_> {
    fn first(&mut self) -> Result<Vec<Sum>> {
        self.steps.first()?;
        self.steps.all()
    }

    fn give(&mut self, columns: &[usize]) -> Result<()> {
        self.steps.chosen.extend(columns.iter().map(|&j| Chosen::Candidate(j)));
        Ok(())
    }

    fn all(&mut self) -> Result<Vec<Sum>> {
        self.steps.measure()?;
        self.steps.all()
    }

    fn best(&mut self, candidates: &[usize], _: i128) -> Result<Option<(usize, Sum)>> {
        if !candidates.is_sorted() {
            return Ok(largest(candidates, &self.all()?)); // the device takes equal ones by number
        }
        self.steps.offer(candidates)?;
        self.steps.measure()?;
        let best = self.steps.best()?;
        Ok(best.and_then(|(column, a)| Some((candidates.binary_search(&column).ok()?, a))))
    }

    fn together(&self, groups: &[&[usize]]) -> Result<Vec<Sum>> {
        self.watch.begin(groups.len());
        let given = self.steps.chosen.iter().map(|chosen| self.steps.download(chosen));
        let given = given.collect::<Result<Vec<_>>>()?;
        let one = |group: &&[usize]| {
            if self.watch.stopped() {
                return Ok(Sum::default());
            }
            let mut columns = given.clone();
            for &j in *group {
                columns.push(self.steps.download(&Chosen::Candidate(j))?);
            }
            self.watch.advance(1);
            sum(self.steps.cuda, &columns, self.ranks, self.ties)
        };
        groups.iter().map(one).collect()
    }
}

/// One step of a selection that can be repeated: what `scrubjay bench` times.
pub(crate) struct Again<'a>(Steps<'a>);

impl<'a> Again<'a> {
    /// The step after the columns `chosen` `[k, n]`, none of which is a column of `x`.
    pub fn new(cuda: &'a Cuda, y: &[f64], x: &Columns, chosen: &[f64]) -> Result<Again<'a>> {
        let mut steps = Steps::new(cuda, Table::Host(*x), &Ranks::new(y, Ties::Mean)?, Ties::Mean)?;
        chosen.chunks_exact(x.n()).try_for_each(|column| steps.given(column))?;
        Ok(Again(steps))
    }

    /// The column it chooses. Distances in the chosen columns are computed again.
    pub fn step(&mut self) -> Result<Option<usize>> {
        self.0.distance = self.0.cuda.alloc(0)?;
        self.0.measure()?;
        Ok(self.0.best()?.map(|(column, _)| column))
    }

    /// A of every column, rounded.
    pub fn all(&self) -> Result<Vec<f64>> {
        Ok(self.0.all()?.into_iter().map(|sum| sum.fixed() as f64 / ONE as f64).collect())
    }
}

/// A of these columns together, in this order.
pub(super) fn sum(cuda: &Cuda, columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Result<Sum> {
    Given::new(cuda, columns, ranks, ties)?.sum(ranks)
}

/// Given columns whose A is wanted for one permutation of the ranks after another.
pub(super) struct Given<'a>(Steps<'a>);

impl<'a> Given<'a> {
    /// Copies the columns, one at least, to the device.
    pub fn new(cuda: &'a Cuda, columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Result<Given<'a>> {
        let (last, given) =
            columns.split_last().ok_or_else(|| Error::config("at least one column is needed"))?;
        let last = Table::Host(Columns::from_columns_f64(last, ranks.n(), 1)?);
        let mut steps = Steps::new(cuda, last, ranks, ties)?;
        given.iter().try_for_each(|column| steps.given(column))?;
        Ok(Given(steps))
    }

    /// A of the columns together, in their order, for these ranks.
    pub fn sum(&mut self, ranks: &Ranks) -> Result<Sum> {
        let Given(steps) = self;
        steps.cuda.write(steps.rank.output(), &ranks.r)?;
        match steps.chosen.is_empty() {
            true => steps.first()?,
            false => steps.measure()?,
        }
        Ok(steps.all()?.into_iter().next().unwrap_or_default())
    }
}

#[cfg(all(test, feature = "emu"))]
mod tests {
    use super::*;
    use crate::codec::neighbours;
    use crate::ops::philox::{Stream, Use};

    /// Columns without ties, with many, with ties only, and with values beyond f32; some of them twice.
    fn columns(n: usize, p: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, Use::Choice, 0);
        let mut values: Vec<f64> = (0..p * n)
            .map(|at| match at / n % 7 {
                1 | 3 => stream.below(4) as f64,
                4 => f64::from(stream.normal()) * if at % 3 == 0 { 1e200 } else { 1.0 },
                5 => 1e6 + 0.03125 + 1e-3 * f64::from(stream.normal()),
                6 => 0.25,
                _ => f64::from(stream.normal()),
            })
            .collect();
        values.copy_within(0..2 * n, (p - 2) * n);
        values
    }

    const TIES: [Ties; 3] = [Ties::Mean, Ties::First, Ties::Random { seed: 3, draws: 2 }];

    #[test]
    fn panels_give_what_kept_distances_give() {
        let (n, p) = (70, 10);
        let values = columns(n, p, 2);
        let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
        let x = Columns::from_columns_f64(&values, n, p).unwrap();
        let cuda = Cuda::emulated(2);
        for ties in TIES {
            let ranks = Ranks::new(&y, ties).unwrap();
            let mut kept = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, n).unwrap();
            let panels =
                [1, 32, 69].map(|width| Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width).unwrap());
            kept.first().unwrap();
            let mut chosen: Vec<Vec<f64>> = Vec::new();
            for mut steps in panels {
                steps.first().unwrap();
                assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?}");
            }
            for j in [1, 0, 5] {
                chosen.push(x.column(j));
                kept.chosen.push(Chosen::Candidate(j));
                kept.measure().unwrap();
                for width in [1, 32, 69] {
                    let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width).unwrap();
                    chosen.iter().for_each(|column| steps.given(column).unwrap());
                    steps.measure().unwrap();
                    assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?} {j} {width}");
                    assert!(steps.best().unwrap() == kept.best().unwrap(), "{ties:?} {j} {width}");
                }
            }
        }
    }

    #[test]
    fn pruned_steps_give_what_dense_ones_and_the_cpu_give() {
        let sizes = [(70, 34), (33, 9), (34, 65)];
        let orders = [[1, 0, 4], [6, 3, 2], [4, 1, 5]];
        for (seed, ((n, p), (ties, order))) in sizes.into_iter().zip(TIES.into_iter().zip(orders)).enumerate()
        {
            let values = columns(n, p, seed as u64);
            let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
            let x = Columns::from_columns_f64(&values, n, p).unwrap();
            let cuda = Cuda::emulated(seed as u64);
            let ranks = Ranks::new(&y, ties).unwrap();
            let (dense, short, long) = (Method::Dense, Method::Pruned(32), Method::Pruned(64));
            let ways = [(n, dense), (n, short), (1, long), (32, short), (69, short)];
            let begin = |(width, search): (usize, Method)| {
                let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, ties, width.min(n)).unwrap();
                steps.forced = Some(search);
                steps.list_bytes = 24 * 32 * size_of::<u64>(); // of 24 rows, or of 12
                steps
            };
            let mut all = ways.map(begin);
            let mut chosen: Vec<Vec<f64>> = Vec::new();
            for j in order {
                chosen.push(x.column(j));
                let together = |j| neighbours::sum(&[&chosen[..], &[x.column(j)]].concat(), &ranks, ties);
                let expected: Vec<Sum> = (0..p).map(together).collect();
                for steps in &mut all {
                    steps.given(&x.column(j)).unwrap();
                    steps.measure().unwrap();
                    let way = (steps.width, steps.forced);
                    assert!(steps.all().unwrap() == expected, "{n} {ties:?} {j} {way:?}");
                }
            }
        }
    }

    #[test]
    fn a_list_is_walked_as_far_as_the_best_and_left_only_where_it_ends() {
        let (n, p) = (200, 33);
        let line: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let x = line.repeat(p);
        let x = Columns::from_columns_f64(&x, n, p).unwrap();
        let cuda = Cuda::emulated(2);
        let ranks = Ranks::new(&line, Ties::Mean).unwrap();
        let step = |column: &[f64], len| {
            let mut steps = Steps::of_width(&cuda, Table::Host(x), &ranks, Ties::Mean, n).unwrap();
            steps.forced = Some(Method::Pruned(len));
            steps.given(column).unwrap();
            steps.measure().unwrap();
            steps
        };
        let searches = 2 * n as u64;
        // the nearest are 2 away, the fifth of a list 9 or more in the chosen column alone
        let tallied = step(&line, 32).tallied().unwrap().unwrap();
        assert_eq!(tallied, Tallied { looked: 4 * searches, again: 0 });
        // all rows are alike in the chosen column: the nearest of most are not in the list, and it cannot tell
        let mut steps = step(&vec![0.0; n], 32);
        let everything = searches * (32 + n as u64 - 1);
        let mut again = step(&vec![0.0; n], 32);
        let tallied = again.tallied().unwrap();
        assert_eq!(tallied, Some(Tallied { looked: everything, again: searches }));
        steps.forced = None;
        assert_eq!(steps.method().unwrap(), Method::Dense);
        // a list of all others has no end beyond which to look
        let tallied = step(&vec![0.0; n], 256).tallied().unwrap();
        assert_eq!(tallied, Some(Tallied { looked: searches * 200, again: 0 }));
    }
}
