//! The steps of FOCI on several ranks: each has a part of the columns, and the best of all is found among the best of each.
//! Sums are integers, so they are those of one rank.

use std::cmp::Reverse;
use std::ops::Range;

use super::columns::Columns;
use super::cpu::CpuStep;
use super::cuda::CudaStep;
use super::options::Ties;
use super::ranks::{Ranks, Sum};
use super::step::Step;
use super::watch::Watch;
use crate::communicator::Communicator;
use crate::device::Cuda;
use crate::error::Result;

/// See the file's opening.
pub(super) struct Split<'a> {
    ranks: &'a Communicator,
    /// The step on this rank's columns; none where there are fewer columns than ranks.
    own: Option<Box<dyn Step + 'a>>,
    /// Which these are.
    columns: Range<usize>,
}

impl<'a> Split<'a> {
    /// Steps on the columns of `x`, of which each of the ranks `among` takes a part, on its GPU where it has one.
    ///
    /// # Errors
    /// Where the device of a rank fails.
    pub fn new(
        x: Columns<'a>,
        ranks: &'a Ranks,
        ties: Ties,
        watch: &'a Watch,
        among: &'a Communicator,
        cuda: Option<&'a Cuda>,
    ) -> Result<Split<'a>> {
        let (rank, parts) = (among.rank(), among.size().min(x.p()));
        let columns = match rank < parts {
            true => x.p() * rank / parts..x.p() * (rank + 1) / parts,
            false => 0..0,
        };
        let part = || x.part(columns.clone());
        let own: Option<Box<dyn Step>> = match (rank < parts, cuda) {
            (false, _) => None,
            (true, None) => Some(Box::new(CpuStep::of_part(x, part(), ranks, ties, watch))),
            (true, Some(cuda)) => {
                let step = CudaStep::of_part(cuda, x, columns.clone(), ranks, ties, watch);
                Some(Box::new(among.told(step)?))
            }
        };
        Ok(Split { ranks: among, own, columns })
    }

    /// What all ranks found, one rank after the other.
    fn all_of(&self, own: Result<Vec<Sum>>) -> Result<Vec<Vec<Sum>>> {
        let words = own.map(|own| own.into_iter().map(Sum::words).collect());
        let all = self.ranks.gather_values(words)?;
        Ok(all.into_iter().map(|words| words.into_iter().map(Sum::from_words).collect()).collect())
    }
}

impl Step for Split<'_> {
    fn first(&mut self) -> Result<Vec<Sum>> {
        let own = self.own.as_mut().map_or(Ok(vec![]), |own| own.first());
        Ok(self.all_of(own)?.concat())
    }

    fn give(&mut self, columns: &[usize]) -> Result<()> {
        self.own.as_mut().map_or(Ok(()), |own| own.give(columns))
    }

    fn all(&mut self) -> Result<Vec<Sum>> {
        let own = self.own.as_mut().map_or(Ok(vec![]), |own| own.all());
        Ok(self.all_of(own)?.concat())
    }

    fn best(&mut self, candidates: &[usize], bound: i128) -> Result<Option<(usize, Sum)>> {
        let here = candidates.iter().enumerate().filter(|(_, j)| self.columns.contains(j));
        let (places, columns): (Vec<usize>, Vec<usize>) =
            here.map(|(place, j)| (place, j - self.columns.start)).unzip();
        let own = match &mut self.own {
            Some(own) if !columns.is_empty() => own.best(&columns, bound),
            _ => Ok(None),
        };
        // One of them at most for each rank: its place in the list, and its sum.
        let best = own.map(|best| best.map(|(at, sum)| (places[at], sum)));
        let words = best.map(|best| best.into_iter().map(|(place, sum)| (place as u64, sum.words())));
        let words = words.map(|words| words.map(|(place, [a, b, c])| [place, a, b, c]).collect());
        let all = self.ranks.gather_values(words)?.concat();
        let all = all.into_iter().map(|[place, a, b, c]| (place as usize, Sum::from_words([a, b, c])));
        Ok(all.min_by_key(|(place, sum)| (Reverse(sum.rounded()), *place)))
    }

    fn together(&self, groups: &[&[usize]]) -> Result<Vec<Sum>> {
        let parts = self.ranks.size();
        let part = |rank: usize| groups.len() * rank / parts..groups.len() * (rank + 1) / parts;
        // A rank without columns has none of those given either, so that rank 0 then takes all groups.
        let idle = self.ranks.any(self.own.is_none())?;
        let own = match (&self.own, idle) {
            (Some(own), false) => own.together(&groups[part(self.ranks.rank())]),
            (Some(own), true) if self.ranks.leads() => own.together(groups),
            _ => Ok(vec![]),
        };
        Ok(self.all_of(own)?.concat())
    }
}
