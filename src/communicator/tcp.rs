//! Ranks as processes that are connected over TCP, each to each. An exchange is a message to every other rank, and one from it: its
//! length in eight bytes, then its bytes, as they lie in memory.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::rendezvous::{Meeting, TIMEOUT};
use super::shared::failure;
use super::transport::{Opening, Transport};
use crate::error::{Error, Result};

/// Messages up to so many bytes are taken in by a connection that nobody reads yet.
const SMALL: usize = 8 << 10;

/// One rank.
pub(super) struct Tcp {
    rank: usize,
    /// To every other rank.
    others: Vec<Option<TcpStream>>,
    within: Duration,
}

impl Tcp {
    /// Meets the other ranks; rank 0 listens on `listener` where one is given.
    ///
    /// # Errors
    /// As [`Meeting::meet`].
    pub fn start(meeting: &Meeting, listener: Option<TcpListener>) -> Result<Tcp> {
        Ok(Tcp { rank: meeting.rank, others: meeting.meet(listener)?, within: meeting.within })
    }

    /// Sends `mine(r)` to every rank r, and returns what each sent here; this rank's own is its own.
    fn swap<'a>(&self, mine: impl Fn(usize) -> &'a [u8] + Sync) -> Result<Vec<Vec<u8>>> {
        let size = self.others.len();
        // At turn s a rank writes to the one s further on, and reads from the one s back.
        let write = || {
            (1..size)
                .try_for_each(|turn| self.write((self.rank + turn) % size, mine((self.rank + turn) % size)))
        };
        let read = || -> Result<Vec<Vec<u8>>> {
            let mut found: Vec<Vec<u8>> = vec![vec![]; size];
            for turn in 1..size {
                let rank = (self.rank + size - turn) % size;
                found[rank] = self.read(rank)?;
            }
            found[self.rank] = mine(self.rank).to_vec();
            Ok(found)
        };
        if (0..size).all(|rank| rank == self.rank || mine(rank).len() <= SMALL) {
            write()?;
            return read();
        }
        std::thread::scope(|scope| {
            let writing = scope.spawn(write);
            let found = read();
            let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let found = found?;
            written.map(|()| found)
        })
    }

    fn write(&self, rank: usize, bytes: &[u8]) -> Result<()> {
        let Some(mut stream) = self.others[rank].as_ref() else { return Ok(()) };
        let len = (bytes.len() as u64).to_le_bytes();
        let sent = match bytes.len() <= SMALL {
            true => stream.write_all(&[&len, bytes].concat()), // one packet
            false => stream.write_all(&len).and_then(|()| stream.write_all(bytes)),
        };
        sent.map_err(|e| self.failed(rank, &e))
    }

    fn read(&self, rank: usize) -> Result<Vec<u8>> {
        let Some(mut stream) = self.others[rank].as_ref() else { return Ok(vec![]) };
        let mut len = [0; 8];
        stream.read_exact(&mut len).map_err(|e| self.failed(rank, &e))?;
        let (len, mut bytes) = (u64::from_le_bytes(len), vec![]);
        stream.take(len).read_to_end(&mut bytes).map_err(|e| self.failed(rank, &e))?;
        match bytes.len() as u64 == len {
            true => Ok(bytes),
            false => Err(self.failed(rank, &ErrorKind::UnexpectedEof.into())),
        }
    }

    fn failed(&self, rank: usize, error: &std::io::Error) -> Error {
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "has ended without a word; its own output may say why".into()
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("has not answered for {} s ({TIMEOUT} sets the seconds)", self.within.as_secs_f64())
            }
            _ => error.to_string(),
        };
        failure(format!("rank {rank}"), reason)
    }
}

impl Transport for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.others.len()
    }

    fn openings(&self, mine: Opening) -> Result<Vec<Opening>> {
        let all = self.swap(|_| bytemuck::bytes_of(&mine))?;
        let opening = |(rank, bytes): (usize, &Vec<u8>)| {
            bytemuck::try_pod_read_unaligned(bytes)
                .map_err(|_| failure(format!("rank {rank}"), "sent no opening"))
        };
        all.iter().enumerate().map(opening).collect()
    }

    fn gather(&self, mine: &[u8], _: &[usize]) -> Result<Vec<Vec<u8>>> {
        self.swap(|_| mine)
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        self.swap(|rank| &parts[rank])
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::communicator::Communicator;

    /// A meeting on this machine, and where its rank 0 listens.
    fn meeting(size: usize) -> (Meeting, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, job, long) = ("127.0.0.1".into(), "a test".into(), Duration::from_secs(60));
        (Meeting { rank: 0, size, host, port, job, coming: long, within: long }, listener)
    }

    /// Runs `work` on every rank of a meeting, as one process each would.
    fn on_ranks<R: Send>(size: usize, work: impl Fn(Communicator) -> Result<R> + Sync) -> Vec<Result<R>> {
        let (meeting, listener) = meeting(size);
        std::thread::scope(|scope| {
            let (work, mut listener) = (&work, Some(listener));
            let threads: Vec<_> = (0..size)
                .map(|rank| {
                    let (meeting, listener) = (Meeting { rank, ..meeting.clone() }, listener.take());
                    scope.spawn(move || work(Communicator::over(Tcp::start(&meeting, listener)?)))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn processes_exchange_what_threads_do() {
        let work = |ranks: Communicator| {
            // Messages of a few bytes, and of more than a connection takes in unread.
            let lens = [5, 300_000];
            let lane = |i: usize, len: usize| (0..len).map(|j| (i * 7919 + j) as f32 * 0.1).collect();
            let fold = |_, lanes: &[&[f32]]| -> Vec<f32> {
                (0..lanes[0].len()).map(|j| lanes.iter().map(|lane| lane[j]).sum()).collect()
            };
            let sums =
                lens.map(|len| ranks.reduce(7, len, Ok(ranks.own(7).map(|i| lane(i, len)).collect()), fold));
            assert_eq!(ranks.first(|| Ok(ranks.rank() + 3))?, 3);
            let [few, many] = sums;
            Ok((few?, many?, ranks.each(9, |i| Ok(i * i))?))
        };
        let expected = Communicator::in_threads(1, work).remove(0).unwrap();
        for size in [2, 3, 5] {
            let found = on_ranks(size, |ranks| {
                let found = work(ranks.clone());
                ranks.leave(0, None);
                found
            });
            assert!(found.into_iter().all(|found| found.unwrap() == expected), "{size} ranks");
        }
    }

    #[test]
    fn a_rank_that_ends_without_a_word_is_named_by_all() {
        let found = on_ranks(3, |ranks| match ranks.rank() {
            1 => Ok(()), // its connections are closed
            _ => ranks.barrier(),
        });
        for (rank, found) in found.into_iter().enumerate().filter(|(rank, _)| *rank != 1) {
            let error = found.unwrap_err().to_string();
            assert!(
                error.contains("rank 1: has ended") || error.contains("rank 2: has ended"),
                "{rank}: {error}"
            );
        }
    }

    #[test]
    fn a_rank_that_says_nothing_is_waited_for_as_long_as_is_asked() {
        let (meeting, listener) = meeting(2);
        let meeting = Meeting { within: Duration::from_millis(100), ..meeting };
        std::thread::scope(|scope| {
            let other = Meeting { rank: 1, ..meeting.clone() };
            let silent = scope.spawn(move || Tcp::start(&other, None).unwrap());
            let ranks = Communicator::over(Tcp::start(&meeting, Some(listener)).unwrap());
            let silent = silent.join().unwrap();
            let error = ranks.barrier().unwrap_err().to_string();
            assert!(error.contains("rank 1: has not answered for 0.1 s (SCRUBJAY_TIMEOUT"), "{error}");
            drop(silent);
        });
    }

    #[test]
    fn who_is_missing_unreachable_or_twice_there_is_named() {
        let short = Duration::from_millis(100);
        let error = |meeting: &Meeting, listener| Tcp::start(meeting, listener).err().unwrap().to_string();
        let (all, listener) = meeting(4);
        let alone = Meeting { coming: short, ..all };
        let found = error(&alone, Some(listener));
        assert!(
            found.contains("0.1 s for 3 of 4 ranks") && found.contains("1, 2, 3 (SCRUBJAY_TIMEOUT"),
            "{found}"
        );
        // Nobody listens there any more.
        let found = error(&Meeting { rank: 2, ..alone.clone() }, None);
        assert!(found.contains("rank 0 cannot be reached") && found.contains("MASTER_ADDR"), "{found}");
        let found = error(&Meeting { rank: 2, host: "no.such.host.invalid".into(), ..alone }, None);
        assert!(found.contains("no.such.host.invalid"), "{found}");
        for (other, word) in
            [(1, "two processes say that they are rank 1"), (3, "rank 3 says that there are 4 ranks")]
        {
            let (meeting, listener) = meeting(3);
            let found = std::thread::scope(|scope| {
                for (rank, size) in [(1, 3), (other, if other == 1 { 3 } else { 4 })] {
                    let meeting = Meeting { rank, size, coming: short, ..meeting.clone() };
                    scope.spawn(move || Tcp::start(&meeting, None).err());
                }
                error(&meeting, Some(listener))
            });
            assert!(found.contains(word), "{found}");
        }
    }

    #[test]
    fn strangers_and_other_runs_are_sent_away() {
        let (meeting, listener) = meeting(2);
        let at = SocketAddr::from(([127, 0, 0, 1], meeting.port));
        std::thread::scope(|scope| {
            let mut stranger = TcpStream::connect(at).unwrap();
            stranger.write_all(&[b'G'; 40]).unwrap();
            let other = Meeting {
                rank: 1,
                job: "another".into(),
                coming: Duration::from_millis(200),
                ..meeting.clone()
            };
            let other = scope.spawn(move || Tcp::start(&other, None).err().unwrap().to_string());
            let one = Meeting { rank: 1, ..meeting.clone() };
            let first =
                scope.spawn(|| Communicator::over(Tcp::start(&meeting, Some(listener)).unwrap()).any(true));
            assert!(other.join().unwrap().contains("of another run"));
            let ranks = Communicator::over(Tcp::start(&one, None).unwrap());
            assert!(ranks.any(false).unwrap() && first.join().unwrap().unwrap());
        });
    }
}
