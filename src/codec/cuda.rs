//! The steps of FOCI on CUDA: ranks, columns and the distances of the chosen columns stay in device memory, one sum per
//! candidate comes back. Neighbours and sums are the CPU's to the last bit.

use super::Ties;
use super::columns::Matrix;
use super::ranks::{Ranks, Sum};
use crate::device::Cuda;
use crate::device::cuda::Buffer;
use crate::ops::nearest::{Nearest, Tied, distance, nearest, nearest_sorted};
use crate::ops::statistic::statistic;
use crate::{Error, Result};

/// Values of the columns that one launch handles: 12 bytes of results each.
const VALUES_AT_ONCE: usize = 1 << 24;

/// What a selection keeps on the device.
pub(super) struct Steps<'a> {
    cuda: &'a Cuda,
    rank: Buffer<u32>,             // [n]
    columns: Vec<Buffer<f64>>,     // some columns each, [.., n]
    distance: Option<Buffer<f64>>, // [n, n], of the chosen columns
    tied: Tied,
}

impl<'a> Steps<'a> {
    /// Copies ranks and columns to the device.
    pub fn new(cuda: &'a Cuda, x: &Matrix, ranks: &Ranks, ties: Ties) -> Result<Steps<'a>> {
        let tied = match ties {
            Ties::Mean => Tied::All,
            Ties::First => Tied::First,
            Ties::Random { .. } => {
                return Err(Error::config("random ties have no CUDA path; use --device cpu"));
            }
        };
        let at_once = (VALUES_AT_ONCE / x.n()).clamp(1, x.p());
        let mut columns = Vec::new();
        for first in (0..x.p()).step_by(at_once) {
            let some: Vec<f64> = (first..x.p().min(first + at_once)).flat_map(|j| x.column(j)).collect();
            columns.push(cuda.upload(&some)?);
        }
        Ok(Steps { cuda, rank: cuda.upload(&ranks.r)?, columns, distance: None, tied })
    }

    /// A of every column alone.
    pub fn first(&self) -> Result<Vec<Sum>> {
        self.sums(|columns| nearest_sorted(self.cuda, columns, &self.rank, self.tied))
    }

    /// A of the chosen columns, `column` now among them, and each column.
    pub fn step(&mut self, column: &[f64]) -> Result<Vec<Sum>> {
        let n = column.len();
        let mut kept = match self.distance.take() {
            Some(kept) => kept,
            None => self.cuda.upload(&vec![0.0; n * n])?,
        };
        distance(self.cuda, &mut kept, &self.cuda.upload(column)?)?;
        let sums = self.sums(|columns| nearest(self.cuda, columns, &kept, &self.rank, self.tied));
        self.distance = Some(kept);
        sums
    }

    fn sums(&self, near: impl Fn(&Buffer<f64>) -> Result<Nearest>) -> Result<Vec<Sum>> {
        let mut all = Vec::new();
        for columns in &self.columns {
            let sums = statistic(self.cuda, &near(columns)?, self.rank.len())?;
            all.extend(sums.iter().map(|sum| Sum::of(sum.whole, sum.fraction)));
        }
        Ok(all)
    }
}
