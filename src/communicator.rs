//! Ranks: several processes, or threads of one, that run the same program on the same state and share its work.
//!
//! Only the seams of the program know of them. There each rank computes the lanes, chunks, candidates or items that are its
//! own (item i is that of rank i mod size), the results go to all, and every rank adds them in the order that one rank alone
//! would: the bits do not depend on how many there are. Rank 0 alone prints, and writes files ([`Communicator::first`]).
//!
//! Every exchange opens with a few words from each rank, which also say whether it failed. So an error of one rank reaches all
//! of them in the seam where they meet next, and none waits for it for ever: one that fails elsewhere leaves
//! ([`Communicator::leave`]), and the others learn that in the same place.

mod launched;
#[cfg(feature = "mpi")]
mod mpi;
mod rendezvous;
mod shared;
mod tcp;
mod threads;
mod transport;
mod work;

use std::borrow::Cow;
use std::iter::StepBy;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytemuck::{NoUninit, Pod};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
pub use launched::{Launched, Launcher};
pub use rendezvous::Meeting;
pub use shared::Farewell;
use shared::{Next, Shared, disagree, read, text};
use transport::Transport;
pub use work::work;

/// The ranks that work together, as one of them sees them. Alone by default.
#[derive(Clone, Default)]
pub struct Communicator {
    shared: Option<Arc<Shared>>,
}

impl Communicator {
    /// One rank alone.
    pub fn alone() -> Communicator {
        Communicator::default()
    }

    fn over(transport: impl Transport + 'static) -> Communicator {
        Communicator { shared: Some(Arc::new(Shared::over(Box::new(transport)))) }
    }

    /// The ranks that mpirun or srun started, as this process sees them. To be called once, at the start.
    ///
    /// # Errors
    /// Where MPI does not start, or cannot be called by several threads in turn.
    #[cfg(feature = "mpi")]
    pub fn mpi() -> Result<Communicator> {
        mpi::World::start().map(Communicator::over)
    }

    /// The ranks that meet there, as this process sees them. To be called once, at the start.
    ///
    /// # Errors
    /// Where they do not find one another in time; the message says who is missing, or who cannot be reached.
    pub fn tcp(meeting: &Meeting) -> Result<Communicator> {
        tcp::Tcp::start(meeting, None).map(Communicator::over)
    }

    /// Runs `work` on so many ranks, each a thread of this process; the results in order of ranks. Where one fails, the others
    /// fail in the seam where they meet it next.
    ///
    /// # Panics
    /// Where `work` does.
    pub fn in_threads<R: Send>(
        size: usize,
        work: impl Fn(Communicator) -> Result<R> + Sync,
    ) -> Vec<Result<R>> {
        let ranks = threads::threads(size).into_iter().map(Communicator::over);
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || rank.run_and_leave(work))).collect();
            threads.into_iter().map(joined).collect()
        })
    }

    /// Runs `first` as rank 0 in this thread, and `others` as each of the other ranks in a thread of its own; what the first gave, and
    /// the others in order.
    ///
    /// # Panics
    /// Where one of them does.
    pub fn beside<R>(
        size: usize,
        first: impl FnOnce(Communicator) -> Result<R>,
        others: impl Fn(Communicator) -> Result<()> + Sync,
    ) -> (Result<R>, Vec<Result<()>>) {
        let mut ranks = threads::threads(size.max(1)).into_iter().map(Communicator::over);
        let rank = ranks.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let others = &others;
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || rank.run_and_leave(others))).collect();
            let first = rank.run_and_leave(first);
            (first, threads.into_iter().map(joined).collect())
        })
    }

    /// Runs `work` as this rank, and takes leave of the others.
    fn run_and_leave<R>(self, work: impl FnOnce(Communicator) -> Result<R>) -> Result<R> {
        let leaving = Leaving(&self);
        let result = work(self.clone());
        std::mem::forget(leaving);
        let _ = self.leave(0, result.as_ref().err().map(ToString::to_string)); // each has its own result
        result
    }

    /// The others, where there are some that this rank works with now.
    fn shared(&self) -> Option<&Shared> {
        let with_others =
            |shared: &&Arc<Shared>| shared.transport.size() > 1 && !shared.by_itself.load(Ordering::Relaxed);
        self.shared.as_ref().filter(with_others).map(|shared| &**shared)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.shared().map_or(0, |shared| shared.transport.rank())
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.shared().map_or(1, |shared| shared.transport.size())
    }

    /// Whether this is rank 0, which alone prints and writes.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Bytes that this rank has received from others, and the exchanges in which it did.
    pub fn traffic(&self) -> (u64, u64) {
        self.shared.as_ref().map_or((0, 0), |shared| shared.traffic())
    }

    /// Those of `count` items that are this rank's, ascending.
    pub fn own(&self, count: usize) -> StepBy<Range<usize>> {
        (self.rank()..count.max(self.rank())).step_by(self.size())
    }

    /// The bytes of every rank, in order of ranks.
    ///
    /// # Errors
    /// That of this rank, or of another one, with its number.
    pub fn gather(&self, mine: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let Some(shared) = self.shared() else { return Ok(vec![mine?]) };
        let (mine, lens) = shared.open(Next::Gather, mine, Vec::len)?;
        shared.count(shared.transport.gather(&mine, &lens)?)
    }

    /// The values of every rank, in order of ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn gather_values<T: Pod>(&self, mine: Result<Vec<T>>) -> Result<Vec<Vec<T>>> {
        if self.size() == 1 {
            return Ok(vec![mine?]);
        }
        let all = self.gather(mine.map(|mine| bytes(&mine)))?;
        Ok(all.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect())
    }

    /// A result; where it is a failure, the others are told, in the exchange that they meet in next.
    ///
    /// # Errors
    /// That of `result`.
    pub fn told<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.gather(Err(error)).err().unwrap_or_else(|| disagree(self.rank()))),
        }
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn barrier(&self) -> Result<()> {
        self.gather(Ok(vec![])).map(drop)
    }

    /// Whether this holds on any rank.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn any(&self, here: bool) -> Result<bool> {
        Ok(self.gather(Ok(vec![u8::from(here)]))?.concat().contains(&1))
    }

    /// Does work that the others take no part in: in its seams this rank is alone.
    pub fn by_itself<R>(&self, work: impl FnOnce() -> R) -> R {
        let Some(shared) = self.shared() else { return work() };
        shared.by_itself.store(true, Ordering::Relaxed);
        let done = work();
        shared.by_itself.store(false, Ordering::Relaxed);
        done
    }

    /// Does `work` on rank 0 alone, which writes a file or reads one that is not everywhere; its result on all ranks.
    ///
    /// # Errors
    /// As `work`; as [`Communicator::gather`].
    pub fn first<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.size() == 1 {
            return work();
        }
        let done = self.leads().then(|| self.by_itself(work)).transpose();
        let (done, told) = match done {
            Ok(Some(done)) => {
                let told = text(&done);
                (Some(done), told)
            }
            Ok(None) => (None, Ok(vec![])),
            Err(error) => (None, Err(error)),
        };
        let all = self.gather(told)?;
        done.map_or_else(|| read(&all[0]), Ok)
    }

    /// Does `work` for each of `count` items, one rank each in turn; the results of all, in order.
    ///
    /// # Errors
    /// The first of `work` on a rank; as [`Communicator::gather`].
    pub fn each<T: Serialize + DeserializeOwned>(
        &self,
        count: usize,
        work: impl FnMut(usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        if self.size() == 1 {
            return (0..count).map(work).collect();
        }
        self.share(count, self.own(count).map(work).collect())
    }

    /// The results of all of `count` items, of which each rank has its own.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub(crate) fn share<T: Serialize + DeserializeOwned>(
        &self,
        count: usize,
        own: Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let all = self.gather(own.and_then(|own| text(&own)))?;
        let all = all.iter().map(|text| Ok(read::<Vec<T>>(text)?.into_iter()));
        self.in_order(count, all.collect::<Result<_>>()?)
    }

    /// Values of every rank in the order of the items that they are of.
    ///
    /// # Errors
    /// Where a rank has fewer than are its own.
    pub(crate) fn in_order<T>(&self, count: usize, mut all: Vec<impl Iterator<Item = T>>) -> Result<Vec<T>> {
        let size = self.size();
        let next = |i: usize| all[i % size].next().ok_or_else(|| disagree(i % size));
        (0..count).map(next).collect()
    }

    /// Sums over `lanes` of vectors of `len` values, of which each rank has its own lanes. `fold` is given the places of a part of
    /// the vectors and adds that part of all lanes, which are in order: each rank adds one part, and all get the whole.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub(crate) fn reduce<T: Pod>(
        &self,
        lanes: usize,
        len: usize,
        own: Result<Vec<Vec<f32>>>,
        fold: impl Fn(Range<usize>, &[&[f32]]) -> Vec<T>,
    ) -> Result<Vec<T>> {
        let Some(shared) = self.shared() else {
            let own = own?;
            return Ok(fold(0..len, &own.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        };
        let size = self.size();
        let (own, _) = shared.open(Next::Exchange, own, |own| own.iter().map(Vec::len).sum())?;
        let part = |rank: usize| len * rank / size..len * (rank + 1) / size;
        let of_rank = |rank: usize| -> Vec<u8> {
            let lanes: Vec<&[u8]> = own.iter().map(|lane| bytemuck::cast_slice(&lane[part(rank)])).collect();
            lanes.concat()
        };
        let parts: Vec<Vec<u8>> = (0..size).map(of_rank).collect();
        let found = shared.count(shared.transport.exchange(parts)?)?;
        let found: Vec<Cow<[f32]>> = found.iter().map(|bytes| values(bytes)).collect();
        let mine = part(self.rank()).len();
        let of_lane = |lane: usize| {
            let at = lane / size * mine;
            found[lane % size].get(at..at + mine).ok_or_else(|| disagree(lane % size))
        };
        let sum =
            (0..lanes).map(of_lane).collect::<Result<Vec<_>>>().map(|lanes| fold(part(self.rank()), &lanes));
        Ok(self.gather_values(sum)?.concat())
    }

    /// Says goodbye with an exit code and, where this rank failed, why; the last thing that a rank does. Ranks that wait in a
    /// seam fail there with the same words. None where another rank has left before and this one knows.
    pub fn leave(&self, code: u8, why: Option<String>) -> Option<Farewell> {
        let Some(shared) = &self.shared else { return Some(Farewell { code, why }) };
        let farewell = match shared.parted.swap(true, Ordering::Relaxed) {
            true => None,
            false => shared.leave(code, why),
        };
        shared.transport.end();
        farewell
    }

    /// Compares what every rank says of itself, by name; refuses to go on where they differ.
    ///
    /// # Errors
    /// Names what differs, on which rank, and both values.
    pub fn compare(&self, what: &[(String, String)]) -> Result<()> {
        let all = self.gather(text(&what))?;
        let all = all.iter().map(|text| read::<Vec<(String, String)>>(text)).collect::<Result<Vec<_>>>()?;
        for (rank, theirs) in all.iter().enumerate().skip(1) {
            let pairs = all[0].iter().zip(theirs);
            let mut pairs = pairs.filter(|(ours, theirs)| ours != theirs);
            if let Some((ours, theirs)) = pairs.next() {
                let (named, other) = (format!("{} {}", ours.0, ours.1), format!("{} {}", theirs.0, theirs.1));
                return Err(Error::config(format!(
                    "the ranks do not have the same work: rank 0 has {named}, rank {rank} has {other}"
                )));
            }
            if all[0].len() != theirs.len() {
                let reason = format!(
                    "rank 0 has {} options and inputs, rank {rank} has {}",
                    all[0].len(),
                    theirs.len()
                );
                return Err(Error::config(format!("the ranks do not have the same work: {reason}")));
            }
        }
        Ok(())
    }
}

/// What a thread gave, or its panic.
fn joined<R>(thread: std::thread::ScopedJoinHandle<'_, R>) -> R {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A rank that panics leaves, so that the others end.
struct Leaving<'a>(&'a Communicator);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(1, Some("panicked".into()));
    }
}

/// Bytes as values: as they lie in memory, where that is aligned.
fn values<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

fn bytes<T: NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_the_sums_of_all_lanes_in_their_order() {
        // Sums of f32 in another order have other bits.
        let lane =
            |i: usize| -> Vec<f32> { (0..7).map(|j| 10f32.powi((i * 3 + j) as i32 % 9 - 4)).collect() };
        let lanes = 5;
        let fold = |lanes: &[&[f32]]| -> Vec<f64> {
            (0..lanes[0].len()).map(|j| lanes.iter().fold(0.0f32, |sum, lane| sum + lane[j]).into()).collect()
        };
        let expected =
            fold(&(0..lanes).map(lane).collect::<Vec<_>>().iter().map(|l| &l[..]).collect::<Vec<_>>());
        for size in 1..8 {
            let found = Communicator::in_threads(size, |ranks| {
                let own = ranks.own(lanes).map(lane).collect();
                let items = ranks.each(9, |i| Ok(i * i))?;
                assert_eq!(items, (0..9).map(|i| i * i).collect::<Vec<_>>());
                assert_eq!(ranks.first(|| Ok(ranks.rank() + 3))?, 3);
                assert!(ranks.any(ranks.rank() + 1 == size)? && !ranks.any(false)?);
                ranks.reduce(lanes, 7, Ok(own), |_, lanes| fold(lanes))
            });
            assert_eq!(found.len(), size);
            found.into_iter().for_each(|found| assert_eq!(found.unwrap(), expected, "{size}"));
        }
    }

    #[test]
    fn an_error_of_one_rank_is_that_of_all_in_the_seam_or_outside_it() {
        for inside in [true, false] {
            let found = Communicator::in_threads(3, |ranks| {
                ranks.barrier()?;
                let mine = match ranks.rank() {
                    1 => Err(Error::config("a label is wrong")),
                    _ => Ok(vec![0]),
                };
                let mine = if inside { mine } else { Ok(mine?) };
                let first = ranks.gather(mine);
                match inside {
                    true => ranks.barrier()?, // all go on from here
                    false => assert!(ranks.barrier().is_err()),
                }
                first.map(drop)
            });
            let words: Vec<String> = found.into_iter().map(|found| found.unwrap_err().to_string()).collect();
            assert_eq!(words, ["rank 1: a label is wrong", "a label is wrong", "rank 1: a label is wrong"]);
        }
        let ended = Communicator::in_threads(2, |ranks| if ranks.leads() { Ok(()) } else { ranks.barrier() });
        assert!(
            ended[0].is_ok() && ended[1].as_ref().unwrap_err().to_string().contains("rank 0 is not where")
        );
    }

    #[test]
    fn ranks_end_with_one_code_and_one_reason() {
        let end = |codes: [(u8, Option<&'static str>); 3]| {
            let found = Communicator::in_threads(3, |ranks| {
                let (code, why) = codes[ranks.rank()];
                Ok(ranks.leave(code, why.map(String::from)))
            });
            found.into_iter().map(|found| found.unwrap().unwrap()).collect::<Vec<_>>()
        };
        let all = |code, why: Option<&str>| vec![Farewell { code, why: why.map(String::from) }; 3];
        assert_eq!(end([(3, None), (0, None), (0, None)]), all(3, None));
        assert_eq!(end([(0, None), (2, Some("no")), (1, Some("never"))]), all(2, Some("rank 1: no")));
        assert_eq!(end([(1, Some("here")), (2, Some("there")), (0, None)]), all(1, Some("here")));
    }

    #[test]
    fn what_differs_between_ranks_is_named() {
        let found = Communicator::in_threads(3, |ranks| {
            let size = if ranks.rank() == 2 { "9 bytes" } else { "8 bytes" };
            ranks.compare(&[("version".into(), "1".into()), ("data.csv".into(), size.into())])
        });
        for found in found {
            let words = found.unwrap_err().to_string();
            assert!(words.contains("rank 0 has data.csv 8 bytes, rank 2 has data.csv 9 bytes"), "{words}");
        }
    }
}
