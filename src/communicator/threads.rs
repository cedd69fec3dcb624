//! Ranks as threads of one process.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::transport::{Opening, Transport};
use crate::error::Result;

/// What one rank sends: a part for every rank, or one for all.
type Sent = Vec<Vec<u8>>;

/// Where all ranks meet.
pub(super) struct Hub {
    size: usize,
    round: Mutex<Round>,
    ended: Condvar,
}

/// The round that is going on, and the result of the one before: it is replaced once all have come again, so all have seen it.
struct Round {
    number: u64,
    sent: Vec<Option<Sent>>,
    before: Arc<Vec<Sent>>,
}

/// One rank.
pub(super) struct Thread {
    rank: usize,
    hub: Arc<Hub>,
}

/// So many ranks, which meet one another.
pub(super) fn threads(size: usize) -> Vec<Thread> {
    let round = Mutex::new(Round { number: 0, sent: vec![None; size], before: Arc::default() });
    let hub = Arc::new(Hub { size, round, ended: Condvar::new() });
    (0..size).map(|rank| Thread { rank, hub: hub.clone() }).collect()
}

impl Thread {
    /// Waits for all ranks; what each of them sent.
    fn meet(&self, mine: Sent) -> Arc<Vec<Sent>> {
        let mut round = self.hub.round.lock().unwrap_or_else(PoisonError::into_inner);
        let number = round.number;
        round.sent[self.rank] = Some(mine);
        if round.sent.iter().all(Option::is_some) {
            round.before = Arc::new(round.sent.iter_mut().filter_map(Option::take).collect());
            round.number += 1;
            self.hub.ended.notify_all();
        }
        while round.number == number {
            round = self.hub.ended.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        round.before.clone()
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hub.size
    }

    fn openings(&self, mine: Opening) -> Result<Vec<Opening>> {
        let all = self.meet(vec![bytemuck::bytes_of(&mine).to_vec()]);
        Ok(all.iter().map(|sent| bytemuck::pod_read_unaligned(&sent[0])).collect())
    }

    fn gather(&self, mine: &[u8], _: &[usize]) -> Result<Vec<Vec<u8>>> {
        Ok(self.meet(vec![mine.to_vec()]).iter().map(|sent| sent[0].clone()).collect())
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        Ok(self.meet(parts).iter().map(|sent| sent[self.rank].clone()).collect())
    }
}
