//! A table for FOCI in host memory, or on the device, where a trace is when its copies were observed there.

use crate::codec::columns::{Columns, not_finite};
use crate::codec::ranks::{Ranks, Sum};
use crate::device::Cuda;
use crate::device::cuda::{Buffer, In};
use crate::error::{Error, Result};
use crate::ops::cuda::nearest::{Candidates, Sorted, Tied};
use crate::ops::cuda::statistic::{self, Sums};
use crate::ops::cuda::trace;

use super::estimate::columns_at_once;

/// `n` rows of `p` values on a device, row-major: a table for [`crate::codec::foci`] that the host has no copy of.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    cuda: &'a Cuda,
    values: In<'a, f32>,
    n: usize,
    p: usize,
}

/// A table, wherever it is.
#[derive(Clone, Copy)]
pub enum Table<'a> {
    /// In host memory.
    Host(Columns<'a>),
    /// On the device that the steps run on.
    Device(Rows<'a>),
}

impl<'a> Rows<'a> {
    /// The first `n` rows of `values` `[.., p]`.
    ///
    /// # Errors
    /// Where there are not as many.
    pub fn new(cuda: &'a Cuda, values: &'a Buffer<f32>, n: usize, p: usize) -> Result<Rows<'a>> {
        match n.checked_mul(p) {
            Some(len) if len <= values.len() => Ok(Rows { cuda, values: values.input().part(0..len), n, p }),
            _ => {
                let found = format!("{} values", values.len());
                Err(Error::shape("codec", format!("{n} rows of {p} values"), found))
            }
        }
    }

    /// The device.
    pub(in crate::codec) fn cuda(&self) -> &'a Cuda {
        self.cuda
    }

    /// The columns as f64, some at a time, each `[.., n]`, with the number of the first.
    pub(super) fn columns(&self) -> impl Iterator<Item = Result<(usize, Buffer<f64>)>> + use<'a> {
        let Rows { cuda, values, n, p } = *self;
        let at_once = columns_at_once(n, p);
        let some = move |first: usize| {
            Ok((first, trace::columns(cuda, values, n, p, first..p.min(first + at_once))?))
        };
        (0..p).step_by(at_once).map(some)
    }

    /// The largest A over the columns alone, for each of these permutations of the ranks; as selections compare it, equal
    /// ones by the lowest column. Columns are sorted once.
    pub(in crate::codec) fn permuted_firsts(&self, permuted: &[Ranks]) -> Result<Vec<Sum>> {
        let cuda = self.cuda;
        let ranks = permuted.iter().map(|ranks| cuda.upload(&ranks.r)).collect::<Result<Vec<_>>>()?;
        let mut sums = permuted.iter().map(|_| Sums::new(cuda, self.p)).collect::<Result<Vec<_>>>()?;
        for some in self.columns() {
            let (first, columns) = some?;
            let sorted = Sorted::new(cuda, &columns, self.n)?;
            for (rank, sums) in ranks.iter().zip(&mut sums) {
                sums.add(cuda, first, &sorted.nearest(cuda, rank, Tied::All)?, self.n)?;
            }
        }
        let all = cuda.upload(&vec![1; self.p])?;
        let top = |sums: &Sums| Ok(sums.best(cuda, &all)?.map_or(Sum::default(), |(_, sum)| exact(sum)));
        sums.iter().map(top).collect()
    }

    fn check_finite(&self) -> Result<()> {
        match trace::not_finite(self.cuda, self.values)? {
            Some((at, value)) => Err(not_finite(at / self.p, at % self.p, f64::from(value))),
            None => Ok(()),
        }
    }
}

impl<'a> Table<'a> {
    /// The number of rows.
    pub fn n(&self) -> usize {
        match self {
            Table::Host(x) => x.n(),
            Table::Device(rows) => rows.n,
        }
    }

    /// The number of columns.
    pub fn p(&self) -> usize {
        match self {
            Table::Host(x) => x.p(),
            Table::Device(rows) => rows.p,
        }
    }

    /// Refuses values that are not finite, and reports the first one.
    pub(in crate::codec) fn check_finite(&self) -> Result<()> {
        match self {
            Table::Host(x) => x.check_finite(),
            Table::Device(rows) => rows.check_finite(),
        }
    }

    /// The columns on this device as f64, as [`Rows::columns`].
    pub(super) fn on<'b>(&self, cuda: &'b Cuda) -> Box<dyn Iterator<Item = Result<(usize, Buffer<f64>)>> + 'b>
    where
        'a: 'b,
    {
        let x = match *self {
            Table::Host(x) => x,
            Table::Device(rows) => return Box::new(rows.columns()),
        };
        let (n, p) = (x.n(), x.p());
        let at_once = columns_at_once(n, p);
        let some = move |first: usize| {
            let some: Vec<f64> = (first..p.min(first + at_once)).flat_map(|j| x.column(j)).collect();
            Ok((first, cuda.upload(&some)?))
        };
        Box::new((0..p).step_by(at_once).map(some))
    }
}

/// A column that was chosen.
pub(super) enum Chosen {
    /// A candidate, by number.
    Candidate(usize),
    /// Another one, `[n]`.
    Given(Buffer<f64>),
}

impl Chosen {
    /// Its values `[n]`, where the candidates are these.
    pub fn values<'a>(&'a self, candidates: &'a [Candidates], n: usize) -> In<'a, f64> {
        match self {
            Chosen::Given(values) => values.input(),
            Chosen::Candidate(j) => {
                let at_once = candidates[0].p(); // as all have but the last
                let first = j % at_once * n;
                candidates[j / at_once].values().input().part(first..first + n)
            }
        }
    }
}

/// A as the device has it.
pub(super) fn exact(sum: statistic::Sum) -> Sum {
    Sum::of(sum.whole, sum.fraction)
}
