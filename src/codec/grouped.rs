//! A candidate beside chosen columns in which many rows are identical: the rows of a group that the chosen columns do not
//! tell apart are sorted by the candidate, and the nearest are found by binary search.

use std::ops::Range;

use super::options::Ties;
use super::ranks::{Ranks, Sum, sort_key};
use super::runs::Runs;
use super::scan::{Entry, Lists};
use super::tree::Tree;

/// A candidate sorted within each group of rows that are identical in the chosen columns.
#[derive(Default)]
pub(super) struct Grouped {
    keys: Vec<(u32, u64, u32)>,
    runs: Runs,
    x: Vec<f64>,       // by run
    start: Vec<usize>, // by group: its first run; the last is the number of runs
    tied: Vec<Range<usize>>,
}

impl Grouped {
    /// Sorts the candidate, `value` by position in the order of ranks; `group` is by row.
    pub fn arrange(&mut self, value: impl Fn(usize) -> f64, group: &[u32], ranks: &Ranks) {
        let key = |(position, &row): (usize, &u32)| {
            (group[row as usize], sort_key(value(position)), position as u32)
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
                self.x.push(value(position as usize));
            }
            self.runs.push(row, ranks.r[row as usize], begins);
            last = Some((group, key));
        }
        self.runs.close();
        self.start.push(self.x.len());
    }

    /// Adds the contribution of the rows of the group at a place; the `list` holds other groups by place.
    pub fn tally(
        &mut self,
        sum: &mut Sum,
        place: u32,
        list: &[Entry],
        lists: &Lists,
        tree: &Tree,
        ranks: &Ranks,
    ) {
        let at = |place: u32| tree.points()[place as usize] as usize;
        let group = at(place);
        for run in self.start[group]..self.start[group + 1] {
            let x = self.x[run];
            let mut best = if self.runs.size(run) > 1 { 0.0 } else { f64::INFINITY };
            self.tied.clear();
            self.beside(&mut best, group, x, Some(run), 0.0);
            for entry in list {
                if entry.least() > best {
                    break;
                }
                self.beside(&mut best, at(entry.j), x, None, tree.distance(place, entry.j));
            }
            if !lists.whole && list.last().is_some_and(|last| best >= last.least()) {
                self.tied.clear();
                self.beside(&mut best, group, x, Some(run), 0.0);
                tree.walk(place as usize, best, |place, distance| {
                    self.beside(&mut best, at(place as u32), x, None, distance);
                    best
                });
            }
            self.runs.tally(sum, run, &self.tied, ranks, Ties::Mean);
        }
    }

    /// Searches one group for runs no farther from `x` than `best`, except the run `own`; `distance` is that of the groups
    /// in the chosen columns.
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
