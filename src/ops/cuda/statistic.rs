//! The rank statistic's sum A = Σ_i s_i/c_i on CUDA (MATH.md, Eq. 1), in integers: the same in any order and on any
//! device. On the CPU it is part of the module `codec`.
#![allow(unsafe_code)] // launches

use crate::device::cuda::{Buffer, Cuda, Launch, tiles};
use crate::error::{Error, Result};

use super::nearest::Nearest;
use super::rows;
use crate::ops::same;

/// A as a whole part and a sum of fractions in units of 2⁻⁶⁴, each fraction rounded down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Σ ⌊s/c⌋.
    pub whole: u64,
    /// Σ ⌊2⁶⁴ (s mod c)/c⌋.
    pub fraction: u128,
}

/// Partial sums A of p columns on the device.
pub struct Sums {
    parts: Buffer<u64>, // [p, 3]
    begun: bool,        // whether every column has rows already, so that more are added
    p: usize,
}

impl Sums {
    /// Sums over no rows yet.
    ///
    /// # Errors
    /// No columns, or there is not enough memory.
    pub fn new(cuda: &Cuda, p: usize) -> Result<Sums> {
        rows("statistic", p)?;
        Ok(Sums { parts: cuda.alloc(3 * p)?, begun: false, p })
    }

    /// Adds `width` more rows to the columns from `first` on. All columns must get the same rows, the last column last.
    ///
    /// # Errors
    /// Shapes that do not fit, or the device fails.
    pub fn add(&mut self, cuda: &Cuda, first: usize, near: &Nearest, width: usize) -> Result<()> {
        let n = rows("statistic", width)?;
        let p = near.sum.len() / width;
        same("statistic", "sums", p * width, near.sum.len())?;
        same("statistic", "counts", p * width, near.count.len())?;
        if first + p > self.p {
            return Err(Error::shape("statistic", format!("{} columns", self.p), (first + p).to_string()));
        }
        let launch = Launch::blocks("statistic", p, tiles::STATISTIC_THREADS)?;
        let (_, rest) = self.parts.output().split_at(3 * first);
        let (out, _) = rest.split_at(3 * p);
        let add = u32::from(self.begun);
        // SAFETY: out holds 3·p values, sum and count p·n; every count is above zero, as `nearest` wrote it.
        unsafe { cuda.statistic(launch, out, near.sum.input(), near.count.input(), n, add)? };
        self.begun |= first + p == self.p;
        Ok(())
    }

    /// The sums of all columns.
    ///
    /// # Errors
    /// Where a launch failed.
    pub fn all(&self, cuda: &Cuda) -> Result<Vec<Sum>> {
        Ok(cuda.download(&self.parts)?.chunks_exact(3).map(Sum::of).collect())
    }

    /// The column with the largest A (rounded to 2⁻³²) among those whose `left` `[p]` is not 0, and its A. Equal ones go to
    /// the lowest index; none where no column is left. 32 bytes are read back.
    ///
    /// # Errors
    /// Shapes that do not fit, or the device fails.
    pub fn best(&self, cuda: &Cuda, left: &Buffer<u32>) -> Result<Option<(usize, Sum)>> {
        same("best", "columns", self.p, left.len())?;
        let p = rows("best", self.p)?;
        let mut out = cuda.upload(&[u64::MAX, 0, 0, 0])?;
        let launch = Launch::blocks("best", 1, tiles::STATISTIC_THREADS)?;
        // SAFETY: out holds 4 values, sums 3·p, left p.
        unsafe { cuda.best(launch, out.output(), self.parts.input(), left.input(), p)? };
        let found = cuda.download(&out)?;
        Ok((found[0] != u64::MAX).then(|| (found[0] as usize, Sum::of(&found[1..]))))
    }
}

impl Sum {
    /// From its three words on the device.
    fn of(words: &[u64]) -> Sum {
        Sum { whole: words[0], fraction: u128::from(words[2]) << 64 | u128::from(words[1]) }
    }
}
