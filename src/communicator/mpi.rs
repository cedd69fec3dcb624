//! Ranks as processes that mpirun or srun started, over the system's MPI.
//!
//! MPI ends the program where a message cannot be delivered, and its launcher ends all ranks where one dies.

use std::sync::{Mutex, PoisonError};

use mpi::Threading;
use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};

use super::transport::{Opening, Transport};
use crate::error::{Error, Result};

/// The ranks of this run.
pub(super) struct World {
    rank: usize,
    size: usize,
    /// Where messages fit into MPI's 32-bit counts: bytes to one rank at once.
    piece: usize,
    universe: Mutex<Option<Universe>>,
}

impl World {
    /// Starts MPI.
    pub fn start() -> Result<World> {
        let refused = |reason: &str| Error::Device { op: "MPI".into(), reason: reason.into() };
        let (universe, threads) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| refused("was started before"))?;
        if threads < Threading::Serialized {
            return Err(refused("this MPI cannot be called from several threads in turn"));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        Ok(World { rank, size, piece: i32::MAX as usize / size, universe: Mutex::new(Some(universe)) })
    }

    fn world(&self) -> SimpleCommunicator {
        SimpleCommunicator::world()
    }
}

/// Counts and the places where they begin.
fn places(lens: impl Iterator<Item = usize>) -> (Vec<i32>, Vec<i32>) {
    let counts: Vec<i32> = lens.map(|len| len as i32).collect(); // a piece at most
    let first = counts.iter().scan(0, |sum, &count| Some(std::mem::replace(sum, *sum + count)));
    let first = first.collect();
    (counts, first)
}

/// Zeros at an address of their own, also where there are none: an empty vector has the address 1, which is MPI_IN_PLACE.
fn buffer(lens: &[i32]) -> Vec<u8> {
    let len = lens.iter().map(|&len| len as usize).sum();
    let mut zeros = Vec::with_capacity(len + 1);
    zeros.resize(len, 0);
    zeros
}

/// Appends the parts that came from every rank.
fn append(found: &mut [Vec<u8>], received: &[u8], counts: &[i32]) {
    let mut rest = received;
    for (found, &count) in found.iter_mut().zip(counts) {
        let (part, others) = rest.split_at(count as usize);
        found.extend(part);
        rest = others;
    }
}

impl Transport for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn openings(&self, mine: Opening) -> Result<Vec<Opening>> {
        let mut all = vec![0u64; mine.len() * self.size];
        self.world().all_gather_into(&mine[..], &mut all[..]);
        Ok(all.chunks_exact(mine.len()).map(|one| [one[0], one[1], one[2]]).collect())
    }

    fn gather(&self, mine: &[u8], lens: &[usize]) -> Result<Vec<Vec<u8>>> {
        let mut found: Vec<Vec<u8>> = lens.iter().map(|&len| Vec::with_capacity(len)).collect();
        let longest = lens.iter().max().copied().unwrap_or(0);
        for first in (0..longest).step_by(self.piece) {
            let part = |len: usize| len.saturating_sub(first).min(self.piece);
            let (counts, starts) = places(lens.iter().map(|&len| part(len)));
            let (mut own, mut received) = (buffer(&[part(mine.len()) as i32]), buffer(&counts));
            own.copy_from_slice(&mine[mine.len().min(first)..][..part(mine.len())]);
            let mut into = PartitionMut::new(&mut received[..], &counts[..], &starts[..]);
            self.world().all_gather_varcount_into(&own[..], &mut into);
            append(&mut found, &received, &counts);
        }
        Ok(found)
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let sent: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let mut lens = vec![0u64; self.size];
        self.world().all_to_all_into(&sent[..], &mut lens[..]);
        let (mine, mut longest) = (sent.iter().max().copied().unwrap_or(0), 0u64);
        self.world().all_reduce_into(&mine, &mut longest, SystemOperation::max());
        let mut found: Vec<Vec<u8>> = lens.iter().map(|&len| Vec::with_capacity(len as usize)).collect();
        for first in (0..longest as usize).step_by(self.piece) {
            let part = |len: usize| len.saturating_sub(first).min(self.piece);
            let (out, out_starts) = places(parts.iter().map(|to| part(to.len())));
            let (counts, starts) = places(lens.iter().map(|&len| part(len as usize)));
            let (mut send, mut received) = (buffer(&out), buffer(&counts));
            for (to, &start) in parts.iter().zip(&out_starts) {
                let len = part(to.len());
                send[start as usize..][..len].copy_from_slice(&to[to.len().min(first)..][..len]);
            }
            let from = Partition::new(&send[..], &out[..], &out_starts[..]);
            let mut into = PartitionMut::new(&mut received[..], &counts[..], &starts[..]);
            self.world().all_to_all_varcount_into(&from, &mut into);
            append(&mut found, &received, &counts);
        }
        Ok(found)
    }

    fn end(&self) {
        drop(self.universe.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
